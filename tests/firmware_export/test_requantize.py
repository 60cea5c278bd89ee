"""The requantisation: Python = C = the formula written with unbounded integers, on ties, extremes and random values."""

from __future__ import annotations

import ctypes
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from firmware_export.hostlib import RUNTIME, compile_host
from firmware_export.requantize import (
    high_mul,
    quantize_multiplier,
    requantize,
    rounding_divide_by_pot,
    to_int8,
    wrap_int32,
)

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
WRAPPER = """
#include "requantize.h"
void many(const int32_t *x, const int32_t *multiplier, const int32_t *shift, int32_t *result, uint32_t count);
void many(const int32_t *x, const int32_t *multiplier, const int32_t *shift, int32_t *result, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        result[i] = nn_requantize(x[i], multiplier[i], shift[i]);
    }
}
void outputs(const nn_output_stage *stage, const int32_t *x, int8_t *result, uint32_t count);
void outputs(const nn_output_stage *stage, const int32_t *x, int8_t *result, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        result[i] = nn_output(stage, 0, (uint32_t)x[i]);
    }
}
"""


class OutputStage(ctypes.Structure):
    _fields_ = (
        ("multipliers", ctypes.c_void_p),
        ("shifts", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("zero_point", ctypes.c_int16),
        ("min", ctypes.c_int8),
        ("max", ctypes.c_int8),
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("requantize")
    (folder / "wrapper.c").write_text(WRAPPER)
    compile_host([folder / "wrapper.c"], [RUNTIME], folder / "wrapper.so", ["-shared", "-fPIC"])
    return ctypes.CDLL(str(folder / "wrapper.so"))


def wrapped(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def round_half_away(value: Fraction) -> int:
    rounded = math.floor(abs(value) + Fraction(1, 2))
    return rounded if value >= 0 else -rounded


def by_definition(x: int, multiplier: int, shift: int) -> int:
    """gemmlowp's definition in exact arithmetic: the nudged, truncating division, then halves away from zero."""
    product = wrapped(x << max(shift, 0)) * multiplier
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)
    return round_half_away(Fraction(high, 2 ** max(-shift, 0)))


def telling_values() -> list[tuple[int, int, int]]:
    """Every combination of extreme and tie-making accumulators, multipliers and shifts."""
    xs = [0, 1, -1, 2, -2, 3, -3, 127, -128, 2**15, -(2**15), 2**16 - 1, 2**30, -(2**30), INT32_MAX, INT32_MIN, INT32_MIN + 1]
    xs += [sign * (2**k + d) for k in range(1, 31, 4) for d in (-1, 0, 1) for sign in (-1, 1)]
    multipliers = [0, 2**30, 2**30 + 1, 2**31 - 1, 1518500250, 1073741825, 1999999999]
    return [(x, m, s) for x in xs for m in multipliers for s in (*range(-31, 9), 15, 29, 30)]


def random_values(count: int, seed: int) -> list[tuple[int, int, int]]:
    rng = np.random.default_rng(seed)
    bits = rng.integers(1, 32, count)
    xs = rng.integers(-(2**31), 2**31, count) >> (31 - bits)
    columns = (xs, rng.integers(2**30, 2**31, count), rng.integers(-31, 31, count))
    return [tuple(row) for row in np.stack(columns, 1).tolist()]


def in_c(library: ctypes.CDLL, values: list[tuple[int, int, int]]) -> list[int]:
    table = np.array(values, np.int32)
    x, multiplier, shift = (np.ascontiguousarray(table[:, column]) for column in range(3))
    result = np.empty(len(values), np.int32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, multiplier, shift, result)]
    library.many(*pointers, ctypes.c_uint32(len(values)))
    return result.tolist()


def in_python(values: list[tuple[int, int, int]]) -> list[int]:
    table = np.array(values, np.int64)
    return requantize(table[:, 0], table[:, 1], table[:, 2]).tolist()


@pytest.mark.parametrize("values", [telling_values(), random_values(50_000, 1)], ids=["telling", "random"])
def test_three_ways(compiled: ctypes.CDLL, values: list[tuple[int, int, int]]) -> None:
    expected = [by_definition(*value) for value in values]
    assert in_python(values) == expected
    assert in_c(compiled, values) == expected


@pytest.mark.long
def test_three_ways_long(compiled: ctypes.CDLL) -> None:
    values = random_values(2_000_000, 2)
    expected = [by_definition(*value) for value in values]
    assert in_python(values) == expected
    assert in_c(compiled, values) == expected


def test_output_stage_in_c(compiled: ctypes.CDLL) -> None:
    """Zero point, clamp and narrowing, for zero points and clamps at both ends."""
    rng = np.random.default_rng(3)
    x = rng.integers(-200_000, 200_000, 5000).astype(np.int32)
    multiplier, shift = np.array([1518500250], np.int32), np.array([-10], np.int8)
    for zero_point, low, high in (
        (0, -128, 127),
        (-128, -128, 127),
        (127, -128, 127),
        (-128, -128, 40),
        (5, 5, 127),
        (9, 9, 9),
    ):
        stage = OutputStage(multiplier.ctypes.data, shift.ctypes.data, None, None, zero_point, low, high)
        found = np.empty(x.size, np.int8)
        compiled.outputs(
            ctypes.byref(stage), ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(found.ctypes.data), ctypes.c_uint32(x.size)
        )
        exact = [max(low, min(high, by_definition(int(v), 1518500250, -10) + zero_point)) for v in x]
        assert found.tolist() == exact
        scaled = requantize(x.astype(np.int64), 1518500250, -10)
        assert to_int8(scaled, zero_point, (low, high)).tolist() == exact


@pytest.mark.parametrize(
    ("x", "exponent", "expected"),
    [(1, 1, 1), (-1, 1, -1), (3, 1, 2), (-3, 1, -2), (5, 2, 1), (6, 2, 2), (-6, 2, -2), (-5, 2, -1), (7, 0, 7), (-7, 0, -7)],
)
def test_halves_away_from_zero(x: int, exponent: int, expected: int) -> None:
    assert rounding_divide_by_pot(np.array([x]), exponent).tolist() == [expected]


def test_high_mul_rounds_halves_up() -> None:
    assert high_mul(np.array([1, -1, 3, -3]), 2**30).tolist() == [1, 0, 2, -1]


def test_high_mul_saturates() -> None:
    assert high_mul(np.array([INT32_MIN]), INT32_MIN).tolist() == [INT32_MAX]


def test_wrap_int32() -> None:
    values = [0, INT32_MAX, INT32_MAX + 1, INT32_MIN - 1, 2**32, -(2**32) + 5, 2**40 + 7]
    assert wrap_int32(np.array(values)).tolist() == [wrapped(value) for value in values]


@pytest.mark.parametrize(
    ("real", "multiplier", "shift"),
    [
        (1.0, 2**30, 1),
        (0.5, 2**30, 0),
        (0.25, 2**30, -1),
        (0.75, 3 * 2**29, 0),
        (3.0, 3 * 2**29, 2),
        (2.0**-32, 2**30, -31),
        (2.0**-33, 0, 0),
        (0.0, 0, 0),
        (1.0 - 2.0**-40, 2**30, 1),
        (2.0**30 - 1, 2147483646, 30),
    ],
)
def test_quantize_multiplier(real: float, multiplier: int, shift: int) -> None:
    """Worked out by hand; 1 - 2^-40 rounds up to 2^31, which becomes 2^30 and one more in the exponent."""
    found = quantize_multiplier(real)
    assert (found[0].tolist(), found[1].tolist()) == ([multiplier], [shift])


def test_quantize_multiplier_is_near() -> None:
    real = np.exp2(np.random.default_rng(0).uniform(-31, 20, 10_000))
    multiplier, shift = quantize_multiplier(real)
    assert multiplier.min() >= 2**30 and multiplier.max() < 2**31
    back = multiplier.astype(np.float64) * np.exp2(shift - 31.0)
    assert np.abs(back / real - 1).max() <= 2.0**-31 * 1.001


def test_header_compiles_alone(tmp_path: Path) -> None:
    (tmp_path / "alone.c").write_text(
        '#include "requantize.h"\nint32_t f(int32_t x);\nint32_t f(int32_t x) { return nn_clamp(x, 0, 1); }\n'
    )
    compile_host([tmp_path / "alone.c"], [RUNTIME], tmp_path / "alone.so", ["-shared", "-fPIC"])
