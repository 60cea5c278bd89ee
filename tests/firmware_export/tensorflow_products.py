"""Runs in a process of its own: writes one int8 .tflite file for each model below, made by TensorFlow's converter.

Out: <name>.tflite in the folder given as argument, with random weights and calibrated on random numbers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SEQUENCE, IMAGE = (6, 5), (4, 5, 3)
UNITS = 4


def attention(steps: Any) -> Any:
    """softmax(q k^T) v of one sequence."""
    import keras

    query, key, value = (keras.layers.Dense(4)(steps) for _ in range(3))
    scores = keras.layers.Softmax()(keras.layers.Dot(axes=(2, 2))([query, key]))
    return keras.layers.Dot(axes=(2, 1))([scores, value])


def keras_models() -> dict[str, Any]:
    """Name -> Keras model, batch 1."""
    import keras
    from keras import layers

    def of(shape: tuple[int, ...], *stack: Any, batch: int | None = 1) -> Any:
        return keras.Sequential([keras.Input(shape, batch_size=batch), *stack])

    sequence = keras.Input(SEQUENCE, batch_size=1)
    return {
        "lstm_unrolled": of(SEQUENCE, layers.LSTM(UNITS, unroll=True), layers.Dense(3)),
        "doubled": of(IMAGE, layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")),
        "doubled_valid": of(IMAGE, layers.Conv2DTranspose(4, 2, strides=2), layers.Conv2DTranspose(2, (3, 5), use_bias=False)),
        "any_batch": of(IMAGE, layers.Conv2DTranspose(4, 3, strides=(1, 2), padding="same"), batch=None),
        "attention": keras.Model(sequence, attention(sequence)),
        "grouped": of(
            (6, 7, 6), layers.Conv2D(4, 3, groups=2, padding="same", activation="relu"), layers.Conv2D(8, 1, groups=4)
        ),
    }


def lstm_function(name: str) -> Any:
    """What Keras 2 gave the converter for its LSTM layer: a function marked as one, which becomes the LSTM operator.

    Keras 3 marks none and makes a loop instead, which needs several subgraphs.
    """
    import tensorflow as tf

    marks = {"api_implements": f"lstm_{name}", "api_preferred_device": "CPU", "time_major": False, "go_backwards": False}

    @tf.function(autograph=False, experimental_attributes=marks)
    def standard_lstm(inputs: Any, hidden: Any, cell: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> Any:
        outputs = []
        for step in range(inputs.shape[1]):
            gates = inputs[:, step] @ kernel + hidden @ recurrent_kernel + bias
            i, f, g, o = tf.split(gates, 4, 1)
            cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
            hidden = tf.sigmoid(o) * tf.tanh(cell)
            outputs.append(hidden)
        return hidden, tf.stack(outputs, 1), hidden, cell, tf.constant(1.0)

    return standard_lstm


def lstm_modules() -> dict[str, Any]:
    """Name -> module of one LSTM, two of them, and one of which only the last output counts."""
    import tensorflow as tf

    rng = np.random.default_rng(7)

    class Layers(tf.Module):  # type: ignore[misc]
        def __init__(self, name: str, count: int, last: bool) -> None:
            super().__init__()
            self.last = last
            self.functions = [lstm_function(f"{name}_{index}") for index in range(count)]
            sizes = [SEQUENCE[1], *[UNITS] * (count - 1)]
            self.kernels = [self.variable(size, 4 * UNITS) for size in sizes]
            self.recurrent = [self.variable(UNITS, 4 * UNITS) for _ in sizes]
            self.biases = [self.variable(4 * UNITS) for _ in sizes]

        def variable(self, *shape: int) -> Any:
            return tf.Variable(rng.normal(0, 0.6, shape).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec((1, *SEQUENCE), tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            for place, function in enumerate(self.functions):
                weights = [own[place].read_value() for own in (self.kernels, self.recurrent, self.biases)]
                final, x = function(x, tf.zeros((1, UNITS)), tf.zeros((1, UNITS)), *weights)[:2]
            return final if self.last else x

    return {"lstm": Layers("all", 1, False), "lstm_last": Layers("last", 1, True), "lstm_twice": Layers("twice", 2, False)}


def converted(converter: Any, shape: tuple[int, ...]) -> bytes:
    """An int8 file, calibrated on random numbers."""
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def representative() -> Iterator[list[np.ndarray]]:
        for _ in range(50):
            yield [rng.normal(0, 2, shape).astype(np.float32)]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def main(folder: Path) -> None:
    """Fills the folder."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    for name, model in keras_models().items():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        (folder / f"{name}.tflite").write_bytes(converted(converter, (1, *model.input_shape[1:])))
    for name, module in lstm_modules().items():
        tf.saved_model.save(module, str(folder / f"saved_{name}"))
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / f"saved_{name}"))
        (folder / f"{name}.tflite").write_bytes(converted(converter, (1, *SEQUENCE)))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    main(Path(sys.argv[1]))
