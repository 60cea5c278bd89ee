"""2-D transposed convolution with int8 weights per output channel (TRANSPOSE_CONV, ConvTranspose)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.geometry import same_padding
from firmware_export.graph import ABSENT, Array, Graph, GraphError, Node, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators._accumulator import OutputStage, folded_bias, int8_weights, int32_bias
from firmware_export.operators._checks import (
    MAX_SIZE,
    check_counts,
    clamp_attribute,
    int8_image,
    int8_output,
    shape_text,
)
from firmware_export.operators._transposed_examples import transposed_cases
from firmware_export.operators._transposed_window import TransposedWindow, onnx_transposed_weights, onnx_transposed_window

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class TransposeConv(Operator):
    """y[row, column, o] = clamp(requantize(bias[o] + sum of w[o, i, j, c] * (x - zero point) of the pixels that taps meet)).

    A pixel and a tap meet at row = pixel row * stride - top + i, column = pixel column * stride - left + j.
    Inputs: x int8 [1, h, w, c]; weights int8 [outputs, kernel h, kernel w, c], symmetric, per tensor or per output
        channel (axis 0); bias int32 [outputs] or ABSENT.
    Attributes: stride (h, w), padding (top, left), size (output h, w), clamp (lowest, highest stored value). What lies
        outside `size` is dropped; outputs that no tap meets are the bias alone.
    Output: int8 [1, *size, outputs].
    In float32: the arithmetic's own rule of requantisation, as XNNPACK, LiteRT's default, has it; kernels smaller than the
    stride with SAME padding, which XNNPACK refuses, by the rule of double.

    In C the outputs of one phase, (row + top) modulo stride, are a convolution of stride 1 with every stride-th tap: no
    product with a zero that only the stride put there, and one patch of scratch instead of int32 sums for the image.
    """

    name = "transpose_conv"
    tflite = ("TRANSPOSE_CONV",)
    onnx = ("ConvTranspose",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (2, 3))
        x, weights, window = _parts(graph, node)
        if weights.shape[3] != x.shape[3]:
            raise GraphError(
                f"weights '{weights.name}' {weights.shape} for an image of {x.shape[3]} channels; supported: the same number"
            )
        int8_output(graph, node)
        int32_bias(graph, node, weights.shape[0])
        _stage(graph, node, weights, window)
        return [OutputSpec((1, *window.output, weights.shape[0]), "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x, weights, window = _parts(graph, node)
        image = inputs[0]
        assert image is not None and weights.data is not None
        bias = int32_bias(graph, node, weights.shape[0])
        # float64 holds every sum exactly
        sums = window.scattered(image[0].astype(np.float64) - x.zero_point, weights.data.astype(np.float64)).astype(np.int64)
        sums += 0 if bias is None else bias.astype(np.int64).reshape(-1)
        return [_stage(graph, node, weights, window).apply(sums)[np.newaxis]]

    def macs(self, graph: Graph, node: Node) -> int:
        x, weights, _ = _parts(graph, node)
        return x.shape[1] * x.shape[2] * weights.elements

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, weights, window = _parts(graph, node)
        assert weights.data is not None
        outputs = weights.shape[0]
        phases = [weights.data[:, i :: window.stride[0], j :: window.stride[1]] for i, j in window.phases()]
        # a window runs over the image forwards, and the taps that meet an output run backwards
        ordered = np.concatenate([phase[:, ::-1, ::-1].reshape(-1) for phase in phases])
        bias = int32_bias(graph, node, outputs)
        sums = [phase.astype(np.int64).reshape(outputs, -1).sum(1) for phase in phases]
        sums.append(np.zeros(outputs, np.int64))  # of the outputs that no tap meets
        biases = np.concatenate([folded_bias(bias, total, x.zero_point) for total in sums])
        stage = _stage(graph, node, weights, window)
        fields = window.fields() | {"dense.weights": "{weights}", "dense.bias": "{bias}"} | stage.fields("dense.stage")
        fields |= {"dense.outputs": str(outputs), "fill": str(x.zero_point)}
        return LayerCode(
            function="nn_transpose_conv",
            params_type="nn_transpose_conv_params",
            fields=fields,
            constants=(Constant("weights", ordered), Constant("bias", biases), *stage.constants()),
            sources=("transpose_conv.c", "dense.c", "window.c"),
            scratch_bytes=window.most_taps * x.shape[3],
            summary=f"{window.summary()}, {shape_text(x)} -> {'x'.join(map(str, (*window.output, outputs)))}",
        )

    def litert_default(self, graph: Graph, node: Node) -> bool:
        _, weights, window = _parts(graph, node)
        return _stage(graph.with_arithmetic("float32"), node, weights, window).scale is not None

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for case in transposed_cases(rng):
            yield case.example(rng)

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.TransposeConvOptionsT)
        if len(op.inputs) not in (3, 4):
            raise GraphError(f"{len(op.inputs)} inputs; expected 3 or 4 (output shape, weights, image, bias)")
        shape, kernel, stride = op.integers(0), op.input(1).shape, (int(options.strideH), int(options.strideW))
        if len(shape) != 4 or shape[0] != 1 or len(kernel) != 4 or kernel[0] != shape[3]:
            raise GraphError(f"output shape {shape} for weights {kernel}; supported: (1, h, w, output channels)")
        if min(*shape, *stride) < 1 or max(*shape, *stride) > MAX_SIZE:
            raise GraphError(f"output shape {shape}, stride {stride}; supported: 1 to {MAX_SIZE}")
        padding = (0, 0)
        if options.padding == schema.Padding.SAME:
            padding = same_padding(shape[1:3], kernel[1:3], stride)[::2]
        elif options.padding != schema.Padding.VALID:
            raise GraphError(f"padding {options.padding}; supported: 0 (SAME), 1 (VALID)")
        clamp = op.clamp(options.fusedActivationFunction)
        inputs = (op.inputs[2], op.inputs[1], *op.inputs[3:])
        return Node(self.name, inputs, op.outputs, {"stride": stride, "padding": padding, "size": shape[1:3], "clamp": clamp})

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Groups and dilations become zeros among the weights, which add nothing to any sum."""
        attributes = onnx_transposed_window(match)
        weights = onnx_transposed_weights(match)
        return Node(self.name, (match.inputs[0], weights, *match.inputs[2:]), match.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """Padding that is neither SAME nor VALID makes a larger output, of which a STRIDED_SLICE takes the part."""
        _, _, window = _parts(graph, node)
        options, output, size = schema.TransposeConvOptionsT(), node.outputs[0], window.output
        y, padding = graph.tensors[output], window.tflite_padding
        if not padding:
            size = window.uncropped
            output = writer.add_activation(f"{y.name}/whole", (1, *size, y.shape[3]), "int8", y.quantization)
        options.strideH, options.strideW = window.stride
        options.padding = schema.Padding.SAME if padding == "SAME" else schema.Padding.VALID
        options.fusedActivationFunction = writer.fused_activation(clamp_attribute(node), output)
        shape = writer.add_constant("output_shape", np.array((1, *size, y.shape[3]), np.int32))
        inputs = (shape, node.inputs[1], node.inputs[0], *(index for index in node.inputs[2:] if index != ABSENT))
        writer.add("TRANSPOSE_CONV", inputs, (output,), options, 3)
        if not padding:
            ends = (1, *(p + n for p, n in zip(window.padding, window.output, strict=True)), y.shape[3])
            arrays = ((0, *window.padding, 0), ends, (1, 1, 1, 1))
            arguments = [writer.add_constant(f"crop/{i}", np.array(array, np.int32)) for i, array in enumerate(arrays)]
            writer.add("STRIDED_SLICE", (output, *arguments), node.outputs, schema.StridedSliceOptionsT(), 2)


def _parts(graph: Graph, node: Node) -> tuple[Tensor, Tensor, TransposedWindow]:
    """Image, weights and window, checked."""
    x = int8_image(graph, node)
    weights = int8_weights(graph, node, rank=4, axis=0)
    return x, weights, TransposedWindow.of(node, x, (weights.shape[1], weights.shape[2]))


def _stage(graph: Graph, node: Node, weights: Tensor, window: TransposedWindow) -> OutputStage:
    """With the rule of double where XNNPACK refuses the kernel: it is smaller than the stride, and the padding is SAME."""
    small = window.tflite_padding == "SAME" and any(np.less(weights.shape[1:3], window.stride))
    return OutputStage.of(graph.with_arithmetic("double") if small else graph, node, weights.shape[0])


OPERATOR = TransposeConv()
