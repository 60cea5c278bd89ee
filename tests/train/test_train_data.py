"""Data sets: shapes, types and layout, splits, and every way a file can be damaged."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train.data as data
from recipes.artifacts import DataError, UsageError
from recipes.recipe import DataSection
from train.data import (
    INPUT_SCALE,
    INPUT_ZERO_POINT,
    Dataset,
    load_dataset,
    load_idx_dataset,
    quantize_images,
    read_idx,
    stratified_split,
    to_float_nchw,
)


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


# digits


def test_digits_have_the_documented_shapes_and_types(digits: Dataset) -> None:
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1293, 144, 360]
    for split in (digits.train, digits.validation, digits.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert split.images.shape == (len(split), 8, 8, 1)
        assert set(split.labels.tolist()) == set(range(10))
    assert digits.input_shape == (8, 8, 1)
    assert digits.classes == 10 and digits.class_names == tuple("0123456789")


def test_digits_pixels_are_the_sixteen_levels_spread_over_a_byte(digits: Dataset) -> None:
    expected = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert sorted(set(digits.train.images.ravel().tolist())) == expected


def test_digits_splits_are_a_partition_of_the_published_images(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    published = load_digits()
    wanted = sorted(
        (int(label), image.astype(int).tobytes()) for label, image in zip(published.target, published.images, strict=True)
    )
    found = [
        (int(label), np.rint(image[..., 0] * (16 / 255)).astype(int).tobytes())
        for split in (digits.train, digits.validation, digits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == wanted


def test_every_class_gives_its_share(digits: Dataset) -> None:
    everything = sum(np.bincount(s.labels) for s in (digits.train, digits.validation, digits.test))
    assert np.abs(np.bincount(digits.test.labels) - 0.2 * everything).max() < 1
    rest = everything - np.bincount(digits.test.labels)
    assert np.abs(np.bincount(digits.validation.labels) - 0.1 * rest).max() < 1


def test_the_seed_moves_the_validation_part_only(digits: Dataset) -> None:
    again, other = load_dataset(DataSection(), 1), load_dataset(DataSection(), 2)
    assert np.array_equal(again.validation.images, digits.validation.images)
    assert np.array_equal(again.train.labels, digits.train.labels)
    assert np.array_equal(other.test.images, digits.test.images)
    assert not np.array_equal(other.validation.images, digits.validation.images)


def test_the_test_images_never_change() -> None:
    """The figure every report is about: these bytes were hashed when the split was made."""
    test = load_dataset(DataSection(), 5).test
    digest = hashlib.sha256(test.images.tobytes() + test.labels.tobytes()).hexdigest()
    assert digest == "dfde3fc6d09b1e688e1bf69a25c35c3646817e9bcc8a8f59896a4811b21dcf77"


def test_validation_fraction_and_limit() -> None:
    quarter = load_dataset(DataSection(validation_fraction=0.25), 1)
    assert len(quarter.validation) == 360 and len(quarter.train) == 1077
    few = load_dataset(DataSection(limit=20), 1)
    assert [len(s) for s in (few.train, few.validation, few.test)] == [20, 20, 20]
    assert np.array_equal(few.test.images, load_dataset(DataSection(), 1).test.images[:20])


@pytest.mark.parametrize(
    ("name", "hint"), [("digit", "did you mean 'digits'?"), ("fashion-mnist", "'fashion_mnist'"), ("x", "known: digits")]
)
def test_an_unknown_name_is_a_usage_error(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="no data set") as error:
        load_dataset(DataSection(name=name), 1)
    assert hint in str(error.value) and error.value.exit_code == 2


# splitting


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2, 1 / 3, 0.49])
def test_a_split_is_a_partition_with_the_right_count(fraction: float) -> None:
    labels = np.random.default_rng(3).integers(0, 7, 501)
    first, second = stratified_split(labels, fraction, 1)
    assert np.array_equal(np.sort(np.concatenate((first, second))), np.arange(501))
    assert len(second) == int(np.ceil(501 * fraction))
    assert np.all(np.diff(first) > 0) and np.all(np.diff(second) > 0)
    assert np.abs(np.bincount(labels[second], minlength=7) - fraction * np.bincount(labels)).max() < 1


def test_a_split_of_equal_classes_is_exactly_equal() -> None:
    _, second = stratified_split(np.repeat(np.arange(4), 50), 0.1, 9)
    assert np.repeat(np.arange(4), 50)[second].tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5


# layout and quantization of images


def test_quantized_images_are_the_pixels_minus_128() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    quantized = quantize_images(pixels)
    assert quantized.dtype == np.int8 and quantized.shape == pixels.shape
    assert quantized.ravel().tolist() == list(range(-128, 128))


def test_the_quantized_image_stands_for_the_float_image() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 5, 2), dtype=np.uint8)
    real = np.float32(INPUT_SCALE) * (quantize_images(pixels).astype(np.float32) - INPUT_ZERO_POINT)
    assert np.allclose(real.transpose(0, 3, 1, 2), to_float_nchw(pixels), atol=1e-7)


def test_float_images_are_nchw_contiguous_in_zero_to_one() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 5, 2), dtype=np.uint8)
    images = to_float_nchw(pixels)
    assert images.dtype == np.float32 and images.shape == (3, 2, 4, 5) and images.flags.c_contiguous
    assert images[1, 0, 3, 2] == np.float32(pixels[1, 3, 2, 0]) / np.float32(255)
    assert to_float_nchw(np.full((1, 1, 1, 1), 255, np.uint8)).item() == 1.0


def test_reading_data_needs_no_torch() -> None:
    code = "import sys, train.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


# IDX data sets


def test_a_published_data_set_is_read_as_it_was_written(published: Any) -> None:
    first, test, names = load_idx_dataset(published.source(), str(published.folder), "http://unused")
    assert np.array_equal(first.images, published.train.images) and np.array_equal(first.labels, published.train.labels)
    assert np.array_equal(test.images, published.test.images) and np.array_equal(test.labels, published.test.labels)
    assert first.images.dtype == np.uint8 and first.labels.dtype == np.int64 and names == ("a", "b", "c")


def test_load_dataset_splits_it(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "FASHION_MNIST", published.source())
    dataset = load_dataset(DataSection(name="fashion_mnist", folder=str(published.folder), validation_fraction=0.2), 1)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [32, 8, 12]
    assert dataset.input_shape == (6, 5, 1) and dataset.classes == 3


def test_a_missing_file_says_which_and_what_to_do(published: Any) -> None:
    (published.folder / "test-labels.gz").unlink()
    with pytest.raises(DataError, match=r"test-labels.gz not found; data.folder \(DATA=\) must hold") as error:
        load_idx_dataset(published.source(), str(published.folder), "http://unused")
    assert error.value.exit_code == 3


@pytest.mark.parametrize("name", ["train-images.gz", "train-labels.gz", "test-images.gz", "test-labels.gz"])
def test_a_flipped_bit_in_any_file_is_found(published: Any, name: str) -> None:
    source = published.source()
    content = bytearray(published.contents[name])
    content[len(content) // 2] ^= 4
    (published.folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged: SHA-256 .* published is"):
        load_idx_dataset(source, str(published.folder), "http://unused")


@pytest.mark.parametrize("keep", [0, 1, 20, -1])
def test_a_truncated_file_is_found_by_its_size(published: Any, keep: int) -> None:
    source = published.source()
    (published.folder / "train-images.gz").write_bytes(published.contents["train-images.gz"][:keep])
    with pytest.raises(DataError, match=r"train-images.gz is damaged: [\d,]+ bytes, published are"):
        load_idx_dataset(source, str(published.folder), "http://unused")


def test_a_huge_file_is_not_even_read(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = published.source()
    with (published.folder / "train-images.gz").open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
    with pytest.raises(DataError, match="1,099,511,627,776 bytes"):
        load_idx_dataset(source, str(published.folder), "http://unused")


def test_a_folder_in_place_of_a_file(published: Any) -> None:
    source = published.source()
    (published.folder / "train-images.gz").unlink()
    (published.folder / "train-images.gz").mkdir()
    with pytest.raises(DataError, match=r"train-images.gz not found"):
        load_idx_dataset(source, str(published.folder), "http://unused")


def damage_labels(published: Any, labels: list[int]) -> None:
    published.contents["train-labels.gz"] = idx(np.array(labels, np.uint8))
    published.write()


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0] * 39, "holds 40 images but train-labels.gz 39 labels"), ([0] * 39 + [3], "holds label 3; expected 0 to 2")],
)
def test_labels_that_do_not_fit_the_images(published: Any, labels: list[int], message: str) -> None:
    damage_labels(published, labels)
    with pytest.raises(DataError, match=message):
        load_idx_dataset(published.source(), str(published.folder), "http://unused")


def test_images_of_another_size(published: Any) -> None:
    published.contents["test-images.gz"] = idx(np.zeros((12, 5, 6), np.uint8))
    published.write()
    with pytest.raises(DataError, match=r"test-images.gz holds images of \(5, 6\) pixels; expected \(6, 5\)"):
        load_idx_dataset(published.source(), str(published.folder), "http://unused")


GOOD = struct.pack(">BBBB2I", 0, 0, 8, 2, 3, 4) + bytes(range(12))


def test_read_idx() -> None:
    assert read_idx(gzip.compress(GOOD), 2, "file").tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x01" + GOOD[1:], "begins with 01 00 08 02; an IDX file of uint8 with 2 sizes begins 00 00 08 02"),
        (b"\0\0\x0d\x02" + GOOD[4:], "begins with 00 00 0d 02"),
        (b"\0\0\x08\x03" + GOOD[4:], "begins with 00 00 08 03"),
        (GOOD[:-1], "= 12 bytes but holds 11"),
        (GOOD + b"x", "= 12 bytes but holds more"),
        (GOOD[:12], "= 12 bytes but holds 0"),
        (GOOD[:4] + struct.pack(">2I", 0, 4), "cannot hold"),
        (GOOD[:4] + struct.pack(">2I", 1 << 31, 1 << 31), "cannot hold"),
        (b"", "begins with ; an IDX"),
        (GOOD[:7], "ends within its header of 12 bytes"),
    ],
)
def test_an_idx_file_with_a_wrong_header_or_length(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_idx(gzip.compress(content), 2, "file")


@pytest.mark.parametrize("keep", [1, 9, 12, 20, -1])
def test_a_truncated_gzip_stream(keep: int) -> None:
    with pytest.raises(DataError, match="file"):
        read_idx(gzip.compress(GOOD)[:keep], 2, "file")


def test_not_gzip_at_all() -> None:
    with pytest.raises(DataError, match=r"file is not a whole gzip file .*; get the file again"):
        read_idx(b"PK\x03\x04" + bytes(60), 2, "file")


def test_a_gzip_bomb_is_not_unpacked() -> None:
    """64 MB of zeros behind a header that claims 12 bytes: only 13 are unpacked."""
    import tracemalloc

    bomb = gzip.compress(GOOD[:12] + bytes(1 << 26))
    tracemalloc.start()
    with pytest.raises(DataError, match="holds more"):
        read_idx(bomb, 2, "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


def test_random_damage_never_gives_another_error() -> None:
    generator = np.random.default_rng(11)
    good = gzip.compress(GOOD)
    refused = 0
    for _ in range(2000):
        content = bytearray(good)
        for position in generator.integers(0, len(content), generator.integers(1, 4)):
            content[position] = generator.integers(256)
        try:
            read_idx(bytes(content[: generator.integers(1, len(content) + 1)]), 2, "file")
        except DataError:
            refused += 1
    assert refused > 1500


# the real thing, where it lies beside the checkout


def test_fashion_mnist_as_published(shared_data: Path) -> None:
    dataset = load_dataset(DataSection(name="fashion_mnist", folder=str(shared_data / "fashion-mnist")), 1)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [54000, 6000, 10000]
    assert dataset.input_shape == (28, 28, 1) and dataset.class_names[9] == "Ankle boot"
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert np.bincount(dataset.validation.labels).tolist() == [600] * 10
    assert dataset.test.labels[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]
