"""Float operators of an ONNX file that together mean one operator: clamps written in other ways, and hard-swish."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from firmware_export.activation import Bounds
from firmware_export.graph import Array, GraphError
from firmware_export.onnx_quantization import bounds_of, constant_input
from firmware_export.onnx_tensors import attributes_of

CLAMPS = ("Relu", "Clip")
WINDOWED = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
"""Operators that slide a window, or look at all of an image, and have a form for one dimension."""
HEIGHT = 2
"""ONNX's axis that a signal [n, c, w] has not and an image [n, c, h, w] has."""
REDUCING = ("ReduceMax", "ReduceMean", "ReduceSum")
MAX_FACTORS = 4
"""Multiplications by constants that are peeled off one after another."""
MAX_GATHERED = 65536
Constants = Mapping[str, Array]
Nodes = Mapping[str, NodeProto]


def clamp_on(node: NodeProto, constants: Constants) -> tuple[Bounds, str] | None:
    """The real bounds that a Relu, a Clip, or a Max or Min with a number sets, and what it reads; None for other nodes.

    Raises:
        GraphError: bounds that are no constant numbers.
    """
    if node.op_type in CLAMPS:
        return bounds_of(node, constants), node.input[0] if node.input else ""
    if node.op_type not in ("Max", "Min") or (found := _with_number(node, constants)) is None:
        return None
    source, number, _ = found
    return ((number, math.inf) if node.op_type == "Max" else (-math.inf, number)), source


def hard_swish_input(name: str, nodes: Nodes, constants: Constants) -> str | None:
    """x where `name` is x * clip(x + 3, 0, 6) / 6 or x * HardSigmoid(x), in any order of its factors; else None."""
    name, factor = _without_factors(name, nodes, constants)
    product = nodes.get(name)
    if product is None or product.op_type != "Mul" or len(product.input) != 2:
        return None
    for x, gate in (product.input, tuple(product.input)[::-1]):
        inner, gate_factor = _without_factors(gate, nodes, constants)
        found = _gate(inner, nodes, constants)
        if found is not None and found[0] == x and math.isclose(found[1] * factor * gate_factor, 1 / 6, rel_tol=1e-5):
            return str(x)
    return None


def _gate(name: str, nodes: Nodes, constants: Constants) -> tuple[str, float] | None:
    """x and c where a value is 6c * clip(x / 6 + 1 / 2, 0, 1)."""
    node = nodes.get(name)
    if node is None or not node.input:
        return None
    if node.op_type == "HardSigmoid":
        attributes = attributes_of(node)
        right = math.isclose(attributes.get("alpha", 0.2), 1 / 6, rel_tol=1e-5) and attributes.get("beta", 0.5) == 0.5
        return (node.input[0], 1 / 6) if right else None
    shifted = nodes.get(node.input[0])
    if node.op_type != "Clip" or shifted is None or shifted.op_type != "Add" or bounds_of(node, constants) != (0.0, 6.0):
        return None
    found = _with_number(shifted, constants)
    return (found[0], 1.0) if found is not None and found[1] == 3.0 else None


def _without_factors(name: str, nodes: Nodes, constants: Constants) -> tuple[str, float]:
    """What a chain of multiplications and divisions by numbers starts from, and its factor."""
    factor = 1.0
    for _ in range(MAX_FACTORS):
        node = nodes.get(name)
        found = None if node is None or node.op_type not in ("Mul", "Div") else _with_number(node, constants)
        if node is None or found is None or found[1] == 0 or (node.op_type == "Div" and found[2] == 0):
            break
        factor *= found[1] if node.op_type == "Mul" else 1 / found[1]
        name = found[0]
    return name, factor


def _with_number(node: NodeProto, constants: Constants) -> tuple[str, float, int] | None:
    """The computed input of a node with one, the float32 number it meets, and that number's place; else None."""
    if len(node.input) != 2:
        return None
    for place in (0, 1):
        array = constants.get(node.input[place])
        if array is not None and array.dtype == np.float32 and array.size == 1:
            number = float(array.reshape(-1).tolist()[0])
            return None if math.isnan(number) else (node.input[1 - place], number, place)
    return None


def slices_of_gather(node: NodeProto, constants: Constants, fresh: Callable[[str], str]) -> Iterator[NodeProto]:
    """A Gather of one index, or of neighbouring ones in order, as a Slice (and a Squeeze where the axis is dropped).

    Raises:
        GraphError: computed indexes, or others.
    """
    indexes, axis = constant_input(node, 1, "index", constants), int(attributes_of(node).get("axis", 0))
    numbers = [int(index) for index in indexes.reshape(-1)[:MAX_GATHERED].tolist()]
    if indexes.ndim > 1 or indexes.dtype.kind != "i" or numbers != list(range(numbers[0], numbers[0] + indexes.size)):
        raise GraphError(f"Gather of the indexes {numbers[:8]}; supported: one index, or neighbours in order")
    end = numbers[-1] + 1 if numbers[-1] != -1 else np.iinfo(np.int64).max
    bounds = [fresh(word) for word in ("start", "end", "axis")]
    for name, number in zip(bounds, (numbers[0], end, axis), strict=True):
        yield helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array([number], np.int64)))
    part = node.output[0] if indexes.ndim else fresh("part")
    yield helper.make_node("Slice", [node.input[0], *bounds], [part], node.name)
    if not indexes.ndim:
        yield helper.make_node("Squeeze", [part, bounds[2]], node.output[:1])


def two_dimensional(node: NodeProto, fresh: Callable[[str], str]) -> Iterator[NodeProto]:
    """An operator on signals [n, c, w] as the same on images of height 1, between an Unsqueeze and a Squeeze.

    Raises:
        GraphError: attributes that are not those of one dimension.
    """
    axis, inputs = fresh("axis"), list(node.input)
    yield helper.make_node("Constant", [], [axis], value=numpy_helper.from_array(np.array([HEIGHT], np.int64)))
    for place in range(2 if node.op_type == "Conv" else 1):
        if place >= len(inputs):
            raise GraphError(f"{node.op_type} without weights; the model is damaged")
        inputs[place] = fresh("image")
        yield helper.make_node("Unsqueeze", [node.input[place], axis], [inputs[place]])
    wide = helper.make_node(node.op_type, inputs, [fresh("image")], node.name)
    wide.attribute.extend(_with_height(attribute) for attribute in node.attribute)
    yield wide
    yield helper.make_node("Squeeze", [wide.output[0], axis], node.output[:1])


def _with_height(attribute: AttributeProto) -> AttributeProto:
    """An attribute of one dimension as that of two, of which the first does nothing."""
    values = list(attribute.ints)
    if attribute.name not in ("kernel_shape", "strides", "dilations", "pads"):
        return attribute
    count = 2 if attribute.name == "pads" else 1
    if len(values) != count:
        raise GraphError(f"{attribute.name} is {values[:8]} for a signal; expected {count} for one dimension")
    both = [0, values[0], 0, values[1]] if count == 2 else [1, *values]
    return helper.make_attribute(attribute.name, both)


def dropped_later(node: NodeProto, rank: int, constants: Constants, fresh: Callable[[str], str]) -> Iterator[NodeProto] | None:
    """A reduction whose axes are dropped by a Squeeze behind it, where what is left would not be in our order.

    rank: of its input. None for reductions that are read as they are.
    """
    attributes = attributes_of(node)
    given = constants.get(node.input[1]) if len(node.input) > 1 else np.array(attributes.get("axes", ()), np.int64)
    if attributes.get("keepdims", 1) or given is None or not given.size or given.size > rank:
        return None
    axes = {int(axis) % rank for axis in given.reshape(-1).tolist()}
    if rank - len(axes) != 4 and (rank != 4 or 1 in axes or {2, 3} <= axes):
        return None
    return _reduced_and_squeezed(node, sorted(axes), fresh)


def _reduced_and_squeezed(node: NodeProto, axes: list[int], fresh: Callable[[str], str]) -> Iterator[NodeProto]:
    name, kept = fresh("axes"), fresh("kept")
    yield helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(axes, np.int64)))
    whole = helper.make_node(node.op_type, node.input, [kept], node.name)
    whole.attribute.extend(attribute for attribute in node.attribute if attribute.name != "keepdims")
    yield whole
    yield helper.make_node("Squeeze", [kept, name], node.output[:1])
