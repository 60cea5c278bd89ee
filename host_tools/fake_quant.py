"""Runs an int8 QDQ ONNX file in torch with its fake-quantization functions: float sums, values held on the int8 grid.

It is what the network computed in quantization-aware training. Float sums round differently near ties, so its answers
agree with the exact ones within a tolerance only. Only the operators that the stage `compress` writes are known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from firmware_export.graph import GraphError, Tensor
from host_tools.oracles import Int8, real_nchw, stored

BATCH = 256


def fake_quant_outputs(model: bytes, images: Int8, output: Tensor) -> Int8:
    """Answers of torch for the QDQ file, as bytes of the output tensor.

    Args:
        model: an int8 QDQ ONNX file with NCHW float input and logits.
        images: int8 [n, h, w, c] as the board takes them. output: tells scale and zero point of the logits.
    Raises:
        GraphError: an operator that the stage `compress` does not write.
    """
    torch = _torch()
    graph = onnx.load_model_from_string(model).graph
    constants = {i.name: torch.from_numpy(np.array(numpy_helper.to_array(i))) for i in graph.initializer}
    logits: list[npt.NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            values = {**constants, graph.input[0].name: torch.from_numpy(real_nchw(images[start : start + BATCH]))}
            for node in graph.node:
                values[node.output[0]] = _apply(node, [values[name] if name else None for name in node.input])
            logits.append(values[graph.output[0].name].numpy())
    return stored(np.concatenate(logits), output)


def _torch() -> Any:
    """torch, loaded only when it is needed: the host tools start without it."""
    return importlib.import_module("torch")


def _apply(node: Any, inputs: list[Any]) -> Any:
    """One ONNX node on torch tensors (None for an input that is left out)."""
    if node.op_type not in _OPERATORS:
        raise GraphError(f"torch fake-quant: operator {node.op_type}; known: {', '.join(sorted(_OPERATORS))}")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return _OPERATORS[node.op_type](attributes, *inputs)


def _quantize(attributes: dict[str, Any], x: Any, scale: Any, zero: Any) -> Any:
    """Onto the int8 grid; stays float, as fake quantization does."""
    return _torch().fake_quantize_per_tensor_affine(x, float(scale), int(zero), -128, 127)


def _dequantize(attributes: dict[str, Any], x: Any, scale: Any, zero: Any = None) -> Any:
    """A constant becomes real numbers; an activation is real already."""
    if x.is_floating_point():
        return x
    shape = [1] * x.dim()
    if scale.numel() > 1:
        shape[attributes.get("axis", 1)] = -1
    centred = x.double() if zero is None else x.double() - zero.reshape(shape).double()
    return (centred * scale.reshape(shape).double()).float()


def _convolution(attributes: dict[str, Any], x: Any, weights: Any, bias: Any = None) -> Any:
    functional = _torch().nn.functional
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    padded = functional.pad(x, (left, right, top, bottom))
    stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return functional.conv2d(padded, weights, bias, stride, 0, dilation, attributes.get("group", 1))


def _max_pool(attributes: dict[str, Any], x: Any) -> Any:
    functional = _torch().nn.functional
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    padded = functional.pad(x, (left, right, top, bottom), value=-float("inf"))
    return functional.max_pool2d(padded, attributes["kernel_shape"], attributes.get("strides", [1, 1]))


def _gemm(attributes: dict[str, Any], x: Any, weights: Any, bias: Any = None) -> Any:
    product = x @ (weights.T if attributes.get("transB", 0) else weights)
    return product if bias is None else product + bias


_OPERATORS: dict[str, Callable[..., Any]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Conv": _convolution,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "Add": lambda attributes, a, b: a + b,
    "Relu": lambda attributes, x: x.relu(),
    "Clip": lambda attributes, x, low, high: x.clamp(float(low), float(high)),
    "GlobalAveragePool": lambda attributes, x: x.mean((2, 3), keepdim=True),
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
}
