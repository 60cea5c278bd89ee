"""Random shift, rotation, scale and mirroring of a batch as one affine map per image, sampled bilinearly.

Every draw comes from a generator made anew from (seed, epoch, step), so that a resumed training sees the same images.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.recipe import AugmentSection


def generator_for(*numbers: int) -> torch.Generator:
    """A generator that depends on these non-negative numbers alone, e.g. (seed, epoch, step)."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def augment(images: Tensor, settings: AugmentSection, generator: torch.Generator) -> Tensor:
    """Changes every image of a batch by its own random map; what comes from outside the image is 0.

    Args:
        images: float [n, c, h, w].
    Returns:
        float [n, c, h, w]; the batch itself when every setting is off.
    """
    if settings == AugmentSection():
        return images
    maps = random_maps(len(images), settings, generator)
    return warp(images, maps)


def random_maps(count: int, settings: AugmentSection, generator: torch.Generator) -> Tensor:
    """float [count, 2, 3]: from a pixel of the result, (x, y) relative to the centre, to the image's pixel it shows.

    Shifts are whole pixels, which keeps the images sharp, unless rotation or scale resample them anyway.
    """
    draws = torch.rand((5, count), generator=generator) * 2 - 1  # uniform in [-1, 1)
    angle = draws[0] * math.radians(settings.rotate)
    zoom = 1 / (1 + draws[1] * settings.scale)
    shift = draws[2:4] * settings.shift
    if settings.rotate == 0 and settings.scale == 0:
        whole = math.floor(settings.shift)
        shift = ((draws[2:4] + 1) / 2 * (2 * whole + 1)).floor().clamp(max=2 * whole) - whole
    mirror = torch.where(draws[4] < 0, -1.0, 1.0) if settings.flip else torch.ones(count)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    rows = (torch.stack((mirror * cosine, -sine, shift[0])), torch.stack((mirror * sine, cosine, shift[1])))
    return torch.stack(rows).permute(2, 0, 1)


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Applies `random_maps`' maps to float [n, c, h, w]; outside an image is 0."""
    height, width = images.shape[2:]
    # affine_grid counts in half image sizes: x = 1 is width/2 pixels from the centre
    half = torch.tensor([width / 2, height / 2])
    to_pixels = torch.cat((half, torch.ones(1)))
    theta = maps * to_pixels / half[:, None]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
