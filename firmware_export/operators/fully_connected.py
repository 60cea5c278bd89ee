"""Fully connected layer with int8 weights, per tensor or per output (FULLY_CONNECTED, Gemm, MatMul)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import ABSENT, Array, Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec, registry
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import OutputStage, folded_bias, int8_weights, int32_bias
from firmware_export.operators._checks import check_counts, clamp_attribute, int8_input, int8_output
from firmware_export.operators._computed_weights import product_of_two

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

PER_TENSOR_VERSION, PER_CHANNEL_VERSION = 4, 12


class FullyConnected(Operator):
    """y[b, o] = clamp(requantize(bias[o] + sum over i of w[o, i] * (x[b, i] - zero point))).

    Inputs: x int8 of any shape whose elements are a multiple of `in`, the last dimensions running first; weights int8
        [out, in], symmetric, per tensor or per output (axis 0); bias int32 [out] or ABSENT.
    Attributes: clamp (lowest, highest stored value); keep_dims 0 or 1 (optional, 0).
    Output: int8 [elements / in, out], or with keep_dims the shape of x with its last dimension replaced by out.
    In float32: the arithmetic's own rule of requantisation, as XNNPACK, LiteRT's default, has it.
    """

    name = "fully_connected"
    tflite = ("FULLY_CONNECTED",)
    onnx = ("Gemm", "MatMul")

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (2, 3))
        x, weights = _parts(graph, node)
        outputs, depth = weights.shape
        if x.elements % depth != 0 or (_keep_dims(node) and x.shape[-1:] != (depth,)):
            raise GraphError(
                f"input 0 '{x.name}' {x.shape} does not fit the weights '{weights.name}' {weights.shape}, [out, in]"
            )
        int8_output(graph, node)
        int32_bias(graph, node, outputs)
        OutputStage.of(graph, node, outputs)
        shape = (*x.shape[:-1], outputs) if _keep_dims(node) else (x.elements // depth, outputs)
        return [OutputSpec(shape, "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x, weights = _parts(graph, node)
        vector = inputs[0]
        assert vector is not None and weights.data is not None
        outputs, depth = weights.shape
        bias = int32_bias(graph, node, outputs)
        # float64 holds every sum exactly
        rows = vector.reshape(-1, depth).astype(np.float64) - x.zero_point
        sums = (rows @ weights.data.astype(np.float64).T).astype(np.int64)
        sums += 0 if bias is None else bias.astype(np.int64).reshape(-1)
        return [OutputStage.of(graph, node, outputs).apply(sums).reshape(self.infer(graph, node)[0].shape)]

    def macs(self, graph: Graph, node: Node) -> int:
        x, weights = _parts(graph, node)
        return x.elements * weights.shape[0]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, weights = _parts(graph, node)
        assert weights.data is not None
        outputs, depth = weights.shape
        stage = OutputStage.of(graph, node, outputs)
        bias = folded_bias(int32_bias(graph, node, outputs), weights.data.astype(np.int64).sum(1), x.zero_point)
        fields = {"dense.weights": "{weights}", "dense.bias": "{bias}"} | stage.fields("dense.stage")
        fields |= {"dense.depth": str(depth), "dense.outputs": str(outputs), "batches": str(x.elements // depth)}
        return LayerCode(
            function="nn_fully_connected",
            params_type="nn_fully_connected_params",
            fields=fields,
            constants=(Constant("weights", weights.data), Constant("bias", bias), *stage.constants()),
            sources=("fully_connected.c", "dense.c"),
            summary=f"{depth} -> {outputs}" + (f", {x.elements // depth} times" if x.elements != depth else ""),
        )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        yield _example(rng, "zero point -128", 30, 5, zero_point=-128)
        yield _example(rng, "zero point 127", 30, 5, zero_point=127)
        yield _example(rng, "one input, one output", 1, 1)
        yield _example(rng, "no bias", 17, 3, bias=False)
        yield _example(rng, "one scale for all weights, no bias", 17, 3, per_tensor=True, bias=False)
        yield _example(rng, "one scale for all weights", 40, 10, per_tensor=True)
        yield _example(rng, "saturation", 64, 8, spread=4000.0)
        yield _example(rng, "all outputs near zero", 64, 8, spread=0.3)
        yield _example(rng, "factor below 2^-32", 16, 4, spread=1e-7)
        yield _example(rng, "factor above 1", 1, 4, spread=2e4)
        yield _example(rng, "an image as input", 36, 6, shape=(1, 3, 4, 3))
        yield _example(rng, "three vectors", 12, 5, shape=(1, 3, 12))
        yield _example(rng, "keep_dims", 6, 5, shape=(1, 4, 6), keep_dims=1)
        for index in range(10):
            yield _example(rng, f"ties {index}", make.pick(rng, 1, 64), make.pick(rng, 1, 9), ties=True)
        for index in range(30):
            depth, outputs = make.pick(rng, 1, 80), make.pick(rng, 1, 13)
            yield _example(rng, f"random {index}", depth, outputs, per_tensor=bool(rng.random() < 0.5))

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.FullyConnectedOptionsT)
        if options.weightsFormat != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
            raise GraphError(f"weights format {options.weightsFormat}; supported: 0 (DEFAULT)")
        if not op.input(1).is_constant:
            return product_of_two(op, op.clamp(options.fusedActivationFunction))
        attributes: dict[str, Attribute] = {
            "clamp": op.clamp(options.fusedActivationFunction),
            "keep_dims": int(bool(options.keepNumDims)),
        }
        return Node(self.name, op.inputs, op.outputs, attributes)

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Gemm (alpha = beta = 1, A not transposed) and MatMul with constant weights; any other MatMul is a batch_matmul."""
        computed = not (match.input(0).is_constant or match.input(1).is_constant)
        if match.op_type == "MatMul" and (computed or len(match.input(0).shape) == 4 or len(match.input(1).shape) != 2):
            return registry()["batch_matmul"].read_onnx(match)
        flags = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        wrong = {key: match.attributes[key] for key, value in flags.items() if match.attributes.get(key, value) != value}
        if wrong or len(match.input(1).shape) != 2:
            raise GraphError(
                f"{match.op_type} with {wrong}, weights {match.input(1).shape}; supported: alpha 1, beta 1, transA 0, 2-D"
            )
        transposed = bool(match.attributes.get("transB", 0))
        weights, depth = match.weights(), match.input(1).shape[1 if transposed else 0]
        if match.input(0).shape[-1:] != (depth,):
            raise GraphError(f"input 0 {match.input(0).shape} does not fit the weights {weights.shape}")
        axis_of_outputs = 0 if transposed else 1
        quantization = weights.quantization
        if quantization is not None and quantization.axis is not None:
            if quantization.axis != axis_of_outputs:
                raise GraphError(
                    f"weights '{weights.name}' have scales along axis {quantization.axis}; supported: along the outputs"
                )
            quantization = replace(quantization, axis=0)
        data = match.constant(1) if transposed else match.constant(1).T.copy()
        ours = match.add_constant(weights.name, data, quantization)
        keep_dims = int(match.op_type == "MatMul" and len(match.input(0).shape) != 2)
        attributes: dict[str, Attribute] = {"clamp": match.int8_clamp(), "keep_dims": keep_dims}
        return Node(self.name, (match.inputs[0], ours, *match.inputs[2:]), match.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        _, weights = _parts(graph, node)
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = writer.fused_activation(clamp_attribute(node), node.outputs[0])
        options.keepNumDims = bool(_keep_dims(node))
        per_channel = weights.quantization is not None and weights.quantization.scale.size > 1
        inputs = node.inputs if len(node.inputs) == 3 else (*node.inputs, ABSENT)
        writer.add("FULLY_CONNECTED", inputs, node.outputs, options, PER_CHANNEL_VERSION if per_channel else PER_TENSOR_VERSION)


def _parts(graph: Graph, node: Node) -> tuple[Tensor, Tensor]:
    """Input and weights, checked."""
    return int8_input(graph, node), int8_weights(graph, node, rank=2, axis=0)


def _keep_dims(node: Node) -> int:
    return node.integer("keep_dims") if "keep_dims" in node.attributes else 0


def _example(
    rng: np.random.Generator,
    label: str,
    depth: int,
    outputs: int,
    shape: tuple[int, ...] | None = None,
    zero_point: int | None = None,
    bias: bool = True,
    per_tensor: bool = False,
    spread: float = 40.0,
    ties: bool = False,
    keep_dims: int = 0,
) -> Example:
    x = make.activation(shape or (1, depth), make.random_quantization(rng))
    weights = make.random_weights(rng, (outputs, depth), None if per_tensor else 0)
    if zero_point is not None:
        x = replace(x, quantization=Quantization.per_tensor(x.scale, zero_point))
    output = make.spread_output(rng, x, weights, depth, spread)
    if ties:
        x, weights, output = make.tied(x, weights, depth)
    b = make.random_bias(rng, x, weights, outputs) if bias else None
    attributes: dict[str, Attribute] = {"clamp": make.random_clamp(rng, output), "keep_dims": keep_dims}
    graph = make.single_node("fully_connected", (x, weights, b), output, attributes)
    return Example(graph, label, make.extreme_inputs(graph))


OPERATOR = FullyConnected()
