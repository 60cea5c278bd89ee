"""Flattened images of any size and whatever reads them, against onnxruntime; nothing transposed where weights can be."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_agreement import agrees, kinds, read
from qdq_builder import Qdq

from firmware_export.graph import Graph, GraphError, Quantization, Tensor
from firmware_export.onnx_rearrange import Rearrangements

SHAPE = (1, 3, 4, 6)
"""Not square, several channels: every wrong order shows."""
STORED = Quantization.per_tensor(0.1, 3)


def flat(net: Qdq, x: str, op_type: str = "Flatten") -> str:
    """An image as one row, by one of the ways that exporters write it."""
    count = int(np.prod(net.shapes[x]))
    if op_type == "Flatten":
        return net.bare("Flatten", x, (1, count))
    return net.bare("Reshape", x, (1, count), net.constant(np.array([1, -1], np.int64)))


@pytest.mark.parametrize("op_type", ["Flatten", "Reshape"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (1, 5, 7, 2), (1, 2, 1, 9), (1, 4, 1, 1), (1, 1, 5, 3)])
def test_dense_layers_behind_images(shape: tuple[int, ...], op_type: str) -> None:
    """The weights take on our order: no transpose is left."""
    net = Qdq(shape, 1)
    graph = agrees(net.model(net.gemm(flat(net, net.input(), op_type), 5)))
    assert kinds(graph) == ["reshape", "fully_connected"]


def test_dense_layers_with_untransposed_weights() -> None:
    net = Qdq(SHAPE, 1)
    assert kinds(agrees(net.model(net.gemm(flat(net, net.input()), 5, trans_b=0)))) == ["reshape", "fully_connected"]


def test_two_dense_layers_read_one_flattened_image() -> None:
    net = Qdq(SHAPE, 1)
    x = flat(net, net.conv(net.input(), 4))
    graph = agrees(net.model(net.add(net.gemm(x, 5), net.gemm(x, 5))), steps=2)
    assert kinds(graph).count("transpose") == 0 and kinds(graph).count("fully_connected") == 2


def test_a_quantizer_and_a_relu_keep_the_order() -> None:
    net = Qdq(SHAPE, 1)
    x = flat(net, net.conv(net.input(), 4, activation=""))
    relu = net.quantized(net.node("Relu", [x]), 0.03, -128, net.shapes[x])
    assert "transpose" not in kinds(agrees(net.model(net.gemm(relu, 5))))


def test_a_flattened_image_as_output_is_in_the_files_order() -> None:
    net = Qdq(SHAPE, 1)
    y = net.same_scale("Flatten", net.conv(net.input(), 4), (1, 96))
    assert kinds(agrees(net.model(y)))[-2:] == ["transpose", "reshape"]


@pytest.mark.parametrize("op_type", ["Sigmoid", "Softmax"])
def test_other_readers_get_the_files_order(op_type: str) -> None:
    net = Qdq(SHAPE, 1)
    x = flat(net, net.conv(net.input(), 4, activation=""))
    y = net.quantized(net.node(op_type, [x]), 1 / 256, -128, (1, 96))
    assert "transpose" in kinds(agrees(net.model(y)))


def test_a_sum_with_a_stored_row() -> None:
    net = Qdq(SHAPE, 1)
    row = net.constant(net.rng.integers(-100, 100, (1, 72)).astype(np.int8))
    inputs = [row, net.constant(np.float32(0.01)), net.constant(np.int8(5))]
    y = net.node("Add", [flat(net, net.input()), net.node("DequantizeLinear", inputs)])
    assert "transpose" in kinds(agrees(net.model(net.quantized(y, 0.02, 0, (1, 72)))))


def test_a_matmul_over_rows_of_an_image() -> None:
    """[1, c * h, w] times [w, n]: the last axis alone is reduced, so that reordered weights would not do."""
    net = Qdq(SHAPE, 1)
    rows = net.bare("Reshape", net.input(), (1, 12, 6), net.constant(np.array([1, 12, 6], np.int64)))
    weights, _ = net.weights((6, 5), 0.02, per_channel=False)
    y = net.quantized(net.node("MatMul", [rows, weights]), 0.05, 3, (1, 12, 5))
    assert "transpose" in kinds(agrees(net.model(y)))


def test_reshapes_that_move_channels() -> None:
    net = Qdq(SHAPE, 1)
    x = net.conv(net.input(), 4)
    mixed = net.bare("Reshape", x, (1, 6, 4, 4), net.constant(np.array([1, 6, 4, 4], np.int64)))
    agrees(net.model(net.conv(mixed, 3)), steps=2)


def test_a_row_that_becomes_an_image() -> None:
    net = Qdq((1, 12), 1)
    x = net.gemm(net.input(), 30)
    image = net.bare("Reshape", x, (1, 3, 5, 2), net.constant(np.array([1, 3, 5, 2], np.int64)))
    assert kinds(agrees(net.model(net.conv(image, 4)), steps=2)) == ["fully_connected", "reshape", "transpose", "conv2d"]


def test_an_image_flattened_and_made_an_image_again_is_itself() -> None:
    net = Qdq(SHAPE, 1)
    x = flat(net, net.conv(net.input(), 4))
    again = net.bare("Reshape", x, (1, 4, 4, 6), net.constant(np.array([1, 4, 4, 6], np.int64)))
    assert "transpose" not in kinds(agrees(net.model(net.conv(again, 3)), steps=2))


def test_a_channel_shuffle() -> None:
    """Groups of channels are interleaved through five dimensions."""
    net = Qdq((1, 6, 4, 5), 1)
    x = net.conv(net.input(), 6)
    parts = net.bare("Reshape", x, (1, 2, 3, 4, 5), net.constant(np.array([1, 2, 3, 4, 5], np.int64)))
    turned = net.bare("Transpose", parts, (1, 3, 2, 4, 5), perm=[0, 2, 1, 3, 4])
    whole = net.bare("Reshape", turned, (1, 6, 4, 5), net.constant(np.array([1, 6, 4, 5], np.int64)))
    agrees(net.model(net.conv(whole, 3, 1, pads=(0, 0, 0, 0))), steps=2)


@pytest.mark.parametrize("perm", [(0, 2, 3, 1), (0, 2, 1, 3), (0, 1, 3, 2), (0, 1, 2, 3)])
def test_transposes_before_a_dense_layer(perm: tuple[int, ...]) -> None:
    net = Qdq(SHAPE, 1)
    turned = net.bare("Transpose", net.input(), tuple(SHAPE[axis] for axis in perm), perm=list(perm))
    agrees(net.model(net.gemm(flat(net, turned), 5)))


def test_weights_that_do_not_fit_are_refused() -> None:
    net = Qdq(SHAPE, 1)
    net.shapes[row := flat(net, net.input())] = (1, 71)
    with pytest.raises(GraphError, match=r"reads 72 values with weights \(5, 71\); they do not fit"):
        read(net.model(net.gemm(row, 5)))


# The class itself


def started(shape: tuple[int, ...]) -> tuple[Graph, Rearrangements, list[int]]:
    """A graph of one activation, and what was spent."""
    graph, spent = Graph([Tensor("x", shape, "int8", STORED)], [], (0,), ()), list[int]()
    return graph, Rearrangements(graph, spent.append), spent


def values(graph: Graph, index: int, fed: np.ndarray) -> np.ndarray:
    """What a tensor holds, by the reshapes and transposes that lead to it."""
    found = {0: fed}
    for node in graph.nodes:
        source = found[node.inputs[0]]
        found[node.outputs[0]] = (
            source.reshape(node.integers("shape")) if node.op == "reshape" else source.transpose(node.integers("perm"))
        )
    return found[index]


def test_the_same_shape_is_no_node() -> None:
    graph, moves, spent = started((1, 4, 6, 3))
    assert moves.reshape(0, (1, 3, 4, 6), "y") == 0 and graph.nodes == [] and spent == []


@pytest.mark.parametrize(
    "shape", [(1, 72), (1, 3, 24), (12, 6), (72,), (1, 3, 2, 2, 6), (1, 6, 4, 3), (1, 72, 1, 1), (1, 1, 12, 6)]
)
def test_every_shape_in_the_files_order(shape: tuple[int, ...]) -> None:
    """numpy on NCHW says what the elements are."""
    graph, moves, spent = started((1, 4, 6, 3))
    index = moves.in_file_order(moves.reshape(0, shape, "y"))
    nchw = np.arange(72).reshape(1, 3, 4, 6)
    expected = nchw.reshape(shape)
    found = values(graph, index, nchw.transpose(0, 2, 3, 1))
    assert np.array_equal(found, expected.transpose(0, 2, 3, 1) if len(shape) == 4 else expected)
    assert graph.tensors[index].shape == found.shape and graph.tensors[index].quantization == STORED
    assert spent and min(spent) >= 72


def test_what_is_computed_from_a_flattened_image_is_flattened_too() -> None:
    graph, moves, _ = started((1, 4, 6, 3))
    row = moves.reshape(0, (1, 72), "row")
    graph.tensors.append(graph.tensors[row])
    other = len(graph.tensors) - 1
    assert moves.in_file_order(other) == other
    moves.pass_on(row, other)
    assert moves.in_file_order(other) != other
    moves.pass_on(0, other)
    assert moves.in_file_order(other) != other, "an image that is none changes nothing"
