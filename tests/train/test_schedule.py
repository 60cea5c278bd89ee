"""The learning rate: against values worked out by hand, and the properties of its curve."""

from __future__ import annotations

import math

import pytest

from train.schedule import learning_rate


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.25),
        (1, 0.5),
        (2, 0.75),
        (3, 1.0),
        (4, 1.0),  # cos 0
        (6, 0.5 * (1 + math.sqrt(3) / 2)),  # 30 degrees
        (8, 0.75),  # 60 degrees
        (10, 0.5),  # 90 degrees
        (12, 0.25),  # 120 degrees
        (14, 0.5 * (1 - math.sqrt(3) / 2)),  # 150 degrees
    ],
)
def test_sixteen_steps_by_hand(step: int, expected: float) -> None:
    assert learning_rate(step, 16, 4, 1.0) == pytest.approx(expected, abs=1e-12)
    assert learning_rate(step, 16, 4, 0.003) == pytest.approx(0.003 * expected, abs=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 9), (100, 0), (100, 10), (1000, 333)])
def test_it_rises_then_falls_and_is_always_positive(steps: int, warmup: int) -> None:
    rates = [learning_rate(step, steps, warmup, 0.1) for step in range(steps)]
    assert all(0 < rate <= 0.1 * (1 + 1e-12) for rate in rates)
    top = min(warmup, steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_no_warm_up_starts_at_the_peak_and_ends_near_zero() -> None:
    assert learning_rate(0, 1000, 0, 0.1) == 0.1
    assert learning_rate(999, 1000, 0, 0.1) < 1e-6


def test_the_mean_of_the_cosine_is_half_the_peak() -> None:
    rates = [learning_rate(step, 10_000, 0, 2.0) for step in range(10_000)]
    assert sum(rates) / 10_000 == pytest.approx(1.0, abs=1e-3)
