"""Mean of int8 over neighbouring axes; global average pool is the mean over h and w (MEAN, GlobalAveragePool, ReduceMean)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node, Quantization
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import check_shift
from firmware_export.operators._checks import check_counts, clamp_attribute, int8_input, int8_output, shape_text
from firmware_export.requantize import quantize_multiplier, requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

MAX_COUNT = 2**23
"""Elements of one mean: the sum of so many differences of int8 values fits int32."""


@dataclass(frozen=True)
class _Factor:
    """What turns one sum into an output: multiplier * 2^(shift - 31), the input's zero point, the elements of one sum."""

    multiplier: int
    shift: int
    count: int
    zero_point: int


class Mean(Operator):
    """y = clamp(requantize(sum of (x - zero point))); the requantisation's factor is scale ratio / count.

    The factor is folded as TFLite does it (reference/reduce.h, QuantizedMeanOrSum): the Q31 multiplier of the ratio is
    shifted up by floor(log2 count) (at most 32, and so that the final shift is not below -31) and divided by count.

    Inputs: x int8, any shape.
    Attributes: axes (ascending, neighbouring), keep_dims 0 or 1, clamp (optional: lowest, highest stored value).
    Output: int8, x without the axes, or with size 1 there.
    """

    name = "mean"
    tflite = ("MEAN",)
    onnx = ("GlobalAveragePool", "ReduceMean")

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x, axes = int8_input(graph, node), _axes(graph, node)
        _factor(graph, node)
        _clamp(node)
        kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        shape = kept if node.attributes.get("keep_dims") else [s for axis, s in enumerate(kept) if axis not in axes]
        return [OutputSpec(tuple(shape), "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        factor, x = _factor(graph, node), inputs[0]
        assert x is not None
        sums = x.astype(np.int64).sum(_axes(graph, node)) - factor.count * factor.zero_point
        scaled = requantize(sums, factor.multiplier, factor.shift)
        means = to_int8(scaled, int8_output(graph, node).zero_point, _clamp(node))
        return [means.reshape(self.infer(graph, node)[0].shape)]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, y, axes, factor = int8_input(graph, node), int8_output(graph, node), _axes(graph, node), _factor(graph, node)
        low, high = _clamp(node)
        fields = {
            "outer": math.prod(x.shape[: axes[0]]),
            "count": factor.count,
            "inner": math.prod(x.shape[axes[-1] + 1 :]),
            "offset": -factor.count * factor.zero_point,
            "multiplier": factor.multiplier,
            "shift": factor.shift,
            "zero_point": y.zero_point,
            "min": low,
            "max": high,
        }
        return LayerCode(
            function="nn_mean",
            params_type="nn_mean_params",
            fields={key: str(value) for key, value in fields.items()},
            sources=("mean.c",),
            summary=f"axes {','.join(map(str, axes))}, {shape_text(x)} -> {shape_text(y)}",
        )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for zero_points in ((-128, 127), (127, -128), (0, 0), (-128, -128)):
            yield _example((1, 5, 7, 3), (1, 2), (0.05, 0.03), zero_points, f"zero points {zero_points}")
        yield _example((1, 4, 4, 3), (1, 2), (0.5, 0.5), (3, 3), "ties, one scale")
        yield _example((1, 4, 8, 3), (1, 2), (0.5, 0.25), (3, -7), "ties, powers of two")
        yield _example((1, 1, 1, 6), (1, 2), (0.5, 0.3), (3, -7), "one pixel")
        yield _example((1, 4, 4, 3), (1, 2), (0.5, 1e-4), (3, -7), "saturation")
        yield _example((1, 4, 4, 3), (1, 2), (0.5, 1e4), (3, -7), "all outputs at the zero point")
        yield _example((1, 4, 4, 3), (1, 2), (1e-9, 1.0), (3, -7), "factor near 2^-31")
        yield _example((1, 4, 4, 3), (1, 2), (1e-10, 1.0), (3, -7), "factor below 2^-32")
        yield _example((1, 33, 31, 2), (1, 2), (0.05, 0.01), (-128, -100), "1023 pixels")
        yield _example((1, 4, 5, 3), (3,), (0.05, 0.03), (1, 2), "over the channels")
        yield _example((1, 4, 5, 3), (1,), (0.05, 0.03), (1, 2), "over the rows")
        yield _example((1, 4, 5, 3), (1, 2, 3), (0.05, 0.03), (1, 2), "over everything")
        for index in range(40):
            shape = (1, *(make.pick(rng, 1, 9) for _ in range(3)))
            x, y = make.random_quantization(rng), make.random_quantization(rng)
            ratio = float(x.scale[0]) * 2.0 ** rng.uniform(-4, 1)
            scales = (float(x.scale[0]), ratio if rng.random() < 0.7 else float(y.scale[0]))
            zero_points = (int(x.zero_point[0]), int(y.zero_point[0]))
            yield _example(shape, (1, 2), scales, zero_points, f"random {index}", keep_dims=index % 2)

    def read_tflite(self, op: TfliteOperator) -> Node:
        axes, rank = op.input(1).data, len(op.input(0).shape)
        if axes is None or axes.dtype not in (np.int32, np.int64):
            raise GraphError("MEAN with computed axes; supported: constant int32 axes")
        wrapped = sorted({int(axis) % rank if -rank <= axis < rank else int(axis) for axis in axes.ravel().tolist()})
        keep_dims = int(bool(op.options_as(schema.ReducerOptionsT).keepDims))
        return Node(self.name, op.inputs[:1], op.outputs, {"axes": tuple(wrapped), "keep_dims": keep_dims})

    def read_onnx(self, match: OnnxMatch) -> Node:
        rank = len(match.input(0).shape)
        keep_dims = int(bool(match.attributes.get("keepdims", 1)))
        if match.op_type == "GlobalAveragePool":
            onnx_axes = tuple(range(2, rank))
        elif len(match.inputs) > 1:
            onnx_axes = tuple(int(axis) for axis in match.constant(1).ravel())
        else:
            onnx_axes = tuple(match.attributes.get("axes", ())) or tuple(range(rank))
        axes = tuple(sorted({match.axis(axis, rank) for axis in onnx_axes}))
        if rank == 4 and not keep_dims and axes not in ((1, 2), (3,), (1, 2, 3)):
            raise GraphError(
                f"ReduceMean of an image over axes {onnx_axes} without keepdims; supported: (2, 3), (1,), (1, 2, 3)"
            )
        attributes: dict[str, Attribute] = {"axes": axes, "keep_dims": keep_dims, "clamp": match.int8_clamp()}
        return Node(self.name, match.inputs[:1], match.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        if _clamp(node) != make.NO_CLAMP:
            raise GraphError(f"mean with clamp {_clamp(node)}; TFLite's MEAN has none: use a relu behind it")
        axes = writer.add_constant("axes", np.array(_axes(graph, node), np.int32))
        options = schema.ReducerOptionsT()
        options.keepDims = bool(node.attributes.get("keep_dims"))
        writer.add("MEAN", (node.inputs[0], axes), node.outputs, options, 2)


def _axes(graph: Graph, node: Node) -> tuple[int, ...]:
    """The axes, checked. Raises GraphError unless they are ascending neighbours within the input's rank."""
    axes, rank = node.attributes.get("axes"), len(graph.tensors[node.inputs[0]].shape)
    if not isinstance(axes, tuple) or not axes or not all(isinstance(axis, int) for axis in axes):
        raise GraphError(f"axes {axes}; expected at least one axis")
    ours = tuple(int(axis) for axis in axes)
    if ours[0] < 0 or ours[-1] >= rank or ours != tuple(range(ours[0], ours[-1] + 1)):
        raise GraphError(f"axes {ours} of {rank} dimensions; supported: ascending neighbours")
    return ours


def _clamp(node: Node) -> tuple[int, int]:
    return clamp_attribute(node) if "clamp" in node.attributes else make.NO_CLAMP


def _factor(graph: Graph, node: Node) -> _Factor:
    """The factor with 1 / count folded in. Raises GraphError for a ratio of scales or a count that is too large."""
    x, y, axes = int8_input(graph, node), int8_output(graph, node), _axes(graph, node)
    count = math.prod(x.shape[axis] for axis in axes)
    if count > MAX_COUNT:
        raise GraphError(f"a mean of {count:,} elements; supported: up to {MAX_COUNT:,}")
    ratio = x.scale / y.scale
    multipliers, shifts = quantize_multiplier(ratio)
    check_shift(shifts, ratio)
    multiplier, shift = int(multipliers[0]), int(shifts[0])
    up = min(count.bit_length() - 1, 32, 31 + shift)
    return _Factor((multiplier << up) // count, shift - up, count, x.zero_point)


def _example(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    scales: tuple[float, float],
    zero_points: tuple[int, int],
    label: str,
    keep_dims: int = 0,
) -> Example:
    x, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, zero_points, strict=True))
    attributes: dict[str, Attribute] = {"axes": axes, "keep_dims": keep_dims}
    graph = make.single_node("mean", (make.activation(shape, x),), y, attributes)
    return Example(graph, label, make.extreme_inputs(graph))


OPERATOR = Mean()
