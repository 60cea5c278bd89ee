"""2-D convolution with int8 weights per output channel (CONV_2D, Conv)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec, registry
from firmware_export.operators._accumulator import OutputStage, folded_bias, inputs_with_bias, int8_weights, int32_bias
from firmware_export.operators._checks import check_counts, int8_image, int8_output, shape_text
from firmware_export.operators._convolution_examples import convolution_cases
from firmware_export.operators._grouped import grouped_tflite
from firmware_export.operators._window import Window, onnx_window, tflite_window, write_window

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Conv2d(Operator):
    """y[row, column, o] = clamp(requantize(bias[o] + sum over taps and channels of w[o, i, j, c] * (x - zero point))).

    Inputs: x int8 [1, h, w, c]; weights int8 [outputs, kernel h, kernel w, c], symmetric, per tensor or per output
        channel (axis 0); bias int32 [outputs] or ABSENT.
    Attributes: stride (h, w), dilation (h, w), padding (top, bottom, left, right), clamp (lowest, highest stored value).
    Output: int8 [1, oh, ow, outputs]. Outside the image x is the zero point, that is 0.
    In float32: the arithmetic's own rule of requantisation, as XNNPACK, LiteRT's default, has it.
    """

    name = "conv2d"
    tflite = ("CONV_2D",)
    onnx = ("Conv",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (2, 3))
        x, weights, window = _parts(graph, node)
        if weights.shape[3] != x.shape[3]:
            raise GraphError(
                f"weights '{weights.name}' {weights.shape} for an image of {x.shape[3]} channels; supported: the same number"
            )
        int8_output(graph, node)
        int32_bias(graph, node, weights.shape[0])
        OutputStage.of(graph, node, weights.shape[0])
        return [OutputSpec((1, *window.output, weights.shape[0]), "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x, weights, window = _parts(graph, node)
        image = inputs[0]
        assert image is not None and weights.data is not None
        outputs = weights.shape[0]
        bias = int32_bias(graph, node, outputs)
        # float64 holds every sum exactly: fewer than 2^38 products of at most 2^15 each
        patches = window.patches(image.astype(np.float64) - x.zero_point, 0)
        matrix = weights.data.astype(np.float64).reshape(outputs, -1).T
        sums = (patches.reshape(-1, matrix.shape[0]) @ matrix).astype(np.int64)
        sums += 0 if bias is None else bias.astype(np.int64).reshape(-1)
        return [OutputStage.of(graph, node, outputs).apply(sums).reshape(1, *window.output, outputs)]

    def macs(self, graph: Graph, node: Node) -> int:
        _, weights, window = _parts(graph, node)
        return window.output[0] * window.output[1] * weights.elements

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        _, weights, window = _parts(graph, node)
        assert weights.data is not None
        return convolution_code(graph, node, weights.data, window)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for case in convolution_cases(rng):
            weights_shape = (case.outputs, *case.kernel, case.size[2])
            yield case.example(rng, self.name, weights_shape, axis=0, depth=case.kernel[0] * case.kernel[1] * case.size[2])

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.Conv2DOptionsT)
        attributes = tflite_window(op, options)
        channels, depth = op.input(0).shape[-1], op.input(1).shape[3]
        if channels > depth and channels % depth == 0:
            return grouped_tflite(op, attributes)
        return Node(self.name, op.inputs, op.outputs, attributes)

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Conv; one with groups is read as a depthwise_conv2d."""
        if match.attributes.get("group", 1) != 1:
            return registry()["depthwise_conv2d"].read_onnx(match)
        weights = match.weights()
        attributes = onnx_window(match)
        ours = match.add_constant(weights.name, match.constant(1).transpose(0, 2, 3, 1).copy(), weights.quantization)
        return Node(self.name, (match.inputs[0], ours, *match.inputs[2:]), match.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        _, _, window = _parts(graph, node)
        options = schema.Conv2DOptionsT()
        x = write_window(writer, node, window, options)
        writer.add("CONV_2D", (x, *inputs_with_bias(graph, node, writer)[1:]), node.outputs, options, 3)


def _parts(graph: Graph, node: Node) -> tuple[Tensor, Tensor, Window]:
    """Image, weights and window, checked."""
    x = int8_image(graph, node)
    weights = int8_weights(graph, node, rank=4, axis=0)
    return x, weights, Window.of(node, x, (weights.shape[1], weights.shape[2]))


def convolution_code(graph: Graph, node: Node, weights: Array, window: Window) -> LayerCode:
    """The call of nn_conv2d for int8 weights [outputs, kernel h, kernel w, c]; also for depthwise layers of one channel."""
    x, outputs = int8_image(graph, node), weights.shape[0]
    matrix = weights.reshape(outputs, -1)
    stage = OutputStage.of(graph, node, outputs)
    bias = folded_bias(int32_bias(graph, node, outputs), matrix.astype(np.int64).sum(1), x.zero_point)
    fields = window.fields() | {"dense.weights": "{weights}", "dense.bias": "{bias}"} | stage.fields("dense.stage")
    fields |= {"dense.depth": str(matrix.shape[1]), "dense.outputs": str(outputs), "fill": str(x.zero_point)}
    return LayerCode(
        function="nn_conv2d_pointwise" if window.is_pointwise else "nn_conv2d",
        params_type="nn_conv2d_params",
        fields=fields,
        constants=(Constant("weights", matrix), Constant("bias", bias), *stage.constants()),
        sources=("conv2d.c", "dense.c", "window.c"),
        scratch_bytes=0 if window.is_pointwise else matrix.shape[1],
        summary=f"{window.summary()}, {shape_text(x)} -> {'x'.join(map(str, (*window.output, outputs)))}",
    )


OPERATOR = Conv2d()
