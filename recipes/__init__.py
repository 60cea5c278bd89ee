"""What the four programs share: the recipe (recipe.py) and the artifacts between stages (artifacts.py)."""

import sys
from types import TracebackType


def _interrupted_early(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line instead of a traceback for Ctrl-C while a program is still being loaded, before run_program."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted; nothing was begun", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)


if "".join(sys.argv[:1]).endswith(("-m", "__main__.py")):  # a program, not someone who imports a part
    sys.excepthook = _interrupted_early
