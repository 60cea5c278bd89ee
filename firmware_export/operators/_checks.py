"""What operators ask of their tensors and attributes; every refusal is a GraphError "got X, supported Y"."""

from __future__ import annotations

import math
from collections.abc import Collection

from firmware_export.activation import Clamp
from firmware_export.graph import ABSENT, Graph, GraphError, Node, Tensor
from firmware_export.requantize import INT8_MAX, INT8_MIN

MAX_SIZE = 65535
"""One dimension of an image or window: uint16_t in the kernels."""


def check_counts(node: Node, inputs: Collection[int], outputs: int = 1) -> None:
    """Raises GraphError unless the node has one of the input counts, and that many outputs."""
    if len(node.inputs) not in inputs or len(node.outputs) != outputs:
        wanted = " or ".join(map(str, inputs))
        raise GraphError(f"{len(node.inputs)} inputs and {len(node.outputs)} outputs; expected {wanted} and {outputs}")


def int8_activation(graph: Graph, index: int, what: str) -> Tensor:
    """A computed or fed int8 tensor with one scale. Raises GraphError for anything else."""
    if index == ABSENT:
        raise GraphError(f"{what} is missing; expected an int8 activation")
    tensor = graph.tensors[index]
    if tensor.is_constant:
        raise GraphError(f"{what} '{tensor.name}' is a constant; supported: computed tensors")
    return _int8_tensor(tensor, what)


def _int8_tensor(tensor: Tensor, what: str) -> Tensor:
    if tensor.dtype != "int8":
        raise GraphError(f"{what} '{tensor.name}' is {tensor.dtype}; supported: int8")
    if not math.isfinite(tensor.scale) or tensor.scale <= 0 or not INT8_MIN <= tensor.zero_point <= INT8_MAX:
        raise GraphError(
            f"{what} '{tensor.name}' has scale {tensor.scale} and zero point {tensor.zero_point}; "
            f"supported: finite scales above 0, zero points {INT8_MIN}..{INT8_MAX}"
        )
    return tensor


def int8_input(graph: Graph, node: Node, place: int = 0) -> Tensor:
    """An input that is an int8 activation."""
    return int8_activation(graph, node.inputs[place], f"input {place}")


def int8_operand(graph: Graph, node: Node, place: int) -> Tensor:
    """An input that is an int8 activation or constant with one scale. Raises GraphError for anything else."""
    if node.inputs[place] == ABSENT or not graph.tensors[node.inputs[place]].is_constant:
        return int8_input(graph, node, place)
    return _int8_tensor(graph.tensors[node.inputs[place]], f"input {place}")


def int8_output(graph: Graph, node: Node) -> Tensor:
    """The only output: int8 with one scale; its shape may not be known yet."""
    return int8_activation(graph, node.outputs[0], "output")


def int8_image(graph: Graph, node: Node) -> Tensor:
    """Input 0 as an int8 image [1, h, w, c]."""
    x = int8_input(graph, node)
    if len(x.shape) != 4 or x.shape[0] != 1 or max(x.shape) > MAX_SIZE:
        raise GraphError(f"input 0 '{x.name}' has the shape {x.shape}; supported: [1, h, w, c] up to {MAX_SIZE}")
    return x


def same_quantization(x: Tensor, y: Tensor) -> None:
    """Raises GraphError unless both tensors have the same scale and zero point."""
    if (x.scale, x.zero_point) != (y.scale, y.zero_point):
        raise GraphError(
            f"input scale {x.scale:g} zero point {x.zero_point}, output scale {y.scale:g} zero point {y.zero_point}; "
            "supported: the same for both"
        )


def integers(node: Node, key: str, count: int, minimum: int) -> tuple[int, ...]:
    """An attribute of `count` integers in minimum..65535. Raises GraphError for anything else."""
    value = node.attributes.get(key)
    if not isinstance(value, tuple) or len(value) != count or not all(isinstance(v, int) for v in value):
        raise GraphError(f"{key} is {value}; expected {count} integers")
    if not all(minimum <= v <= MAX_SIZE for v in value):
        raise GraphError(f"{key} is {value}; supported: {minimum} to {MAX_SIZE}")
    return tuple(int(v) for v in value)


def clamp_attribute(node: Node) -> Clamp:
    """The attribute `clamp`: lowest and highest stored int8 value. Raises GraphError for anything else."""
    value = node.attributes.get("clamp")
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(v, int) for v in value):
        raise GraphError(f"clamp is {value}; expected two integers")
    low, high = int(value[0]), int(value[1])
    if not INT8_MIN <= low <= high <= INT8_MAX:
        raise GraphError(f"clamp is {low}..{high}; supported: {INT8_MIN} <= low <= high <= {INT8_MAX}")
    return low, high


def shape_text(tensor: Tensor) -> str:
    """A shape without its batch of 1 for the layer's comment, e.g. "16x16x8"."""
    sizes = tensor.shape[1:] if len(tensor.shape) > 1 and tensor.shape[0] == 1 else tensor.shape
    return "x".join(map(str, sizes)) or "1"
