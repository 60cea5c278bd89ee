"""FULLY_CONNECTED whose weights are computed, as TensorFlow writes a product of two matrices: a batch_matmul."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from firmware_export.activation import Clamp
from firmware_export.graph import ABSENT, Attribute, GraphError, Node
from firmware_export.operators._examples import NO_CLAMP

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator


def product_of_two(op: TfliteOperator, clamp: Clamp) -> Node:
    """x times the transposed weights; a clamp is a relu of its own.

    Raises:
        GraphError: a bias, or an output that is no such product.
    """
    x, weights, y = op.input(0), op.input(1), op.output()
    if len(op.inputs) > 2 and op.inputs[2] != ABSENT:
        raise GraphError(f"weights '{weights.name}' are computed and there is a bias; supported: constant weights, or no bias")
    if len(weights.shape) != 2 or y.shape != (*x.shape[:-1], weights.shape[0]):
        raise GraphError(
            f"computed weights '{weights.name}' {weights.shape}, input {x.shape}, output {y.shape}; supported: [out, in], "
            "[..., in] and [..., out]"
        )
    attributes: dict[str, Attribute] = {"adj_x": 0, "adj_y": 1, "clamp": NO_CLAMP}
    if clamp == NO_CLAMP:
        return Node("batch_matmul", op.inputs[:2], op.outputs, attributes)
    op.graph.tensors.append(replace(y, name=f"{y.name}/product"))
    product = (len(op.graph.tensors) - 1,)
    op.graph.nodes.append(Node("batch_matmul", op.inputs[:2], product, attributes))
    return Node("relu", product, op.outputs, {"clamp": clamp})
