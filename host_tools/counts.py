"""What happened on the line during one run: the board counts from its reset on, a run begins later."""

from __future__ import annotations

from dataclasses import dataclass

from host_tools.link import Link
from host_tools.messages import BoardStats
from host_tools.results import LinkCounts

COUNTED = ("frames", "crc_errors", "overruns", "runs")
"""Counts of the board that only a reset makes smaller."""


@dataclass(frozen=True)
class Before:
    """What the board had counted, and how often it had been reset, when the run began."""

    stats: BoardStats
    resets: int


def counts_before(link: Link) -> Before:
    """The state of the counts now."""
    stats = link.stats()  # may itself meet a reset
    return Before(stats, link.statistics.resets)


def link_counts(link: Link, before: Before) -> tuple[LinkCounts, int]:
    """What happened on the line since `before`, and the bytes of stack the board has used at most.

    A board that was reset meanwhile has begun from zero; what it had counted until then is lost with it.
    """
    now, seen = link.stats(), link.statistics
    reset = seen.resets > before.resets or any(getattr(now, name) < getattr(before.stats, name) for name in COUNTED)
    told, overrun = (0, 0) if reset else (before.stats.crc_errors, before.stats.overruns)
    counts = LinkCounts(
        frames=seen.frames,
        crc_errors=seen.crc_errors + now.crc_errors - told,
        retries=seen.retries,
        resets=seen.resets,
        reconnections=seen.reconnections,
        overruns=now.overruns - overrun,
    )
    return counts, now.stack_used
