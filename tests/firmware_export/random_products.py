"""Steps of random models that sum products: transposed convolutions, products of computed matrices, LSTMs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from firmware_export.graph import Quantization, Tensor

if TYPE_CHECKING:
    from random_graphs import RandomGraph

PRODUCTS = ("transpose_conv", "batch_matmul", "lstm")
MAX_ELEMENTS = 400


def product_step(grower: RandomGraph) -> int | None:
    """One of PRODUCTS; None where nothing fits."""
    return (transpose_conv, batch_matmul, lstm)[grower.pick(0, 2)](grower)


def transpose_conv(grower: RandomGraph) -> int | None:
    """Any kernel, stride and crop, with and without rows behind the last tap."""
    x = grower.source(4)
    if x is None:
        return None
    _, height, width, depth = grower.build.tensors[x].shape
    kernel, stride = (grower.pick(1, 4), grower.pick(1, 4)), (grower.pick(1, 3), grower.pick(1, 3))
    channels, padding = grower.pick(1, 5), tuple(grower.pick(0, k - 1) for k in kernel)
    size = tuple(
        max(1, (n - 1) * s + k - p - grower.pick(0, p) + grower.pick(0, s - 1))
        for n, s, k, p in zip((height, width), stride, kernel, padding, strict=True)
    )
    if size[0] * size[1] * channels > MAX_ELEMENTS:
        return None
    weights = grower.build.weights((channels, *kernel, depth), 0 if grower.rng.random() < 0.8 else None)
    bias = grower.build.bias(x, weights, channels) if grower.rng.random() < 0.8 else -1
    y = grower.activation((1, *size, channels), grower.build.tensors[x].scale * 0.012 * 74 * 73 * np.sqrt(depth * 2) / 40)
    attributes = {"stride": stride, "padding": padding, "size": size, "clamp": grower.clamp(y)}
    return grower.build.node("transpose_conv", (x, weights, bias), y, **attributes)


def batch_matmul(grower: RandomGraph) -> int | None:
    """A value times its own transpose, from either side, or times a constant matrix."""
    x = grower.source()
    assert x is not None
    source = grower.build.tensors[x]
    if not 2 <= len(source.shape) <= 5:
        return None
    rows, columns = source.shape[-2:]
    scale = source.scale * (75 + abs(source.zero_point)) * np.sqrt(columns)
    adjoint = grower.pick(0, 1)
    if grower.rng.random() < 0.5:
        size = rows if not adjoint else columns
        y = grower.activation((*source.shape[:-2], size, size), scale * source.scale * (75 + abs(source.zero_point)) / 60)
        other = x
    else:
        size = grower.pick(1, 6)
        data = grower.rng.integers(-128, 128, (size, rows if adjoint else columns)).astype(np.int8)
        quantization = Quantization.per_tensor(0.02, grower.pick(-128, 127))
        other = grower.build.tensor(Tensor("matrix", data.shape, "int8", quantization, data))
        y = grower.activation((*source.shape[:-2], columns if adjoint else rows, size), scale * 0.02 * 120 / 60)
    if grower.build.tensors[y].elements > MAX_ELEMENTS:
        return None
    flags = {"adj_x": adjoint, "adj_y": 0 if other == x and adjoint else 1}
    return grower.build.node("batch_matmul", (x, other), y, clamp=(-128, 127), **flags)


def lstm(grower: RandomGraph) -> int | None:
    """Over what there is, as a sequence."""
    x = grower.source()
    assert x is not None
    source = grower.build.tensors[x]
    steps = next(steps for steps in (5, 4, 3, 2, 1) if source.elements % steps == 0)
    depth, units = source.elements // steps, grower.pick(1, 5)
    if depth > MAX_ELEMENTS // 10:
        return None
    sequence = grower.build.reshape(x, (1, steps, depth))
    y = grower.build.tensor(Tensor("lstm", (1, steps, units), "int8", Quantization.per_tensor(1 / 128, grower.pick(-5, 5))))
    spreads = (source.scale * (75 + abs(source.zero_point)) * np.sqrt(depth), 0.3 * np.sqrt(units))
    inputs = [sequence]
    for spread, columns in zip(spreads, (depth, units), strict=True):
        for _ in range(4):
            data = grower.rng.integers(-127, 128, (units, columns)).astype(np.int8)
            scale = float(np.float32(grower.rng.uniform(0.5, 2) / spread / 73))
            inputs.append(grower.build.tensor(Tensor("w", data.shape, "int8", Quantization.per_tensor(scale, 0), data)))
    for gate in range(4):
        data = grower.rng.integers(-3000, 3001, units).astype(np.int32)
        scale = source.scale * grower.build.tensors[inputs[1 + gate]].scale
        inputs.append(grower.build.tensor(Tensor("b", data.shape, "int32", Quantization.per_tensor(scale, 0), data)))
    attributes = {"time_major": 0, "cell_exponent": grower.pick(-15, -9), "cell_clip": 0}
    return grower.build.node("lstm", tuple(inputs), y, **attributes)
