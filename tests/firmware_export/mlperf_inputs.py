"""What the four MLPerf Tiny models are fed with, from the shared data sets.

    python tests/firmware_export/mlperf_inputs.py ../shared/data cifar10.npz

writes the CIFAR-10 test images as a model takes them, for: python -m firmware_export MODEL.tflite --inputs cifar10.npz
"""

from __future__ import annotations

import csv
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MODELS = {
    "ad01_int8": (1, 640),
    "kws_ref_model": (1, 49, 10, 1),
    "pretrainedResnet_quant": (1, 32, 32, 3),
    "vww_96_int8": (1, 96, 96, 3),
}
"""Model -> the shape of its input, int8."""
RANDOM = 1000
BOARDS = {
    "double": "kws01__tflm_ref_NUCLEO-L4R5ZI_v0.5.csv",
    "float32": "kws01__stcubeai10.2_NUCLEO-L4R5ZI-P_v1.3.csv",
}
"""Arithmetic -> what a real board answered on the keyword set: TensorFlow Lite Micro, X-CUBE-AI."""


@dataclass(frozen=True)
class Inputs:
    """images: int8 [n, *input shape without the batch]. labels: int64 [n], or None for random images."""

    images: np.ndarray
    labels: np.ndarray | None


def inputs_of(data: Path, model: str, count: int | None = None) -> Inputs:
    """The first `count` inputs of a model: the keyword set, CIFAR-10's test images, else 1,000 random ones."""
    if model == "kws_ref_model":
        with np.load(data / "kws01_mfcc_int8.npz", allow_pickle=False) as stored:
            return Inputs(stored["x"][:count].reshape(-1, 49, 10, 1), stored["y"][:count].astype(np.int64))
    if model == "pretrainedResnet_quant":
        images, labels = cifar10_test(data)
        return Inputs((images[:count].astype(np.int16) - 128).astype(np.int8), labels[:count])
    rng, shape = np.random.default_rng(7), (count or RANDOM, *MODELS[model][1:])
    if len(shape) == 4:  # noise looks all the same to a network that averages: patches of 16 x 16 pixels do not
        patches = rng.integers(-128, 128, (shape[0], shape[1] // 16, shape[2] // 16, shape[3]))
        return Inputs(patches.repeat(16, 1).repeat(16, 2).astype(np.int8), None)
    return Inputs(rng.integers(-128, 128, shape).astype(np.int8), None)


def cifar10_test(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [10000, 32, 32, 3] and their classes; the file holds differences along rows, columns and colours."""
    with np.load(data / "cifar10_test.npz", allow_pickle=False) as stored:
        planes = np.cumsum(np.cumsum(stored["x_delta"], 2, dtype=np.uint8), 3, dtype=np.uint8)
        green = planes[:, 1]
        images = np.stack([planes[:, 0] + green, green, planes[:, 2] + green], -1)
        assert hashlib.sha256(images.tobytes()).hexdigest() == str(stored["x_sha256"])
        return images, stored["y"].astype(np.int64)


def board_answers(data: Path, arithmetic: str) -> np.ndarray:
    """int8 [1000, 12]: what the board answered to the keyword set, in its order."""
    with np.load(data / "kws01_mfcc_int8.npz", allow_pickle=False) as stored:
        names = [str(name) for name in stored["filename"]]
    with (data / "board_outputs" / BOARDS[arithmetic]).open(newline="") as stream:
        rows = {row["file"]: [int(row[f"q{i}"]) for i in range(12)] for row in csv.DictReader(stream)}
    assert len(names) == len(rows) == 1000
    return np.array([rows[name] for name in names], np.int8)


if __name__ == "__main__":
    pixels, classes = cifar10_test(Path(sys.argv[1]))
    np.savez(sys.argv[2], x=(pixels.astype(np.int16) - 128).astype(np.int8), y=classes)
    print(f"{len(pixels):,} images in {sys.argv[2]}")
