"""C kernels of elementwise and reducing operators called directly: every pair of values, every loop of the walks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from second_arithmetic import multiplier_of, scaled, wrapped

from firmware_export.hostlib import RUNTIME, compile_host
from firmware_export.operators._broadcast import collapsed_axes

SOURCES = ("lookup", "broadcast", "add_broadcast", "sub", "mul", "minimum", "maximum", "prelu", "reduction", "reduce_sum")
SOURCES += ("reduce_max",)
EVERY = np.arange(-128, 128).astype(np.int8)
I8, I16, I32, U8, U32, POINTER = (
    ctypes.c_int8, ctypes.c_int16, ctypes.c_int32, ctypes.c_uint8, ctypes.c_uint32, ctypes.c_void_p
)  # fmt: skip


class Lookup(ctypes.Structure):
    _fields_ = (("size", U32), ("table", POINTER))


class Broadcast(ctypes.Structure):
    _fields_ = (("axes", POINTER), ("constant", POINTER), ("rank", U8), ("place", U8))


class Scale(ctypes.Structure):
    _fields_ = (("multiplier", I32), ("shift", I8), ("zero_point", I16))


class Sum(ctypes.Structure):
    _fields_ = (
        ("shape", Broadcast), ("input_0", Scale), ("input_1", Scale), ("output", Scale), ("min", I8), ("max", I8)
    )  # fmt: skip


class Stage(ctypes.Structure):
    _fields_ = (
        ("multipliers", POINTER), ("shifts", POINTER), ("scales", POINTER), ("output", POINTER), ("zero_point", I16),
        ("min", I8), ("max", I8),
    )  # fmt: skip


class Product(ctypes.Structure):
    _fields_ = (("shape", Broadcast), ("stage", Stage), ("zero_point_0", I16), ("zero_point_1", I16))


class Extreme(ctypes.Structure):
    _fields_ = (("shape", Broadcast),)


class Slopes(ctypes.Structure):
    _fields_ = (
        ("shape", Broadcast), ("multiplier", I32), ("slope_multiplier", I32), ("shift", I8), ("slope_shift", I8),
        ("zero_point_0", I16), ("zero_point_1", I16), ("zero_point", I16),
    )  # fmt: skip


class Axis(ctypes.Structure):
    _fields_ = (("size", U32), ("step", U32))


class Reduction(ctypes.Structure):
    _fields_ = (("kept", Axis * 3), ("reduced", Axis * 3))


class ReduceSum(ctypes.Structure):
    _fields_ = (
        ("shape", Reduction), ("offset", I32), ("multiplier", I32), ("shift", I8), ("zero_point", I16), ("min", I8), ("max", I8)
    )  # fmt: skip


class ReduceMax(ctypes.Structure):
    _fields_ = (("shape", Reduction),)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as a shared library."""
    target = tmp_path_factory.mktemp("elementwise_units") / "units.so"
    compile_host([RUNTIME / f"{name}.c" for name in SOURCES], [RUNTIME], target, ("-shared", "-fPIC"))
    return ctypes.CDLL(str(target))


def at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Walk:
    """The shape of two inputs, with its axes kept alive."""

    def __init__(self, a: tuple[int, ...], b: tuple[int, ...], constant: np.ndarray | None = None, place: int = 0) -> None:
        self.axes = np.array(collapsed_axes(a, b), np.uint32)
        self.constant, self.size = constant, np.broadcast_shapes(a, b)
        address = None if constant is None else constant.ctypes.data
        self.fields = Broadcast(self.axes.ctypes.data, address, len(self.axes), place)


def every_pair(library: ctypes.CDLL, name: str, parameters: Callable[[Broadcast], ctypes.Structure]) -> np.ndarray:
    """int8 [256, 256] of a kernel on all pairs; the constant forms must give the same."""
    column, row = EVERY.reshape(256, 1).copy(), EVERY.reshape(1, 256).copy()
    results = [np.empty((256, 256), np.int8) for _ in range(3)]
    walk = Walk(column.shape, row.shape)
    getattr(library, f"nn_{name}")(ctypes.byref(parameters(walk.fields)), at(column), at(row), at(results[0]))
    for place, (constant, given) in enumerate(((column, row), (row, column))):
        walk = Walk(column.shape, row.shape, constant, place)
        kernel = getattr(library, f"nn_{name}_constant")
        kernel(ctypes.byref(parameters(walk.fields)), at(given), at(results[1 + place]))
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    return results[0]


def by_hand(function: Callable[[int, int], int], low: int = -128, high: int = 127) -> np.ndarray:
    """A function of Python integers on all pairs, clamped."""
    return np.array([[max(low, min(high, function(a, b))) for b in range(-128, 128)] for a in range(-128, 128)])


@pytest.mark.parametrize(("name", "sign"), [("add_broadcast", 1), ("sub", -1)])
@pytest.mark.parametrize("scales", [(0.05, 0.03, 0.06), (0.5, 0.5, 0.5), (0.002, 1.0, 0.7)])
def test_sums_of_every_pair(library: ctypes.CDLL, name: str, sign: int, scales: tuple[float, float, float]) -> None:
    zeros, common = (3, -128, 7), 2 * max(scales[:2])
    sides = [multiplier_of(scale / common) for scale in scales[:2]] + [multiplier_of(common / (2**20 * scales[2]))]
    first = {v: scaled((v - zeros[0]) << 20, *sides[0]) for v in range(-128, 128)}
    second = {v: sign * scaled((v - zeros[1]) << 20, *sides[1]) for v in range(-128, 128)}
    found = every_pair(
        library, name, lambda shape: Sum(shape, *(Scale(*side, z) for side, z in zip(sides, zeros, strict=True)), -120, 110)
    )
    expected = by_hand(lambda a, b: scaled(wrapped(first[a] + second[b]), *sides[2]) + zeros[2], -120, 110)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("real", [0.01, 0.5, 2.0**-14, 3.7, 1e-9])
@pytest.mark.parametrize("zeros", [(0, 0, 0), (-128, 127, 5), (127, 127, -128)])
def test_products_of_every_pair(library: ctypes.CDLL, real: float, zeros: tuple[int, int, int]) -> None:
    multiplier, shift = multiplier_of(real)
    tables = np.array([multiplier], np.int32), np.array([shift], np.int8)
    stage = Stage(*(table.ctypes.data for table in tables), None, None, zeros[2], -100, 127)
    found = every_pair(library, "mul", lambda shape: Product(shape, stage, *zeros[:2]))
    exact = {product: scaled(product, multiplier, shift) for product in range(-66000, 66001)}
    assert np.array_equal(found, by_hand(lambda a, b: exact[(a - zeros[0]) * (b - zeros[1])] + zeros[2], -100))


@pytest.mark.parametrize("zeros", [(0, 0, 0), (-128, 127, 5), (127, -128, -3)])
def test_slopes_of_every_pair(library: ctypes.CDLL, zeros: tuple[int, int, int]) -> None:
    identity, sloped = multiplier_of(0.83), multiplier_of(0.83 * 0.01)

    def parameters(shape: Broadcast) -> Slopes:
        return Slopes(shape, identity[0], sloped[0], identity[1], sloped[1], *zeros)

    def one(a: int, b: int) -> int:
        x = a - zeros[0]
        return (scaled(x, *identity) if x >= 0 else scaled(x * (b - zeros[1]), *sloped)) + zeros[2]

    assert np.array_equal(every_pair(library, "prelu", parameters), by_hand(one))


def test_extremes_of_every_pair(library: ctypes.CDLL) -> None:
    assert np.array_equal(every_pair(library, "minimum", Extreme), by_hand(min))
    assert np.array_equal(every_pair(library, "maximum", Extreme), by_hand(max))


def test_lookup_of_every_value_apart_and_in_place(library: ctypes.CDLL) -> None:
    results = np.random.default_rng(1).integers(-128, 128, 256).astype(np.int8)
    table, values, apart = np.roll(results, -128).copy(), EVERY.copy(), np.zeros(257, np.int8)
    library.nn_lookup(ctypes.byref(Lookup(256, table.ctypes.data)), at(values), at(apart))
    assert np.array_equal(apart[:256], results) and apart[256] == 0
    library.nn_lookup(ctypes.byref(Lookup(256, table.ctypes.data)), at(values), at(values))
    assert np.array_equal(values, results)


def test_walks_write_exactly_the_output(library: ctypes.CDLL) -> None:
    """Random shapes of up to six dimensions; numpy's maximum, and not a byte behind it."""
    rng = np.random.default_rng(3)
    for _ in range(150):
        full = tuple(int(rng.integers(1, 4)) for _ in range(rng.integers(1, 7)))
        shapes = [tuple(1 if rng.random() < 0.4 else size for size in full)[rng.integers(0, len(full)) :] for _ in range(2)]
        a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes)
        walk, count = Walk(a.shape, b.shape), int(np.prod(np.broadcast_shapes(*shapes)))
        found = np.full(count + 4, 99, np.int8)
        library.nn_maximum(ctypes.byref(Extreme(walk.fields)), at(a), at(b), at(found))
        assert np.array_equal(found[:count], np.maximum(a, b).ravel()) and np.all(found[count:] == 99)


def reduction_of(shape: tuple[int, ...], axes: tuple[int, ...]) -> Reduction:
    """Each axis on its own, not merged: at most three of each kind."""
    steps = [int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape))]
    sides = []
    for kind in (False, True):
        found = [(size, step) for axis, (size, step) in enumerate(zip(shape, steps, strict=True)) if (axis in axes) is kind]
        sides.append((Axis * 3)(*(Axis(*axis) for axis in [(1, 0)] * (3 - len(found)) + found)))
    return Reduction(*sides)


@pytest.mark.parametrize("axes", [(0, 2, 4), (1, 3, 5), (0, 1, 2), (3, 4, 5), (1, 2, 4)])
def test_reductions_of_six_axes(library: ctypes.CDLL, axes: tuple[int, ...]) -> None:
    values = np.random.default_rng(2).integers(-128, 128, (2, 3, 2, 4, 3, 2)).astype(np.int8)
    shape, best = reduction_of(values.shape, axes), values.max(axes)
    found = np.full(best.size + 4, 99, np.int8)
    library.nn_reduce_max(ctypes.byref(ReduceMax(shape)), at(values), at(found))
    assert np.array_equal(found[: best.size], best.ravel()) and np.all(found[best.size :] == 99)
    count, (multiplier, shift) = values.size // best.size, multiplier_of(0.11)
    parameters = ReduceSum(shape, -5 * count, multiplier, shift, 9, -100, 101)
    library.nn_reduce_sum(ctypes.byref(parameters), at(values), at(found))
    totals = values.astype(int).sum(axes).ravel() - 5 * count
    assert found[: best.size].tolist() == [max(-100, min(101, scaled(int(t), multiplier, shift) + 9)) for t in totals]
