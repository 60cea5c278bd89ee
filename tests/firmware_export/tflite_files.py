"""Random .tflite files of one operator, with every option that the format has; the writer's tables are all they share with us.

Each builder draws from a generator and returns the file, or None where the drawn window does not fit its image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.random import Generator

from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.write_tflite import TfliteWriter

Shape = tuple[int, ...]
Build = Callable[[Generator], bytes | None]


def pick(rng: Generator, low: int, high: int) -> int:
    """Both ends included."""
    return int(rng.integers(low, high + 1))


def quantization(rng: Generator, scale: float | None = None) -> Quantization:
    """A scale of 0.01 to 1, any zero point."""
    return Quantization.per_tensor(float(np.float32(scale or rng.uniform(0.01, 1))), pick(rng, -128, 127))


def file_of(tensors: Sequence[Tensor], builtin: str, inputs: Sequence[int], options: Any) -> bytes:
    """Input 0 is the first tensor, the output is the last one; further computed tensors are inputs too."""
    edges = tuple(i for i, t in enumerate(tensors[:-1]) if t.data is None)
    writer = TfliteWriter(Graph(list(tensors), [], edges, (len(tensors) - 1,)))
    writer.add(builtin, inputs, (len(tensors) - 1,), options, 3)
    return writer.finish()


def output_size(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """SAME (0) covers the image, VALID (1) stays inside."""
    return -(-size // stride) if padding == 0 else (size - (kernel - 1) * dilation - 1) // stride + 1


def filters(rng: Generator, shape: Shape, axis: int, channels: int, x: Tensor) -> list[Tensor]:
    """Weights with one scale or one for each channel, and their bias."""
    count = channels if rng.random() < 0.7 else 1
    scale = (0.01 * 2 ** rng.uniform(-1, 1, count)).astype(np.float32)
    zeros = np.zeros(count, np.int64)
    data = rng.integers(-127, 128, shape).astype(np.int8)
    bias = rng.integers(-1000, 1000, channels).astype(np.int32)
    axes = (axis, 0) if count > 1 else (None, None)
    return [
        Tensor("w", shape, "int8", Quantization(scale, zeros, axes[0]), data),
        Tensor("b", (channels,), "int32", Quantization(np.float32(x.scale) * scale, zeros, axes[1]), bias),
    ]


def convolution(rng: Generator) -> bytes | None:
    """CONV_2D and DEPTHWISE_CONV_2D: strides, dilations, multipliers, groups, both paddings, all activations."""
    depthwise, (h, w, c) = rng.random() < 0.5, (pick(rng, 1, 10), pick(rng, 1, 10), pick(rng, 1, 4))
    kernel, stride = (pick(rng, 1, 5), pick(rng, 1, 5)), (pick(rng, 1, 4), pick(rng, 1, 4))
    dilation, padding = ((1, 1) if rng.random() < 0.5 else (pick(rng, 1, 3), pick(rng, 1, 3))), pick(rng, 0, 1)
    rows, columns = (output_size(n, kernel[i], stride[i], dilation[i], padding) for i, n in enumerate((h, w)))
    if min(rows, columns) < 1:
        return None
    multiplier = pick(rng, 1, 3)
    groups = 2 if c % 2 == 0 and rng.random() < 0.3 else 1
    outputs = c * multiplier if depthwise else groups * multiplier
    shape = (1, *kernel, outputs) if depthwise else (outputs, *kernel, c // groups)
    x = Tensor("x", (1, h, w, c), "int8", quantization(rng, 0.1))
    y = Tensor("y", (1, rows, columns, outputs), "int8", quantization(rng, 0.2))
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, pick(rng, 0, 3)
    options.strideH, options.strideW = stride
    options.dilationHFactor, options.dilationWFactor = dilation
    if depthwise:
        options.depthMultiplier = multiplier
    tensors = [x, *filters(rng, shape, 3 if depthwise else 0, outputs, x), y]
    return file_of(tensors, "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", (0, 1, 2), options)


def transposed(rng: Generator) -> bytes | None:
    """TRANSPOSE_CONV: every output size that both paddings allow, with and without bias."""
    size, (c, outputs) = (pick(rng, 1, 6), pick(rng, 1, 6)), (pick(rng, 1, 4), pick(rng, 1, 4))
    kernel, stride, padding = (pick(rng, 1, 5), pick(rng, 1, 5)), (pick(rng, 1, 3), pick(rng, 1, 3)), pick(rng, 0, 1)
    whole = [n * s - pick(rng, 0, s - 1) + (0 if padding == 0 else k - 1) for n, s, k in zip(size, stride, kernel, strict=True)]
    x = Tensor("x", (1, *size, c), "int8", quantization(rng, 0.1))
    y = Tensor("y", (1, *whole, outputs), "int8", quantization(rng, 0.2))
    shape = np.array(y.shape, np.int32)
    options = schema.TransposeConvOptionsT()
    options.padding, (options.strideH, options.strideW) = padding, stride
    options.fusedActivationFunction = pick(rng, 0, 1)
    tensors = [x, *filters(rng, (outputs, *kernel, c), 0, outputs, x), Tensor("shape", (4,), "int32", None, shape), y]
    return file_of(tensors, "TRANSPOSE_CONV", (3, 1, 0, 2)[: pick(rng, 3, 4)], options)


def pool(rng: Generator) -> bytes | None:
    """AVERAGE_POOL_2D and MAX_POOL_2D."""
    (h, w, c), padding = (pick(rng, 1, 10), pick(rng, 1, 10), pick(rng, 1, 4)), pick(rng, 0, 1)
    kernel, stride = (pick(rng, 1, 5), pick(rng, 1, 5)), (pick(rng, 1, 4), pick(rng, 1, 4))
    rows, columns = output_size(h, kernel[0], stride[0], 1, padding), output_size(w, kernel[1], stride[1], 1, padding)
    if min(rows, columns) < 1:
        return None
    stored, options = quantization(rng), schema.Pool2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, pick(rng, 0, 3)
    options.strideH, options.strideW = stride
    options.filterHeight, options.filterWidth = kernel
    tensors = [Tensor("x", (1, h, w, c), "int8", stored), Tensor("y", (1, rows, columns, c), "int8", stored)]
    return file_of(tensors, ("AVERAGE_POOL_2D", "MAX_POOL_2D")[pick(rng, 0, 1)], (0,), options)


def reduction(rng: Generator) -> bytes | None:
    """MEAN, SUM and REDUCE_MAX: 1 to 5 dimensions, any axes, negative, repeated or a scalar, kept or not."""
    builtin, rank = ("MEAN", "SUM", "REDUCE_MAX")[pick(rng, 0, 2)], pick(rng, 1, 5)
    shape = tuple(1 if axis == 0 and rank > 1 else pick(rng, 1, 5) for axis in range(rank))
    axes = [int(axis) for axis in rng.choice(rank, pick(rng, 1, rank), replace=False)]
    options = schema.ReducerOptionsT()
    options.keepDims = bool(rng.random() < 0.5)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape) if options.keepDims or axis not in axes)
    named = [axis - rank if rng.random() < 0.4 else axis for axis in axes] + ([axes[0]] if rng.random() < 0.2 else [])
    constant = np.array(named, np.int32).reshape(() if len(named) == 1 and rng.random() < 0.5 else -1)
    before = quantization(rng)
    after = before if builtin == "REDUCE_MAX" or rng.random() < 0.4 else quantization(rng)
    x, y = Tensor("x", shape, "int8", before), Tensor("y", kept, "int8", after)
    tensors = [x, Tensor("axes", constant.shape, "int32", None, constant), y]
    return file_of(tensors, builtin, (0, 1), options)


def function(rng: Generator) -> bytes | None:
    """SOFTMAX, LOGISTIC and TANH: every input scale, and the one way in which TFLite stores each result."""
    builtin, stored = (("SOFTMAX", (1 / 256, -128)), ("LOGISTIC", (1 / 256, -128)), ("TANH", (1 / 128, 0)))[pick(rng, 0, 2)]
    shape: Shape = (1, pick(rng, 1, 40)) if rng.random() < 0.6 else (1, pick(rng, 1, 4), pick(rng, 1, 4), pick(rng, 1, 6))
    options = None
    if builtin == "SOFTMAX":
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0 if rng.random() < 0.7 else float(np.float32(rng.uniform(0.2, 3)))
    x = Tensor("x", shape, "int8", quantization(rng, 2.0 ** rng.uniform(-14, 4)))
    return file_of([x, Tensor("y", shape, "int8", Quantization.per_tensor(*stored))], builtin, (0,), options)


def product(rng: Generator) -> bytes | None:
    """BATCH_MATMUL, and FULLY_CONNECTED with computed weights: 2 to 4 dimensions, both ways round."""
    rows, depth, columns = (pick(rng, 1, 7) for _ in range(3))
    if rng.random() < 0.3:
        x = Tensor("x", (1, depth), "int8", quantization(rng))
        w = Tensor("w", (1, depth), "int8", quantization(rng))
        y = Tensor("y", (1, 1), "int8", quantization(rng, 20 * x.scale * w.scale * depth))
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = pick(rng, 0, 1)
        return file_of([x, w, y], "FULLY_CONNECTED", (0, 1, -1), options)
    batches = tuple(pick(rng, 1, 3) for _ in range(pick(rng, 0, 2)))
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = bool(pick(rng, 0, 1)), bool(pick(rng, 0, 1))
    shapes = [(depth, rows) if options.adjX else (rows, depth), (columns, depth) if options.adjY else (depth, columns)]
    tensors = [Tensor(name, (1, *batches, *shape), "int8", quantization(rng)) for name, shape in zip("ab", shapes, strict=True)]
    scale = 60 * tensors[0].scale * tensors[1].scale * depth
    tensors.append(Tensor("y", (1, *batches, rows, columns), "int8", quantization(rng, scale)))
    return file_of(tensors, "BATCH_MATMUL", (0, 1), options)


BUILDERS: tuple[Build, ...] = (convolution, transposed, pool, reduction, function, product)
