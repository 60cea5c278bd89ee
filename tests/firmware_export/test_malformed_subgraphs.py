"""Hostile constant subgraphs and float chains in ONNX files: refused in one line, soon, and without much memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from qdq_builder import Qdq

from firmware_export.graph import GraphError
from firmware_export.read_onnx import read_onnx_bytes

SHAPE = (1, 3, 4, 6)
Target = Callable[[Qdq, str], str]


def ints(net: Qdq, *values: int) -> str:
    return net.constant(np.array(values, np.int64))


def reshaped_to(target: Target) -> bytes:
    """A model whose Reshape has a target that is computed."""
    net = Qdq(SHAPE, 1)
    x = net.input()
    y = net.node("Reshape", [x, target(net, x)])
    return net.model(net.quantized(y, *net.scales[x], (1, 72))).SerializeToString()


def refused(data: bytes) -> str:
    started = time.process_time()
    with pytest.raises(GraphError) as caught:
        read_onnx_bytes(data)
    assert time.process_time() - started < 3
    text = str(caught.value)
    assert text.isprintable() and len(text) < 600
    return text


def doubled(net: Qdq, start: str, times: int) -> str:
    """A list that is joined with itself again and again."""
    for _ in range(times):
        start = net.node("Concat", [start, start], axis=0)
    return start


def summed(net: Qdq, times: int) -> str:
    """A large constant of one byte in the file, and its product, again and again."""
    large = net.node("ConstantOfShape", [ints(net, 2**20)])
    for _ in range(times):
        large = net.node("Add", [large, net.node("ReduceProd", [large], keepdims=0)])
    return large


TARGETS: dict[str, tuple[Target, str]] = {
    "a list without end": (lambda net, x: doubled(net, ints(net, 1), 60), "elements; supported: up to|bytes of constants"),
    "a shape of a terabyte": (
        lambda net, x: net.node("ConstantOfShape", [ints(net, 2**20, 2**20)]),
        "1,099,511,627,776 elements; supported: up to",
    ),
    "a negative shape": (lambda net, x: net.node("ConstantOfShape", [ints(net, -5)]), "makes no sense"),
    "a terabyte by repetition": (
        lambda net, x: net.node("Expand", [ints(net, 1), ints(net, 2**20, 2**20)]),
        "elements; supported: up to",
    ),
    "a range without end": (
        lambda net, x: net.node("Range", [net.constant(np.int64(v)) for v in (0, 2**62, 1)]),
        "elements; supported: up to",
    ),
    "sums without end": (lambda net, x: summed(net, 400), "more than 268,435,456 bytes"),
    "a division by zero": (lambda net, x: net.node("Div", [ints(net, 1, 72), ints(net, 0, 1)]), "division of integers by 0"),
    "NaN as a size": (
        lambda net, x: net.node("Cast", [net.constant(np.float32([np.nan, 1]))], to=TensorProto.INT64),
        "Cast of NaN",
    ),
    "sizes that are too large": (lambda net, x: ints(net, 2**40, -1), "changes the number of elements|makes no sense"),
    "two sizes to find": (lambda net, x: ints(net, -1, -1), "the target is not a shape"),
    "another number of elements": (lambda net, x: ints(net, 1, 71), "changes the number of elements"),
    "an index outside": (lambda net, x: net.node("Gather", [net.node("Shape", [x]), ints(net, 9)]), "makes no sense"),
    "an axis outside": (lambda net, x: net.node("Gather", [net.node("Shape", [x]), ints(net, 0)], axis=7), "along axis 7"),
    "shapes that do not fit": (lambda net, x: net.node("Add", [ints(net, 1, 2), ints(net, 1, 2, 3)]), "makes no sense"),
    "a cast to strings": (lambda net, x: net.node("Cast", [ints(net, 1)], to=TensorProto.STRING), "is STRING; supported"),
    "a cast to nothing": (lambda net, x: net.node("Cast", [ints(net, 1)]), "is damaged"),
    "seven dimensions": (lambda net, x: net.node("Unsqueeze", [ints(net, 1), ints(net, *range(6))]), "at most 6 dimensions"),
    "a computed target": (lambda net, x: net.node("Cast", [x], to=TensorProto.INT64), "is not a constant of the model"),
    "the shape of nothing": (lambda net, x: net.node("Shape", ["nothing"]), "the shape of 'nothing' is not known"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_targets_are_refused(name: str) -> None:
    target, words = TARGETS[name]
    assert re.search(words, text := refused(reshaped_to(target))), text


def test_many_readers_of_a_long_chain_are_refused_soon() -> None:
    """Each of them needs operators of its own: a small file must not become millions."""
    net = Qdq(SHAPE, 1)
    x = net.node("LeakyRelu", [net.input()])
    for _ in range(40):
        x = net.node("Transpose", [x], perm=[0, 1, 3, 2])
    scale, zero = net.constant(np.float32(0.1)), net.constant(np.int8(0))
    for _ in range(2000):
        part = net.node("Slice", [x, ints(net, 0), ints(net, 1), ints(net, 1)])
        y = net.node("DequantizeLinear", [net.node("QuantizeLinear", [part, scale, zero]), scale, zero])
    net.shapes[y] = (1, 1, 4, 6)
    assert "more than 10,000 operators" in refused(net.model(y).SerializeToString())


def test_functions_of_functions_without_end_are_refused() -> None:
    net = Qdq(SHAPE, 1)
    x = net.input()
    for _ in range(3000):
        x = net.node("Tanh", [x])
    net.shapes[x] = SHAPE
    assert "in float32" in refused(net.model(x).SerializeToString())


@pytest.mark.parametrize("op_type", ["HardSwish", "Mul", "Add", "Clip", "Max"])
def test_float_operators_that_read_themselves_are_refused(op_type: str) -> None:
    net = Qdq(SHAPE, 1)
    x = net.input()
    y = net.node(op_type, [x, x] if op_type in ("Mul", "Add", "Max") else [x])
    model = net.model(net.quantized(y, 0.1, 0, SHAPE))
    node: Any = next(node for node in model.graph.node if node.op_type == op_type)
    node.input[0] = node.output[0]
    assert refused(model.SerializeToString())


def test_two_float_operators_that_read_each_other_are_refused() -> None:
    net = Qdq(SHAPE, 1)
    x = net.input()
    one = net.node("Relu", [x])
    other = net.node("Relu", [one])
    model = net.model(net.quantized(other, 0.1, 0, SHAPE))
    relus: list[Any] = [node for node in model.graph.node if node.op_type == "Relu"]
    relus[0].input[0] = relus[1].output[0]
    assert "Relu" in refused(model.SerializeToString())


def test_a_constant_with_a_graph_inside_is_refused() -> None:
    body = helper.make_graph([], "g", [], [])
    assert "GRAPH" in refused(reshaped_to(lambda net, x: net.node("Constant", [], value=body)))
