"""Data sets as uint8 images, split into train, validation and test; free of torch, so that the host tools may read it.

Everything in a data folder or from the network is untrusted: the SHA-256 of each file is checked before it is unpacked,
and an IDX file's header against the bytes that follow it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipes.artifacts import DataError, UsageError, did_you_mean
from recipes.recipe import DataSection
from train.download import download

Uint8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]

INPUT_SCALE = np.float32(1 / 255)
INPUT_ZERO_POINT = -128

DIGITS_TEST_FRACTION = 0.2
TEST_SPLIT_SEED = 20261121  # the test images of a data set without an official split stay the same for every recipe seed


@dataclass(frozen=True)
class Split:
    """images uint8 [n, h, w, c], labels int64 [n]."""

    images: Uint8
    labels: Int64

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int64 | slice) -> Split:
        """The images at these places, in this order."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """Three splits that share no image; `class_names[label]` names a label."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        height, width, channels = self.train.images.shape[1:]
        return int(height), int(width), int(channels)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


def load_dataset(section: DataSection, seed: int) -> Dataset:
    """Loads the data set a recipe names; the same section and seed always give the same splits.

    The validation part is drawn from the training part, `validation_fraction` of every class, by `seed`. The test part
    never depends on the seed. `limit` keeps the first images of each split.

    Raises:
        UsageError: no data set of this name.
        DataError: a file is missing, damaged, or could not be downloaded.
    """
    loader = LOADERS.get(section.name)
    if loader is None:
        known = sorted(LOADERS)
        raise UsageError(f"no data set '{section.name}'; known: {', '.join(known)}{did_you_mean(section.name, known)}")
    full, test, class_names = loader(section)
    kept, held = stratified_split(full.labels, section.validation_fraction, seed)
    train, validation = full.take(kept), full.take(held)
    if section.limit is not None:
        first = slice(section.limit)
        train, validation, test = train.take(first), validation.take(first), test.take(first)
    return Dataset(section.name, train, validation, test, class_names)


def quantize_images(images: Uint8) -> NDArray[np.int8]:
    """uint8 images -> the network's int8 input, same shape: u8 - 128, real u8/255 at INPUT_SCALE and INPUT_ZERO_POINT."""
    return (images ^ np.uint8(0x80)).view(np.int8)


def to_float_nchw(images: Uint8) -> NDArray[np.float32]:
    """uint8 [n, h, w, c] -> float32 [n, c, h, w] in [0, 1]: u8/255."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def stratified_split(labels: Int64, fraction: float, seed: int) -> tuple[Int64, Int64]:
    """Splits places 0..n-1 so that every class gives `fraction` of its images to the second part.

    The second part holds ceil(n * fraction) places; what rounding leaves over goes to the classes with the largest
    remainder. Both parts are in ascending order.
    """
    generator = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    wanted = counts * fraction
    quota = np.floor(wanted).astype(np.int64)
    short = math.ceil(len(labels) * fraction - 1e-9) - int(quota.sum())
    quota[np.argsort(quota - wanted, kind="stable")[:short]] += 1
    held = [generator.permutation(np.flatnonzero(labels == c))[:q] for c, q in zip(classes, quota, strict=True)]
    second = np.sort(np.concatenate(held))
    first = np.setdiff1d(np.arange(len(labels)), second, assume_unique=True)
    return first.astype(np.int64), second.astype(np.int64)


def load_digits(_: DataSection) -> tuple[Split, Split, tuple[str, ...]]:
    """scikit-learn's 1,797 handwritten digits, 8x8x1; pixel 0..16 becomes round(v * 255 / 16). 360 are the test part."""
    from sklearn import datasets  # only here: takes a second

    bunch = datasets.load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    everything = Split(images, bunch.target.astype(np.int64))
    first, second = stratified_split(everything.labels, DIGITS_TEST_FRACTION, TEST_SPLIT_SEED)
    return everything.take(first), everything.take(second), tuple(str(n) for n in bunch.target_names)


@dataclass(frozen=True)
class DataFile:
    """One file of a published data set: its size in bytes and SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class IdxDataset:
    """A data set published as four IDX files; the roles are train/test images/labels."""

    url: str
    files: Mapping[str, DataFile]
    train: tuple[str, str]
    test: tuple[str, str]
    image_size: tuple[int, int]
    class_names: tuple[str, ...]


FASHION_MNIST = IdxDataset(
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the publisher's; every file is checked by its SHA-256
    files={
        "train-images-idx3-ubyte.gz": DataFile(26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels-idx1-ubyte.gz": DataFile(29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte.gz": DataFile(4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels-idx1-ubyte.gz": DataFile(5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    },
    train=("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    test=("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    image_size=(28, 28),
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
)


def load_fashion_mnist(section: DataSection) -> tuple[Split, Split, tuple[str, ...]]:
    """Zalando's Fashion-MNIST, 60,000 + 10,000 images 28x28x1, from `section.folder` or downloaded once into the cache.

    The environment variable FASHION_MNIST_URL names another server (a mirror).
    """
    return load_idx_dataset(FASHION_MNIST, section.folder, os.environ.get("FASHION_MNIST_URL", FASHION_MNIST.url))


def load_idx_dataset(source: IdxDataset, folder: str | None, url: str) -> tuple[Split, Split, tuple[str, ...]]:
    """(training part, test part, class names) of a data set in IDX files.

    Raises:
        DataError: a file is missing from `folder`, differs from the published one, or its images and labels do not match.
    """
    contents = {name: checked_file(name, expected, folder, url) for name, expected in source.files.items()}
    train = read_split(contents, source.train, source)
    test = read_split(contents, source.test, source)
    return train, test, source.class_names


def cache_folder() -> Path:
    """Where downloaded files are kept: EDGE_CACHE, else ~/.cache/edge-inference."""
    return Path(os.environ.get("EDGE_CACHE") or Path.home() / ".cache" / "edge-inference")


def checked_file(name: str, expected: DataFile, folder: str | None, url: str) -> bytes:
    """The bytes of a published file, from the folder or the cache, downloaded into the cache when it is not there yet."""
    path = (Path(folder) if folder is not None else cache_folder()) / name
    if folder is not None and not path.is_file():
        raise DataError(
            f"{path} not found; data.folder (DATA=) must hold the .gz files as published, or leave it out to download"
        )
    if folder is None and not path.is_file():
        download(f"{url.rstrip('/')}/{name}", path, expected.size, expected.sha256)
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size == expected.size else b""
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if size != expected.size:
        raise DataError(f"{path} is damaged: {size:,} bytes, published are {expected.size:,}; delete it and get it again")
    found = hashlib.sha256(content).hexdigest()
    if found != expected.sha256:
        raise DataError(
            f"{path} is damaged: SHA-256 {found[:12]}..., published is {expected.sha256[:12]}...; delete it and get it again"
        )
    return content


def read_split(contents: Mapping[str, bytes], names: tuple[str, str], source: IdxDataset) -> Split:
    """One part from its image and label files, checked against each other."""
    images = read_idx(contents[names[0]], 3, names[0])
    labels = read_idx(contents[names[1]], 1, names[1])
    if len(images) != len(labels):
        raise DataError(f"{names[0]} holds {len(images):,} images but {names[1]} {len(labels):,} labels; get both files again")
    if images.shape[1:] != source.image_size:
        raise DataError(f"{names[0]} holds images of {images.shape[1:]} pixels; expected {source.image_size}")
    if labels.max() >= len(source.class_names):
        raise DataError(f"{names[1]} holds label {labels.max()}; expected 0 to {len(source.class_names) - 1}")
    return Split(images[..., np.newaxis], labels.astype(np.int64))


def read_idx(packed: bytes, rank: int, name: str) -> Uint8:
    """Unpacks a gzipped IDX file of unsigned bytes: magic 00 00 08 rank, `rank` big-endian sizes, the values in C order.

    Never unpacks more bytes than the header claims, and never takes a claim above what gzip can hold (1032:1).

    Raises:
        DataError: not gzip, truncated, another magic, or sizes that do not match the bytes that follow.
    """
    header_size = 4 + 4 * rank
    header = _unpack(packed, header_size, name)
    if header[:4] != bytes((0, 0, 8, rank)):
        raise DataError(
            f"{name} begins with {header[:4].hex(' ')}; an IDX file of uint8 with {rank} sizes begins 00 00 08 0{rank}"
        )
    if len(header) < header_size:
        raise DataError(f"{name} ends within its header of {header_size} bytes; get the file again")
    sizes = tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))
    claimed = math.prod(sizes)
    if claimed == 0 or claimed > 1032 * len(packed):
        raise DataError(f"{name} claims sizes {sizes}, which {len(packed):,} packed bytes cannot hold; get the file again")
    content = _unpack(packed, header_size + claimed + 1, name)[header_size:]
    if len(content) != claimed:
        more = "more" if len(content) > claimed else f"{len(content):,}"
        raise DataError(f"{name} claims sizes {sizes} = {claimed:,} bytes but holds {more}; get the file again")
    return np.frombuffer(content, np.uint8).reshape(sizes)


def _unpack(packed: bytes, limit: int, name: str) -> bytes:
    """At most the first `limit` unpacked bytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            return stream.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is not a whole gzip file ({error}); get the file again") from None


LOADERS: dict[str, Callable[[DataSection], tuple[Split, Split, tuple[str, ...]]]] = {
    "digits": load_digits,
    "fashion_mnist": load_fashion_mnist,
}
