"""How the arrays of an .npz file are turned for an .onnx model: as the file declares them, [n, c, h, w], whatever the sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build

from firmware_export.graph import Graph
from firmware_export.inputs import read_inputs
from recipes.artifacts import DataError

Shape = tuple[int, ...]


def image_graph(shape: Shape) -> Graph:
    """A model of one image [1, h, w, c]."""
    build = Build(1)
    x = build.activation(shape, 0.5, 0, name="x")
    return build.graph(x, build.relu(x, (-5, 5)))


def read(folder: Path, array: np.ndarray, graph: Graph, *, onnx: bool) -> np.ndarray:
    """The array as the model gets it."""
    np.savez(folder / "inputs.npz", x=array)
    return np.asarray(read_inputs(folder / "inputs.npz", graph, onnx=onnx).arrays[0])


def numbered(shape: Shape, count: int = 2) -> np.ndarray:
    """int8, every element of an image another number."""
    size = int(np.prod(shape))
    assert size <= 128
    return np.arange(count * size, dtype=np.int64).reshape(count, *shape).astype(np.int8)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 6, 6), (5, 5, 5), (4, 1, 4), (4, 4, 1), (1, 4, 4), (3, 3, 3), (6, 1, 1)])
def test_images_as_the_file_declares_them(shape: Shape, tmp_path: Path) -> None:
    """[n, c, h, w] becomes [n, h, w, c], also where the sizes do not tell one axis from the other."""
    channels, height, width = shape
    array = numbered(shape)
    found = read(tmp_path, array, image_graph((1, height, width, channels)), onnx=True)
    assert found.shape == (2, 1, height, width, channels)
    for channel, row, column in np.ndindex(*shape):
        assert np.array_equal(found[:, 0, row, column, channel], array[:, channel, row, column])


@pytest.mark.parametrize("shape", [(4, 1, 4), (4, 4, 1), (1, 4, 4), (3, 1, 5)])
def test_dimensions_of_one_may_be_missing(shape: Shape, tmp_path: Path) -> None:
    channels, height, width = shape
    array = numbered(shape)
    short = array.reshape(2, *(size for size in shape if size > 1))
    graph = image_graph((1, height, width, channels))
    assert np.array_equal(read(tmp_path, short, graph, onnx=True), read(tmp_path, array, graph, onnx=True))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 4), (2, 7, 3)])
def test_images_that_the_file_has_as_we_do_stay(shape: Shape, tmp_path: Path) -> None:
    """A model that turns its input itself declares [n, h, w, c]."""
    array = numbered(shape)
    assert np.array_equal(read(tmp_path, array, image_graph((1, *shape)), onnx=True)[:, 0], array)


@pytest.mark.parametrize("shape", [(3, 4, 5), (5, 5, 5), (4, 1, 4)])
def test_a_tflite_model_has_our_layout(shape: Shape, tmp_path: Path) -> None:
    array = numbered(shape)
    assert np.array_equal(read(tmp_path, array, image_graph((1, *shape)), onnx=False)[:, 0], array)


@pytest.mark.parametrize("onnx", [True, False])
def test_real_numbers_are_turned_as_integers_are(onnx: bool, tmp_path: Path) -> None:
    array = numbered((5, 5, 5))
    graph = image_graph((1, 5, 5, 5))
    real = read(tmp_path, array.astype(np.float32) * np.float32(0.5), graph, onnx=onnx)
    assert np.array_equal(real, read(tmp_path, array, graph, onnx=onnx))


@pytest.mark.parametrize("shape", [(5, 3, 4), (4, 3, 5), (3, 4, 6), (60,), (3, 20)])
def test_other_shapes_are_refused_and_the_right_one_is_named(shape: Shape, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the model takes float32 or int8 \(n, 3, 4, 5\)"):
        read(tmp_path, numbered(shape), image_graph((1, 4, 5, 3)), onnx=True)
