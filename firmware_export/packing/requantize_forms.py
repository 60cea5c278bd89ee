"""Short exact forms of the output stage: which ones give the graph's arithmetic is proven channel by channel.

The reference (requantize.py) rounds two or three times. Over the accumulators that the weights of a channel can reach it is a
staircase of at most 255 steps. A short form is another staircase; the two are the same function if every step lies at the same
accumulator. The fast kernels hold 256 * accumulator + start, which leaves 8 bits to place the steps:

* linear: ((scaled * factor) >> 32) >> shift, saturated to int8. Zero point and rounding are part of start. Two instructions
  (SMMUL, SSAT). Exists where all steps are on one side of zero: behind a ReLU.
* signed: scaled -= negative where scaled < 0, then (((scaled * factor) >> 32) + rounding) >> shift, saturated.
  Four instructions; rounds halves away from zero on both sides as the reference does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from firmware_export.operators._accumulator import OutputStage
from firmware_export.packing import Unpackable
from firmware_export.requantize import INT8_MAX, INT8_MIN, Float32, Int64, requantize, requantize_float32

FRACTION_BITS = 8
"""The kernels accumulate 2^8 times the sum."""
STEPS: Int64 = np.arange(INT8_MIN + 1, INT8_MAX + 1, dtype=np.int64)
SEARCH = 400
"""How many factors on each side of the nearest one are tried."""
ROUNDINGS = (0, 1, -1, 2, -2, 3, -3)
"""What is added to the rounding of the signed form; each shifts the grid of starts by another fraction."""
MAX_NEGATIVE = 1 << 10
"""More than two accumulators: the reference shifts negative ones by one step of its first rounding, 1 to 2 accumulators."""
_UNIT = 1 << FRACTION_BITS
_INT32_MAX = (1 << 31) - 1
K = TypeVar("K", bound=Hashable)
F = TypeVar("F")


@dataclass(frozen=True)
class Stage:
    """The output stage of some channels and the accumulators each can reach, bias included: low <= accumulator <= high.

    scale: of the arithmetic float32, the same factors as multiplier and shift; None in double.
    """

    multiplier: Int64
    shift: Int64
    zero_point: int
    low: Int64
    high: Int64
    scale: Float32 | None = None

    @staticmethod
    def of(output: OutputStage, low: Int64, high: Int64) -> Stage:
        """An output stage over what can be reached."""
        return Stage(output.multiplier, output.shift, output.zero_point, low, high, output.scale)

    def apply(self, accumulator: Int64, channel: Int64 | int) -> Int64:
        """The reference, before clamping."""
        if self.scale is not None:
            return requantize_float32(accumulator, self.scale[channel]) + self.zero_point
        return requantize(accumulator, self.multiplier[channel], self.shift[channel]) + self.zero_point

    @cached_property
    def content(self) -> bytes:
        """The same bytes for the same stage."""
        numbers = (self.multiplier, self.shift, np.array([self.zero_point]), self.low, self.high)
        scale = b"" if self.scale is None else self.scale.tobytes()
        return b"".join(values.astype(np.int64).tobytes() for values in numbers) + scale

    @cached_property
    def thresholds(self) -> Int64:
        """The smallest reachable accumulator that gives at least each value of STEPS: [channels, 255]; high + 1 if none does.

        The reference never falls as the accumulator grows, so halving finds them.

        Raises:
            Unpackable: a factor above 1 may make the reference wrap around.
        """
        if np.any(np.maximum(-self.low, self.high) << np.maximum(self.shift, 0) > _INT32_MAX - _UNIT):
            raise Unpackable("a requantized sum may leave int32")
        channel = np.arange(self.low.size)[:, None]
        begin = np.broadcast_to(self.low[:, None], (self.low.size, STEPS.size)).copy()
        end = np.broadcast_to(self.high[:, None] + 1, begin.shape).copy()
        while np.any(begin < end):
            middle = (begin + end) >> 1
            above = self.apply(middle, channel) >= STEPS
            end = np.where((begin < end) & above, middle, end)
            begin = np.where((begin < end) & ~above, middle + 1, begin)
        return begin


@dataclass(frozen=True)
class LinearForm:
    """Per channel: start and factor, int32. constant: channels of one value, to be packed with weights and bias of zero."""

    shift: int
    start: Int64
    factor: Int64
    constant: npt.NDArray[np.bool_]

    def apply(self, accumulator: Int64, channel: Int64 | int) -> Int64:
        """What the kernel computes."""
        scaled = accumulator * _UNIT + self.start[channel]
        wide: Int64 = ((scaled * self.factor[channel]) >> 32) >> self.shift
        return wide.clip(INT8_MIN, INT8_MAX)


@dataclass(frozen=True)
class SignedForm:
    """Per channel: start, factor and negative, int32; rounding for all. constant as in LinearForm."""

    shift: int
    rounding: int
    start: Int64
    factor: Int64
    negative: Int64
    constant: npt.NDArray[np.bool_]

    def apply(self, accumulator: Int64, channel: Int64 | int) -> Int64:
        """What the kernel computes."""
        scaled = accumulator * _UNIT + self.start[channel]
        scaled = scaled - np.where(scaled < 0, self.negative[channel], 0)
        wide: Int64 = (((scaled * self.factor[channel]) >> 32) + self.rounding) >> self.shift
        return wide.clip(INT8_MIN, INT8_MAX)


def remembered(find: Callable[[Stage, K], F]) -> Callable[[Stage, K], F]:
    """A search that is made once for each stage and second argument: kernels are packed again for every plan that is tried."""
    known: dict[tuple[bytes, K], F] = {}

    @wraps(find)
    def _search(stage: Stage, argument: K) -> F:
        key = (stage.content, argument)
        if key not in known:
            known[key] = find(stage, argument)
        return known[key]

    return _search


def reachable(weights: Int64, bias: Int64, zero_point: int) -> tuple[Int64, Int64]:
    """Smallest and largest bias + sum(weights * (x - zero_point)) over int8 x; weights [channels, depth].

    Raises:
        Unpackable: an accumulator may leave int32, where the reference wraps around.
    """
    positive, negative = np.maximum(weights, 0).sum(1), np.minimum(weights, 0).sum(1)
    below, above = INT8_MIN - zero_point, INT8_MAX - zero_point
    low, high = bias + positive * below + negative * above, bias + positive * above + negative * below
    if low.min() < -_INT32_MAX or high.max() > _INT32_MAX:
        raise Unpackable("an accumulator may leave int32")
    return low, high


def linear_form(stage: Stage, shift: int, *, partial: bool = False) -> LinearForm:
    """The linear form of all channels; with `partial` a factor of 0 where a channel has none.

    Raises:
        Unpackable: some channel has none with this shift, and not `partial`.
    """

    def _search(steps: _Steps, channel: int) -> tuple[int, int, int]:
        try:
            return _linear_channel(stage, shift, steps, channel)
        except Unpackable:
            if partial:
                return 0, 0, 0
            raise

    found = _per_channel(stage, _search)
    constant, value = _constants(stage)
    start = np.where(constant, ((value << (shift + 2)) + (1 << (shift + 1))), found[0])
    return LinearForm(shift, start, np.where(constant, 1 << 30, found[1]), constant)


def signed_form(stage: Stage, shift: int) -> SignedForm:
    """The signed form of all channels; of the roundings about the zero point, the first with which every channel has one.

    Raises:
        Unpackable: some channel has none with this shift.
    """
    reason = Unpackable("no rounding was tried")
    for offset in ROUNDINGS:
        try:
            return _signed_form(stage, shift, ((2 * stage.zero_point + 1) << (shift - 1)) + offset)
        except Unpackable as error:
            reason = error
    raise reason


def _signed_form(stage: Stage, shift: int, rounding: int) -> SignedForm:
    found = _per_channel(stage, lambda steps, c: _signed_channel(stage, shift, rounding, steps, c))
    constant, value = _constants(stage)
    wanted = (value << shift) + (1 << (shift - 1)) - rounding
    start = np.where(constant, wanted << 2, found[0])
    return SignedForm(shift, rounding, start, np.where(constant, 1 << 30, found[1]), np.where(constant, 0, found[2]), constant)


def _constants(stage: Stage) -> tuple[npt.NDArray[np.bool_], Int64]:
    """Which channels have one value over all they can reach, and that value."""
    channel = np.arange(stage.low.size)
    first, last = (np.clip(stage.apply(edge, channel), INT8_MIN, INT8_MAX) for edge in (stage.low, stage.high))
    return first == last, first


def _per_channel(stage: Stage, search: Callable[[_Steps, int], tuple[int, int, int]]) -> Int64:
    """search(steps, channel) for every channel that has a step inside its reach: int64 [3, channels]."""
    found = np.zeros((3, stage.low.size), np.int64)
    for channel, thresholds in enumerate(stage.thresholds):
        steps = _Steps(thresholds, int(stage.low[channel]), int(stage.high[channel]))
        if np.any(steps.reached & steps.missed):
            found[:, channel] = search(steps, channel)
    return found


@dataclass(frozen=True)
class _Steps:
    """Where one channel steps, all 255 of STEPS. Proof at these places is proof everywhere, because a form never falls."""

    at: Int64
    low: int
    high: int

    @property
    def reached(self) -> npt.NDArray[np.bool_]:
        """Steps that some reachable accumulator takes: the form must have taken them at `at`."""
        return self.at <= self.high

    @property
    def missed(self) -> npt.NDArray[np.bool_]:
        """Steps that some reachable accumulator has not taken: nor must the form have, at `at - 1`."""
        return self.at > self.low

    def proves(self, form: LinearForm | SignedForm) -> bool:
        """Whether a form of this one channel is the reference."""
        reached, missed = self.reached, self.missed
        taken = np.all(form.apply(self.at[reached], 0) >= STEPS[reached])
        return bool(taken and np.all(form.apply(self.at[missed] - 1, 0) < STEPS[missed]))


def _linear_channel(stage: Stage, shift: int, steps: _Steps, channel: int) -> tuple[int, int, int]:
    least, most = -_INT32_MAX - _UNIT * steps.low, _INT32_MAX - _UNIT * steps.high
    for factors in _factors(stage, shift, channel):
        low, high = _start_range(STEPS << (32 + shift), steps.at, steps.reached, steps.missed, factors)
        low, high = np.maximum(low, least), np.minimum(high, most)
        for place in np.flatnonzero(low <= high):
            return int(low[place] + high[place]) // 2, int(factors[place]), 0
    raise Unpackable(f"channel {channel} has no linear form with shift {shift}")


def _signed_channel(stage: Stage, shift: int, rounding: int, steps: _Steps, channel: int) -> tuple[int, int, int]:
    """Accumulators from 0 and below 0 have their own start; each comes from the steps on its side.

    A start of 256 or more makes some negative accumulators go the other way, so the result is tried at every step.
    """
    if _UNIT * max(-steps.low, steps.high) > _INT32_MAX - 2 * MAX_NEGATIVE:
        raise Unpackable(f"channel {channel} may reach 2^23")
    targets, at = (STEPS << (32 + shift)) - (rounding << 32), steps.at
    for factors in _factors(stage, shift, channel):
        low, high = _start_range(targets, at, steps.reached & (at >= 0), steps.missed & (at > 0), factors)
        starts = (np.maximum(low, 0) + np.minimum(high, MAX_NEGATIVE)) // 2
        lower, upper = _start_range(targets, at, steps.reached & (at < 0), steps.missed & (at <= 0), factors)
        negatives = np.clip(starts - (lower + upper) // 2, 0, MAX_NEGATIVE)
        for place in np.flatnonzero((low <= high) & (lower <= upper) & (starts >= 0)):
            one = [values[place : place + 1] for values in (starts, factors, negatives)]
            if steps.proves(SignedForm(shift, rounding, one[0], one[1], one[2], np.zeros(1, bool))):
                return int(starts[place]), int(factors[place]), int(negatives[place])
    raise Unpackable(f"channel {channel} has no signed form with shift {shift}")


def _factors(stage: Stage, shift: int, channel: int) -> Iterator[Int64]:
    """Factors to try, int32: nearest to multiplier * 2^(shift of the stage - 31) * 2^(32 + shift - 8) first.

    They are so far apart that the step farthest from zero moves by a 32nd of the resolution. Last comes the factor with which
    the whole reach lies within one step, for channels that hardly move.
    """
    exponent = int(stage.shift[channel]) + 1 + shift - FRACTION_BITS
    multiplier = int(stage.multiplier[channel])
    nearest = multiplier << exponent if exponent >= 0 else (multiplier + (1 << (-exponent - 1))) >> -exponent
    if nearest > _INT32_MAX:
        raise Unpackable(f"channel {channel} has a factor that shift {shift} does not hold")
    apart = max(1, nearest * nearest >> (45 + shift))
    for offsets in _OFFSETS:
        factors = nearest + apart * offsets
        yield factors[(factors > 0) & (factors <= _INT32_MAX)]
    reach = int(stage.high[channel]) - int(stage.low[channel]) + 1
    yield np.array([min(_INT32_MAX, (1 << (32 + shift)) // (_UNIT * reach))], np.int64)


_OFFSETS = tuple(
    np.array(sorted((k for k in range(-SEARCH, SEARCH + 1) if low <= abs(k) < high), key=abs), np.int64)
    for low, high in ((0, 4), (4, 64), (64, SEARCH + 1))
)
"""In portions, because most channels need only the first."""


def _start_range(
    targets: Int64, at: Int64, reached: npt.NDArray[np.bool_], missed: npt.NDArray[np.bool_], factors: Int64
) -> tuple[Int64, Int64]:
    """The least and the greatest start for each factor (none if the least is the greater one).

    (256 * at + start) * factor >= target for the reached steps, (256 * (at - 1) + start) * factor < target for the missed ones.
    """
    first = -(-targets // np.maximum(factors, 1)[:, None]) - _UNIT * at
    low = first[:, reached].max(1, initial=-(1 << 44))
    high = first[:, missed].min(1, initial=1 << 44) + _UNIT - 1
    return low, high
