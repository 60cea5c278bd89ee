"""Progress of long work: a moving bar on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]
SECONDS_PER_LINE = 5.0


@contextmanager
def progress(label: str, total: int, unit: str = "images") -> Iterator[Advance]:
    """Shows on stderr how much of `total` is done; the caller reports with `advance(amount)`."""
    if not sys.stderr.isatty():
        yield _Lines(label, total, unit).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)


class _Lines:
    """Prints a line every few seconds, and none for work that takes less."""

    def __init__(self, label: str, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label, self._total, self._unit, self._done = label, max(total, 1), unit, 0
        self._clock, self._told = clock, clock()

    def advance(self, amount: int) -> None:
        """Adds to what is done."""
        self._done += amount
        now = self._clock()
        if now - self._told >= SECONDS_PER_LINE:
            self._told = now
            share = 100 * self._done // self._total
            print(f"{self._label}: {share} % of {self._total:,} {self._unit}", file=sys.stderr, flush=True)
