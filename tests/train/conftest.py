"""Small data for the tests of `train`: digits, a published data set in miniature, and a network that learns in seconds."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from recipes.recipe import DataSection
from train.data import DataFile, Dataset, IdxDataset, Split, load_dataset
from train.models import ModelConfig

TINY_TRAIN, TINY_TEST = 40, 12


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataSection(), 1)


@pytest.fixture(scope="session")
def few_digits(digits: Dataset) -> Dataset:
    """200 training images: an epoch takes some milliseconds."""
    first = slice(200)
    return Dataset("digits", digits.train.take(first), digits.validation, digits.test.take(first), digits.class_names)


@pytest.fixture
def tiny_config() -> ModelConfig:
    """A resnet of one stage for digits."""
    return ModelConfig("resnet", (8, 8, 1), 10, (4, 4, 8), (1, 2))


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, unpacked."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def pack(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


class Published:
    """A data set of 40 + 12 images 6x5 in three classes, as a publisher would offer it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generator = np.random.default_rng(7)
        self.train = Split(
            generator.integers(0, 256, (TINY_TRAIN, 6, 5, 1), dtype=np.uint8), np.arange(TINY_TRAIN, dtype=np.int64) % 3
        )
        self.test = Split(
            generator.integers(0, 256, (TINY_TEST, 6, 5, 1), dtype=np.uint8), np.arange(TINY_TEST, dtype=np.int64) % 3
        )
        self.contents = {
            "train-images.gz": pack(idx_bytes(self.train.images[..., 0])),
            "train-labels.gz": pack(idx_bytes(self.train.labels)),
            "test-images.gz": pack(idx_bytes(self.test.images[..., 0])),
            "test-labels.gz": pack(idx_bytes(self.test.labels)),
        }
        self.write()

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            (self.folder / name).write_bytes(content)

    def source(self, url: str = "http://127.0.0.1:9/") -> IdxDataset:
        """Its description, true to the present contents."""
        files = {name: DataFile(len(c), hashlib.sha256(c).hexdigest()) for name, c in self.contents.items()}
        parts = ("train-images.gz", "train-labels.gz"), ("test-images.gz", "test-labels.gz")
        return IdxDataset(url, files, *parts, image_size=(6, 5), class_names=("a", "b", "c"))


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path / "published")
