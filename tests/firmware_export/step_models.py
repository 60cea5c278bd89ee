"""What the inner steps compute, written down a second time in numpy and Python integers, from the text of their headers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]


def lanes(low: Int64, high: Int64) -> Words:
    """Words of two 16-bit lanes."""
    return ((low & 0xFFFF) | ((high & 0xFFFF) << 16)).astype(np.uint32)


def lane_values(words: Words) -> Int64:
    """[...] words -> [..., 2] signed lanes, the low one first."""
    wide = words.astype(np.int64)[..., None] >> np.array([0, 16])
    return ((wide & 0xFFFF) ^ 0x8000) - 0x8000


def wrap(x: Int64) -> Int64:
    """Modulo 2^32, signed."""
    return ((x & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def saturate(x: Int64) -> Int64:
    """To int8."""
    return np.clip(x, -128, 127)


def expanded(elements: Int64) -> tuple[Words, Words]:
    """A and B of step_r256.h for elements [..., 4]: (k0, k2) and (256 k1 + 127 - k0, 256 k3 + 127 - k2)."""
    k0, k1, k2, k3 = np.moveaxis(elements, -1, 0)
    return lanes(k0, k2), lanes(256 * k1 + 127 - k0, 256 * k3 + 127 - k2)


def packed(weights: Int64) -> Words:
    """R of step_r256.h for weights [..., 4]: lanes (256 w0 + w1, 256 w2 + w3)."""
    w0, w1, w2, w3 = np.moveaxis(weights, -1, 0)
    return lanes(256 * w0 + w1, 256 * w2 + w3)


def unpacked(words: Words) -> Int64:
    """The weights [..., 4] of R: the low byte of a lane is w1, what is left is 256 w0."""
    values = lane_values(words)
    odd = ((values & 0xFF) ^ 0x80) - 0x80
    even = (values - odd) >> 8
    return np.stack([even, odd], -1).reshape(*words.shape, 4)


def scaled_sums(start: Int64, weights: Int64, elements: Int64) -> Int64:
    """start + 256 sum(w k) + 127 sum(odd w), modulo 2^32: [channels, pixels] of weights [channels, k], elements [pixels, k]."""
    products = weights @ elements.T
    return wrap(start[:, None] + 256 * products + 127 * weights[:, 1::2].sum(1)[:, None])


def linear(sums: Int64, factor: Int64, shift: int) -> Int64:
    """The linear form of requantize_forms.py; factor broadcasts."""
    return saturate(((sums * factor) >> 32) >> shift)


def signed(sums: Int64, factor: Int64, negative: Int64, rounding: int, shift: int) -> Int64:
    """The signed form."""
    less = sums - np.where(sums < 0, negative, 0)
    return saturate((((less * factor) >> 32) + rounding) >> shift)


INPUT_TRANSFORM = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
WEIGHT_TRANSFORM = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]])
OUTPUT_TRANSFORM = np.array([[2, 1, 1, 0], [0, 1, -1, -2]])


def winograd_input(tile: Int64) -> Int64:
    """V of a tile [4, 4, channels]: [16, channels]."""
    return np.einsum("ij,jkc,lk->ilc", INPUT_TRANSFORM, tile, INPUT_TRANSFORM).reshape(16, -1)


def winograd_weights(kernel: Int64) -> Int64:
    """U of a kernel [3, 3, channels]: [16, channels]."""
    return np.einsum("ij,jkc,lk->ilc", WEIGHT_TRANSFORM, kernel, WEIGHT_TRANSFORM).reshape(16, -1)


def winograd_outputs(u: Int64, v: Int64) -> Int64:
    """Four outputs of U and V, each [16, channels], 4 times too large."""
    m = (u * v).sum(1).reshape(4, 4)
    return (OUTPUT_TRANSFORM @ m @ OUTPUT_TRANSFORM.T).reshape(-1)


def convolved(tile: Int64, kernel: Int64) -> Int64:
    """The four outputs of a 3x3 kernel on a tile [4, 4, channels], product by product."""
    return np.array([(tile[i : i + 3, j : j + 3] * kernel).sum() for i in (0, 1) for j in (0, 1)])


def group_words(values: Int64) -> Words:
    """[..., channels] -> [..., channels / 4, 2]: E = channels (0, 2), O = (1, 3) of every four."""
    fours = values.reshape(*values.shape[:-1], -1, 4)
    return np.stack([lanes(fours[..., 0], fours[..., 2]), lanes(fours[..., 1], fours[..., 3])], -1)
