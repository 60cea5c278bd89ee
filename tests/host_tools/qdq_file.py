"""Small int8 QDQ ONNX files for tests, written node by node, and a network for the digits that needs no training."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from train.data import Dataset

INPUT_SCALE = np.float32(1 / 255)


class QdqFile:
    """Collects the nodes and constants of a QDQ file."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: np.ndarray | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def round_trip(self, value: str, scale: float, zero_point: int, output: str) -> str:
        """QuantizeLinear and DequantizeLinear."""
        pair = [self.constant(f"{output}_s", np.float32(scale)), self.constant(f"{output}_z", np.int8(zero_point))]
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [value, *pair], f"{output}_q"), *pair], output)

    def weights(self, name: str, values: np.ndarray, scales: np.ndarray) -> str:
        """An int8 or int32 constant behind a DequantizeLinear with one scale per output channel."""
        zero = self.constant(f"{name}_z", np.zeros(len(scales), values.dtype))
        inputs = [self.constant(f"{name}_q", values), self.constant(f"{name}_s", scales.astype(np.float32)), zero]
        return self.add("DequantizeLinear", inputs, name, axis=0)

    def content(self, shape: list[int], classes: int) -> bytes:
        """The checked file; input `input`, output `logits`."""
        source = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
        result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, "net", [source], [result], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def _features(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """relu(3x3 convolution, stride 2, one row and column of zeros below and to the right): float [n, 4, 4, channels]."""
    padded = np.pad(images[:, :, :, 0] / 255.0, ((0, 0), (0, 1), (0, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    return np.maximum(np.einsum("nijab,cab->nijc", windows, kernel) + bias, 0.0)


def _quantized(weights: np.ndarray, bias: np.ndarray, input_scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 weights with one scale per first axis, int32 bias, the scales."""
    scales = (np.abs(weights).reshape(len(weights), -1).max(axis=1) / 127).astype(np.float32)
    stored = np.round(weights / scales.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.int8)
    return stored, np.round(bias / (scales * np.float32(input_scale))).astype(np.int32), scales


def digits_file(dataset: Dataset, channels: int = 4) -> bytes:
    """Two layers for the 8x8 digits: random 3x3 filters, then a linear classifier found by least squares."""
    rng = np.random.default_rng(2)
    kernel, bias = rng.normal(0, 0.5, (channels, 3, 3)), rng.normal(0, 0.1, channels)
    features = _features(dataset.train.images, kernel, bias)
    flat = np.hstack([features.reshape(len(features), -1), np.ones((len(features), 1))])
    wanted = np.eye(10)[dataset.train.labels] * 8 - 4
    solution = np.linalg.solve(flat.T @ flat + 3.0 * np.eye(flat.shape[1]), flat.T @ wanted)
    classifier = solution[:-1].T.reshape(10, 4, 4, channels).transpose(0, 3, 1, 2)
    middle = float(features.max() / 255)
    logits = (flat @ solution).max() - (flat @ solution).min()
    file = QdqFile()
    x = file.round_trip("input", float(INPUT_SCALE), -128, "x")
    first, first_bias, first_scales = _quantized(kernel[:, None], bias, float(INPUT_SCALE))
    parts = [file.weights("w1", first, first_scales), file.weights("b1", first_bias, INPUT_SCALE * first_scales)]
    hidden = file.add("Relu", [file.add("Conv", [x, *parts], "c1", pads=[0, 0, 1, 1], strides=[2, 2])], "r1")
    y = file.round_trip(hidden, middle, -128, "y")
    second, second_bias, second_scales = _quantized(classifier, solution[-1], middle)
    parts = [file.weights("w2", second, second_scales), file.weights("b2", second_bias, np.float32(middle) * second_scales)]
    z = file.round_trip(file.add("Conv", [y, *parts], "c2"), float(logits / 250), 0, "z")
    flattened = file.add("Flatten", [z], "f")
    file.round_trip(flattened, float(logits / 250), 0, "logits")
    return file.content([1, 1, 8, 8], 10)


def mixed_file(rng: np.random.Generator, channels: int = 1, size: int = 8, classes: int = 3) -> bytes:
    """Every operator the stage `compress` writes, with random weights: padded, strided and depthwise convolutions, an
    addition, both pools, both clamps, a linear layer. float [1, channels, size, size] -> logits [1, classes]."""
    file = QdqFile()
    x = file.round_trip("input", float(INPUT_SCALE), -128, "x")

    def conv(source: str, name: str, shape: tuple[int, ...], input_scale: float, **attributes: object) -> str:
        scales = rng.uniform(0.002, 0.01, shape[0]).astype(np.float32)
        kernel = file.weights(f"{name}_w", rng.integers(-127, 128, shape).astype(np.int8), scales)
        bias_scales = np.float32(input_scale) * scales
        bias = file.weights(f"{name}_b", rng.integers(-3000, 3000, shape[0]).astype(np.int32), bias_scales)
        return file.add("Conv", [source, kernel, bias], name, **attributes)

    stem = conv(x, "stem", (4, channels, 3, 3), float(INPUT_SCALE), pads=[0, 0, 1, 1], strides=[2, 2])
    a = file.round_trip(file.add("Relu", [stem], "stem_r"), 0.01, -128, "a")
    bounds = [file.constant("low", np.float32(0)), file.constant("high", np.float32(6))]
    depthwise = conv(a, "dw", (4, 1, 3, 3), 0.01, pads=[1, 1, 1, 1], group=4)
    b = file.round_trip(file.add("Clip", [depthwise, *bounds], "dw_r"), 6 / 255, -128, "b")
    total = file.round_trip(file.add("Add", [a, b], "sum"), 0.02, -100, "t")
    pooled = file.round_trip(file.add("MaxPool", [total], "m", kernel_shape=[2, 2], strides=[2, 2]), 0.02, -100, "p")
    mean = file.round_trip(file.add("GlobalAveragePool", [pooled], "g"), 0.01, -90, "mean")
    flat = file.add("Flatten", [mean], "flat")
    scales = rng.uniform(0.002, 0.01, classes).astype(np.float32)
    kernel = file.weights("fc_w", rng.integers(-127, 128, (classes, 4)).astype(np.int8), scales)
    bias = file.weights("fc_b", rng.integers(-2000, 2000, classes).astype(np.int32), np.float32(0.01) * scales)
    file.round_trip(file.add("Gemm", [flat, kernel, bias], "y", transB=1), 0.02, 5, "logits")
    return file.content([1, channels, size, size], classes)
