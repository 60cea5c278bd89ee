"""Operators on constants, computed as ONNX's own reference evaluator computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from firmware_export.graph import GraphError
from firmware_export.onnx_fold import FOLDED, MAX_FOLDED, folded, shape_values
from firmware_export.onnx_tensors import attributes_of

INT, FLOAT = np.int64, np.float32


def ints(*values: int) -> np.ndarray:
    return np.array(values, INT)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(-3, 3, shape).astype(FLOAT)


IMAGE = np.arange(24, dtype=INT).reshape(2, 3, 4)
CASES: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("Add", [ints(1, 2, 3), ints(10)], {}),
    ("Add", [floats(2, 3), floats(3)], {}),
    ("Sub", [IMAGE, ints(1, 2, 3, 4)], {}),
    ("Mul", [IMAGE, IMAGE], {}),
    ("Mul", [floats(4), floats(1)], {}),
    ("Div", [ints(7, -7, 7, -7, 6), ints(2, 2, -2, -2, 3)], {}),
    ("Div", [floats(5), floats(5)], {}),
    ("Neg", [ints(3, -4)], {}),
    ("Min", [ints(3, -4), ints(1, 1)], {}),
    ("Max", [ints(3, -4), ints(1, 1)], {}),
    ("Equal", [ints(3, -4), ints(3, 1)], {}),
    ("Where", [np.array([True, False]), ints(1, 2), ints(3, 4)], {}),
    ("Floor", [floats(6)], {}),
    ("Sqrt", [np.abs(floats(6))], {}),
    ("Cast", [floats(7)], {"to": TensorProto.INT64}),
    ("Cast", [ints(3, -1)], {"to": TensorProto.FLOAT}),
    ("Cast", [ints(3, 0)], {"to": TensorProto.BOOL}),
    ("Clip", [ints(-200, 3, 200), np.array(-127, INT), np.array(127, INT)], {}),
    ("Clip", [ints(-200, 3, 200), np.array(-127, INT)], {}),
    ("Concat", [ints(1), ints(2, 3), ints(4)], {"axis": 0}),
    ("Concat", [IMAGE, IMAGE[:, :1]], {"axis": -2}),
    ("ConstantOfShape", [ints(2, 3)], {"value": numpy_helper.from_array(ints(7))}),
    ("ConstantOfShape", [ints(4)], {}),
    ("Expand", [ints(1, 2, 3), ints(2, 3)], {}),
    ("Expand", [IMAGE[:, :1], ints(2, 3, 1)], {}),
    ("Flatten", [IMAGE], {"axis": 2}),
    ("Flatten", [IMAGE], {}),
    ("Gather", [ints(5, 6, 7), np.array(1, INT)], {}),
    ("Gather", [ints(5, 6, 7), ints(-1, 0)], {}),
    ("Gather", [IMAGE, ints(2, 0)], {"axis": 1}),
    ("Identity", [IMAGE], {}),
    ("Range", [np.array(1, INT), np.array(9, INT), np.array(3, INT)], {}),
    ("Range", [np.array(5, INT), np.array(-5, INT), np.array(-4, INT)], {}),
    ("ReduceProd", [ints(2, 3, 4)], {"keepdims": 0}),
    ("ReduceProd", [IMAGE + 1, ints(1)], {}),
    ("Reshape", [IMAGE, ints(4, -1)], {}),
    ("Reshape", [IMAGE, ints(0, -1)], {}),
    ("Size", [IMAGE], {}),
    ("Slice", [IMAGE, ints(1), ints(3), ints(2)], {}),
    ("Slice", [IMAGE, ints(0, -3), ints(2, -1), ints(0, -1)], {}),
    ("Slice", [ints(1, 2, 3, 4, 5), ints(4), ints(-6), ints(0), ints(-2)], {}),
    ("Slice", [ints(1, 2, 3, 4, 5), ints(1), ints(2**62)], {}),
    ("Squeeze", [IMAGE[:1], ints(0)], {}),
    ("Squeeze", [IMAGE[:1, :1]], {}),
    ("Transpose", [IMAGE], {}),
    ("Transpose", [IMAGE], {"perm": [1, 2, 0]}),
    ("Unsqueeze", [IMAGE, ints(0, -1)], {}),
    ("Unsqueeze", [np.array(3, INT), ints(0)], {}),
]


def outside(op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    """The result of ONNX's reference evaluator."""
    names = [f"x{place}" for place in range(len(inputs))]
    edges = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, inputs, strict=True)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)
    graph = helper.make_graph([helper.make_node(op_type, names, ["y"], **attributes)], "g", edges, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return np.asarray(ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'x'.join(map(str, case[1][0].shape))}")
def test_equals_the_reference(case: tuple[str, list[np.ndarray], dict[str, Any]]) -> None:
    op_type, inputs, attributes = case
    node = helper.make_node(op_type, [], ["y"], **attributes)
    found, wanted = folded(op_type, inputs, attributes_of(node)), outside(op_type, inputs, attributes)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


def test_every_rule_has_a_case() -> None:
    assert {case[0] for case in CASES} == FOLDED.keys() - {"Dropout"}


def test_dropout_keeps_its_input() -> None:
    assert np.array_equal(folded("Dropout", [IMAGE, np.array(0.5, FLOAT)], {}), IMAGE)


def test_inputs_are_not_changed() -> None:
    before = IMAGE.copy()
    result = folded("Slice", [IMAGE, ints(0), ints(1)], {})
    result[...] = 99
    folded("Neg", [IMAGE], {})
    assert np.array_equal(IMAGE, before)


def test_shape_values() -> None:
    assert shape_values((1, 3, 4), {}).tolist() == [1, 3, 4]
    assert shape_values((1, 3, 4), {"start": -2}).tolist() == [3, 4]
    assert shape_values((1, 3, 4), {"start": 0, "end": 1}).tolist() == [1]
    assert shape_values((), {}).tolist() == [] and shape_values((5,), {}).dtype == INT


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "words"),
    [
        ("ConstantOfShape", [ints(2**20, 2**20)], {}, "1,099,511,627,776 elements; supported: up to"),
        ("Expand", [ints(1), ints(2**20, 2**20)], {}, "elements; supported: up to"),
        ("Range", [ints(0), ints(2**60), ints(1)], {}, "elements; supported: up to"),
        ("Range", [ints(0), ints(5), ints(0)], {}, "step 0"),
        ("Div", [ints(1), ints(0)], {}, "division of integers by 0"),
        ("Cast", [np.array([np.nan], FLOAT)], {"to": TensorProto.INT64}, "NaN or infinity"),
        ("Cast", [ints(1)], {"to": TensorProto.FLOAT16}, "FLOAT16; supported"),
        ("Gather", [IMAGE, ints(0)], {"axis": 3}, "along axis 3"),
        ("Gather", [IMAGE, floats(1)], {}, "Gather of float32 indexes"),
        ("Slice", [IMAGE, ints(0), ints(1), ints(5)], {}, "axis 5"),
        ("Slice", [IMAGE, ints(0), ints(1), ints(0), ints(0)], {}, "step 0"),
        ("Reshape", [IMAGE, ints(5, 5)], {}, "changes the number of elements"),
        ("Reshape", [IMAGE, np.zeros(65, INT)], {}, "up to 64 integers"),
        ("Unsqueeze", [np.zeros((1,) * 6, INT), ints(0)], {}, "at most 6 dimensions"),
        ("Add", [np.zeros((2**13, 1), INT), np.zeros((1, 2**13), INT)], {}, "67,108,864 elements; supported: up to"),
    ],
)
def test_what_makes_no_sense_or_is_too_large_is_refused(
    op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any], words: str
) -> None:
    with pytest.raises(GraphError, match=words):
        folded(op_type, inputs, attributes)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("Add", [ints(1, 2), ints(1, 2, 3)], {}),
        ("Gather", [ints(1, 2), ints(9)], {}),
        ("Concat", [ints(1), IMAGE], {"axis": 0}),
        ("Transpose", [IMAGE], {"perm": (0, 0, 1)}),
        ("ConstantOfShape", [ints(-3)], {}),
        ("Where", [ints(1)], {}),
    ],
)
def test_wrong_numbers_end_in_errors_that_the_reader_names(
    op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    with pytest.raises((GraphError, ValueError, IndexError, TypeError)):
        folded(op_type, inputs, attributes)


def test_results_stay_within_the_limit() -> None:
    half = np.zeros(MAX_FOLDED // 2 + 1, np.int8)
    with pytest.raises(GraphError, match="Concat of constants gives"):
        folded("Concat", [half, half], {"axis": 0})
