"""Shapes of float values that no QuantizeLinear has stored yet, where they follow from shapes that are known.

Files made by tracing compute the targets of reshapes from such shapes. What is not listed here has no known shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from firmware_export.graph import Array, GraphError
from firmware_export.onnx_fold import folded
from firmware_export.onnx_layout import REARRANGING, Shape, rearranged
from firmware_export.onnx_tensors import attributes_of

SAME_SHAPE = ("Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Softmax", "Tanh")
BROADCAST = ("Add", "Div", "Max", "Min", "Mul", "Sub")
MOVED = ("Slice", "Transpose")
"""Their shape is that of an array without content that is moved alike."""
Constants = Mapping[str, Array]


def shape_behind(node: NodeProto, known: Callable[[str], Shape | None], constants: Constants) -> Shape | None:
    """The ONNX shape of a node's first output; None if it is not known.

    Args:
        known: the shape of a value by its name, None if it is not known.
    Raises:
        GraphError: the operator does not fit the shapes.
    """
    shapes = [known(name) for name in node.input]
    if not shapes or shapes[0] is None:
        return None
    arguments = [constants.get(name) for name in node.input[1:]]
    if node.op_type in SAME_SHAPE:
        return shapes[0]
    if node.op_type in BROADCAST:
        return _broadcast(shapes)
    if node.op_type == "Dropout" or any(argument is None for argument in arguments):
        return shapes[0] if node.op_type == "Dropout" else None
    return _moved(node, shapes[0], [argument for argument in arguments if argument is not None])


def _moved(node: NodeProto, shape: Shape, arguments: Sequence[Array]) -> Shape | None:
    attributes: dict[str, Any] = attributes_of(node)
    if node.op_type in REARRANGING:
        argument = tuple(int(value) for value in arguments[0].reshape(-1)[:16]) if arguments else None
        return rearranged(node.op_type, attributes, argument, shape)
    if node.op_type in MOVED:
        return folded(node.op_type, [np.broadcast_to(np.int8(0), shape), *arguments], attributes).shape
    return None


def _broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    found = [shape for shape in shapes if shape is not None]
    if len(found) != len(shapes):
        return None
    try:
        return np.broadcast_shapes(*found)
    except ValueError:
        raise GraphError(f"inputs of {found[:4]}; expected shapes that broadcast") from None
