"""Small pieces of the runtime on every core that has its own version of them, against loops in Python: words of lanes, sums of
bytes, pools and means, edges from and to float32, images resized in float32's rule, memory functions."""

from __future__ import annotations

import functools
import itertools
import math
import random
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import COMPILER, compiler
from kernel_harness.program import host
from kernel_harness.shared_objects import ArmLibrary, HostLibrary, Library

WRAPPERS = """
#include "byte_sums.h"
#include "lanes.h"
#include "requantize.h"
int32_t piece_multiply_high(int32_t a, int32_t b);
uint32_t piece_add_products(uint32_t sum, uint32_t a, uint32_t b);
uint32_t piece_even_bytes(uint32_t word);
int32_t piece_saturate(int32_t x);
uint32_t piece_lanes(int32_t low, int32_t high);
void piece_sum_pixels(const int8_t *x, uint32_t step, uint32_t count, int32_t *sums);
int32_t piece_sum_channel(const int8_t *x, uint32_t step, uint32_t count);
int32_t piece_requantize(int32_t x, int32_t multiplier, int32_t shift);
int32_t piece_multiply_high(int32_t a, int32_t b) { return nn_multiply_high(a, b); }
uint32_t piece_add_products(uint32_t sum, uint32_t a, uint32_t b) { return nn_add_products(sum, a, b); }
uint32_t piece_even_bytes(uint32_t word) { return nn_even_bytes(word); }
int32_t piece_saturate(int32_t x) { return nn_saturate(x); }
uint32_t piece_lanes(int32_t low, int32_t high) { return nn_lanes(low, high); }
void piece_sum_pixels(const int8_t *x, uint32_t step, uint32_t count, int32_t *sums) { nn_sum_pixels(x, step, count, sums); }
int32_t piece_sum_channel(const int8_t *x, uint32_t step, uint32_t count) { return nn_sum_channel(x, step, count); }
int32_t piece_requantize(int32_t x, int32_t multiplier, int32_t shift) { return nn_requantize(x, multiplier, shift); }
"""
PIECES = tuple(f"piece_{name}" for name in ("multiply_high", "add_products", "even_bytes", "saturate", "lanes", "requantize"))
PIECES += ("piece_sum_pixels", "piece_sum_channel")
POOLS = ("max_pool2d", "average_pool2d", "max_pool2d_fast", "average_pool2d_fast")
KERNELS = (*(f"nn_{name}" for name in POOLS), "nn_mean", "nn_mean_fast", "nn_quantize_float", "nn_quantize_float_even")
KERNELS += ("nn_resize_bilinear_fine",)
MEMORY = ("memcpy", "memmove", "memset", "memcmp")
SOURCES = (*(f"{name}.c" for name in POOLS), "mean.c", "mean_fast.c", "quantize.c", "resize_bilinear.c", "window.c")
CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "host")
Pair = tuple[int, int]
"""Along the height and the width."""
_FOLDER = tempfile.TemporaryDirectory(prefix="pieces-")


@functools.cache
def built(core: str) -> Library:
    source = Path(_FOLDER.name) / "pieces.c"
    source.write_text(WRAPPERS)
    if core == "host":
        return HostLibrary((*SOURCES, str(source)), host())
    return ArmLibrary((*SOURCES, str(source)), (*PIECES, *KERNELS, *MEMORY), compiler(COMPILER), core)


@pytest.fixture(params=CORES)
def library(request: pytest.FixtureRequest) -> Library:
    found = built(request.param)
    found.reset()
    return found


def signed(value: int, bits: int = 32) -> int:
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


ENDS = (0, 1, -1, 2, 0x7FFF, 0x8000, 0xFFFF, 0x10000, -0x8000, -0x8001, -0x10000, 2**31 - 1, -(2**31), 0x12345678, -0x789ABCDE)


def test_the_high_word_of_a_product(library: Library) -> None:
    """Armv6-M has no long multiplication: four short ones, whose carries must all arrive."""
    rng = random.Random(1)
    pairs = [
        *itertools.product(ENDS, ENDS),
        *((rng.randint(-(2**31), 2**31 - 1), rng.randint(0, 2**31 - 1)) for _ in range(300)),
    ]
    for a, b in pairs:
        assert signed(library.call("piece_multiply_high", a, b) & 0xFFFFFFFF) == a * b >> 32, (a, b)


def test_lanes(library: Library) -> None:
    rng = random.Random(2)
    lanes = (-32768, -1, 0, 1, 32767)
    for low, high in itertools.product(lanes, lanes):
        word = library.call("piece_lanes", low, high) & 0xFFFFFFFF
        assert (signed(word & 0xFFFF, 16), signed(word >> 16, 16)) == (low, high)
        other = [rng.choice(lanes) for _ in range(2)]
        total = rng.randrange(2**32)
        packed = (other[0] & 0xFFFF) | (other[1] & 0xFFFF) << 16
        expected = (total + low * other[0] + high * other[1]) % 2**32
        assert library.call("piece_add_products", total, word, packed) & 0xFFFFFFFF == expected
    for _ in range(60):
        parts = [rng.choice((0, 1, 0x7F, 0x80, 0xFF)) for _ in range(4)]
        word = library.call("piece_even_bytes", int.from_bytes(bytes(parts), "little")) & 0xFFFFFFFF
        assert (signed(word & 0xFFFF, 16), signed(word >> 16, 16)) == (signed(parts[0], 8), signed(parts[2], 8))
    for value in (-(2**31), -129, -128, -127, 0, 127, 128, 2**31 - 1):
        assert signed(library.call("piece_saturate", value) & 0xFFFFFFFF) == min(max(value, -128), 127)


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 513])
def test_sums_of_bytes_over_pixels(library: Library, count: int) -> None:
    """Halves of words hold 256 pixels; more go to the sums, which are added to, not overwritten."""
    rng = np.random.default_rng(count)
    for step, misaligned in ((4, 0), (5, 1), (7, 3)):
        values = np.array([-128, -127, -1, 0, 127] if step == 4 else [{5: -128, 7: 127}[step]], np.int8)
        x = rng.choice(values, count * step + 4)
        before = rng.integers(-1000, 1000, 4).astype(np.int32)
        library.reset()
        sums, address = library.put(before), library.put(x, misaligned=misaligned)
        library.call("piece_sum_pixels", address, step, count, sums)
        expected = [int(before[i]) + sum(int(x[k * step + i]) for k in range(count)) for i in range(4)]
        assert library.get(sums, "i4", 4).tolist() == expected
        found = signed(library.call("piece_sum_channel", address, step, count) & 0xFFFFFFFF)
        assert found == sum(int(x[k * step]) for k in range(count))
        library.assert_untouched()


def gemmlowp(x: int, multiplier: int, shift: int) -> int:
    """Left shift modulo 2^32, the doubled high product rounded by its nudge, the right shift rounded half away from zero."""
    product = signed(x << max(shift, 0)) * multiplier
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)
    power = 2 ** max(-shift, 0)
    return (1 if high >= 0 else -1) * ((2 * abs(high) + power) // (2 * power)) if power > 1 else high


def test_requantization(library: Library) -> None:
    rng = random.Random(3)
    for _ in range(150):
        shift = rng.randint(-20, 7)
        x = rng.choice((rng.randint(-(2**23), 2**23), rng.randint(-40, 40), 2**24 - 1, -(2**24)))
        multiplier = rng.choice((2**30, 2**31 - 1, rng.randint(2**30, 2**31 - 1)))
        assert signed(library.call("piece_requantize", x, multiplier, shift) & 0xFFFFFFFF) == gemmlowp(x, multiplier, shift)


def window_bytes(
    size: tuple[int, int, int],
    output: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> bytes:
    return np.array([*size, *output, *kernel, *stride, 1, 1, *padding], np.uint16).tobytes()


def pooled(
    x: np.ndarray, output: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], op: str
):
    """Window by window, channel by channel."""
    found = np.zeros((*output, x.shape[2]), int)
    for row, column, channel in itertools.product(*map(range, found.shape)):
        ys = [row * stride[0] - pad[0] + i for i in range(kernel[0])]
        xs = [column * stride[1] - pad[1] + j for j in range(kernel[1])]
        values = [int(x[a, b, channel]) for a in ys for b in xs if 0 <= a < x.shape[0] and 0 <= b < x.shape[1]]
        if op == "max":
            found[row, column, channel] = max(values)
        else:
            total, count = sum(values), len(values)
            found[row, column, channel] = int(math.copysign((2 * abs(total) + count) // (2 * count), total))
    return found


GEOMETRIES = [
    ((4, 5), (2, 2), (2, 2), (2, 2), (0, 0)),
    ((5, 6), (5, 6), (3, 3), (1, 1), (1, 1)),
    ((5, 4), (3, 2), (3, 2), (2, 2), (1, 0)),
    ((3, 7), (1, 1), (3, 7), (1, 1), (0, 0)),
    ((6, 3), (2, 2), (5, 2), (3, 2), (2, 1)),
]


@pytest.mark.parametrize("kernel", POOLS)
@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_pools(library: Library, kernel: str, channels: int) -> None:
    """Windows over edges, whole rows, clamps; images at odd addresses; four channels at a time and those that are left."""
    rng = np.random.default_rng(channels)
    for number, ((height, width), output, size, stride, pad) in enumerate(GEOMETRIES):
        x = rng.integers(-128, 128, (height, width, channels)).astype(np.int8)
        if number == 2:
            x[:] = -128
        low, high = ((-128, 127), (-20, 60))[number % 2]
        library.reset()
        params = window_bytes((height, width, channels), output, size, stride, pad) + struct.pack("bb", low, high)
        to = library.room(output[0] * output[1] * channels, misaligned=number % 3)
        library.call(f"nn_{kernel}", library.put(params), library.put(x, misaligned=(number + 1) % 4), to)
        expected = np.clip(pooled(x, output, size, stride, pad, kernel[:3]), low, high)
        assert np.array_equal(library.get(to, "i1", expected.size).reshape(expected.shape), expected), number
        library.assert_untouched()


@pytest.mark.parametrize("function", ["nn_mean", "nn_mean_fast"])
@pytest.mark.parametrize("outer, count, inner", [(1, 16, 8), (2, 7, 5), (3, 300, 4), (1, 1, 3), (5, 6, 1)])
def test_means(library: Library, function: str, outer: int, count: int, inner: int) -> None:
    rng = np.random.default_rng(count)
    x = rng.choice(np.array([-128, -100, 3, 126, 127], np.int8), (outer, count, inner))
    zero_point, multiplier, shift = -7, round(2**31 / count * 0.9) if count > 1 else 2**31 - 1, 0
    while multiplier < 2**30:
        multiplier, shift = multiplier * 2, shift - 1
    params = struct.pack("<IIIiibxhbb", outer, count, inner, 4 * count, multiplier, shift, zero_point, -50, 90)
    to = library.room(outer * inner, misaligned=1)
    library.call(function, library.put(params), library.put(x, misaligned=3), to)
    sums = x.astype(int).sum(1) + 4 * count
    expected = [min(max(gemmlowp(int(total), multiplier, shift) + zero_point, -50), 90) for total in sums.reshape(-1)]
    assert library.get(to, "i1", outer * inner).tolist() == expected
    library.assert_untouched()


REALS = [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.49999997, -0.49999997, 126.5, 127.5, -128.5, -129.5, 1e9, -1e9, 1e-40]
REALS += [1023.5, -1023.5, 1024.0, 3e38, -3e38, math.inf, -math.inf, math.nan, 12.499999, 12.500001, 0.1, -0.3]


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("flip, zero_point", [(0, 0), (0, -128), (0x80, 5), (0, 127)])
def test_float32_to_bytes(library: Library, even: bool, flip: int, zero_point: int) -> None:
    """Halves away from zero, or to even; NaN is the zero point, infinities are the ends."""
    scale = np.float32(0.37)
    values = np.array([*REALS, *(real * 0.37 for real in REALS)], np.float32)
    expected = []
    with np.errstate(all="ignore"):
        inverse = np.float32(1) / scale
        for value in values:
            steps = float(value * inverse) if even else float(value / scale)
            steps = 0.0 if math.isnan(steps) else min(max(steps, -4000.0), 4000.0)
            whole = round(steps) if even else int(math.copysign(math.floor(abs(steps) + 0.5), steps))
            expected.append((min(max(whole + zero_point, -128), 127) & 0xFF) ^ flip)
    number = struct.unpack("<I", np.float32(inverse if even else scale).tobytes())[0]
    params = quantize_params(values.size, number, zero_point, flip)
    to = library.room(values.size, misaligned=1)
    library.call("nn_quantize_float_even" if even else "nn_quantize_float", library.put(params), library.put(values), to)
    assert library.get(to, "u1", values.size).tolist() == expected
    library.assert_untouched()


def quantize_params(size: int, scale_bits: int, zero_point: int, flip: int) -> bytes:
    """nn_quantize_float_params of quantize.h."""
    return struct.pack("<IIhBx", size, scale_bits, zero_point, flip)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_resized_by_tables(library: Library, channels: int) -> None:
    """Two neighbours each way, distances in 1/2048, halves up: pixel by pixel in exact fractions."""
    rng = np.random.default_rng(channels)
    height, width, out_h, out_w = 3, 4, 5, 6
    x = rng.choice(np.array([-128, -1, 0, 1, 127], np.int8), (height, width, channels))
    tables = []
    for source, target in ((height, out_h), (width, out_w)):
        first = rng.integers(0, source, target)
        behind = np.minimum(first + 1, source - 1)
        tables.append(np.stack([first, behind, rng.choice([0, 1, 1024, 2047, 2048], target)], 1).astype(np.uint16))
    rows, columns = (library.put(table) for table in tables)
    params = library.put_struct("PPIIII", [rows, columns, out_h, out_w, width * channels, channels])
    to = library.room(out_h * out_w * channels, misaligned=1)
    library.call("nn_resize_bilinear_fine", params, library.put(x, misaligned=1), to)
    expected = []
    for (up, down, below), (left, right, beside) in itertools.product(tables[0].astype(int), tables[1].astype(int)):
        for c in range(channels):
            upper = int(x[up, left, c]) * (2048 - beside) + int(x[up, right, c]) * beside
            lower = int(x[down, left, c]) * (2048 - beside) + int(x[down, right, c]) * beside
            expected.append(math.floor((upper * (2048 - below) + lower * below) / 2**22 + 0.5))
    assert library.get(to, "i1", len(expected)).tolist() == expected
    library.assert_untouched()


@pytest.mark.parametrize("core", CORES[:3])
def test_memory_functions_as_the_cores_compiler_makes_them(core: str) -> None:
    """Moves up and down within one buffer at every alignment; what they give back; sizes around a word and four words."""
    library = built(core)
    content = np.random.default_rng(4).integers(0, 256, 80).astype(np.uint8)
    for size, to, start in itertools.product((0, 3, 4, 16, 17, 36), (0, 1, 4), (0, 2, 8)):
        library.reset()
        at = library.put(content)
        assert library.call("memmove", at + to, at + start, size) == at + to
        expected = content.copy()
        expected[to : to + size] = content[start : start + size]
        assert np.array_equal(library.get(at, "u1", 80), expected), (size, to, start)
        other = library.room(80)
        assert library.call("memcpy", other + to, at + start, size) == other + to
        assert np.array_equal(library.get(other + to, "u1", size), expected[start : start + size])
        assert library.call("memset", other + start, 0x5A, size) == other + start
        assert np.all(library.get(other + start, "u1", size) == 0x5A)
        found = signed(library.call("memcmp", at + to, at + start, size))
        one, two = (expected[begin : begin + size].tobytes() for begin in (to, start))
        assert (found > 0) - (found < 0) == (one > two) - (one < two)
        library.assert_untouched()
