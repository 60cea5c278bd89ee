"""What mean and sum share: int32 sums and their requantisation, exact to TFLite's QuantizedMeanOrSum."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node, Quantization
from firmware_export.operators import Example, LayerCode, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import check_shift
from firmware_export.operators._checks import clamp_attribute, int8_input, int8_output
from firmware_export.operators._reduction import (
    REDUCTIONS,
    Reduction,
    middle_of,
    onnx_attributes,
    random_reductions,
    reduced_axes,
    summary,
    walk_fields,
)
from firmware_export.requantize import quantize_multiplier, requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.write_tflite import TfliteWriter

MAX_COUNT = 2**23
"""Elements of one sum: so many differences of int8 values fit int32."""


@dataclass(frozen=True)
class Factor:
    """What turns one sum into an output: multiplier * 2^(shift - 31), the input's zero point, the elements of one sum."""

    multiplier: int
    shift: int
    count: int
    zero_point: int


class ReducedSum(Reduction):
    """A requantized sum."""

    example_spread: ClassVar[float]
    """How much larger the results of the examples are than their inputs."""

    @abstractmethod
    def folded(self, factor: Factor) -> Factor:
        """The factor of the scales' ratio, with what else belongs into it."""

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        specs = super().infer(graph, node)
        self._factor(graph, node)
        _clamp(node)
        return specs

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        factor, x = self._factor(graph, node), inputs[0]
        assert x is not None
        sums = x.astype(np.int64).sum(reduced_axes(graph, node)) - factor.count * factor.zero_point
        scaled = requantize(sums, factor.multiplier, factor.shift)
        results = to_int8(scaled, int8_output(graph, node).zero_point, _clamp(node))
        return [results.reshape(self.infer(graph, node)[0].shape)]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, y, axes = int8_input(graph, node), int8_output(graph, node), reduced_axes(graph, node)
        middle, factor, (low, high) = middle_of(x.shape, axes), self._factor(graph, node), _clamp(node)
        fields = walk_fields(x.shape, axes)
        if middle is not None:
            fields = dict(zip(("outer", "count", "inner"), map(str, middle), strict=True))
        values = {"offset": -factor.count * factor.zero_point, "multiplier": factor.multiplier, "shift": factor.shift}
        values |= {"zero_point": y.zero_point, "min": low, "max": high}
        name = "reduce_sum" if middle is None else "mean"
        return LayerCode(
            function=f"nn_{name}",
            params_type=f"nn_{name}_params",
            fields=fields | {key: str(value) for key, value in values.items()},
            sources=("mean.c",) if middle is not None else ("reduce_sum.c", "reduction.c"),
            summary=summary(x, y, axes),
        )

    def litert_default(self, graph: Graph, node: Node) -> bool:
        return False

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        def _example(shape: tuple[int, ...], scales: tuple[float, float], zero_points: tuple[int, int], label: str) -> Example:
            return self._example(shape, (1, 2), scales, zero_points, label)

        spread = self.example_spread
        for zero_points in ((-128, 127), (127, -128), (0, 0), (-128, -128)):
            yield _example((1, 5, 7, 3), (0.05, 0.03 * spread), zero_points, f"zero points {zero_points}")
        yield _example((1, 4, 4, 3), (0.5, 0.5 * spread), (3, 3), "ties, one scale")
        yield _example((1, 4, 8, 3), (0.5, 0.25 * spread), (3, -7), "ties, powers of two")
        yield _example((1, 4, 4, 3), (0.5, 1e-4), (3, -7), "saturation")
        yield _example((1, 4, 4, 3), (0.5, 1e4), (3, -7), "all outputs at the zero point")
        yield _example((1, 4, 4, 3), (1e-9, 1.0), (3, -7), "factor near 2^-31")
        yield _example((1, 4, 4, 3), (1e-10, 1.0), (3, -7), "factor below 2^-32")
        yield _example((1, 33, 31, 2), (0.05, 0.01 * spread * spread), (-128, -100), "1023 pixels")
        for shape, axes, label in REDUCTIONS:
            yield self._example(shape, axes, (0.05, 0.03 * spread), (1, 2), label)
        for index, (shape, axes, keep_dims) in enumerate(random_reductions(rng, 40)):
            x, y = make.random_quantization(rng), make.random_quantization(rng)
            ratio = float(x.scale[0]) * 2.0 ** rng.uniform(-4, 1) * spread
            scales = (float(x.scale[0]), ratio if rng.random() < 0.7 else float(y.scale[0]))
            zero_points = (int(x.zero_point[0]), int(y.zero_point[0]))
            yield self._example(shape, axes, scales, zero_points, f"random {index}", keep_dims)

    def read_onnx(self, match: OnnxMatch) -> Node:
        attributes = {**onnx_attributes(match), "clamp": match.int8_clamp()}
        return Node(self.name, match.inputs[:1], match.outputs, attributes)

    def write_without_clamp(self, builtin: str, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """Writes the node. Raises GraphError for a clamp, which TFLite does not have here."""
        if _clamp(node) != make.NO_CLAMP:
            raise GraphError(f"{self.name} with clamp {_clamp(node)}; TFLite's {builtin} has none: use a relu behind it")
        self.add_to_file(builtin, graph, node, writer)

    def _factor(self, graph: Graph, node: Node) -> Factor:
        """The node's factor. Raises GraphError for a ratio of scales or a count that is too large."""
        x, y, axes = int8_input(graph, node), int8_output(graph, node), reduced_axes(graph, node)
        count = math.prod(x.shape[axis] for axis in axes)
        if count > MAX_COUNT:
            raise GraphError(f"a {self.name} of {count:,} elements; supported: up to {MAX_COUNT:,}")
        ratio = x.scale / y.scale
        multipliers, shifts = quantize_multiplier(ratio)
        check_shift(shifts, ratio)
        return self.folded(Factor(int(multipliers[0]), int(shifts[0]), count, x.zero_point))

    def _example(
        self,
        shape: tuple[int, ...],
        axes: tuple[int, ...],
        scales: tuple[float, float],
        zero_points: tuple[int, int],
        label: str,
        keep_dims: int = 0,
    ) -> Example:
        x, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, zero_points, strict=True))
        attributes: dict[str, Attribute] = {"axes": axes, "keep_dims": keep_dims}
        graph = make.single_node(self.name, (make.activation(shape, x),), y, attributes)
        return Example(graph, label, make.extreme_inputs(graph))


def _clamp(node: Node) -> tuple[int, int]:
    return clamp_attribute(node) if "clamp" in node.attributes else make.NO_CLAMP
