"""Window arithmetic of convolutions and pools, shared by the readers and the writer."""

from __future__ import annotations

from collections.abc import Sequence

MAX_WINDOW = 32767
"""Largest stride or dilation: TFLite's kernels hold them in 16 bits with a sign."""


def same_padding(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> tuple[int, int, int, int]:
    """TFLite's SAME padding (top, bottom, left, right) of an input of `size` (h, w): the odd pixel at the end.

    Source: tensorflow/lite/kernels/padding.h, ComputePaddingHeightWidth; output = ceil(size / stride).
    """
    (top, bottom), (left, right) = (
        _same_edge(s, k, step, d) for s, k, step, d in zip(size, kernel, stride, dilation, strict=True)
    )
    return top, bottom, left, right


def _same_edge(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    reach = (kernel - 1) * dilation + 1
    outputs = -(-size // stride)
    total = max(0, (outputs - 1) * stride + reach - size)
    return total // 2, total - total // 2


def valid_size(size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Outputs along one edge of a window that stays inside `size` (padding already counted in); 0 or less: none fits."""
    reach = (kernel - 1) * dilation + 1
    return (size - reach) // stride + 1
