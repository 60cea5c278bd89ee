"""Depthwise 2-D convolution with int8 weights per channel (DEPTHWISE_CONV_2D, Conv with groups)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators._accumulator import OutputStage, folded_bias, inputs_with_bias, int8_weights, int32_bias
from firmware_export.operators._checks import MAX_SIZE, check_counts, int8_image, int8_output, shape_text
from firmware_export.operators._convolution_examples import convolution_cases
from firmware_export.operators._grouped import read_grouped
from firmware_export.operators._window import Window, onnx_window, tflite_window, write_window
from firmware_export.operators.conv2d import convolution_code

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class DepthwiseConv2d(Operator):
    """y[row, column, o] = clamp(requantize(bias[o] + sum over taps of w[i, j, o] * (x[.., o / multiplier] - zero point))).

    Inputs: x int8 [1, h, w, c]; weights int8 [1, kernel h, kernel w, c * multiplier], symmetric, per tensor or per output
        channel (axis 3); bias int32 [c * multiplier] or ABSENT.
    Attributes: stride (h, w), dilation (h, w), padding (top, bottom, left, right), clamp (lowest, highest stored value).
    Output: int8 [1, oh, ow, c * multiplier]. Outside the image x is the zero point, that is 0.
    In float32: the arithmetic's own rule of requantisation, as XNNPACK, LiteRT's default, has it.
    """

    name = "depthwise_conv2d"
    tflite = ("DEPTHWISE_CONV_2D",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (2, 3))
        x, weights, window = _parts(graph, node)
        outputs = weights.shape[3]
        if weights.shape[0] != 1 or outputs % x.shape[3] != 0 or outputs > MAX_SIZE:
            raise GraphError(
                f"weights '{weights.name}' {weights.shape} for an image of {x.shape[3]} channels; "
                f"supported: [1, kernel h, kernel w, channels x multiplier], up to {MAX_SIZE}"
            )
        int8_output(graph, node)
        int32_bias(graph, node, outputs)
        OutputStage.of(graph, node, outputs)
        return [OutputSpec((1, *window.output, outputs), "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x, weights, window = _parts(graph, node)
        image = inputs[0]
        assert image is not None and weights.data is not None
        patches = window.patches(image.astype(np.int32) - x.zero_point, 0)
        taps = weights.data.astype(np.int32).reshape(*window.kernel, window.channels, -1)
        bias = int32_bias(graph, node, weights.shape[3])
        sums = np.zeros((*window.output, *taps.shape[2:]), np.int64)
        for i, j in np.ndindex(*window.kernel):
            sums += patches[:, :, i, j, :, np.newaxis] * taps[i, j]
        sums = sums.reshape(*window.output, -1) + (0 if bias is None else bias.astype(np.int64).reshape(-1))
        return [OutputStage.of(graph, node, weights.shape[3]).apply(sums)[np.newaxis]]

    def macs(self, graph: Graph, node: Node) -> int:
        _, weights, window = _parts(graph, node)
        return window.output[0] * window.output[1] * weights.elements

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, weights, window = _parts(graph, node)
        assert weights.data is not None
        if window.channels == 1:  # every output reads the one channel: an ordinary convolution, whose kernel is faster here
            return convolution_code(graph, node, weights.data.transpose(3, 1, 2, 0), window)
        outputs = weights.shape[3]
        stage = OutputStage.of(graph, node, outputs)
        sums = weights.data.reshape(-1, outputs).astype(np.int64).sum(0)
        bias = folded_bias(int32_bias(graph, node, outputs), sums, x.zero_point)
        fields = window.fields() | {"weights": "{weights}", "bias": "{bias}"} | stage.fields("stage")
        fields |= {"multiplier": str(outputs // window.channels), "fill": str(x.zero_point)}
        return LayerCode(
            function="nn_depthwise_conv2d",
            params_type="nn_depthwise_conv2d_params",
            fields=fields,
            constants=(Constant("weights", weights.data), Constant("bias", bias), *stage.constants()),
            sources=("depthwise_conv2d.c", "window.c"),
            scratch_bytes=window.taps * window.channels,
            summary=f"{window.summary()}, {shape_text(x)} -> {'x'.join(map(str, (*window.output, outputs)))}",
        )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for case in convolution_cases(rng, max_outputs=4):
            channels = case.size[2] * case.outputs
            yield case.example(rng, self.name, (1, *case.kernel, channels), axis=3, depth=case.kernel[0] * case.kernel[1])

    def read_tflite(self, op: TfliteOperator) -> Node:
        """The multiplier of the options is ignored, as TFLite does: the shapes say it."""
        options = op.options_as(schema.DepthwiseConv2DOptionsT)
        return Node(self.name, op.inputs, op.outputs, tflite_window(op, options))

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Conv with as many groups as channels; called by conv2d. Other groups are convolutions side by side."""
        weights, channels = match.weights(), match.input(0).shape[-1]
        if match.attributes["group"] != channels or weights.shape[1] != 1:
            return read_grouped(match)
        attributes = onnx_window(match)
        quantization = weights.quantization
        if quantization is not None and quantization.axis is not None:
            quantization = replace(quantization, axis=3)
        ours = match.add_constant(weights.name, match.constant(1).transpose(1, 2, 3, 0).copy(), quantization)
        return Node(self.name, (match.inputs[0], ours, *match.inputs[2:]), match.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        _, weights, window = _parts(graph, node)
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = weights.shape[3] // window.channels
        x = write_window(writer, node, window, options)
        writer.add("DEPTHWISE_CONV_2D", (x, *inputs_with_bias(graph, node, writer)[1:]), node.outputs, options, 3)


def _parts(graph: Graph, node: Node) -> tuple[Tensor, Tensor, Window]:
    """Image, weights and window, checked."""
    x = int8_image(graph, node)
    weights = int8_weights(graph, node, rank=4, axis=3)
    return x, weights, Window.of(node, x, (weights.shape[1], weights.shape[2]))


OPERATOR = DepthwiseConv2d()
