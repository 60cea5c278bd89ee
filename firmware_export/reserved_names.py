"""Network names that C cannot have, because files or functions of that name are there already."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from firmware_export.graph import GraphError

FOLDERS = ("runtime", "boards")
"""Whose headers and C files are compiled beside the generated ones."""
STANDARD_HEADERS = [
    "assert",
    "complex",
    "ctype",
    "errno",
    "fenv",
    "float",
    "inttypes",
    "iso646",
    "limits",
    "locale",
    "math",
    "setjmp",
    "signal",
    "stdarg",
    "stdbool",
    "stddef",
    "stdint",
    "stdio",
    "stdlib",
    "string",
    "tgmath",
    "time",
    "wchar",
    "wctype",
]
"""Of C99: a generated stdint.h would be found in the place of the compiler's."""
GENERATED = ("network_config", "board", "board_config", "host_driver")
"""Other files that are made or chosen when a network is compiled."""


@cache
def reserved_names() -> frozenset[str]:
    """Names that no network may have."""
    here = Path(__file__).parent
    stems = {path.stem for folder in FOLDERS for path in (here / folder).glob("*.[ch]")}
    return frozenset({*stems, *STANDARD_HEADERS, *GENERATED})


def refuse_reserved(name: str) -> None:
    """Raises GraphError for a reserved name."""
    if name not in reserved_names():
        return
    whose = "the C library" if name in STANDARD_HEADERS else "the runtime"
    raise GraphError(f"network name '{name}' is that of a file of {whose}; choose another (firmware_export.name=...)")
