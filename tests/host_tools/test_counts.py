"""Counts of a run against counts of a board: what was before is not the run's, a reset board has begun anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_board import SimulatedBoard, SimulatedLine, connected

from host_tools.counts import counts_before, link_counts
from host_tools.link import Link, Statistics
from host_tools.messages import BoardStats

Figure = st.integers(0, 2**20)


class Told:
    """A link whose board tells the given counts, one after the other."""

    def __init__(self, *stats: BoardStats) -> None:
        self.waiting, self.statistics = list(stats), Statistics()

    def stats(self) -> BoardStats:
        return self.waiting.pop(0)


def stats(frames: int, crc_errors: int, overruns: int, runs: int = 0) -> BoardStats:
    return BoardStats(frames, crc_errors, overruns, runs, 0, 0, 99)


@given(*[Figure] * 8)
def test_without_a_reset_it_is_the_difference(a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int) -> None:
    link = Told(stats(a, b, c, d), stats(a + e, b + f, c + g, d + h))
    counts, stack = link_counts(cast(Link, link), counts_before(cast(Link, link)))
    assert (counts.crc_errors, counts.overruns, stack) == (f, g, 99)


@pytest.mark.parametrize("lower", ["frames", "crc_errors", "overruns", "runs"])
def test_a_count_that_has_become_smaller_is_a_reset_that_nobody_saw(lower: str) -> None:
    """The board fell silent, was plugged in again and answered the next hello."""
    after = SimpleNamespace(frames=50, crc_errors=8, overruns=9, runs=20, stack_used=1)
    setattr(after, lower, 3)
    link = Told(stats(40, 6, 7, 10), cast(BoardStats, after))
    counts, _ = link_counts(cast(Link, link), counts_before(cast(Link, link)))
    assert (counts.crc_errors, counts.overruns) == (after.crc_errors, after.overruns)


def test_a_reset_before_the_run_is_not_one_during_it() -> None:
    link = Told(stats(40, 6, 7), stats(50, 8, 9))
    link.statistics.resets = 2
    before = counts_before(cast(Link, link))
    counts, _ = link_counts(cast(Link, link), before)
    assert (counts.crc_errors, counts.overruns, counts.resets) == (2, 2, 2)


def test_what_this_end_has_seen_is_added() -> None:
    link = Told(stats(40, 6, 7), stats(50, 8, 9))
    before = counts_before(cast(Link, link))
    link.statistics = Statistics(frames=11, crc_errors=5, retries=4, resets=0, reconnections=1)
    counts, _ = link_counts(cast(Link, link), before)
    assert counts.model_dump() == {
        "frames": 11,
        "crc_errors": 7,
        "retries": 4,
        "resets": 0,
        "reconnections": 1,
        "overruns": 2,
    }


def test_the_real_server_counts_for_as_long_as_it_runs(board: SimulatedBoard) -> None:
    """Damaged bytes of an earlier program, then one damaged frame of this one, then a reset."""
    line = SimulatedLine(board)
    link = connected(line)
    line.feed(b"\x05noise\x00" * 20)
    before = counts_before(link)
    assert before.stats.crc_errors == 20
    line.feed(b"\x05noise\x00")
    counts, _ = link_counts(link, before)
    assert counts.crc_errors == 1
    board.power_on()
    line.feed(b"\x05noise\x00" * 3)
    counts, _ = link_counts(link, before)
    assert (counts.resets, counts.crc_errors) == (1, 3)
