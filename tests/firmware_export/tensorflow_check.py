"""Runs in a process of its own, because TensorFlow is slow to load and large: reads arrays and a .tflite file from a folder,
writes what TensorFlow makes of them beside.

In: twin.tflite, inputs.npy (int8, one row for each image), weights.npz, calibration.npy (float32 NHWC).
Out: answers.npy (TensorFlow's interpreter on the twin), keras.tflite (a Keras net with these weights, converted to int8).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def interpreter_answers(folder: Path) -> np.ndarray:
    """The twin in TensorFlow's interpreter, reference kernels."""
    import tensorflow as tf

    resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(str(folder / "twin.tflite"), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = []
    for image in np.load(folder / "inputs.npy", allow_pickle=False):
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(result["index"]).copy())
    return np.stack(answers)


def keras_net(weights: Any, size: int) -> Any:
    """The network of float_net.py with its weights, layouts changed to Keras's."""
    import keras

    channels = len(weights["conv"]), len(weights["depthwise"]), len(weights["pointwise"])
    model = keras.Sequential(
        [
            keras.Input((size, size, 1), batch_size=1),
            keras.layers.Conv2D(channels[0], 3, padding="same", activation="relu"),
            keras.layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            keras.layers.Conv2D(channels[2], 1, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(weights["dense"])),
        ]
    )
    kernels = (
        weights["conv"].transpose(2, 3, 1, 0),
        weights["depthwise"].transpose(2, 3, 0, 1),
        weights["pointwise"].transpose(2, 3, 1, 0),
        weights["dense"].T,
    )
    biases = (weights[f"{name}_bias"] for name in ("conv", "depthwise", "pointwise", "dense"))
    layers = [layer for layer in model.layers if layer.weights]
    for layer, kernel, bias in zip(layers, kernels, biases, strict=True):
        layer.set_weights([kernel, bias])
    return model


def converted(folder: Path) -> bytes:
    """The Keras net as an int8 .tflite file, calibrated on the same images."""
    import tensorflow as tf

    calibration = np.load(folder / "calibration.npy", allow_pickle=False)
    with np.load(folder / "weights.npz", allow_pickle=False) as weights:
        model = keras_net(dict(weights), calibration.shape[1])

    def representative() -> Iterator[list[np.ndarray]]:
        for image in calibration:
            yield [image[None]]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def main(folder: Path) -> None:
    """Fills the folder."""
    np.save(folder / "answers.npy", interpreter_answers(folder))
    (folder / "keras.tflite").write_bytes(converted(folder))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    main(Path(sys.argv[1]))
