"""Short exact output stages of the trio kernels (runtime/step_trio.h), proven channel by channel as in requantize_forms.py.

The kernels hold scaled = 2^fraction_bits * accumulator + start in 32 bits and compute v = (scaled * factor) >> 32:

* linear: v >> shift, saturated to int8; zero point and rounding are part of start.
* signed: (v + rounding - (negative where v < 0)) >> shift, saturated: halves are rounded away from zero on both sides.

Factors stay a little below 2^30, so that cores without long multiplication get v from three short products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firmware_export.packing import Unpackable
from firmware_export.packing.requantize_forms import STEPS, Stage, remembered
from firmware_export.requantize import INT8_MAX, INT8_MIN, Int64

MAX_SHIFT = 20
"""The largest shift: a constant channel's start, value << (shift + 3), must fit int32."""
MAX_FACTOR = (1 << 30) - (1 << 20)
TRIED_SHIFTS = 3
"""How many shifts are tried, from the largest that every factor allows."""
ROUNDINGS = (0, 1, -1, 2, -2)
"""What is added to the rounding of the signed form; each shifts the grid of starts by another fraction."""
SEARCH = 200
"""How many factors on each side of the nearest one are tried."""
MIDDLE_FIRST = [3, 2, 4, 1, 5, 0, 6]
STARTS = len(MIDDLE_FIRST)
"""How many starts are tried for a factor, of those with which the steps above zero are right."""
_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True)
class Scale:
    """What a kernel holds: 2^fraction_bits times the sum."""

    fraction_bits: int

    @property
    def unit(self) -> int:
        """One accumulator."""
        return 1 << self.fraction_bits


NARROW = Scale(11)
"""Sums of 21 bits: all that one pass of the inner step holds."""
WIDE = Scale(8)
"""Sums of 24 bits, put together from several passes."""


@dataclass(frozen=True)
class Form:
    """Per channel: start, factor, negative, int32. constant: channels of one value, packed with weights and bias of zero."""

    scale: Scale
    shift: int
    rounding: int
    start: Int64
    factor: Int64
    negative: Int64
    constant: npt.NDArray[np.bool_]
    is_signed: bool

    def apply(self, accumulator: Int64, channel: Int64 | int) -> Int64:
        """What the kernel computes."""
        scaled = accumulator * self.scale.unit + self.start[channel]
        wide = (scaled * self.factor[channel]) >> 32
        wide = wide + self.rounding - np.where(wide < 0, self.negative[channel], 0)
        return (wide >> self.shift).clip(INT8_MIN, INT8_MAX)


@remembered
def find_form(stage: Stage, scale: Scale) -> Form | None:
    """The linear form, else the signed one; None if neither is exact for all channels, or the reference may wrap around."""
    every = np.arange(stage.low.size)
    first, last = (np.clip(stage.apply(edge, every), INT8_MIN, INT8_MAX) for edge in (stage.low, stage.high))
    constant = first == last
    if _may_wrap(stage):
        return None
    for rounding in (None, *ROUNDINGS):
        for shift in _shifts(stage, scale, constant):
            try:
                return _form(stage, scale, shift, constant, first, rounding)
            except Unpackable:
                continue
    return None


def _may_wrap(stage: Stage) -> bool:
    """Whether the reference may leave int32, so that there are no thresholds."""
    try:
        return stage.thresholds.size == 0
    except Unpackable:
        return True


def _shifts(stage: Stage, scale: Scale, constant: npt.NDArray[np.bool_]) -> list[int]:
    """The largest shift with which the factors of all channels fit, and the ones below it."""
    largest = min((MAX_SHIFT, *(_largest_shift(stage, scale, int(channel)) for channel in np.flatnonzero(~constant))))
    return [shift for shift in range(largest, largest - TRIED_SHIFTS, -1) if shift > 0]


def _largest_shift(stage: Stage, scale: Scale, channel: int) -> int:
    """The one that leaves multiplier * 2^(shift of the stage + 1 + shift - fraction bits) below 2^30."""
    return scale.fraction_bits - 2 - int(stage.shift[channel])


def _form(stage: Stage, scale: Scale, shift: int, constant: npt.NDArray[np.bool_], value: Int64, offset: int | None) -> Form:
    """The form of all channels with one shift; of constant channels, value is the output. offset: None for the linear form.

    Raises:
        Unpackable: some channel has none.
    """
    is_signed = offset is not None
    rounding = ((2 * stage.zero_point + 1) << (shift - 1)) + (offset or 0) if is_signed else 0
    found = np.zeros((3, value.size), np.int64)
    for channel in np.flatnonzero(~constant):
        search = _Search(stage, scale, shift, rounding, int(channel))
        found[:, channel] = search.signed() if is_signed else search.linear()
    wanted = (value << shift) + (1 << (shift - 1)) - rounding
    start, factor = np.where(constant, wanted << 3, found[0]), np.where(constant, 1 << 29, found[1])
    if np.any(np.abs(start) > _INT32_MAX):
        raise Unpackable("a start leaves int32")
    return Form(scale, shift, rounding, start, factor, np.where(constant, 0, found[2]), constant, is_signed)


@dataclass(frozen=True)
class _Search:
    """The numbers of one channel. Proof at the steps is proof everywhere, because no form ever falls."""

    stage: Stage
    scale: Scale
    shift: int
    rounding: int
    channel: int

    @property
    def at(self) -> Int64:
        """Where the channel steps, all 255 of STEPS."""
        at: Int64 = self.stage.thresholds[self.channel]
        return at

    @property
    def reach(self) -> tuple[int, int]:
        """The least and the greatest accumulator."""
        return int(self.stage.low[self.channel]), int(self.stage.high[self.channel])

    def linear(self) -> tuple[int, int, int]:
        """start, factor, 0."""
        low, high = self.reach
        unit = self.scale.unit
        for factors in self._factors():
            first, last = self._starts(STEPS << (32 + self.shift), factors, self.at <= high, self.at > low)
            first, last = np.maximum(first, -_INT32_MAX - unit * low), np.minimum(last, _INT32_MAX - unit * high)
            for place in np.flatnonzero(first <= last):
                return int(first[place] + last[place]) // 2, int(factors[place]), 0
        raise Unpackable(f"channel {self.channel} has no linear form with shift {self.shift}")

    def signed(self) -> tuple[int, int, int]:
        """start, factor, negative: start comes from the steps above zero, negative from those below, then all are tried."""
        low, high = self.reach
        if self.scale.unit * (max(-low, high) + 2) > _INT32_MAX:
            raise Unpackable(f"channel {self.channel} leaves the kernel's sums")
        targets = (STEPS << (32 + self.shift)) - (self.rounding << 32)
        for factors in self._factors():
            first, last = self._starts(targets, factors, (self.at <= high) & (self.at >= 0), (self.at > low) & (self.at > 0))
            first, last = np.maximum(first, 0), np.minimum(last, 2 * self.scale.unit)
            chosen = np.flatnonzero(first <= last)
            starts = (
                np.linspace(first[chosen], last[chosen], STARTS, axis=1).round().astype(np.int64)[:, MIDDLE_FIRST].reshape(-1)
            )
            repeated = np.repeat(factors[chosen], STARTS)
            negatives, possible = self._negatives(starts, repeated, targets)
            for place in np.flatnonzero(possible):
                one = int(starts[place]), int(repeated[place]), int(negatives[place])
                if self._is_proven(*one):
                    return one
        raise Unpackable(f"channel {self.channel} has no signed form with shift {self.shift}")

    def _negatives(self, starts: Int64, factors: Int64, targets: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """What takes the steps below zero to their places with each start and factor, and whether anything does."""
        low, high = self.reach
        reached, missed = (self.at <= high) & (self.at < 0), (self.at > low) & (self.at <= 0)
        taken, before = (
            ((self.scale.unit * (self.at[chosen] - back) + starts[:, None]) * factors[:, None] >> 32) - (targets[chosen] >> 32)
            for chosen, back in ((reached, 0), (missed, 1))
        )
        most, least = taken.min(1, initial=_INT32_MAX), np.maximum(0, before.max(1, initial=-1) + 1)
        return np.where(most == _INT32_MAX, least, (least + most) // 2), least <= most

    def _is_proven(self, start: int, factor: int, negative: int) -> bool:
        low, high = self.reach
        one = [np.array([value], np.int64) for value in (start, factor, negative)]
        form = Form(self.scale, self.shift, self.rounding, one[0], one[1], one[2], np.zeros(1, bool), True)
        reached, missed = self.at <= high, self.at > low
        taken = np.all(form.apply(self.at[reached], 0) >= STEPS[reached])
        return bool(taken and np.all(form.apply(self.at[missed] - 1, 0) < STEPS[missed]))

    def _starts(
        self, targets: Int64, factors: Int64, reached: npt.NDArray[np.bool_], missed: npt.NDArray[np.bool_]
    ) -> tuple[Int64, Int64]:
        """The least and the greatest start for each factor: reached steps are taken at `at`, missed ones not before it."""
        unit = self.scale.unit
        first = -(-targets // factors[:, None]) - unit * self.at
        return first[:, reached].max(1, initial=-(1 << 44)), first[:, missed].min(1, initial=1 << 44) + unit - 1

    def _factors(self) -> Iterator[Int64]:
        """Factors to try, the nearest first, the farther the more at a time.

        They are so far apart that the step farthest from zero moves by about 2^-14 of an accumulator.
        """
        exponent = int(self.stage.shift[self.channel]) + 1 + self.shift - self.scale.fraction_bits
        multiplier = int(self.stage.multiplier[self.channel])
        nearest = multiplier << exponent if exponent >= 0 else multiplier >> -exponent
        apart = max(1, nearest * nearest >> (53 + self.shift - self.scale.fraction_bits))
        for low, high in ((0, 4), (4, 32), (32, SEARCH + 1)):
            offsets = sorted((k for k in range(-SEARCH, SEARCH + 1) if low <= abs(k) < high), key=abs)
            factors = nearest + apart * np.array(offsets, np.int64)
            yield factors[(factors > 0) & (factors <= MAX_FACTOR)]
        low, high = self.reach
        yield np.array([min(MAX_FACTOR, (1 << (32 + self.shift)) // (self.scale.unit * (high - low + 1)))], np.int64)
