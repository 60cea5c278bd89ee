"""A small float network with random weights, as an ONNX file and as plain arrays from which other frameworks rebuild it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CHANNELS, CLASSES = 8, (6, 6, 10), 5


def random_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights in ONNX's layout: conv OIHW, depthwise [c, 1, h, w], pointwise OIHW, dense [out, in]; biases."""
    rng = np.random.default_rng(seed)
    a, b, c = CHANNELS

    def normal(*shape: int, depth: int) -> np.ndarray:
        return (rng.standard_normal(shape) * np.sqrt(2 / depth)).astype(np.float32)

    return {
        "conv": normal(a, 1, 3, 3, depth=9),
        "conv_bias": normal(a, depth=40),
        "depthwise": normal(b, 1, 3, 3, depth=9),
        "depthwise_bias": normal(b, depth=40),
        "pointwise": normal(c, b, 1, 1, depth=b),
        "pointwise_bias": normal(c, depth=40),
        "dense": normal(CLASSES, c, depth=c),
        "dense_bias": normal(CLASSES, depth=40),
    }


def images(count: int, seed: int = 1) -> np.ndarray:
    """float32 [n, 1, 8, 8] in 0..1 in steps of 1/255, smooth enough to be no noise; 0 and 1 both occur."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 1, 4, 4)).repeat(2, 2).repeat(2, 3)
    coarse[:, :, 0, 0], coarse[:, :, 7, 7] = 0.0, 1.0
    return (np.rint(coarse * 255) / 255).astype(np.float32)


def float_onnx(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """conv 3x3 relu, depthwise 3x3 relu, pointwise relu, global average pool, dense."""
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "conv", "conv_bias"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "depthwise", "depthwise_bias"], ["c2"], group=CHANNELS[1], **pads),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "pointwise", "pointwise_bias"], ["c3"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("GlobalAveragePool", ["r3"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "dense_bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 1, SIZE, SIZE))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, CLASSES))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def quantized_by_onnxruntime(model: onnx.ModelProto, calibration: np.ndarray, folder: Path, **options: object) -> Path:
    """The model quantized by onnxruntime's own tool: QDQ, int8, weights per channel, ranges from the smallest and largest."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"input": image[None]}

    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, source)
    settings: dict[str, object] = {"quant_format": QuantFormat.QDQ, "per_channel": True, **options}
    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(source, target, Reader(), **types, **settings)
    return target
