"""Steps of random models (random_graphs) that compute value by value, or reduce axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from firmware_export.graph import Attribute, Quantization, Tensor

if TYPE_CHECKING:
    from random_graphs import RandomGraph

BINARY = ("add", "sub", "mul", "minimum", "maximum", "prelu")
TABLES = ("logistic", "tanh", "hard_swish", "leaky_relu")
REDUCTIONS = ("mean", "sum", "reduce_max")
STORED = {"logistic": Quantization.per_tensor(1 / 256, -128), "tanh": Quantization.per_tensor(1 / 128, 0)}


def binary_step(net: RandomGraph) -> int:
    """One of BINARY with an activation of the same shape or a constant that is repeated; minimum and prelu with constants."""
    x = net.source()
    assert x is not None
    op, source = BINARY[net.pick(0, len(BINARY) - 1)], net.build.tensors[x]
    alone = op in ("minimum", "maximum", "prelu")
    other = _partner(net, x) if not alone and net.rng.random() < 0.5 else _constant(net, x, op)
    scales = {"mul": source.scale * net.build.tensors[other].scale * 60, "prelu": source.scale}
    y = net.activation(source.shape, scales.get(op, source.scale + net.build.tensors[other].scale))
    if op in ("minimum", "maximum"):
        net.build.tensors[y] = Tensor(op, source.shape, "int8", source.quantization)
    pair = (other, x) if op != "prelu" and net.rng.random() < 0.3 else (x, other)
    attributes: dict[str, Attribute] = {} if alone else {"clamp": net.clamp(y)}
    return net.build.node(op, pair, y, **attributes)


def table_step(net: RandomGraph) -> int:
    """One of TABLES."""
    x = net.source()
    assert x is not None
    op, source = TABLES[net.pick(0, len(TABLES) - 1)], net.build.tensors[x]
    y = net.activation(source.shape, source.scale)
    if op in STORED:
        net.build.tensors[y] = Tensor(op, source.shape, "int8", STORED[op])
    attributes: dict[str, Attribute] = {"alpha": float(np.float32(net.rng.uniform(0, 0.5)))} if op == "leaky_relu" else {}
    return net.build.node(op, (x,), y, **attributes)


def reduction_step(net: RandomGraph) -> int:
    """One of REDUCTIONS over any axes but the batch."""
    x = net.source()
    assert x is not None
    op, source = REDUCTIONS[net.pick(0, 2)], net.build.tensors[x]
    if not source.shape:
        return table_step(net)
    axes = tuple(axis for axis in range(1, len(source.shape)) if net.rng.random() < 0.6) or (len(source.shape) - 1,)
    keep_dims = net.pick(0, 1)
    shape = tuple(1 if i in axes else size for i, size in enumerate(source.shape) if keep_dims or i not in axes)
    count = source.elements / max(1, int(np.prod(shape)))
    y = net.activation(shape, source.scale * {"mean": 0.5, "sum": count**0.5, "reduce_max": 1}[op])
    if op == "reduce_max":
        net.build.tensors[y] = Tensor(op, shape, "int8", source.quantization)
    return net.build.node(op, (x,), y, axes=axes, keep_dims=keep_dims)


def _partner(net: RandomGraph, x: int) -> int:
    """Something of the same shape, itself included."""
    fitting = [i for i in net.live if net.build.tensors[i].shape == net.build.tensors[x].shape]
    return fitting[net.pick(0, len(fitting) - 1)]


def _constant(net: RandomGraph, x: int, op: str) -> int:
    """A constant of the same shape with some sizes 1, or its last dimensions alone."""
    source = net.build.tensors[x]
    shape = tuple(1 if net.rng.random() < 0.5 else size for size in source.shape)[net.pick(0, max(0, len(source.shape) - 1)) :]
    quantization = source.quantization if op in ("minimum", "maximum") else net.quantization(0.01 if op == "prelu" else 0.05)
    data = net.rng.integers(-128, 128, shape).astype(np.int8)
    return net.build.tensor(Tensor("constant", shape, "int8", quantization, data))
