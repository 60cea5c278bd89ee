"""What moving operators undo: facts that hold for any tensor, checked on the simulator with no other implementation beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_builder import Build, inputs_of

from firmware_export.check import check
from firmware_export.graph import Graph, GraphError, Node, Tensor
from firmware_export.operators import operator_of
from firmware_export.simulate import simulate

Shape = tuple[int, ...]
SHAPES = ((1, 4), (1, 3, 5), (1, 4, 6, 3), (1, 2, 3, 4, 2))


class Moved(Build):
    """Adds moving operators whose outputs' shapes are inferred."""

    def move(self, op: str, inputs: tuple[int, ...], outputs: int = 1, **attributes: Any) -> tuple[int, ...]:
        """A node with one or more outputs, stored like its first input."""
        places = tuple(self.activation(()) for _ in range(outputs))
        node = Node(op, inputs, places, attributes)
        for index in places:
            self.tensors[index] = Tensor("m", (), "int8", self.tensors[inputs[0]].quantization)
        self.nodes.append(node)
        graph = Graph(self.tensors, [node], inputs, places)
        for index, spec in zip(places, operator_of(node).infer(graph, node), strict=True):
            self.tensors[index] = Tensor("m", spec.shape, spec.dtype, self.tensors[index].quantization)
        return places


def answers(build: Moved, x: int, y: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of the graph from x to y."""
    graph = build.graph(x, y)
    check(graph)
    (image,) = inputs_of(graph, seed)
    return image, simulate(graph, image)[0]


def assert_undone(build: Moved, x: int, y: int) -> None:
    """The graph gives back its input."""
    for seed in range(3):
        image, found = answers(build, x, y, seed)
        assert image.shape == found.shape and np.array_equal(image, found)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_transpose_and_its_inverse(shape: Shape) -> None:
    for seed in range(5):
        build = Moved()
        x = build.activation(shape)
        perm = (0, *(int(axis) + 1 for axis in np.random.default_rng(seed).permutation(len(shape) - 1)))
        (y,) = build.move("transpose", (x,), perm=perm)
        (z,) = build.move("transpose", (y,), perm=tuple(int(axis) for axis in np.argsort(perm)))
        assert_undone(build, x, z)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_split_and_its_concatenation(shape: Shape) -> None:
    for axis in range(1, len(shape)):
        build = Moved()
        x = build.activation(shape)
        sizes = (1, shape[axis] - 1)
        parts = build.move("split", (x,), 2, axis=axis, sizes=sizes)
        assert [build.tensors[part].shape[axis] for part in parts] == list(sizes)
        assert_undone(build, x, build.move("concatenation", parts, axis=axis)[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_an_unpack_and_its_pack(shape: Shape) -> None:
    for axis in range(1, len(shape)):
        build = Moved()
        x = build.activation(shape)
        parts = build.move("unpack", (x,), shape[axis], axis=axis)
        assert_undone(build, x, build.move("pack", parts, axis=axis)[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", ["pad", "mirror_pad"])
def test_a_border_and_the_slice_within(shape: Shape, op: str) -> None:
    build = Moved()
    x = build.activation(shape)
    paddings = (0, 0, *(n for _ in shape[1:] for n in (2, 1)))
    attributes: dict[str, Any] = {"value": 55} if op == "pad" else {"offset": 0}
    (y,) = build.move(op, (x,), paddings=paddings, **attributes)
    ranges = {"begin": (0, *(2 for _ in shape[1:])), "stride": (1,) * len(shape), "size": shape}
    assert_undone(build, x, build.move("strided_slice", (y,), **ranges, shape=shape)[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_two_reversals(shape: Shape) -> None:
    build = Moved()
    x = build.activation(shape)
    backwards = {"begin": tuple(n - 1 for n in shape), "stride": (-1,) * len(shape), "size": shape, "shape": shape}
    (y,) = build.move("strided_slice", (x,), **backwards)
    assert_undone(build, x, build.move("strided_slice", (y,), **backwards)[0])
    image, found = answers(build_reversed(shape), 0, 1)
    assert np.array_equal(found, np.flip(image))


def build_reversed(shape: Shape) -> Moved:
    build = Moved()
    x = build.activation(shape)
    build.move("strided_slice", (x,), begin=tuple(n - 1 for n in shape), stride=(-1,) * len(shape), size=shape, shape=shape)
    return build


def test_a_tile_of_too_many_axes_is_refused() -> None:
    """Every repeated axis takes two of the kernel's six loops."""
    build = Moved()
    x = build.activation((1, 2, 3, 4, 2))
    with pytest.raises(GraphError, match="a copy of 8 nested loops; supported: up to 6"):
        build.move("tile", (x,), repeats=(1, 2, 2, 2, 2))


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_every_part_of_a_tile_is_the_tensor(shape: Shape) -> None:
    build = Moved()
    x = build.activation(shape)
    (y,) = build.move("tile", (x,), repeats=(1, *(2 for _ in shape[1:])))
    for offset in (0, 1):
        begin = (0, *(n * offset for n in shape[1:]))
        part = Moved()
        part.tensors, part.nodes = list(build.tensors), list(build.nodes)
        (z,) = part.move("strided_slice", (y,), begin=begin, stride=(1,) * len(shape), size=shape, shape=shape)
        assert_undone(part, x, z)


@pytest.mark.parametrize("op", ["resize_nearest_neighbor", "resize_bilinear"])
@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0)])
def test_a_resize_to_the_same_size(op: str, flags: tuple[int, int]) -> None:
    for size in ((1, 1), (1, 7), (5, 3), (8, 8)):
        build = Moved()
        x = build.activation((1, *size, 3))
        assert_undone(build, x, build.move(op, (x,), size=size, align_corners=flags[0], half_pixel=flags[1])[0])


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_resize_up_and_down_again(factor: int) -> None:
    build = Moved()
    x = build.activation((1, 4, 3, 2))
    (y,) = build.move("resize_nearest_neighbor", (x,), size=(4 * factor, 3 * factor), align_corners=0, half_pixel=0)
    assert_undone(build, x, build.move("resize_nearest_neighbor", (y,), size=(4, 3), align_corners=0, half_pixel=0)[0])


@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0)])
def test_a_bilinear_resize_stays_between_its_neighbours(flags: tuple[int, int]) -> None:
    """No value lies outside of those of the image; one colour stays one colour."""
    build = Moved()
    x = build.activation((1, 5, 4, 2))
    (y,) = build.move("resize_bilinear", (x,), size=(11, 9), align_corners=flags[0], half_pixel=flags[1])
    image, found = answers(build, x, y)
    for channel in range(2):
        assert image[..., channel].min() <= found[..., channel].min()
        assert found[..., channel].max() <= image[..., channel].max()
    for colour in (-128, -1, 0, 127):
        one = np.full((1, 5, 4, 2), colour, np.int8)
        assert np.all(simulate(build.graph(x, y), one)[0] == colour)


def test_corners_that_are_aligned_keep_their_pixels() -> None:
    build = Moved()
    x = build.activation((1, 3, 3, 1))
    (y,) = build.move("resize_bilinear", (x,), size=(7, 5), align_corners=1, half_pixel=0)
    image, found = answers(build, x, y)
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    assert [found[0, i, j, 0] for i, j in corners] == [image[0, i, j, 0] for i, j in corners]


def test_quantizing_there_and_back_loses_at_most_half_a_step() -> None:
    """To half the scale and back: every value that was not saturated returns."""
    build = Moved()
    x = build.activation((1, 256), 0.5, 0)
    y = build.node("quantize", (x,), build.activation((1, 256), 0.25, 0))
    z = build.node("quantize", (y,), build.activation((1, 256), 0.5, 0))
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    found = simulate(build.graph(x, z), every)[0]
    inside = (every >= -64) & (every <= 63)
    assert np.array_equal(found[inside], every[inside])
    assert np.all(found[every < -64] == -64) and np.all(found[every > 63] == 64)


def test_dequantizing_what_was_quantized_is_near() -> None:
    """Half a step at most, inside of the range."""
    build = Moved()
    x = build.tensor(Tensor("x", (1, 500), "float32"))
    y = build.node("quantize", (x,), build.activation((1, 500), 0.03, 10))
    z = build.node("dequantize", (y,), build.tensor(Tensor("z", (1, 500), "float32")))
    values = np.random.default_rng(1).uniform(-4.1, 3.4, (1, 500)).astype(np.float32)
    found = simulate(build.graph(x, z), values)[0]
    assert found.dtype == np.float32 and np.abs(found - values).max() <= 0.015 * (1 + 1e-5)
