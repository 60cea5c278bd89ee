"""A model of about a megabyte with several kinds of operators, for what must be quick on such a one."""

from __future__ import annotations

from graph_builder import Build

from firmware_export.graph import Graph

LAYERS = (
    ("conv2d", (1, 16, 16, 32), 9 * 3),
    ("conv2d", (1, 16, 16, 64), 9 * 32),
    ("conv2d", (1, 8, 8, 128), 9 * 64),
    ("conv2d", (1, 8, 8, 128), 9 * 128),
    ("conv2d", (1, 8, 8, 128), 9 * 128),
    ("add", (1, 8, 8, 128), 0),
    ("mean", (1, 128), 0),
    ("fully_connected", (1, 1024), 128),
    ("fully_connected", (1, 512), 1024),
    ("fully_connected", (1, 10), 512),
    ("softmax", (1, 10), 0),
)
"""Operator, shape of its output, products in a sum, as the model below is meant to be."""


def megabyte_net(seed: int = 0) -> Graph:
    """conv 3x3 s2 - conv - conv s2 - two convolutions and a skip - mean - three fully connected - softmax: 1.1 MB."""
    build = Build(seed)
    x = build.activation((1, 32, 32, 3), 1 / 255, -128, "image")
    y = build.conv(x, 32, stride=2, padding=(0, 1, 0, 1), clamp=(-3, 127))
    y = build.conv(y, 64, clamp=(-3, 127))
    skip = build.conv(y, 128, stride=2, padding=(0, 1, 0, 1), clamp=(-3, 127))
    y = build.conv(build.conv(skip, 128), 128)
    shape, scale = build.tensors[y].shape, build.tensors[y].scale
    total = build.node("add", (skip, y), build.activation(shape, scale, 3, "sum"), clamp=(-128, 127))
    pooled = build.node("mean", (total,), build.activation((1, 128), scale / 3, -7, "pooled"), axes=(1, 2), keep_dims=0)
    y = build.fully_connected(build.fully_connected(build.fully_connected(pooled, 1024), 512), 10)
    return build.graph(x, build.node("softmax", (y,), build.activation((1, 10), 1 / 256, -128, "classes"), beta=1.0))
