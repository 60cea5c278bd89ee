"""Runs in a process of its own, because TensorFlow is slow to load and large: writes Keras models of every kind into a folder.

Good ones: net.keras, net.h5, net_saved/ (one small classifier), two.keras (two inputs), lstm.keras and gru.keras (calibration:
sequence.npz). Ones that hold code: lambda.keras, lambda.h5, custom.keras, writes/ (a SavedModel that writes a file when it is
called), python/ (one that calls Python). Float answers of the classifier to calibration.npz's `x`: float.npy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, SIZE, CLASSES = 60, 8, 4


def images() -> np.ndarray:
    """float32 [n, 8, 8, 1] in 0..1: a bright quarter whose place is the class."""
    rng = np.random.default_rng(0)
    made = rng.random((IMAGES, SIZE, SIZE, 1)).astype(np.float32) * 0.3
    for place in range(IMAGES):
        row, column = divmod(place % CLASSES, 2)
        made[place, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 0.6
    return made


def classifier(keras: Any) -> Any:
    """Average of each quarter behind a convolution and batch normalization: right without training."""
    kernel = np.zeros((3, 3, 1, 4), np.float32)
    kernel[1, 1, 0] = 1
    dense = np.zeros((16, CLASSES), np.float32)
    for quarter in range(4):
        dense[quarter * 4 : quarter * 4 + 4, quarter] = 1
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1), name="image"),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
            keras.layers.BatchNormalization(),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, activation="softmax", name="dense"),
        ]
    )
    model.get_layer("conv").set_weights([kernel, np.zeros(4, np.float32)])
    model.get_layer("dense").set_weights([dense, np.zeros(CLASSES, np.float32)])
    return model


def two_inputs(keras: Any) -> Any:
    """left [4, 4, 1] and b-right [3]."""
    left, right = keras.Input((4, 4, 1), name="left"), keras.Input((3,), name="b-right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(4)(keras.layers.Flatten()(left)), keras.layers.Dense(4)(right)])
    return keras.Model([left, right], keras.layers.Dense(2)(joined))


def hostile_keras(keras: Any, folder: Path) -> None:
    """Models with a Lambda layer and with a layer of a class of our own."""
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Lambda(lambda x: x + 1, name="evil")])
    model.save(folder / "lambda.keras")
    model.save(folder / "lambda.h5")

    class Mine(keras.layers.Layer):  # type: ignore[misc]
        """A class that nobody else has."""

        def call(self, x: Any) -> Any:
            return x * 2

    keras.Sequential([keras.Input((SIZE, SIZE, 1)), Mine(name="mine")]).save(folder / "custom.keras")


def hostile_saved_models(tf: Any, folder: Path) -> None:
    """SavedModels whose function does more than compute."""
    spec = tf.TensorSpec((1, SIZE, SIZE, 1), tf.float32, name="image")

    class Writes(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[spec])  # type: ignore[untyped-decorator]
        def __call__(self, image: Any) -> Any:
            tf.io.write_file(str(folder / "written"), "by the model")
            return image * 2

    class Python(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[spec])  # type: ignore[untyped-decorator]
        def __call__(self, image: Any) -> Any:
            return tf.py_function(lambda x: x * 2, [image], tf.float32)

    for name, module in (("writes", Writes()), ("python", Python())):
        tf.saved_model.save(module, str(folder / name), signatures=module.__call__.get_concrete_function())


def main(folder: Path) -> None:
    """Fills the folder."""
    import keras  # type: ignore[import-untyped]
    import tensorflow as tf

    model = classifier(keras)
    model.save(folder / "net.keras")
    model.save(folder / "net.h5")
    model.export(str(folder / "net_saved"), verbose=False)
    np.savez(folder / "calibration.npz", x=images())
    np.save(folder / "float.npy", model.predict(images(), verbose=0))
    two_inputs(keras).save(folder / "two.keras")
    rng = np.random.default_rng(1)
    np.savez(folder / "two.npz", left=rng.random((20, 4, 4, 1)), b_right=rng.random((20, 3)))
    np.savez(folder / "sequence.npz", x=rng.random((20, 6, 3)).astype(np.float32))
    for kind in (keras.layers.LSTM, keras.layers.GRU):
        recurrent = keras.Sequential([keras.Input((6, 3)), kind(5), keras.layers.Dense(3)])
        recurrent.save(folder / f"{kind.__name__.lower()}.keras")
    hostile_keras(keras, folder)
    hostile_saved_models(tf, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
