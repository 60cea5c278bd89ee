"""Runs a written file in onnxruntime and compares it with the torch network it came from.

onnxruntime requantizes in float and torch imitates int8 in float: agreement of the int8 file is a tolerance, never
exact (the exact arithmetic is firmware_export's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
from torch import nn

from firmware_export.graph import GraphError
from train.data import Split, Uint8, to_float_nchw
from train.evaluate import predict
from train.progress import progress

Logits = npt.NDArray[np.float32]

FLOAT_TOLERANCE = 1e-4
"""Largest difference of a float file's logits, relative to the largest logit."""
INT8_STEPS = 4
"""Largest usual difference of an int8 file's logits, in steps of their scale."""


@dataclass(frozen=True)
class Agreement:
    """How far two sets of logits [n, classes] are apart."""

    largest: float
    different_classes: int
    images: int


def run_onnx(content: bytes, images: Uint8) -> Logits:
    """Logits float32 [n, classes] of an ONNX file for uint8 images [n, h, w, c], one at a time, graph optimizations off.

    Raises:
        GraphError: onnxruntime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own binary module
        raise GraphError(f"onnxruntime refuses the file: {str(error).splitlines()[0]}") from None
    name = session.get_inputs()[0].name
    logits = []
    with progress("onnxruntime", len(images), "images") as advance:
        for image in to_float_nchw(images):
            logits.append(session.run(None, {name: image[None]})[0])
            advance(1)
    return np.concatenate(logits).astype(np.float32)


def onnx_accuracy(content: bytes, split: Split) -> float:
    """The fraction of images whose largest logit in onnxruntime is that of their label."""
    return float(np.mean(run_onnx(content, split.images).argmax(1) == split.labels))


def agreement(first: Logits, second: Logits) -> Agreement:
    """Compares logits [n, classes] of the same images."""
    different = int(np.sum(first.argmax(1) != second.argmax(1)))
    return Agreement(float(np.abs(first - second).max()), different, len(first))


def check_float(content: bytes, model: nn.Module, images: Uint8) -> Agreement:
    """Agreement of a float file with its network.

    Raises:
        GraphError: they differ by more than rounding explains.
    """
    expected = predict(model, images)
    found = agreement(run_onnx(content, images), expected)
    limit = FLOAT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not found.largest <= limit:
        raise GraphError(f"the float ONNX file differs from the network by {found.largest:.3g}; expected at most {limit:.3g}")
    return found


def check_int8(content: bytes, model: nn.Module, images: Uint8, scale: float) -> Agreement:
    """Agreement of a QDQ file with its fake-quantized network.

    Args:
        scale: of the logits.
    Raises:
        GraphError: more than 1 % of the logits differ by more than INT8_STEPS steps: not the same network.
    """
    first, second = run_onnx(content, images), predict(model, images)
    far = float(np.mean(np.abs(first - second) > (INT8_STEPS + 0.5) * scale))
    if far > 0.01:
        raise GraphError(
            f"the int8 ONNX file differs from the network: {100 * far:.1f} % of logits are over {INT8_STEPS} steps off"
        )
    return agreement(first, second)
