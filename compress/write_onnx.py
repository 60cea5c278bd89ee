"""Writes a folded network as ONNX: float, or int8 with QuantizeLinear/DequantizeLinear pairs (QDQ).

The fx graph decides which: where quantizers stand, pairs are written. Batch 1, NCHW, opset 20, one file, the same
network gives the same bytes. Asymmetric padding goes into Conv's own `pads`; whole-tensor scales have rank 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch import Tensor, fx, nn

from compress.fake_quantize import ActivationQuantizer, QuantizedLayer
from compress.fold import ADDITIONS, layer_of
from compress.insert_quantizers import quantizer_before
from firmware_export.graph import GraphError
from train.models import GlobalAveragePool, SameConv2d

OPSET = 20
IR_VERSION = 9
"""The first that knows opset 20: files stay readable for older tools."""
INPUT, OUTPUT = "input", "logits"


def onnx_bytes(traced: fx.GraphModule, input_shape: tuple[int, int, int], name: str) -> bytes:
    """The network as an ONNX file.

    Args:
        traced: from fold_batch_norm (float) or insert_quantizers after calibration (QDQ).
        input_shape: height, width, channels of one image; the file's input is float32 [1, c, h, w].
        name: of the graph.
    Raises:
        GraphError: a weight or range is not finite, or a layer cannot be written.
    """
    check_finite(traced)
    writer = _Writer(traced)
    for node in traced.graph.nodes:
        writer.write(node)
    height, width, channels = input_shape
    source = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, channels, height, width])
    result = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, _classes(traced)])
    graph = helper.make_graph(writer.nodes, name, [source], [result], writer.constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edge-inference-stm32")
    model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def check_finite(model: nn.Module) -> None:
    """Raises GraphError where a parameter or buffer holds NaN or infinity."""
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise GraphError(f"'{name}' holds NaN or infinity; train again with a smaller learning_rate")


def _classes(traced: fx.GraphModule) -> int:
    linears = [module for module in traced.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise GraphError("the network has no linear layer; expected one at its end that gives the logits")
    return linears[-1].out_features


class _Writer:
    """Collects ONNX nodes and constants while the fx graph is walked in order."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._traced = traced
        self._names: dict[fx.Node, str] = {}
        self._result = next(node for node in traced.graph.nodes if node.op == "output").args[0]

    def write(self, node: fx.Node) -> None:
        """Adds what one fx node means."""
        layer = layer_of(self._traced, node)
        if node.op == "placeholder":
            self._names[node] = INPUT
        elif isinstance(layer, ActivationQuantizer):
            self._names[node] = self._round_trip(node, layer, self._input(node), first=True)
        elif isinstance(layer, (QuantizedLayer, SameConv2d, nn.Linear)):
            self._names[node] = self._weighted(node, layer)
        elif isinstance(layer, (nn.MaxPool2d, nn.Flatten)):
            self._names[node] = self._moved(node, layer)
        elif layer is not None or node.target in ADDITIONS:
            self._names[node] = self._plain(node, layer)

    def _input(self, node: fx.Node, index: int = 0) -> str:
        source = node.args[index]
        assert isinstance(source, fx.Node)
        return self._names[source]

    def _output(self, node: fx.Node) -> str:
        return OUTPUT if node is self._result else node.name

    def _add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _round_trip(self, node: fx.Node, quantizer: ActivationQuantizer, value: str, first: bool) -> str:
        """QuantizeLinear and DequantizeLinear with a quantizer's scale and zero point, written at its first use."""
        prefix = node.name if first else quantizer_before(self._traced, node).name
        pair = [f"{prefix}_scale", f"{prefix}_zero_point"]
        if first:
            self._constant(pair[0], _array(quantizer.scale, np.float32))
            self._constant(pair[1], _array(quantizer.zero_point, np.int8))
        stored = self._add("QuantizeLinear", [value, *pair], f"{node.name}_int8")
        return self._add("DequantizeLinear", [stored, *pair], self._output(node))

    def _weighted(self, node: fx.Node, layer: nn.Module) -> str:
        inner = layer.layer if isinstance(layer, QuantizedLayer) else layer
        if isinstance(layer, QuantizedLayer):
            parameters = self._quantized_parameters(node, layer)
        else:
            assert isinstance(inner, (nn.Conv2d, nn.Linear))
            parameters = self._float_parameters(node, inner)
        inputs = [self._input(node), *parameters]
        if isinstance(inner, nn.Linear):
            return self._add("Gemm", inputs, self._output(node), transB=1)
        assert isinstance(inner, SameConv2d)
        top, bottom, left, right = inner.pads
        return self._add(
            "Conv",
            inputs,
            self._output(node),
            kernel_shape=list(inner.kernel_size),
            strides=list(inner.stride),
            dilations=list(inner.dilation),
            group=inner.groups,
            pads=[top, left, bottom, right],
        )

    def _float_parameters(self, node: fx.Node, layer: nn.Conv2d | nn.Linear) -> list[str]:
        parameters = [("weight", layer.weight), ("bias", layer.bias)]
        return [self._constant(f"{node.name}_{suffix}", _array(p, np.float32)) for suffix, p in parameters if p is not None]

    def _quantized_parameters(self, node: fx.Node, layer: QuantizedLayer) -> list[str]:
        """Integer constants behind a DequantizeLinear each, one scale per output channel."""
        quantizer = layer_of(self._traced, quantizer_before(self._traced, node))
        assert isinstance(quantizer, ActivationQuantizer)
        weights, bias = layer.integers(quantizer.scale)
        scales = _array(layer.scales(quantizer.scale), np.float32)
        names = [self._dequantized(f"{node.name}_weight", _array(weights, np.int8), scales)]
        if bias is not None:
            bias_scales = _array(quantizer.scale, np.float32) * scales
            names.append(self._dequantized(f"{node.name}_bias", _array(bias, np.int32), bias_scales))
        return names

    def _dequantized(self, name: str, integers: npt.NDArray[Any], scales: npt.NDArray[np.float32]) -> str:
        inputs = [
            self._constant(f"{name}_stored", integers),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero_point", np.zeros(scales.shape, integers.dtype)),
        ]
        return self._add("DequantizeLinear", inputs, name, axis=0)

    def _moved(self, node: fx.Node, layer: nn.MaxPool2d | nn.Flatten) -> str:
        """Max pool or flatten; in a quantized graph its output keeps the quantization of its input."""
        quantized = any(isinstance(module, ActivationQuantizer) for module in self._traced.modules())
        output = f"{node.name}_float" if quantized else self._output(node)
        if isinstance(layer, nn.Flatten):
            self._add("Flatten", [self._input(node)], output, axis=1)
        else:
            self._add("MaxPool", [self._input(node)], output, **_pool_attributes(layer))
        if not quantized:
            return output
        quantizer = layer_of(self._traced, quantizer_before(self._traced, node))
        assert isinstance(quantizer, ActivationQuantizer)
        return self._round_trip(node, quantizer, output, first=False)

    def _plain(self, node: fx.Node, layer: nn.Module | None) -> str:
        """Layers without weights and with a range of their own."""
        output = self._output(node)
        if layer is None:
            return self._add("Add", [self._input(node), self._input(node, 1)], output)
        if isinstance(layer, nn.ReLU6):
            bounds = [
                self._constant(f"{node.name}_{suffix}", np.array(v, np.float32)) for suffix, v in (("min", 0), ("max", 6))
            ]
            return self._add("Clip", [self._input(node), *bounds], output)
        if isinstance(layer, nn.ReLU):
            return self._add("Relu", [self._input(node)], output)
        if isinstance(layer, GlobalAveragePool):
            return self._average(node, output)
        raise GraphError(f"layer '{node.name}' is {type(layer).__name__}, which cannot be written to ONNX")

    def _average(self, node: fx.Node, output: str) -> str:
        """GlobalAveragePool [1, c, 1, 1], then Flatten [1, c]."""
        pooled = self._add("GlobalAveragePool", [self._input(node)], f"{node.name}_pooled")
        return self._add("Flatten", [pooled], output, axis=1)


def _pool_attributes(layer: nn.MaxPool2d) -> dict[str, list[int]]:
    top, left = _pair(layer.padding)
    if layer.ceil_mode or _pair(layer.dilation) != (1, 1):
        raise GraphError("a max pool with ceil_mode or dilation cannot be written; supported: ceil_mode=False, dilation=1")
    return {
        "kernel_shape": list(_pair(layer.kernel_size)),
        "strides": list(_pair(layer.stride)),
        "pads": [top, left, top, left],
    }


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _array(tensor: Tensor, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A contiguous copy that keeps rank 0 (numpy.ascontiguousarray would not)."""
    return np.array(tensor.detach().cpu().numpy(), dtype=dtype, order="C")
