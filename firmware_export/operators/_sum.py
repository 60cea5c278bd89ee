"""What sums and differences share: both sides with 20 more bits at twice the larger scale, then requantized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from firmware_export.graph import Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Example
from firmware_export.operators import _examples as make
from firmware_export.operators._broadcast import Elementwise, broadcast_examples, elementwise_example
from firmware_export.operators._checks import clamp_attribute, int8_operand, int8_output
from firmware_export.operators._xnnpack import sum_factors
from firmware_export.requantize import Int64, quantize_multiplier, requantize, to_int8

HEADROOM_BITS = 20
"""NN_HEADROOM_BITS of runtime/add_scale.h."""


@dataclass(frozen=True)
class Side:
    """An input or the result: its scale relative to the common one, real = multiplier * 2^(shift - 31)."""

    multiplier: int
    shift: int
    zero_point: int

    @staticmethod
    def of(real: float, zero_point: int) -> Side:
        """From the real factor."""
        multiplier, shift = quantize_multiplier(real)
        return Side(int(multiplier[0]), int(shift[0]), zero_point)

    def fields(self, name: str) -> dict[str, str]:
        """Initializers of the nn_add_scale of that name."""
        values = {"multiplier": self.multiplier, "shift": self.shift, "zero_point": self.zero_point}
        return {f"{name}.{key}": str(value) for key, value in values.items()}


class ScaledSum(Elementwise):
    """y = clamp(requantize(a / common +- b / common)), common = twice the larger of the two scales, 20 bits of headroom.

    In the arithmetic float32 the common scale and the two factors are XNNPACK's, rounded once, where it takes the scales.
    """

    sign: ClassVar[int]
    """1 or -1: what becomes of b."""

    def combine(self, graph: Graph, node: Node, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        first, second, output = sides(graph, node)
        total = _raised(a, first) + self.sign * _raised(b, second)
        scaled = requantize(total, output.multiplier, output.shift)
        return to_int8(scaled, output.zero_point, clamp_attribute(node))

    def fields(self, graph: Graph, node: Node) -> dict[str, str]:
        first, second, output = sides(graph, node)
        low, high = clamp_attribute(node)
        fields = {**first.fields("input_0"), **second.fields("input_1"), **output.fields("output")}
        return fields | {"min": str(low), "max": str(high)}

    def litert_default(self, graph: Graph, node: Node) -> bool:
        a, b, y = int8_operand(graph, node, 0), int8_operand(graph, node, 1), int8_output(graph, node)
        return sum_factors(a.scale, b.scale, y.scale) is not None

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        yield from _examples_of_scales(self.name)

        def _build(a: Tensor, b: Tensor, label: str) -> Example:
            largest = max(a.scale, b.scale) * 2.0 ** rng.uniform(-1, 2)
            y = Quantization.per_tensor(float(np.float32(largest)), make.pick_zero_point(rng))
            return elementwise_example(self.name, a, b, y, label, {"clamp": make.random_clamp(rng, y)})

        def _quantizations() -> tuple[Quantization, Quantization]:
            return make.random_quantization(rng), make.random_quantization(rng)

        yield from broadcast_examples(rng, _quantizations, _build)


def sides(graph: Graph, node: Node) -> tuple[Side, Side, Side]:
    """Factors of both inputs and of the output, in the arithmetic of the graph.

    Raises:
        GraphError: the output's scale is so small that its factor would reach 1.
    """
    a, b, y = int8_operand(graph, node, 0), int8_operand(graph, node, 1), int8_output(graph, node)
    if graph.arithmetic == "float32" and (found := sum_factors(a.scale, b.scale, y.scale)) is not None:
        # raised: x * 2^20 * 2^2 * factor * 2^9 / 2^31 = x * factor; the output's: sum * 2^(31 - bits) / 2^31
        raised = [Side(factor << 9, 2, x.zero_point) for factor, x in ((found.first, a), (found.second, b))]
        return raised[0], raised[1], Side(1 << (31 - found.bits), 0, y.zero_point)
    common = 2.0 * max(a.scale, b.scale)
    factor = common / (2.0**HEADROOM_BITS * y.scale)
    if factor >= 1:
        raise GraphError(
            f"input scales {a.scale:g} and {b.scale:g}, output scale {y.scale:g}; supported: at most 2^19 times larger"
        )
    return Side.of(a.scale / common, a.zero_point), Side.of(b.scale / common, b.zero_point), Side.of(factor, y.zero_point)


def _raised(x: Int64, side: Side) -> Int64:
    return requantize((x - side.zero_point) << HEADROOM_BITS, side.multiplier, side.shift)


def _examples_of_scales(op: str) -> Iterator[Example]:
    for zero_points in ((-128, 127, -128), (127, 127, 0), (-128, -128, 127), (0, 0, 0)):
        yield _example(op, (1, 3, 4, 5), (0.05, 0.05, 0.1), zero_points, f"zero points {zero_points}")
    yield _example(op, (1, 4, 4, 3), (0.5, 0.5, 0.5), (3, -4, 5), "ties, one scale")
    yield _example(op, (1, 4, 4, 3), (0.25, 0.5, 1.0), (3, -4, 5), "ties, powers of two")
    yield _example(op, (1, 40), (0.02, 7.5, 4.0), (0, 1, 2), "one side 375 times the other")
    yield _example(op, (1, 40), (1e-12, 1.0, 1.0), (0, 1, 2), "one side vanishes")
    yield _example(op, (1, 40), (1.0, 1.0, 1e-5), (0, 1, 2), "saturation")
    yield _example(op, (1, 40), (1.0, 1.0, 1e5), (0, 1, 2), "all outputs at the zero point")
    yield _example(op, (1, 6, 5, 2), (0.05, 0.05, 0.05), (10, 10, 10), "a tensor and itself", same=True)
    yield _example(op, (1, 6, 5, 2), (0.05, 0.04, 0.06), (-10, 10, -128), "relu")
    yield _example(op, (1,), (0.05, 0.04, 0.06), (-10, 10, 5), "one element")


def _example(
    op: str, shape: tuple[int, ...], scales: tuple[float, ...], zero_points: tuple[int, ...], label: str, same: bool = False
) -> Example:
    a, b, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, zero_points, strict=True))
    attributes: dict[str, Attribute] = {"clamp": make.NO_CLAMP}
    graph = make.single_node(op, (make.activation(shape, a, "a"), make.activation(shape, b, "b")), y, attributes)
    if same:
        graph.nodes[0] = Node(op, (0, 0), (2,), attributes)
        graph.inputs = (0,)
    return Example(graph, label, make.extreme_inputs(graph))
