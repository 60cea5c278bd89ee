"""Scales, zero points, bounds and constants of single ONNX nodes; quantized constants against onnxruntime."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from oracles import onnxruntime_session

from firmware_export.graph import GraphError, Quantization
from firmware_export.onnx_quantization import (
    bounds_of,
    constant_value,
    declared_shape,
    matches_declared,
    narrowed,
    quantization_of,
    quantized_constant,
    refuse_activation_type,
)


def node(op_type: str, constants: dict[str, Any], **attributes: Any) -> tuple[NodeProto, dict[str, np.ndarray]]:
    """A node that reads "x" and then these constants."""
    return helper.make_node(op_type, ["x", *constants], ["y"], **attributes), {k: np.asarray(v) for k, v in constants.items()}


def test_one_scale_for_the_whole_tensor() -> None:
    for shape in ((), (1,)):
        constants = {"s": np.full(shape, 0.25, np.float32), "z": np.full(shape, -7, np.int8)}
        made, known = node("QuantizeLinear", constants)
        quantization, dtype = quantization_of(made, 4, known)
        assert quantization == Quantization.per_tensor(0.25, -7) and dtype == "int8"


@pytest.mark.parametrize(("axis", "expected"), [(None, 1), (0, 0), (3, 3), (-1, 3), (-4, 0)])
def test_one_scale_for_each_channel(axis: int | None, expected: int) -> None:
    attributes = {} if axis is None else {"axis": axis}
    made, constants = node("DequantizeLinear", {"s": np.float32([0.1, 0.2]), "z": np.zeros(2, np.int8)}, **attributes)
    quantization, _ = quantization_of(made, 4, constants)
    assert quantization.axis == expected and quantization.scale.tolist() == np.float32([0.1, 0.2]).tolist()


def test_without_a_zero_point_it_is_uint8_and_zero() -> None:
    made, constants = node("QuantizeLinear", {"s": np.float32(0.5)})
    quantization, dtype = quantization_of(made, 2, constants)
    assert dtype == "uint8" and quantization.zero_point.tolist() == [0]


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        ({"s": np.float64(0.1)}, "the scale is float64"),
        ({"s": np.float32([[0.1]])}, r"the scale is float32 \(1, 1\)"),
        ({"s": np.float32(0)}, "is 0.0; supported: finite scales above 0"),
        ({"s": np.float32([0.1, -0.1]), "z": np.zeros(2, np.int8)}, "above 0"),
        ({"s": np.float32(np.nan)}, "above 0"),
        ({"s": np.float32([0.1, 0.1]), "z": np.int8(0)}, "2 scales and 1 zero points"),
    ],
)
def test_scales_that_are_none_are_refused(constants: dict[str, Any], words: str) -> None:
    made, known = node("QuantizeLinear", constants)
    with pytest.raises(GraphError, match=words):
        quantization_of(made, 2, known)


def test_activations_are_int8_with_one_scale() -> None:
    refuse_activation_type("int8", Quantization.per_tensor(0.1, 0), "x")
    with pytest.raises(GraphError, match=r"'x' is int16 .16 bits.; supported: 8 bits"):
        refuse_activation_type("int16", Quantization.per_tensor(0.1, 0), "x")
    channels = Quantization(np.float32([0.1, 0.2]), np.zeros(2, np.int64), 1)
    with pytest.raises(GraphError, match="'x' is quantized per channel"):
        refuse_activation_type("int8", channels, "x")


def test_bounds() -> None:
    low, high = np.float32(-1), np.float32(4)
    assert bounds_of(*node("Relu", {})) == (0.0, math.inf)
    assert bounds_of(*node("Clip", {"a": low, "b": high})) == (-1.0, 4.0)
    assert bounds_of(*node("Clip", {"a": low})) == (-1.0, math.inf)
    assert bounds_of(helper.make_node("Clip", ["x", "", "b"], ["y"]), {"b": high}) == (-math.inf, 4.0)
    assert bounds_of(*node("Clip", {}, min=0.0, max=6.0)) == (0.0, 6.0)
    assert bounds_of(*node("Clip", {})) == (-math.inf, math.inf)
    with pytest.raises(GraphError, match="has 2 values; expected 1"):
        bounds_of(*node("Clip", {"a": np.float32([1, 2])}))
    with pytest.raises(GraphError, match="bound 'a' is not a constant"):
        bounds_of(node("Clip", {"a": low})[0], {})


def test_bounds_together() -> None:
    assert narrowed((0.0, math.inf), (-1.0, 6.0)) == (0.0, 6.0)
    assert narrowed((0.0, 1.0), (1.0, 2.0)) == (1.0, 1.0)
    with pytest.raises(GraphError, match="leave no value"):
        narrowed((0.0, 1.0), (3.0, 4.0))


@pytest.mark.parametrize("attributes", [{"min": math.nan}, {"max": math.nan}, {"min": 3}, {"max": "6"}])
def test_bounds_that_are_no_numbers_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="expected a number"):
        bounds_of(*node("Clip", {}, **attributes))
    with pytest.raises(GraphError, match="a bound of Clip is nan"):
        bounds_of(*node("Clip", {"a": np.float32(math.nan)}))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value": numpy_helper.from_array(np.arange(3, dtype=np.int8))}, np.arange(3, dtype=np.int8)),
        ({"value_float": 0.5}, np.float32(0.5)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_floats": [0.5, 1.5]}, np.float32([0.5, 1.5])),
        ({"value_ints": [1, 2]}, np.int64([1, 2])),
    ],
)
def test_constants(attributes: dict[str, Any], expected: np.ndarray) -> None:
    found = constant_value(helper.make_node("Constant", [], ["y"], **attributes), None)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_a_constant_of_texts_is_refused() -> None:
    with pytest.raises(GraphError, match="supported: tensors, floats and integers"):
        constant_value(helper.make_node("Constant", [], ["y"], value_string="text"), None)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantized_constants_are_those_of_onnxruntime(axis: int | None) -> None:
    """Ties (0.5, 1.5, ...) and values beyond int8 are among them."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 60, (8, 6)), np.arange(-24, 24).reshape(8, 6) / 2 + 0.25]).astype(np.float32)
    shape = () if axis is None else (values.shape[axis],)
    scale = (0.5 * np.exp2(rng.integers(-1, 2, shape))).astype(np.float32)
    zero_point = rng.integers(-20, 20, shape).astype(np.int8)
    attributes = {} if axis is None else {"axis": axis}
    made, constants = node("QuantizeLinear", {"s": scale, "z": zero_point}, **attributes)
    graph = helper.make_graph(
        [made],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, values.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT8, values.shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (wanted,) = onnxruntime_session(model.SerializeToString()).run(None, {"x": values})
    assert np.array_equal(quantized_constant(made, constants | {"x": values}), wanted)


def value_info(shape: list[int | str] | None) -> Any:
    return helper.make_tensor_value_info("v", TensorProto.FLOAT, shape)


def test_declared_shapes() -> None:
    assert declared_shape(value_info([1, 3, 4, 5])) == (1, 3, 4, 5)
    assert declared_shape(value_info(["n", 3])) == (1, 3)
    assert declared_shape(value_info([7])) == (7,)
    for shape, words in (
        (None, "has no shape"),
        ([1, "h"], "dynamic shape"),
        (["n"], "dynamic shape"),
        ([1, 0], "dynamic shape"),
        ([1, -3], "dynamic shape"),
        ([1] * 7, "supported: up to"),
        ([1, 2**30], "supported: up to"),
    ):
        with pytest.raises(GraphError, match=words):
            declared_shape(value_info(shape))


def test_declared_outputs_match_where_they_say_anything() -> None:
    for shape in (None, [], [1, 5], ["n", 5], ["n", "m"]):
        assert matches_declared(value_info(shape), (1, 5))
    for shape in ([1, 6], [1, 5, 1], [2, 5]):
        assert not matches_declared(value_info(shape), (1, 5))
