"""Steps of random models that move or requantize values: parts, slices, borders, repetitions, other sizes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from firmware_export.graph import Node, Tensor

if TYPE_CHECKING:
    from random_graphs import RandomGraph

Shape = tuple[int, ...]
LARGEST = 600
MOVING = (
    "transpose", "strided_slice", "concatenation", "split", "pack", "unpack", "pad", "mirror_pad", "tile",
    "resize_nearest_neighbor", "resize_bilinear", "quantize",
)  # fmt: skip


def movement_step(grown: RandomGraph) -> int | None:
    """One operator of MOVING on something that is there; None where it does not fit."""
    return STEPS[MOVING[grown.pick(0, len(MOVING) - 1)]](grown)


def alike(grown: RandomGraph, x: int, shape: Shape) -> int | None:
    """A new tensor of a shape, stored like x; None if it would be too large or of too many dimensions."""
    if math.prod(shape) > LARGEST or len(shape) > 4:
        return None
    tensor = Tensor(f"m{len(grown.build.tensors)}", shape, "int8", grown.build.tensors[x].quantization)
    return grown.build.tensor(tensor)


def added(grown: RandomGraph, op: str, x: int, shape: Shape, /, **attributes: int | Shape) -> int | None:
    """A node with one input and one output that is stored like it."""
    y = alike(grown, x, shape)
    return None if y is None else grown.build.node(op, (x,), y, **attributes)


def shape_of(grown: RandomGraph, x: int) -> Shape:
    return grown.build.tensors[x].shape


def some(grown: RandomGraph, rank: int | None = None, least: int = 2) -> int | None:
    """Something of at least two dimensions; the first is the batch."""
    x = grown.source(rank)
    return None if x is None or len(shape_of(grown, x)) < least else x


def transpose(grown: RandomGraph) -> int | None:
    """Any order of all axes but the first."""
    x = some(grown)
    if x is None:
        return None
    shape = shape_of(grown, x)
    perm = (0, *(int(axis) + 1 for axis in grown.rng.permutation(len(shape) - 1)))
    return added(grown, "transpose", x, tuple(shape[axis] for axis in perm), perm=perm)


def strided_slice(grown: RandomGraph) -> int | None:
    """From any element on, by 1, 2 or -1."""
    x = some(grown)
    if x is None:
        return None
    begin, stride, size = [], [], []
    for limit in shape_of(grown, x):
        first, step = grown.pick(0, limit - 1), (1, 1, 2, -1)[grown.pick(0, 3)]
        most = first + 1 if step < 0 else -(-(limit - first) // step)
        begin.append(first)
        stride.append(step)
        size.append(grown.pick(max(1, most - 2), most))
    ranges = {"begin": tuple(begin), "stride": tuple(stride), "size": tuple(size)}
    return added(grown, "strided_slice", x, tuple(size), **ranges, shape=tuple(size))


def concatenation(grown: RandomGraph) -> int | None:
    """A tensor twice or three times, or with another one that is stored and shaped alike."""
    x = some(grown)
    if x is None:
        return None
    tensor = grown.build.tensors[x]
    fitting = [i for i in grown.live if grown.build.tensors[i].shape == tensor.shape]
    fitting = [i for i in fitting if grown.build.tensors[i].quantization == tensor.quantization]
    inputs = [x, *(fitting[grown.pick(0, len(fitting) - 1)] for _ in range(grown.pick(1, 2)))]
    axis = grown.pick(1, len(tensor.shape) - 1)
    shape = tuple(n * len(inputs) if place == axis else n for place, n in enumerate(tensor.shape))
    y = alike(grown, x, shape)
    return None if y is None else grown.build.node("concatenation", tuple(inputs), y, axis=axis)


def pack(grown: RandomGraph) -> int | None:
    """A tensor twice along a new axis."""
    x = some(grown)
    if x is None:
        return None
    shape = shape_of(grown, x)
    axis = grown.pick(1, len(shape))
    y = alike(grown, x, (*shape[:axis], 2, *shape[axis:]))
    return None if y is None else grown.build.node("pack", (x, x), y, axis=axis)


def divided(grown: RandomGraph, op: str, x: int, shapes: list[Shape], **attributes: int | Shape) -> int | None:
    """A node with several outputs; all of them can be read later, the last is returned."""
    outputs = [alike(grown, x, shape) for shape in shapes]
    found = tuple(index for index in outputs if index is not None)
    if len(found) != len(shapes):
        return None
    grown.build.nodes.append(Node(op, (x,), found, dict(attributes)))
    grown.live += found[:-1]
    return found[-1]


def split(grown: RandomGraph) -> int | None:
    """Two pieces along an axis."""
    x = some(grown)
    if x is None:
        return None
    shape = shape_of(grown, x)
    axis = grown.pick(1, len(shape) - 1)
    if shape[axis] < 2:
        return None
    first = grown.pick(1, shape[axis] - 1)
    sizes = (first, shape[axis] - first)
    return divided(grown, "split", x, [(*shape[:axis], n, *shape[axis + 1 :]) for n in sizes], axis=axis, sizes=sizes)


def unpack(grown: RandomGraph) -> int | None:
    """Every slice along a short axis."""
    x = some(grown, least=3)
    if x is None:
        return None
    shape = shape_of(grown, x)
    axis = grown.pick(1, len(shape) - 1)
    if shape[axis] > 4:
        return None
    return divided(grown, "unpack", x, [(*shape[:axis], *shape[axis + 1 :])] * shape[axis], axis=axis)


def border(grown: RandomGraph, x: int, offset: int | None) -> tuple[Shape, Shape]:
    """Paddings and the shape with them; a mirrored border (with an offset) is no wider than what it mirrors."""
    paddings, shape = [0, 0], [1]
    for size in shape_of(grown, x)[1:]:
        most = 2 if offset is None else min(2, size - offset)
        before, after = grown.pick(0, most), grown.pick(0, most)
        paddings += [before, after]
        shape.append(before + size + after)
    return tuple(paddings), tuple(shape)


def pad(grown: RandomGraph) -> int | None:
    """A border of the zero point or of another value."""
    x = some(grown)
    if x is None or shape_of(grown, x)[0] != 1:
        return None
    paddings, shape = border(grown, x, None)
    value = grown.build.tensors[x].zero_point if grown.pick(0, 1) else grown.pick(-128, 127)
    return added(grown, "pad", x, shape, paddings=paddings, value=value)


def mirror_pad(grown: RandomGraph) -> int | None:
    """With or without the outermost elements."""
    x, offset = some(grown), grown.pick(0, 1)
    if x is None or shape_of(grown, x)[0] != 1:
        return None
    paddings, shape = border(grown, x, offset)
    return added(grown, "mirror_pad", x, shape, paddings=paddings, offset=offset)


def tile(grown: RandomGraph) -> int | None:
    """Once to three times along each axis."""
    x = some(grown)
    if x is None:
        return None
    repeats = (1, *(grown.pick(1, 3) for _ in shape_of(grown, x)[1:]))
    shape = tuple(n * repeat for n, repeat in zip(shape_of(grown, x), repeats, strict=True))
    return added(grown, "tile", x, shape, repeats=repeats)


def resize(grown: RandomGraph, op: str) -> int | None:
    """To any small size, with any flags."""
    x = some(grown, 4)
    if x is None or shape_of(grown, x)[0] != 1:
        return None
    size = (grown.pick(1, 9), grown.pick(1, 9))
    flags = ((0, 0), (0, 1), (1, 0))[grown.pick(0, 2)]
    shape = (1, *size, shape_of(grown, x)[3])
    return added(grown, op, x, shape, size=size, align_corners=flags[0], half_pixel=flags[1])


def quantize(grown: RandomGraph) -> int | None:
    """To another scale and zero point."""
    x = grown.source()
    assert x is not None
    y = grown.activation(shape_of(grown, x), grown.build.tensors[x].scale)
    return grown.build.node("quantize", (x,), y)


STEPS = {
    step.__name__: step
    for step in (transpose, strided_slice, concatenation, split, pack, unpack, pad, mirror_pad, tile, quantize)
} | {op: lambda grown, op=op: resize(grown, op) for op in ("resize_nearest_neighbor", "resize_bilinear")}
