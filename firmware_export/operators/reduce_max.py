"""Maximum of int8 over any axes (REDUCE_MAX, ReduceMax)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from firmware_export.graph import Array, Attribute, Graph, Node, Quantization
from firmware_export.operators import Example, LayerCode, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import int8_input, int8_output, same_quantization
from firmware_export.operators._reduction import REDUCTIONS, Reduction, random_reductions, reduced_axes, summary, walk_fields

if TYPE_CHECKING:
    from firmware_export.write_tflite import TfliteWriter


class ReduceMax(Reduction):
    """y = the largest stored value along the axes.

    Inputs: x int8, any shape. Attributes: axes (ascending), keep_dims 0 or 1.
    Output: int8, x without the axes, or with size 1 there, stored like x.
    Chooses bytes only, the same in every arithmetic.
    """

    name = "reduce_max"
    tflite = ("REDUCE_MAX",)
    onnx = ("ReduceMax",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        specs = super().infer(graph, node)
        same_quantization(int8_input(graph, node), int8_output(graph, node))
        return specs

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x = inputs[0]
        assert x is not None
        best = x.astype(np.int8).max(reduced_axes(graph, node))
        return [np.asarray(best, np.int8).reshape(self.infer(graph, node)[0].shape)]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, axes = int8_input(graph, node), reduced_axes(graph, node)
        return LayerCode(
            function="nn_reduce_max",
            params_type="nn_reduce_max_params",
            fields=walk_fields(x.shape, axes),
            sources=("reduce_max.c", "reduction.c"),
            summary=summary(x, int8_output(graph, node), axes),
        )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for shape, axes, label in REDUCTIONS:
            yield _example(shape, axes, 0, make.random_quantization(rng), label)
        for zero_point in (-128, 127):
            yield _example((1, 4, 5, 3), (1, 2), 1, Quantization.per_tensor(0.1, zero_point), f"zero point {zero_point}")
        for index, (shape, axes, keep_dims) in enumerate(random_reductions(rng, 40)):
            yield _example(shape, axes, keep_dims, make.random_quantization(rng), f"random {index}")

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        self.add_to_file("REDUCE_MAX", graph, node, writer)


def _example(shape: tuple[int, ...], axes: tuple[int, ...], keep_dims: int, quantization: Quantization, label: str) -> Example:
    attributes: dict[str, Attribute] = {"axes": axes, "keep_dims": keep_dims}
    return Example(make.single_node("reduce_max", (make.activation(shape, quantization),), quantization, attributes), label)


OPERATOR = ReduceMax()
