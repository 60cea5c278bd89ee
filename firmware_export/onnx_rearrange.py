"""Flatten, Reshape, Squeeze, ... in the graph: nothing, a reshape node, an order that weights take on, or a transpose.

ONNX's elements stand in NCHW order, ours in NHWC. Where a rearranged image is no image any more its elements keep our
order, and the tensor is remembered with it; the next fully connected layer's weights are put into that order. Whatever
else reads it gets the elements in ONNX's order by a transpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from firmware_export.graph import ABSENT, Attribute, Graph, GraphError, Node, Tensor
from firmware_export.onnx_layout import Order, Shape, onnx_shape, our_shape, same_order, usual_order

READS_FLATTENED = ("Gemm", "MatMul")
"""Operators whose constant weights can be reordered where a flattened image is read."""
ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid",
)  # fmt: skip
NCHW_FROM_NHWC, NHWC_FROM_NCHW = (0, 3, 1, 2), (0, 2, 3, 1)


class Rearrangements:
    """Adds the nodes of rearranging operators to a graph, and knows which tensors hold a flattened image in our order.

    spend: called with the bytes that an order or a copy of weights takes; raises GraphError when it is too much.
    """

    def __init__(self, graph: Graph, spend: Callable[[int], None]) -> None:
        self._graph, self._spend = graph, spend
        self._images: dict[int, tuple[Order, Shape]] = {}
        self._ordered: dict[int, int] = {}

    def pass_on(self, source: int, target: int) -> None:
        """`target` was computed from `source` element by element."""
        if source in self._images:
            self._images[target] = self._images[source]

    def reshape(self, index: int, after: Shape, name: str) -> int:
        """The tensor with another ONNX shape of as many elements."""
        tensor = self._graph.tensors[index]
        before = onnx_shape(tensor.shape)
        if after == before:
            return index
        self._spend(16 * tensor.elements)
        order, image = self._images.get(index, (usual_order(before), tensor.shape))
        if same_order(order, usual_order(after)):
            return self._reshaped(index, our_shape(after), name)
        if len(after) == 4:
            moved = self._reshaped(self.in_onnx_order(index), after, f"{name}/nchw")
            return self._transposed(moved, NHWC_FROM_NCHW, name)
        result = self._reshaped(index, after, name)
        if order is not None:
            self._images[result] = order, image
        return result

    def in_onnx_order(self, index: int) -> int:
        """A tensor of the same ONNX shape, with the elements in the file's order; an image becomes [n, c, h, w]."""
        if index not in self._ordered:
            self._ordered[index] = self._brought_in_onnx_order(index)
        return self._ordered[index]

    def _brought_in_onnx_order(self, index: int) -> int:
        tensor = self._graph.tensors[index]
        if index in self._images:
            _, image = self._images[index]
            whole = self._reshaped(index, image, f"{tensor.name}/nhwc")
            return self._reshaped(self._transposed(whole, NCHW_FROM_NHWC, tensor.name), tensor.shape, tensor.name)
        if len(tensor.shape) != 4:
            return index
        return self._transposed(index, NCHW_FROM_NHWC, f"{tensor.name}/nchw")

    def in_file_order(self, index: int) -> int:
        """A tensor as a model's output: images stay NHWC, what is no image has the file's order."""
        return self.in_onnx_order(index) if index in self._images else index

    def readable(self, op_type: str, attributes: dict[str, Any], inputs: tuple[int, ...]) -> tuple[int, ...]:
        """The inputs of an operator, none of them in another order than the file's: weights are reordered, or the values."""
        if not any(index in self._images for index in inputs):
            return inputs
        if self._elementwise(op_type, inputs):
            return inputs
        if op_type in READS_FLATTENED and len(inputs) > 1 and inputs[0] in self._images:
            reordered = self._reordered_weights(inputs, 1 if attributes.get("transB", 0) else 0)
            if reordered is not None:
                return reordered
        return tuple(self.in_file_order(index) for index in inputs)

    def pass_through(self, op_type: str, inputs: tuple[int, ...], output: int) -> None:
        """The output of an operator that computes element by element stands in the order of its inputs."""
        if self._elementwise(op_type, inputs):
            self.pass_on(next(index for index in inputs if index in self._images), output)

    def _elementwise(self, op_type: str, inputs: tuple[int, ...]) -> bool:
        """Whether an operator may read flattened images in our order: all in the same one, and single numbers."""
        tensors = [(index, self._graph.tensors[index]) for index in inputs if index != ABSENT]
        flat = [(index, tensor) for index, tensor in tensors if tensor.elements > 1]
        if op_type not in ELEMENTWISE or not flat or any(index not in self._images for index, _ in flat):
            return False
        order, image = self._images[flat[0][0]]
        alike = (self._images[index][1] == image and same_order(self._images[index][0], order) for index, _ in flat)
        return all(alike) and len({tensor.shape for _, tensor in flat}) == 1

    def _reordered_weights(self, inputs: tuple[int, ...], axis: int) -> tuple[int, ...] | None:
        order, weights = self._images[inputs[0]][0], self._graph.tensors[inputs[1]]
        if weights.data is None or weights.data.ndim != 2:
            return None
        if weights.shape[axis] != order.size:
            if self._graph.tensors[inputs[0]].shape[-1] == weights.shape[axis]:
                return None
            raise GraphError(f"reads {order.size:,} values with weights {weights.shape}; they do not fit")
        self._spend(weights.nbytes)
        reordered = np.ascontiguousarray(np.take(weights.data, order, axis=axis))
        return (inputs[0], self._added(replace(weights, data=reordered)), *inputs[2:])

    def _added(self, tensor: Tensor) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _reshaped(self, index: int, shape: Shape, name: str) -> int:
        return self._node("reshape", index, shape, name, {"shape": shape})

    def _transposed(self, index: int, perm: Shape, name: str) -> int:
        """An image of one channel or one pixel has the same bytes in both orders: a reshape does."""
        before = self._graph.tensors[index].shape
        shape = tuple(before[axis] for axis in perm)
        long = [axis for axis in perm if before[axis] > 1]  # axes, for two of the same size can change places
        if long == sorted(long):
            return self._reshaped(index, shape, name)
        return self._node("transpose", index, shape, name, {"perm": perm})

    def _node(self, op: str, index: int, shape: Shape, name: str, attributes: dict[str, Attribute]) -> int:
        output = self._added(replace(self._graph.tensors[index], name=name, shape=shape))
        self._graph.nodes.append(Node(op, (index,), (output,), attributes))
        return output
