"""Runs in a process of its own: writes one int8 .tflite file for each function below, made by TensorFlow's converter.

Out: <name>.tflite in the folder given as argument. Inputs are [1, 4, 5, 3] and, for functions of two, [1, 1, 1, 3].
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

IMAGE, ROW = (1, 4, 5, 3), (1, 1, 1, 3)
SLOPES = np.array([0.25, -0.1, 0.5], np.float32)


def functions() -> dict[str, tuple[int, Callable[..., Any]]]:
    """Name -> number of inputs and the function."""
    import keras
    import tensorflow as tf

    prelu = keras.layers.PReLU(shared_axes=[1, 2])
    prelu.build(IMAGE)
    prelu.set_weights([SLOPES.reshape(1, 1, 3)])
    return {
        "logistic": (1, tf.sigmoid),
        "tanh": (1, tf.tanh),
        "leaky_relu": (1, lambda x: tf.nn.leaky_relu(x, 0.3)),
        "hard_swish": (1, lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)),
        "prelu": (1, prelu),
        "sums": (2, lambda x, y: (x + y) - 0.5 * (y - SLOPES)),
        "products": (2, lambda x, y: tf.nn.relu(x * y) * SLOPES),
        "extremes": (2, lambda x, y: tf.maximum(tf.minimum(x, 1.0), y)),
        "constant_first": (1, lambda x: 1.0 - x),
        "reductions": (1, lambda x: tf.reduce_sum(x, 3) - tf.reduce_max(x, 3)),
        "mean_of_two_axes": (1, lambda x: tf.reduce_mean(x, [1, 3], keepdims=True)),
        "normalized": (1, lambda x: x - tf.reduce_mean(x, [1, 2], keepdims=True)),
        "relu_n1_to_1": (1, lambda x: tf.clip_by_value(x, -1.0, 1.0)),
        "relu_0_to_1": (1, lambda x: tf.clip_by_value(x, 0.0, 1.0)),
        "gated": (1, lambda x: x * tf.sigmoid(tf.reduce_mean(x, [1, 2], keepdims=True))),
    }


def converted(count: int, function: Callable[..., Any]) -> bytes:
    """The function as an int8 file, calibrated on random numbers."""
    import tensorflow as tf

    shapes = (IMAGE, ROW)[:count]
    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes])
    rng = np.random.default_rng(0)

    def representative() -> Iterator[list[np.ndarray]]:
        for _ in range(50):
            yield [rng.normal(0, 2, shape).astype(np.float32) for shape in shapes]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def main(folder: Path) -> None:
    """Fills the folder."""
    for name, (count, function) in functions().items():
        (folder / f"{name}.tflite").write_bytes(converted(count, function))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    main(Path(sys.argv[1]))
