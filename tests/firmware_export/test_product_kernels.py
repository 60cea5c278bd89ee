"""The kernels of transposed convolution, matrix products and LSTM, called directly: every value of the functions, layouts
written by hand, largest sums, and not one byte beside the output."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
from oracles import tflite_micro
from second_arithmetic import multiplier_of, scaled
from second_implementation_lstm import TABLE, int16
from second_implementation_lstm import logistic as plain_logistic
from second_implementation_lstm import tanh as plain_tanh

from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.hostlib import RUNTIME, compile_host
from firmware_export.write_tflite import TfliteWriter

GUARD, JUNK = 32, 0x5A
EVERY = np.arange(-32768, 32768, dtype=np.int32)
WRAPPER = """
#include "batch_matmul.h"
#include "lstm.c"
#include "transpose_conv.h"

void unit_logistic(const uint16_t *table, const int32_t *x, int32_t *y, uint32_t count);
void unit_logistic(const uint16_t *table, const int32_t *x, int32_t *y, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        y[i] = logistic(table, x[i]);
    }
}

void unit_tanh(const uint16_t *table, const int32_t *x, int32_t *y, uint32_t count);
void unit_tanh(const uint16_t *table, const int32_t *x, int32_t *y, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        y[i] = tanh_of(table, x[i]);
    }
}

static const uint16_t no_steps[256];

/* One cell whose sums are given: gates[0..3] in, the next state out. */
int32_t unit_cell(const uint16_t *table, const int32_t *gates, int32_t cell, int32_t shift, int32_t clip);
int32_t unit_cell(const uint16_t *table, const int32_t *gates, int32_t cell, int32_t shift, int32_t clip) {
    const nn_lstm_params params = {.sigmoid = table != 0 ? table : no_steps,
                                   .forget = {1 << 30, -14},
                                   .update = {1 << 30, (int8_t)shift},
                                   .cell_clip = (int16_t)clip};
    return next_cell(&params, gates, cell);
}

/* sizes: rows, columns, depth. factors: multiplier, shift. points: of a, b and the output. steps: of a, then of b. */
void unit_matmul(const uint32_t *sizes, const int32_t *factor, const int32_t *points, const uint32_t *steps, const int8_t *a,
                 const int8_t *b, int8_t *y);
void unit_matmul(const uint32_t *sizes, const int32_t *factor, const int32_t *points, const uint32_t *steps, const int8_t *a,
                 const int8_t *b, int8_t *y) {
    const int8_t shift = (int8_t)factor[1];
    const nn_batch_matmul_params params = {
        .a = {steps[0], steps[1], points[0]}, .b = {steps[2], steps[3], points[1]},
        .rows = sizes[0], .columns = sizes[1], .depth = sizes[2],
        .stage = {.multipliers = factor, .shifts = &shift, .zero_point = (int16_t)points[2], .min = -128, .max = 127},
        .rank = 1, .axes = {{1, 0, 0}}};
    nn_batch_matmul(&params, a, b, y);
}

/* geometry: input h, w, channels, output h, w, kernel h, w, stride h, w, padding top, left. Factor 1. */
void unit_transposed(const uint16_t *geometry, uint32_t outputs, const int8_t *weights, const int32_t *bias, int32_t fill,
                     const int8_t *x, int8_t *y, int8_t *patch);
void unit_transposed(const uint16_t *geometry, uint32_t outputs, const int8_t *weights, const int32_t *bias, int32_t fill,
                     const int8_t *x, int8_t *y, int8_t *patch) {
    int32_t multipliers[16];
    int8_t shifts[16];
    for (uint32_t i = 0; i < outputs; ++i) {
        multipliers[i] = 1 << 30;
        shifts[i] = 1;
    }
    const uint16_t *g = geometry;
    const nn_transpose_conv_params params = {
        .window = {.input_h = g[0], .input_w = g[1], .channels = g[2], .output_h = g[3], .output_w = g[4], .kernel_h = g[5],
                   .kernel_w = g[6], .stride_h = g[7], .stride_w = g[8], .padding_top = g[9], .padding_left = g[10]},
        .dense = {.weights = weights, .bias = bias, .outputs = outputs,
                  .stage = {.multipliers = multipliers, .shifts = shifts, .min = -128, .max = 127}},
        .fill = (int8_t)fill};
    nn_transpose_conv(&params, x, y, patch);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("products")
    (folder / "units.c").write_text(WRAPPER)
    others = [RUNTIME / f"{name}.c" for name in ("batch_matmul", "transpose_conv", "dense", "window")]
    compile_host([folder / "units.c", *others], [RUNTIME], folder / "units.so", ["-shared", "-fPIC"])
    return ctypes.CDLL(str(folder / "units.so"))


def at(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def guarded(size: int) -> np.ndarray:
    """int8 with junk around `size` bytes."""
    return np.full(size + 2 * GUARD, JUNK, np.int8)


def inside(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data + GUARD)


def taken(array: np.ndarray) -> np.ndarray:
    """What was written; the guards are whole."""
    assert np.all(array[:GUARD] == JUNK) and np.all(array[-GUARD:] == JUNK)
    return array[GUARD:-GUARD]


# LSTM


def function_of(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    table, y = np.array(TABLE, np.uint16), np.zeros(x.size, np.int32)
    getattr(library, name)(at(table), at(np.ascontiguousarray(x, np.int32)), at(y), x.size)
    return y


def int16_operator(builtin: str, scale: float) -> np.ndarray:
    """TFLite Micro's int16 operator on every value."""
    edges = [Quantization.per_tensor(scale, 0), Quantization.per_tensor(2.0**-15, 0)]
    tensors = [Tensor(name, (1, EVERY.size), "int16", q) for name, q in zip("xy", edges, strict=True)]
    writer = TfliteWriter(Graph(tensors, [], (0,), (1,)))
    writer.add(builtin, (0,), (1,), None, 3)
    return tflite_micro(writer.finish(), [EVERY.astype(np.int16)[np.newaxis]])[0][0]


def test_logistic_of_every_value(library: ctypes.CDLL) -> None:
    assert np.array_equal(function_of(library, "unit_logistic", EVERY), int16_operator("LOGISTIC", 2.0**-12))


@pytest.mark.parametrize("exponent", [-12, -11, -9, -4])
def test_tanh_of_every_value(library: ctypes.CDLL, exponent: int) -> None:
    found = function_of(library, "unit_tanh", EVERY * (3 << (exponent + 12)))
    assert np.array_equal(found, int16_operator("TANH", 2.0**exponent))


def test_tanh_far_outside_the_table(library: ctypes.CDLL) -> None:
    far = np.array([-(2**31) + 1, -(2**24), 2**24, 2**31 - 1], np.int64)
    assert function_of(library, "unit_tanh", far).tolist() == [-32767, -32767, 32767, 32767]


def test_functions_are_odd_about_their_middle(library: ctypes.CDLL) -> None:
    x = EVERY[1:]
    tanh, logistic = function_of(library, "unit_tanh", 3 * x), function_of(library, "unit_logistic", x)
    assert np.abs(tanh + tanh[::-1]).max() <= 1
    assert np.abs(logistic + logistic[::-1] - 32768).max() <= 1


@pytest.mark.parametrize("exponent", [-15, -11, -8])
def test_next_cell(library: ctypes.CDLL, exponent: int) -> None:
    rng, table = np.random.default_rng(exponent + 99), np.array(TABLE, np.uint16)
    shift = -30 - exponent + 1
    for clip in (0, 5, 20000):
        for _ in range(100):
            gates, cell = rng.integers(-32768, 32768, 4).astype(np.int32), int(rng.integers(-32768, 32768))
            found = library.unit_cell(at(table), at(gates), cell, shift, clip)
            i, f, g, _ = gates.tolist()
            kept = int16(scaled(plain_logistic(f) * cell, *multiplier_of(2.0**-15)))
            added = int16(scaled(plain_logistic(i) * plain_tanh(g, -12), *multiplier_of(2.0 ** (-30 - exponent))))
            wanted = int16(kept + added)
            assert found == (max(-clip, min(clip, wanted)) if clip else wanted)


def test_cell_saturates_at_both_ends(library: ctypes.CDLL) -> None:
    table, open_gates = np.array(TABLE, np.uint16), np.array([32767, 32767, 32767, 0], np.int32)
    shut = np.array([32767, 32767, -32768, 0], np.int32)
    assert library.unit_cell(at(table), at(open_gates), 32767, -30 + 15 + 1, 0) == 32767
    assert library.unit_cell(at(table), at(shut), -32768, -30 + 15 + 1, 0) == -32768


# Products of matrices


def product_of(
    library: ctypes.CDLL, a: np.ndarray, b: np.ndarray, points: tuple[int, int, int], real: float, flags: tuple[int, int]
) -> np.ndarray:
    """The kernel's answer for a [m, k] and b [k, n], stored transposed where a flag says so."""
    (rows, depth), columns = a.shape, b.shape[1]
    stored = [np.ascontiguousarray(v.T if flag else v) for v, flag in zip((a, b), flags, strict=True)]
    steps = np.array([*((1, rows) if flags[0] else (depth, 1)), *((depth, 1) if flags[1] else (1, columns))], np.uint32)
    factor, y = np.array(multiplier_of(real), np.int32), guarded(rows * columns)
    sizes, offsets = np.array([rows, columns, depth], np.uint32), np.array(points, np.int32)
    library.unit_matmul(*map(at, (sizes, factor, offsets, steps, *stored)), inside(y))
    return taken(y).reshape(rows, columns)


def wanted_product(a: np.ndarray, b: np.ndarray, points: tuple[int, int, int], real: float) -> np.ndarray:
    sums = (a.astype(int) - points[0]) @ (b.astype(int) - points[1])
    found = [max(-128, min(127, scaled(int(total), *multiplier_of(real)) + points[2])) for total in sums.reshape(-1)]
    return np.array(found, np.int8).reshape(sums.shape)


@pytest.mark.parametrize("flags", list(itertools.product((0, 1), (0, 1))))
def test_products(library: ctypes.CDLL, flags: tuple[int, int]) -> None:
    """Every count of columns around the four that are computed together."""
    rng = np.random.default_rng(flags)
    for columns, rows, depth in itertools.product(range(1, 10), (1, 3), (1, 2, 7)):
        a, b = rng.integers(-128, 128, (rows, depth)).astype(np.int8), rng.integers(-128, 128, (depth, columns)).astype(np.int8)
        points = tuple(int(v) for v in rng.integers(-128, 128, 3))
        found = product_of(library, a, b, (points[0], points[1], points[2]), 0.003, flags)
        assert np.array_equal(found, wanted_product(a, b, (points[0], points[1], points[2]), 0.003))


def test_largest_sums(library: ctypes.CDLL) -> None:
    """33,025 such products nearly fill int32."""
    depth = 33025
    for value, point in ((-128, 127), (127, -128)):
        a, b = np.full((1, depth), value, np.int8), np.full((depth, 5), value, np.int8)
        total = depth * 255 * 255
        found = product_of(library, a, b, (point, point, 0), 100 / total, (0, 0))
        assert found.tolist() == [[100] * 5]


# Transposed convolution


def transposed_of(
    library: ctypes.CDLL, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, geometry: list[int], fill: int = 0
) -> np.ndarray:
    """geometry: output h, w, kernel h, w, stride h, w, padding top, left; weights and bias as the kernel wants them."""
    outputs, size = bias.shape[1], geometry[0] * geometry[1] * bias.shape[1]
    y, patch = guarded(size), guarded(-(-geometry[2] // geometry[4]) * -(-geometry[3] // geometry[5]) * x.shape[2])
    numbers = np.array([*x.shape, *geometry], np.uint16)
    library.unit_transposed(at(numbers), outputs, at(weights), at(bias), fill, at(x), inside(y), inside(patch))
    taken(patch)
    return taken(y).reshape(geometry[0], geometry[1], outputs)


def test_every_tap_a_phase_of_its_own(library: ctypes.CDLL) -> None:
    """Stride = kernel: a block of the output for each pixel; the weights are [tap row, tap column, outputs, channels]."""
    rng = np.random.default_rng(1)
    x, weights = rng.integers(-8, 9, (3, 4, 2)).astype(np.int8), rng.integers(-3, 4, (2, 3, 5, 2)).astype(np.int8)
    bias = np.zeros((2 * 3 + 1, 5), np.int32)
    found = transposed_of(library, x, weights, bias, [6, 12, 2, 3, 2, 3, 0, 0])
    wanted = np.einsum("yxc,ijoc->yixjo", x.astype(int), weights.astype(int)).reshape(6, 12, 5)
    assert np.array_equal(found, wanted)


def test_stride_one_is_a_convolution_backwards(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(2)
    x, weights = rng.integers(-4, 5, (5, 6, 3)).astype(np.int8), rng.integers(-2, 3, (4, 3, 3, 3)).astype(np.int8)
    found = transposed_of(library, x, weights, np.zeros((2, 4), np.int32), [7, 8, 3, 3, 1, 1, 0, 0])
    padded = np.pad(x.astype(int), ((2, 2), (2, 2), (0, 0)))
    wanted = np.zeros((7, 8, 4), int)
    for i, j in itertools.product(range(3), range(3)):
        wanted += padded[i : i + 7, j : j + 8] @ weights[:, i, j].T.astype(int)
    assert np.array_equal(found, wanted)


def test_padding_cuts_rows_and_columns(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(3)
    x, weights = rng.integers(-4, 5, (3, 3, 2)).astype(np.int8), rng.integers(-2, 3, (2, 2, 3, 2)).astype(np.int8)
    bias = np.zeros((5, 3), np.int32)
    whole = transposed_of(library, x, weights, bias, [6, 6, 2, 2, 2, 2, 0, 0])
    for top, left in itertools.product(range(4), range(4)):
        part = transposed_of(library, x, weights, bias, [6 - top, 5 - left, 2, 2, 2, 2, top, left])
        assert np.array_equal(part, whole[top:, left : left + 5 - left])


def test_outputs_without_taps_are_the_last_bias(library: ctypes.CDLL) -> None:
    """Stride 3, kernel 1x2: the row and column phases beyond it; `fill` lies outside the image alone."""
    x = np.full((2, 2, 1), 5, np.int8)
    weights = np.array([[1], [2]], np.int8)
    bias = np.array([[10], [20], [30]], np.int32)
    found = transposed_of(library, x, weights, bias, [5, 7, 1, 2, 3, 3, 0, 0], fill=9)[:, :, 0]
    assert found[0].tolist() == [15, 30, 30, 15, 30, 30, 10 + 9] and found[3].tolist() == found[0].tolist()
    assert np.all(found[[1, 2, 4]] == 30)
