"""Progress of long work: a moving bar on a terminal, plain lines anywhere else (log files, CI)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


@contextmanager
def progress(label: str, total: int, unit: str, quarters: bool = False) -> Iterator[Advance]:
    """Shows how much of `total` is done, on stderr; the caller reports with `advance(amount)`.

    Args:
        label: what is being done.
        total: in `unit`, e.g. steps or bytes.
        quarters: without a terminal, print a line at each quarter (otherwise nothing).
    """
    if sys.stderr.isatty():
        with _bar(label, total, unit) as advance:
            yield advance
    else:
        yield _lines(label, total, unit) if quarters else lambda amount: None


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)


def _lines(label: str, total: int, unit: str) -> Advance:
    done = 0

    def _advance(amount: int) -> None:
        nonlocal done
        before, done = 4 * done // total, done + amount
        if 4 * done // total > before:
            print(f"{label}: {100 * done // total} % of {total:,} {unit}", file=sys.stderr, flush=True)

    return _advance
