"""Window arithmetic against TFLite's documented cases, a brute-force count of windows, and LiteRT's own output shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from graph_builder import quantized

from firmware_export.geometry import same_padding, valid_size
from firmware_export.graph import Graph
from firmware_export.write_tflite import TfliteWriter


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        ((8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
        ((8, 8), (3, 3), (2, 2), (1, 1), (0, 1, 0, 1)),
        ((7, 8), (3, 3), (2, 2), (1, 1), (1, 1, 0, 1)),
        ((8, 8), (2, 2), (2, 2), (1, 1), (0, 0, 0, 0)),
        ((8, 8), (4, 4), (1, 1), (1, 1), (1, 2, 1, 2)),
        ((8, 8), (3, 3), (1, 1), (2, 2), (2, 2, 2, 2)),
        ((49, 10), (10, 4), (2, 2), (1, 1), (4, 5, 1, 1)),
        ((5, 5), (1, 1), (3, 3), (1, 1), (0, 0, 0, 0)),
        ((3, 3), (7, 7), (1, 1), (1, 1), (3, 3, 3, 3)),
    ],
)
def test_same_padding(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    expected: tuple[int, ...],
) -> None:
    assert same_padding(size, kernel, stride, dilation) == expected


def windows(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Windows that lie inside, counted one by one."""
    return sum(start + (kernel - 1) * dilation < size for start in range(0, size, stride))


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_sizes_against_a_count_of_windows(stride: int, dilation: int) -> None:
    for size, kernel in itertools.product(range(1, 14), range(1, 7)):
        assert max(0, valid_size(size, kernel, stride, dilation)) == windows(size, kernel, stride, dilation)
        top, bottom, _, _ = same_padding((size, 1), (kernel, 1), (stride, 1), (dilation, 1))
        assert valid_size(size + top + bottom, kernel, stride, dilation) == -(-size // stride), "SAME keeps ceil(size / stride)"
        assert 0 <= bottom - top <= 1, "the odd pixel is at the end"
        fewer = top + bottom - 1
        assert fewer < 0 or valid_size(size + fewer, kernel, stride, dilation) < -(-size // stride), (
            "and not one more than needed"
        )


def litert_output(size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: int) -> tuple[int, ...]:
    """The shape that LiteRT gives an average pool, and where its zeros reach the first output."""
    tensors = [quantized("x", (1, *size, 1)), quantized("y", (1, 1, 1, 1))]
    writer = TfliteWriter(Graph(tensors, [], (0,), (1,)))
    options = schema.Pool2DOptionsT(
        padding=padding, strideH=stride[0], strideW=stride[1], filterHeight=kernel[0], filterWidth=kernel[1]
    )
    writer.add("AVERAGE_POOL_2D", (0,), (1,), options, 2)
    interpreter = Interpreter(model_content=writer.finish())
    interpreter.allocate_tensors()
    return tuple(int(n) for n in interpreter.get_output_details()[0]["shape"])


def test_sizes_are_those_of_litert() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        size = (int(rng.integers(3, 20)), int(rng.integers(3, 20)))
        kernel, stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4))), (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        same = litert_output(size, kernel, stride, schema.Padding.SAME)
        valid = litert_output(size, kernel, stride, schema.Padding.VALID)
        top, bottom, left, right = same_padding(size, kernel, stride)
        padded = (size[0] + top + bottom, size[1] + left + right)
        assert same[1:3] == tuple(valid_size(s, k, t) for s, k, t in zip(padded, kernel, stride, strict=True))
        assert valid[1:3] == tuple(valid_size(s, k, t) for s, k, t in zip(size, kernel, stride, strict=True))
