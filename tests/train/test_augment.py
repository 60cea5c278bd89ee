"""Augmentation: against scipy's interpolation, its ranges, and that only (seed, epoch, step) decide it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from recipes.recipe import AugmentSection
from train.augment import augment, generator_for, random_maps, warp

OFF = AugmentSection()


def images(count: int = 4, channels: int = 1, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def by_scipy(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Samples [h, w] at map * (x, y) relative to the centre, bilinear, 0 outside."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width].astype(float)
    points = np.stack([x.ravel() - (width - 1) / 2, y.ravel() - (height - 1) / 2, np.ones(x.size)])
    source = matrix @ points
    coordinates = [source[1] + (height - 1) / 2, source[0] + (width - 1) / 2]
    return ndimage.map_coordinates(image, coordinates, order=1, mode="grid-constant", cval=0).reshape(height, width)


@pytest.mark.parametrize(
    "settings",
    [
        AugmentSection(rotate=40),
        AugmentSection(scale=0.4),
        AugmentSection(shift=3),
        AugmentSection(shift=0.7, rotate=10, scale=0.1),
        AugmentSection(flip=True),
        AugmentSection(shift=2, rotate=30, scale=0.3, flip=True),
    ],
)
@pytest.mark.parametrize("size", [(9, 7), (6, 10), (8, 8)])
def test_the_warp_is_scipys(settings: AugmentSection, size: tuple[int, int]) -> None:
    batch = images(6, 2, *size)
    maps = random_maps(6, settings, generator_for(3))
    result = warp(batch, maps)
    for index in range(6):
        for channel in range(2):
            expected = by_scipy(batch[index, channel].numpy(), maps[index].double().numpy())
            assert np.abs(result[index, channel].numpy() - expected).max() < 2e-5


def test_augment_is_the_warp_of_its_maps() -> None:
    settings = AugmentSection(shift=1, rotate=20, flip=True)
    expected = warp(images(), random_maps(4, settings, generator_for(1, 2, 3)))
    assert torch.equal(augment(images(), settings, generator_for(1, 2, 3)), expected)


def test_nothing_to_do_gives_the_batch_itself() -> None:
    batch = images()
    assert augment(batch, OFF, generator_for(1)) is batch


def test_a_batch_is_not_changed_in_place() -> None:
    batch = images()
    augment(batch, AugmentSection(rotate=20, shift=2), generator_for(1))
    assert torch.equal(batch, images())


# what is drawn


def drawn(settings: AugmentSection, count: int = 4000) -> torch.Tensor:
    return random_maps(count, settings, generator_for(5))


def test_off_is_the_identity() -> None:
    assert torch.equal(drawn(OFF, 3), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3))


def test_shifts_alone_are_whole_pixels_and_all_as_likely() -> None:
    shifts = drawn(AugmentSection(shift=2))[:, :, 2]
    for axis in range(2):
        values, counts = np.unique(shifts[:, axis].numpy(), return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert np.abs(counts - 800).max() < 120  # 4.7 standard deviations
    assert abs(float(torch.corrcoef(shifts.T)[0, 1])) < 0.07


def test_a_shift_below_a_pixel_needs_something_that_resamples() -> None:
    assert float(drawn(AugmentSection(shift=0.9))[:, :, 2].abs().max()) == 0
    shifts = drawn(AugmentSection(shift=0.9, rotate=1))[:, :, 2]
    assert 0.89 < float(shifts.max()) <= 0.9 and -0.9 <= float(shifts.min()) < -0.89


def test_a_whole_shift_moves_pixels_without_blur() -> None:
    batch = images(50)
    settings = AugmentSection(shift=1)
    maps = random_maps(50, settings, generator_for(2))
    result = augment(batch, settings, generator_for(2))
    for index in range(50):
        x, y = (int(v) for v in maps[index, :, 2])
        padded = torch.zeros(11, 9)
        padded[1:-1, 1:-1] = batch[index, 0]
        expected = padded[1 + y : 10 + y, 1 + x : 8 + x]
        assert torch.allclose(result[index, 0], expected, atol=2e-6)


def test_rotations_stay_in_their_range_and_keep_lengths() -> None:
    maps = drawn(AugmentSection(rotate=30))
    angles = torch.atan2(maps[:, 1, 0], maps[:, 0, 0])
    assert float(angles.abs().max()) <= math.radians(30) + 1e-6 and float(angles.abs().max()) > math.radians(29)
    assert abs(float(angles.mean())) < math.radians(1)
    assert torch.allclose(torch.linalg.det(maps[:, :, :2]), torch.ones(4000), atol=1e-5)


def test_scales_stay_in_their_range() -> None:
    zoom = drawn(AugmentSection(scale=0.25))[:, 0, 0]
    assert 1 / 1.25 - 1e-6 <= float(zoom.min()) < 0.81 and 1.32 < float(zoom.max()) <= 1 / 0.75 + 1e-6


def test_half_of_the_images_are_mirrored_left_to_right() -> None:
    maps = drawn(AugmentSection(flip=True))
    mirrored = maps[:, 0, 0] < 0
    assert 1850 < int(mirrored.sum()) < 2150
    assert bool((maps[:, 1, 1] == 1).all())
    batch = images(20)
    result = augment(batch, AugmentSection(flip=True), generator_for(8))
    flips = random_maps(20, AugmentSection(flip=True), generator_for(8))[:, 0, 0] < 0
    assert torch.allclose(result, torch.where(flips[:, None, None, None], batch.flip(3), batch), atol=2e-6)


def test_images_of_a_batch_get_different_maps() -> None:
    batch = images(1).expand(8, -1, -1, -1)
    result = augment(batch, AugmentSection(rotate=20), generator_for(1))
    assert len({tensor.numpy().tobytes() for tensor in result}) == 8


# where it comes from


def test_the_same_numbers_give_the_same_images() -> None:
    settings = AugmentSection(shift=1, rotate=20, scale=0.1, flip=True)
    first = augment(images(), settings, generator_for(1, 2, 3))
    assert torch.equal(first, augment(images(), settings, generator_for(1, 2, 3)))
    for numbers in [(0, 2, 3), (1, 1, 3), (1, 2, 4), (1, 3, 2)]:
        assert not torch.equal(first, augment(images(), settings, generator_for(*numbers)))


def test_the_global_generator_is_not_touched() -> None:
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    augment(images(), AugmentSection(rotate=9), generator_for(1))
    assert torch.equal(torch.rand(2), expected)


def test_generators_of_neighbouring_steps_are_not_alike() -> None:
    draws = torch.stack([torch.rand(200, generator=generator_for(1, 0, step)) for step in range(100)])
    correlation = torch.corrcoef(draws) - torch.eye(100)
    assert float(correlation.abs().max()) < 0.4
    assert abs(float(draws.mean()) - 0.5) < 0.01
