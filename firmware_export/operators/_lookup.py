"""Functions of one int8 value: a table of 256 results made here, looked up by runtime/lookup.c."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import check_shift
from firmware_export.operators._checks import check_counts, int8_input, int8_output, shape_text
from firmware_export.operators._xnnpack import conversion_factor
from firmware_export.requantize import INT8_MAX, INT8_MIN, Float32, Float64, Int64, quantize_multiplier, requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.write_tflite import TfliteWriter

EVERY_INT8: Int64 = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int64)
EVERY_VALUE = (1, 256)
"""The shape of an input that holds each int8 value once."""


class Lookup(Operator):
    """An operator with one input whose every output value depends on the input value at the same place alone."""

    @abstractmethod
    def results(self, graph: Graph, node: Node) -> npt.NDArray[np.int8]:
        """int8 [256]: the results for -128..127.

        Raises:
            GraphError: scales or attributes are not what the operator takes.
        """

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x = int8_input(graph, node)
        self.results(graph, node)
        return [OutputSpec(x.shape, "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x = inputs[0]
        assert x is not None
        return [self.results(graph, node)[x.astype(np.int64) - INT8_MIN]]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x = int8_input(graph, node)
        table = np.roll(self.results(graph, node), INT8_MIN)
        return LayerCode(
            function="nn_lookup",
            params_type="nn_lookup_params",
            fields={"size": str(x.elements), "table": "{table}"},
            constants=(Constant("table", table),),
            sources=("lookup.c",),
            summary=shape_text(x),
        )


def rescaling_factor(arithmetic: str, before: float, after: float) -> tuple[int, int]:
    """Multiplier and shift of the ratio of two scales, as TFLite's QUANTIZE of int8 has them; float32: as XNNPACK has them.

    Raises:
        GraphError: the ratio is too large.
    """
    if arithmetic == "float32" and (found := conversion_factor(float(np.float32(before) / np.float32(after)))) is not None:
        return found
    multiplier, shift = quantize_multiplier(before / after)
    check_shift(shift, before / after)
    return int(multiplier[0]), int(shift[0])


def rescaled(arithmetic: str, values: Array, before: Quantization, after: Quantization) -> npt.NDArray[np.int8]:
    """int8 values under another scale and zero point, as TFLite's QUANTIZE does it. Raises as rescaling_factor."""
    if before == after:
        return values.astype(np.int8)
    multiplier, shift = rescaling_factor(arithmetic, float(before.scale[0]), float(after.scale[0]))
    centred = values.astype(np.int64) - int(before.zero_point[0])
    return to_int8(requantize(centred, multiplier, shift), int(after.zero_point[0]), make.NO_CLAMP)


def write_rescaled(builtin: str, stored: Quantization, graph: Graph, node: Node, writer: TfliteWriter) -> None:
    """An operator whose output TFLite stores in one way only, with a QUANTIZE behind it where the node's is another."""
    y = int8_output(graph, node)
    if y.quantization == stored:
        writer.add(builtin, node.inputs, node.outputs, None, 2)
        return
    output = writer.add_activation(f"{y.name}/{builtin.lower()}", int8_input(graph, node).shape, "int8", stored)
    writer.add(builtin, node.inputs, (output,), None, 2)
    writer.add("QUANTIZE", (output,), node.outputs, schema.QuantizeOptionsT(), 2)


def lookup_example(
    op: str,
    shape: tuple[int, ...],
    x: Quantization,
    y: Quantization,
    label: str,
    attributes: dict[str, Attribute] | None = None,
) -> Example:
    """One node; an input of the shape EVERY_VALUE gets every value."""
    graph = make.single_node(op, (make.activation(shape, x),), y, attributes or {})
    every = EVERY_INT8.astype(np.int8).reshape(EVERY_VALUE)
    return Example(graph, label, (every,) if shape == EVERY_VALUE else make.extreme_inputs(graph))


def random_lookups(op: str, rng: np.random.Generator, outputs: tuple[Quantization | None, ...]) -> Iterator[Example]:
    """45 examples of random input scales, most with every value; the outputs' quantizations in turn, random where None."""
    for index in range(45):
        x, y = make.random_quantization(rng), outputs[index % len(outputs)]
        shape = EVERY_VALUE if index % 8 else (1, *(make.pick(rng, 1, 6) for _ in range(make.pick(rng, 1, 4))))
        yield lookup_example(op, shape, x, y or make.random_quantization(rng), f"random {index}")


def fixed_point_input(x: Tensor, integer_bits: int) -> tuple[Int64, Int64]:
    """-128..127 as TFLite brings them to fixed point, and which of them it does not compute.

    Returns:
        int64 [256]: the real values in Q(integer_bits), 0 where saturated; int64 [256]: -1 and 1 where the result is
        the lowest and the highest one, else 0. Source: CalculateInputRadius in internal/quantization_util.cc; at
        scales of 8 and above the radius is 0 and the reference gives the lowest result at real 0.
    Raises:
        GraphError: the scale is outside 2^-27 .. 2^27.
    """
    fraction_bits = 31 - integer_bits
    real = x.scale * 2.0**fraction_bits
    if not 1 <= real < 2.0 ** (2 * fraction_bits):
        raise GraphError(f"input scale {x.scale:g}; supported: 2^-{fraction_bits} to 2^{fraction_bits}")
    multiplier, shift = quantize_multiplier(real)
    radius = int((2**integer_bits - 1) * 2.0 ** (fraction_bits - int(shift[0])))
    centred = EVERY_INT8 - x.zero_point
    ends = np.where(centred <= -radius, -1, np.where(centred >= radius, 1, 0))
    inside = np.where(ends == 0, centred, 0)
    return (requantize(inside, multiplier, np.minimum(shift, 31)), ends)


def float_input(x: Tensor) -> Float64:
    """float64 [256]: the real values of -128..127, each rounded to float32."""
    real: Float32 = (EVERY_INT8 - x.zero_point).astype(np.float32) * np.float32(x.scale)
    return real.astype(np.float64)


def nearest(real: Float64, stored: Quantization) -> Int64:
    """real / scale + zero point in float32, to the nearest integer, halves to even; the scale is a power of two."""
    steps: Float32 = np.rint(real.astype(np.float32) / stored.scale[0])
    return steps.astype(np.int64) + int(stored.zero_point[0])
