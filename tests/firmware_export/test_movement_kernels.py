"""The kernels that move bytes, called directly: any strides, parts and tables against numpy, not one byte beside the output."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from firmware_export.hostlib import RUNTIME, compile_host

SOURCES = ("strided", "parts", "gather", "pad", "concatenation", "split", "resize_bilinear", "quantize", "dequantize")
GUARD = 32
JUNK = 0x5A
UINT32, INT32 = ctypes.c_uint32, ctypes.c_int32


class StridedAxis(ctypes.Structure):
    """nn_strided_axis."""

    _fields_ = (("size", UINT32), ("input_step", INT32), ("output_step", INT32))


class StridedCopy(ctypes.Structure):
    """nn_strided_copy."""

    _fields_ = (("input_start", INT32), ("output_start", INT32), ("rank", ctypes.c_uint8), ("axes", StridedAxis * 6))


class Pad(ctypes.Structure):
    """nn_pad_params."""

    _fields_ = (("size", UINT32), ("value", ctypes.c_int8), ("copy", StridedCopy))


class Parts(ctypes.Structure):
    """nn_parts, the only member of the parameters of its operators."""

    _fields_ = (("blocks", UINT32), ("block_size", UINT32), ("sizes", ctypes.POINTER(UINT32)), ("count", UINT32))


class GatherAxis(ctypes.Structure):
    """nn_gather_axis."""

    _fields_ = (("size", UINT32), ("step", UINT32))


class Gather(ctypes.Structure):
    """nn_gather."""

    _fields_ = (
        ("run", UINT32),
        ("indexes", ctypes.POINTER(ctypes.c_uint16)),
        ("rank", ctypes.c_uint8),
        ("axes", GatherAxis * 6),
    )


class Quantize(ctypes.Structure):
    """nn_quantize_params."""

    _fields_ = (
        ("size", UINT32),
        ("multiplier", INT32),
        ("shift", ctypes.c_int8),
        ("input_zero_point", ctypes.c_int16),
        ("output_zero_point", ctypes.c_int16),
        ("input_flip", ctypes.c_uint8),
        ("output_flip", ctypes.c_uint8),
    )


class Dequantize(ctypes.Structure):
    """nn_dequantize_params."""

    _fields_ = (("size", UINT32), ("scale", ctypes.c_float), ("zero_point", ctypes.c_int16), ("flip", ctypes.c_uint8))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("kernels") / "movement.so"
    compile_host([RUNTIME / f"{name}.c" for name in SOURCES], [RUNTIME], library, ["-shared", "-fPIC"])
    return ctypes.CDLL(str(library))


class Output:
    """Room for an output with junk before and behind it."""

    def __init__(self, size: int) -> None:
        self.room, self.size = np.full(size + 2 * GUARD, JUNK, np.uint8), size

    @property
    def pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.room.ctypes.data + GUARD)

    def values(self) -> np.ndarray:
        """The output, once it is sure that nothing was written beside it."""
        assert np.all(self.room[:GUARD] == JUNK) and np.all(self.room[GUARD + self.size :] == JUNK)
        return self.room[GUARD : GUARD + self.size].view(np.int8)


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def copy_of(view: np.ndarray, source: np.ndarray, into: np.ndarray, target: np.ndarray) -> StridedCopy:
    """The parameters of a copy from a numpy view of `source` to a view of `target`, both of the same shape."""
    axes = [StridedAxis(*loop) for loop in zip(view.shape, view.strides, into.strides, strict=True)]
    starts = (view.ctypes.data - source.ctypes.data, into.ctypes.data - target.ctypes.data)
    return StridedCopy(*starts, len(axes), (StridedAxis * 6)(*axes))


def views(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An array with gaps, and a view of it of `shape` with random steps, some backwards, in any order of axes."""
    steps = [int(step) for step in rng.choice([-2, -1, 1, 2], len(shape))]
    order = rng.permutation(len(shape))
    array = rng.integers(-128, 128, [shape[axis] * abs(steps[axis]) for axis in order]).astype(np.int8)
    picked = array[tuple(slice(None, None, steps[axis]) for axis in order)]
    return array, picked.transpose(np.argsort(order))


@pytest.mark.parametrize("rank", range(1, 7))
def test_strided_copies(kernels: ctypes.CDLL, rank: int) -> None:
    """From any view to any view; what lies between stays as it was."""
    rng = np.random.default_rng(rank)
    for _ in range(20):
        shape = tuple(int(n) for n in rng.integers(1, 5, rank))
        (source, view), (target, into) = views(shape, rng), views(shape, rng)
        assert view.shape == into.shape == shape
        room = Output(target.size)
        room.values()[:] = target.reshape(-1)
        copy = copy_of(view, source, into, target)
        kernels.nn_copy_strided(ctypes.byref(copy), pointer(source), room.pointer)
        into[...] = view
        assert np.array_equal(room.values(), target.reshape(-1))


def test_a_row_that_is_repeated(kernels: ctypes.CDLL) -> None:
    """A step of 0 reads the same bytes again."""
    row, room = np.array([1, 2, 3], np.int8), Output(12)
    copy = StridedCopy(0, 0, 2, (StridedAxis * 6)(StridedAxis(4, 0, 3), StridedAxis(3, 1, 1)))
    kernels.nn_copy_strided(ctypes.byref(copy), pointer(row), room.pointer)
    assert room.values().tolist() == [1, 2, 3] * 4


@pytest.mark.parametrize("value", [-128, -1, 0, 127])
def test_pads(kernels: ctypes.CDLL, value: int) -> None:
    image = np.arange(6, dtype=np.int8).reshape(2, 3)
    expected = np.pad(image, ((1, 2), (3, 1)), constant_values=value)
    room, into = Output(expected.size), expected[1:3, 3:6]
    params = Pad(expected.size, value, copy_of(image, image, into, expected))
    kernels.nn_pad(ctypes.byref(params), pointer(image), room.pointer)
    assert np.array_equal(room.values(), expected.reshape(-1))


def parts_of(blocks: int, sizes: list[int]) -> Parts:
    return Parts(blocks, sum(sizes), (UINT32 * len(sizes))(*sizes), len(sizes))


@pytest.mark.parametrize("blocks", [1, 2, 7])
@pytest.mark.parametrize("sizes", [[1], [5], [1, 1], [3, 1, 4], [2] * 20])
def test_parts_are_joined_and_divided(kernels: ctypes.CDLL, blocks: int, sizes: list[int]) -> None:
    """The variadic calls with up to twenty tensors, both ways."""
    rng = np.random.default_rng(len(sizes))
    pieces = [rng.integers(-128, 128, (blocks, size)).astype(np.int8) for size in sizes]
    whole, parts = np.concatenate(pieces, 1), parts_of(blocks, sizes)
    joined = Output(whole.size)
    kernels.nn_concatenation(ctypes.byref(parts), *(pointer(piece) for piece in pieces), joined.pointer)
    assert np.array_equal(joined.values(), whole.reshape(-1))
    rooms = [Output(piece.size) for piece in pieces]
    kernels.nn_split(ctypes.byref(parts), pointer(whole), *(room.pointer for room in rooms))
    assert all(np.array_equal(room.values(), piece.reshape(-1)) for room, piece in zip(rooms, pieces, strict=True))


@pytest.mark.parametrize("rank", range(1, 7))
def test_gathers(kernels: ctypes.CDLL, rank: int) -> None:
    """Random tables for each axis, and runs of one to three bytes behind them."""
    rng = np.random.default_rng(rank)
    for run in (1, 2, 3):
        shape = tuple(int(n) for n in rng.integers(1, 5, rank))
        image = rng.integers(-128, 128, (*shape, run)).astype(np.int8)
        tables = [rng.integers(0, size, rng.integers(1, 6)) for size in shape]
        expected = image[np.ix_(*tables)]
        indexes = np.concatenate(tables).astype(np.uint16)
        axes = [GatherAxis(len(table), step) for table, step in zip(tables, image.strides, strict=False)]
        gather = Gather(run, indexes.ctypes.data_as(ctypes.POINTER(ctypes.c_uint16)), rank, (GatherAxis * 6)(*axes))
        room = Output(expected.size)
        kernels.nn_gather_run(ctypes.byref(gather), pointer(image), room.pointer)
        assert np.array_equal(room.values(), expected.reshape(-1))


def test_a_gather_without_axes_copies(kernels: ctypes.CDLL) -> None:
    image, room = np.arange(7, dtype=np.int8), Output(7)
    kernels.nn_gather_run(ctypes.byref(Gather(7, None, 0, (GatherAxis * 6)())), pointer(image), room.pointer)
    assert room.values().tolist() == list(range(7))


@pytest.mark.parametrize(("source", "target"), [(0, 0), (0x80, 0), (0, 0x80), (0x80, 0x80)])
def test_the_sign_bit_is_the_only_difference_of_uint8(kernels: ctypes.CDLL, source: int, target: int) -> None:
    """Factor 1: every byte comes out as it went in, but for the highest bit; in place too."""
    every, room = np.arange(256).astype(np.uint8), Output(256)
    params = Quantize(256, 1 << 30, 1, 5, 5, source, target)
    kernels.nn_quantize(ctypes.byref(params), pointer(every), room.pointer)
    expected = every ^ source ^ target
    assert np.array_equal(room.values().view(np.uint8), expected)
    kernels.nn_quantize(ctypes.byref(params), pointer(every), pointer(every))
    assert np.array_equal(every, expected)


def test_a_quarter_rounds_twice(kernels: ctypes.CDLL) -> None:
    """x / 4 by the factor 1/4 = 2^30 * 2^(-1 - 31): the high product is exact halves up, then halves away from zero."""
    values, room = np.array([-8, -7, -6, -5, -2, -1, 0, 1, 2, 5, 6, 7, 8], np.int8), Output(13)
    kernels.nn_quantize(ctypes.byref(Quantize(13, 1 << 30, -1, 0, 0, 0, 0)), pointer(values), room.pointer)
    expected = []
    for value in values.tolist():
        half = math.floor(value / 2 + 0.5)
        expected.append(int(math.copysign(math.floor(abs(half) / 2 + 0.5), half)))
    assert room.values().tolist() == expected


@pytest.mark.parametrize("flip", [0, 0x80])
@pytest.mark.parametrize("scale", [0.1, 1.0, 1e-30, 3e30])
def test_dequantize(kernels: ctypes.CDLL, flip: int, scale: float) -> None:
    every, room = np.arange(256).astype(np.uint8), Output(1024)
    kernels.nn_dequantize(ctypes.byref(Dequantize(256, scale, 7, flip)), pointer(every), room.pointer)
    stored = (every ^ flip).view(np.int8).astype(np.float32)
    assert np.array_equal(room.values().view(np.float32), np.float32(scale) * (stored - np.float32(7)))
