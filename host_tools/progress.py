"""Progress of long work: a moving bar on a terminal, a plain line at each quarter anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]


@contextmanager
def progress(label: str, total: int, unit: str = "images") -> Iterator[Advance]:
    """Shows on stderr how much of `total` is done; the caller reports with `advance(amount)`."""
    if not sys.stderr.isatty():
        yield _Quarters(label, total, unit).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)


class _Quarters:
    """Prints a line whenever another quarter is done."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit, self._done = label, max(total, 1), unit, 0

    def advance(self, amount: int) -> None:
        """Adds to what is done."""
        before, self._done = 4 * self._done // self._total, self._done + amount
        if 4 * self._done // self._total > before:
            share = 100 * self._done // self._total
            print(f"{self._label}: {share} % of {self._total:,} {self._unit}", file=sys.stderr, flush=True)
