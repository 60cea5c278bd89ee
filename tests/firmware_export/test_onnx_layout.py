"""NCHW and NHWC: shapes and element orders against numpy's own transposes and reshapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracles import onnxruntime_session

from firmware_export.graph import GraphError
from firmware_export.onnx_layout import onnx_shape, our_shape, rearranged, same_order, usual_order


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 1, 4, 5), (1, 7, 1, 1), (1, 12), (1, 3, 4), (5,), ()])
def test_shapes_there_and_back(shape: tuple[int, ...]) -> None:
    assert onnx_shape(our_shape(shape)) == shape
    zeros = np.zeros(shape)
    assert our_shape(shape) == (zeros.transpose(0, 2, 3, 1) if zeros.ndim == 4 else zeros).shape


@pytest.mark.parametrize("shape", list(itertools.product([1], [1, 2, 3], [1, 2, 4], [1, 3])))
def test_the_order_names_the_element_of_the_file_at_each_place(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape)
    ours = values.transpose(0, 2, 3, 1).reshape(-1)
    order = usual_order(shape)
    assert np.array_equal(ours, values.reshape(-1) if order is None else values.reshape(-1)[order])
    trivial = np.array_equal(ours, values.reshape(-1))
    assert same_order(order, None) == trivial


def test_orders_compare_as_what_they_are() -> None:
    identity, turned = np.arange(4, dtype=np.int32), np.array([0, 2, 1, 3], np.int32)
    assert same_order(None, None) and same_order(identity, None) and same_order(None, identity)
    assert same_order(turned, turned.copy()) and not same_order(turned, None) and not same_order(turned, identity)


def test_an_activation_that_no_board_can_hold_has_no_order() -> None:
    with pytest.raises(GraphError, match="supported: up to 16,777,216 elements"):
        usual_order((1, 2, 5000, 5000))


CASES = [
    ("Flatten", {}, None, (1, 3, 4, 5)),
    ("Flatten", {"axis": 0}, None, (1, 3, 4, 5)),
    ("Flatten", {"axis": 4}, None, (1, 3, 4, 5)),
    ("Flatten", {"axis": -2}, None, (1, 3, 4, 5)),
    ("Reshape", {}, (1, 60), (1, 3, 4, 5)),
    ("Reshape", {}, (0, -1), (1, 3, 4, 5)),
    ("Reshape", {}, (1, 0, -1), (1, 3, 4, 5)),
    ("Reshape", {}, (-1,), (1, 3, 4, 5)),
    ("Reshape", {"allowzero": 1}, (3, 20), (1, 3, 4, 5)),
    ("Squeeze", {}, (2, 3), (1, 6, 1, 1)),
    ("Squeeze", {}, (-1,), (1, 6, 1, 1)),
    ("Squeeze", {}, None, (1, 6, 1, 1)),
    ("Unsqueeze", {}, (2, 3), (1, 6)),
    ("Unsqueeze", {}, (-1, 0), (3, 2)),
    ("Identity", {}, None, (1, 3, 4, 5)),
    ("Dropout", {}, None, (1, 3, 4, 5)),
]


@pytest.mark.parametrize(("op_type", "attributes", "argument", "shape"), CASES)
def test_shapes_after_rearranging_are_those_of_onnxruntime(
    op_type: str, attributes: dict[str, int], argument: tuple[int, ...] | None, shape: tuple[int, ...]
) -> None:
    constants = [] if argument is None else [numpy_helper.from_array(np.array(argument, np.int64), "a")]
    node = helper.make_node(op_type, ["x", *(c.name for c in constants)], ["y"], **attributes)
    x, y = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    )
    graph = helper.make_graph([node], "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    (wanted,) = onnxruntime_session(model.SerializeToString()).run(None, {"x": values})
    assert rearranged(op_type, attributes, argument, shape) == wanted.shape
    assert np.array_equal(wanted.reshape(-1), values.reshape(-1)), "and no element has moved"


@pytest.mark.parametrize(
    ("op_type", "attributes", "argument", "words"),
    [
        ("Flatten", {"axis": 9}, None, "axes"),
        ("Flatten", {"axis": -9}, None, "axes"),
        ("Reshape", {}, None, "fixed input shape"),
        ("Reshape", {}, (-1, -1), "not a shape"),
        ("Reshape", {}, (-2, 3), "not a shape"),
        ("Reshape", {}, (7, 9), "changes the number of elements"),
        ("Reshape", {}, (7, -1), "changes the number of elements"),
        ("Reshape", {"allowzero": 1}, (0, 60), "not a shape"),
        ("Reshape", {}, (1,) * 7, "not a shape"),
        ("Squeeze", {}, (1,), "only sizes of 1"),
        ("Squeeze", {}, (8,), "axes"),
        ("Unsqueeze", {}, (), "expected different axes"),
        ("Unsqueeze", {}, (0, 0), "expected different axes"),
        ("Unsqueeze", {}, (0, 1, 2), "at most 6"),
        ("Unsqueeze", {}, (99,), "axes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    op_type: str, attributes: dict[str, int], argument: tuple[int, ...] | None, words: str
) -> None:
    with pytest.raises(GraphError, match=words):
        rearranged(op_type, attributes, argument, (1, 3, 4, 5))


def test_axes_as_attributes_before_opset_13() -> None:
    assert rearranged("Squeeze", {"axes": (2, 3)}, None, (1, 6, 1, 1)) == (1, 6)
    assert rearranged("Unsqueeze", {"axes": (2, 3)}, None, (1, 6)) == (1, 6, 1, 1)
