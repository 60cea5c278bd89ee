"""Single C kernels called directly: every value where that is possible, windows of every kind, results in place."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from second_implementation import divide_by_power, multiplier_of, reciprocal, rounded_average, scaled

from firmware_export.hostlib import RUNTIME, compile_host

SOURCES = ("window", "dense", "add", "average_pool2d", "max_pool2d", "mean", "relu", "reshape", "softmax")
WRAPPER = """
#include "average_pool2d.c"
#include "softmax.c"
int32_t unit_quotient(int32_t sum, uint32_t count);
int32_t unit_quotient(int32_t sum, uint32_t count) { return rounded_quotient(sum, divisor_of(count)); }
int32_t unit_reciprocal(int32_t x);
int32_t unit_reciprocal(int32_t x) { return reciprocal_of_one_plus(x); }
/* All sums of `count` int8 values at once; the number of wrong quotients. */
uint32_t unit_wrong_quotients(uint32_t count);
uint32_t unit_wrong_quotients(uint32_t count) {
    uint32_t wrong = 0;
    const int32_t n = (int32_t)count;
    for (int32_t sum = -128 * n; sum <= 127 * n; ++sum) {
        const int32_t exact = sum > 0 ? (sum + n / 2) / n : (sum - n / 2) / n;
        wrong += rounded_quotient(sum, divisor_of(count)) == exact ? 0u : 1u;
    }
    return wrong;
}
"""


class Structure(ctypes.Structure):
    """Compared by its values, for messages of pytest."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name, *_ in self._fields_)})"


class Window(Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint16)
        for name in (
            "input_h", "input_w", "channels", "output_h", "output_w", "kernel_h", "kernel_w", "stride_h", "stride_w",
            "dilation_h", "dilation_w", "padding_top", "padding_left",
        )
    )  # fmt: skip


class Area(Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("top", "bottom", "left", "right"))


class AddScale(Structure):
    _fields_ = (("multiplier", ctypes.c_int32), ("shift", ctypes.c_int8), ("zero_point", ctypes.c_int16))


class Add(Structure):
    _fields_ = (
        ("size", ctypes.c_uint32), ("input_0", AddScale), ("input_1", AddScale), ("output", AddScale),
        ("min", ctypes.c_int8), ("max", ctypes.c_int8),
    )  # fmt: skip


class Relu(Structure):
    _fields_ = (
        ("size", ctypes.c_uint32), ("multiplier", ctypes.c_int32), ("shift", ctypes.c_int8),
        ("input_zero_point", ctypes.c_int16), ("output_zero_point", ctypes.c_int16),
        ("min", ctypes.c_int8), ("max", ctypes.c_int8),
    )  # fmt: skip


class Pool(Structure):
    _fields_ = (("window", Window), ("min", ctypes.c_int8), ("max", ctypes.c_int8))


class Mean(Structure):
    _fields_ = (
        ("outer", ctypes.c_uint32), ("count", ctypes.c_uint32), ("inner", ctypes.c_uint32), ("offset", ctypes.c_int32),
        ("multiplier", ctypes.c_int32), ("shift", ctypes.c_int8), ("zero_point", ctypes.c_int16), ("min", ctypes.c_int8),
        ("max", ctypes.c_int8),
    )  # fmt: skip


class Softmax(Structure):
    _fields_ = (
        ("exponentials", ctypes.c_void_p), ("entries", ctypes.c_uint16), ("depth", ctypes.c_uint16), ("rows", ctypes.c_uint32)
    )  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("units")
    (folder / "units.c").write_text(WRAPPER)
    others = [RUNTIME / f"{name}.c" for name in SOURCES if name not in ("average_pool2d", "softmax")]
    compile_host([folder / "units.c", *others], [RUNTIME], folder / "units.so", ["-shared", "-fPIC"])
    loaded = ctypes.CDLL(str(folder / "units.so"))
    loaded.nn_window_clip.restype = Area
    return loaded


def at(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def windows() -> Iterator[Window]:
    """Random geometries with padding up to beyond the kernel."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        h, w, c = rng.integers(1, 8), rng.integers(1, 8), rng.integers(1, 5)
        kernel, stride, dilation = rng.integers(1, 5, 2), rng.integers(1, 4, 2), rng.integers(1, 4, 2)
        if rng.random() < 0.5:
            dilation[:] = 1
        padding = rng.integers(0, 6, 2)
        output = [int((size + 2 * p) // s + 1) for size, p, s in zip((h, w), padding, stride, strict=True)]
        yield Window(h, w, c, *output, *kernel, *stride, *dilation, *padding)


def expected_patch(window: Window, image: np.ndarray, row: int, column: int, fill: int) -> np.ndarray:
    patch = np.full((window.kernel_h, window.kernel_w, window.channels), fill, np.int8)
    for i, j in itertools.product(range(window.kernel_h), range(window.kernel_w)):
        y = row * window.stride_h - window.padding_top + i * window.dilation_h
        x = column * window.stride_w - window.padding_left + j * window.dilation_w
        if 0 <= y < window.input_h and 0 <= x < window.input_w:
            patch[i, j] = image[y, x]
    return patch


def test_gather(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(1)
    for window in windows():
        image = rng.integers(-128, 128, (window.input_h, window.input_w, window.channels)).astype(np.int8)
        size = window.kernel_h * window.kernel_w * window.channels
        for row, column in itertools.product(range(window.output_h), range(window.output_w)):
            fill = int(rng.integers(-128, 128))
            patch = np.full(size + 8, 99, np.int8)
            library.nn_window_gather(ctypes.byref(window), at(image), row, column, ctypes.c_int8(fill), at(patch))
            assert np.array_equal(patch[:size], expected_patch(window, image, row, column, fill).reshape(-1)), window
            assert np.all(patch[size:] == 99), "written behind the patch"


def test_clip(library: ctypes.CDLL) -> None:
    for window in windows():
        for row, column in itertools.product(range(window.output_h), range(window.output_w)):
            area = library.nn_window_clip(ctypes.byref(window), row, column)
            y, x = row * window.stride_h - window.padding_top, column * window.stride_w - window.padding_left
            rows = [i for i in range(y, y + window.kernel_h) if 0 <= i < window.input_h]
            columns = [j for j in range(x, x + window.kernel_w) if 0 <= j < window.input_w]
            assert list(range(area.top, area.bottom)) == rows
            assert list(range(area.left, area.right)) == columns


@pytest.mark.parametrize(
    "count", [1, 2, 3, 4, 5, 7, 9, 16, 25, 49, 63, 64, 100, 121, 169, 255, 256, 257, 359, 360, 361, 400, 1023]
)
def test_every_average(library: ctypes.CDLL, count: int) -> None:
    """All sums that `count` values can have; 360 is the largest count with a reciprocal."""
    assert library.unit_wrong_quotients(count) == 0


@pytest.mark.long
def test_every_average_of_every_count(library: ctypes.CDLL) -> None:
    assert [count for count in range(1, 1500) if library.unit_wrong_quotients(count) != 0] == []


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 2], 2), ([-1, -2], -2), ([1, 1, 1, 0, 0, 0], 1), ([-1, 0], -1), ([0], 0)]
)
def test_averages_by_hand(library: ctypes.CDLL, values: list[int], expected: int) -> None:
    assert library.unit_quotient(sum(values), len(values)) == expected == rounded_average(values)


def test_reciprocal(library: ctypes.CDLL) -> None:
    values = [0, 1, 2**30, 2**31 - 1, *(2**k + d for k in range(1, 31) for d in (-1, 0, 1)), *range(0, 2**31, 2**21 + 7)]
    assert [library.unit_reciprocal(value) for value in values] == [reciprocal(value) for value in values]


def side(real: float, zero_point: int) -> AddScale:
    multiplier, shift = multiplier_of(real)
    return AddScale(multiplier, shift, zero_point)


@pytest.mark.parametrize(
    ("scales", "zero_points", "clamp"),
    [
        ((0.05, 0.05, 0.1), (0, 0, 0), (-128, 127)),
        ((0.02, 0.3, 0.25), (-128, 127, -128), (-128, 127)),
        ((1.0, 0.5, 0.25), (3, -4, 5), (5, 127)),
        ((1e-6, 1.0, 1.0), (0, 0, 0), (-128, 127)),
    ],
)
def test_every_sum(
    library: ctypes.CDLL, scales: tuple[float, ...], zero_points: tuple[int, ...], clamp: tuple[int, int]
) -> None:
    """All 65,536 pairs of int8 values."""
    common = 2 * max(scales[0], scales[1])
    sides = [side(scales[i] / common, zero_points[i]) for i in range(2)]
    last = side(common / (2**20 * scales[2]), zero_points[2])
    a, b = (
        np.ascontiguousarray(v.reshape(-1).astype(np.int8)) for v in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    )
    result = np.empty(65536, np.int8)
    library.nn_add(ctypes.byref(Add(65536, *sides, last, *clamp)), at(a), at(b), at(result))
    tables = [{v: scaled((v - s.zero_point) * 2**20, s.multiplier, s.shift) for v in range(-128, 128)} for s in sides]
    expected = [
        max(clamp[0], min(clamp[1], scaled(tables[0][x] + tables[1][y], last.multiplier, last.shift) + last.zero_point))
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert result.tolist() == expected


def test_add_in_place(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.integers(-128, 128, 1000).astype(np.int8) for _ in range(2))
    params = Add(1000, side(0.3, 4), side(0.5, -9), side(2**-19.2, 1), -128, 127)
    apart = np.empty(1000, np.int8)
    library.nn_add(ctypes.byref(params), at(a), at(b), at(apart))
    for place, (first, second) in enumerate(((a.copy(), b.copy()), (a.copy(), b.copy()))):
        target = (first, second)[place]
        library.nn_add(ctypes.byref(params), at(first), at(second), at(target))
        assert np.array_equal(target, apart)


@pytest.mark.parametrize("ratio", [1.0, 0.5, 2.0, 0.3, 7.7, 1e-4, 100.0, 2.0**-20])
@pytest.mark.parametrize("zero_points", [(0, 0), (-128, 127), (127, -128), (5, -6)])
def test_every_value_of_relu(library: ctypes.CDLL, ratio: float, zero_points: tuple[int, int]) -> None:
    multiplier, shift = multiplier_of(ratio)
    values, result = np.arange(-128, 128).astype(np.int8), np.empty(256, np.int8)
    params = Relu(256, multiplier, shift, *zero_points, -100, 90)
    library.nn_relu(ctypes.byref(params), at(values), at(result))
    exact = [scaled(v - zero_points[0], multiplier, shift) + zero_points[1] for v in range(-128, 128)]
    assert result.tolist() == [max(-100, min(90, v)) for v in exact]
    library.nn_relu(ctypes.byref(params), at(values), at(values))
    assert np.array_equal(values, result), "in place"


def test_relu_with_one_scale_is_a_clamp(library: ctypes.CDLL) -> None:
    values = np.arange(-128, 128).astype(np.int8)
    library.nn_relu(ctypes.byref(Relu(256, *multiplier_of(1.0), -7, -7, -7, 50)), at(values), at(values))
    assert np.array_equal(values, np.clip(np.arange(-128, 128), -7, 50))


def test_mean_of_constant_images(library: ctypes.CDLL) -> None:
    """The mean of equal values is that value, for every value and for counts that do not divide 2^31."""
    for count in (1, 3, 7, 49, 60, 100, 1000):
        up = min(count.bit_length() - 1, 32)
        multiplier, shift = multiplier_of(1.0)
        params = Mean(1, count, 256, 0, (multiplier << up) // count, shift - up, 0, -128, 127)
        image = np.ascontiguousarray(np.tile(np.arange(-128, 128).astype(np.int8), (count, 1)))
        result = np.empty(256, np.int8)
        library.nn_mean(ctypes.byref(params), at(image), at(result))
        assert np.array_equal(result, np.arange(-128, 128)), count


def test_pools_of_equal_pixels(library: ctypes.CDLL) -> None:
    """Pools of a constant image give the constant, at the padded edges too."""
    for value in (-128, -1, 0, 1, 127):
        window = Window(5, 6, 2, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1)
        image, result = np.full((5, 6, 2), value, np.int8), np.empty((5, 6, 2), np.int8)
        for name in ("nn_average_pool2d", "nn_max_pool2d"):
            getattr(library, name)(ctypes.byref(Pool(window, -128, 127)), at(image), at(result))
            assert np.all(result == value), (name, value)


def test_softmax_in_place_and_of_equal_values(library: ctypes.CDLL) -> None:
    table = np.array([2**31 - 1, 790015084], np.int32)
    params = Softmax(at(table), 2, 4, 2)
    rows = np.array([[5, 5, 5, 5], [1, 1, 0, -50]], np.int8)
    apart = np.empty_like(rows)
    library.nn_softmax(ctypes.byref(params), at(rows), at(apart))
    assert apart[0].tolist() == [64 - 128] * 4
    shares = np.array([1, 1, np.exp(-1), 0]) / (2 + np.exp(-1))
    assert np.abs(apart[1].astype(int) + 128 - 256 * shares).max() <= 0.51
    library.nn_softmax(ctypes.byref(params), at(rows), at(rows))
    assert np.array_equal(rows, apart)


def test_reshape_copies_or_leaves(library: ctypes.CDLL) -> None:
    size = ctypes.c_uint32(37)
    source, target = np.arange(40).astype(np.int8), np.zeros(40, np.int8)
    library.nn_reshape(ctypes.byref(size), at(source), at(target))
    assert target.tolist() == [*range(37), 0, 0, 0]
    library.nn_reshape(ctypes.byref(size), at(source), at(source))
    assert source.tolist() == list(range(40))


def test_divide_by_power_agrees_with_rounding() -> None:
    for x, exponent in itertools.product(range(-40, 41), range(6)):
        assert divide_by_power(x, exponent) == np.sign(x) * int(abs(x) / 2**exponent + 0.5)
