"""What both resize operators share: attributes, which pixel is the nearest, how TFLite and ONNX say it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from firmware_export.graph import Attribute, Graph, GraphError, Node, Tensor
from firmware_export.model_file import MAX_ELEMENTS
from firmware_export.operators import Example, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import MAX_SIZE, check_counts, int8_image, int8_output, integers, same_quantization
from firmware_export.operators._movement import moving_example

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator

Size = tuple[int, int]
FLAGS = ((0, 0), (0, 1), (1, 0))
"""(align_corners, half_pixel) as TFLite has them."""
LINEAR_FLAGS = {"asymmetric": (0, 0), "half_pixel": (0, 1), "pytorch_half_pixel": (0, 1), "align_corners": (1, 0)}
"""ONNX's coordinate_transformation_mode -> the flags of the same places."""


def resize_flags(node: Node) -> tuple[bool, bool]:
    """align_corners and half_pixel. Raises GraphError unless they are 0 or 1, and not both 1."""
    flags = [node.attributes.get(key) for key in ("align_corners", "half_pixel")]
    if any(flag not in (0, 1) for flag in flags) or flags == [1, 1]:
        raise GraphError(f"align_corners {flags[0]}, half_pixel {flags[1]}; supported: 0 or 1, not both 1")
    return bool(flags[0]), bool(flags[1])


def infer_resize(graph: Graph, node: Node) -> list[OutputSpec]:
    """The output of a resize. Raises GraphError for what is not supported."""
    check_counts(node, (1,))
    x = int8_image(graph, node)
    height, width = integers(node, "size", 2, 1)
    resize_flags(node)
    if height * width * x.shape[3] > MAX_ELEMENTS:
        raise GraphError(f"an image of {height}x{width}x{x.shape[3]}; supported: up to {MAX_ELEMENTS:,} elements")
    same_quantization(x, int8_output(graph, node))
    return [OutputSpec((1, height, width, x.shape[3]), "int8")]


def nearest_indexes(input_size: int, output_size: int, align_corners: bool, half_pixel: bool) -> list[int]:
    """For each pixel of the output the input's, computed in float32 as TFLite does.

    Source: GetNearestNeighbor in tensorflow/lite/kernels/internal/reference/resize_nearest_neighbor.h.
    """
    aligned = align_corners and output_size > 1
    scale = (
        np.float32(input_size - 1) / np.float32(output_size - 1)
        if aligned
        else np.float32(input_size) / np.float32(output_size)
    )
    places = (np.arange(output_size).astype(np.float32) + np.float32(0.5 if half_pixel else 0)) * scale
    found = np.floor(places.astype(np.float64) + 0.5) if align_corners else np.floor(places)
    return [int(index) for index in np.clip(found, 0, input_size - 1)]


def read_tflite_resize(op: TfliteOperator, options: Any) -> dict[str, Attribute]:
    """The attributes from the constant size and the options."""
    size = op.integers(1)
    if len(size) != 2:
        raise GraphError(f"a size of {len(size)} numbers; expected height and width")
    return {"size": size, "align_corners": int(bool(options.alignCorners)), "half_pixel": int(bool(options.halfPixelCenters))}


def onnx_size(match: OnnxMatch) -> Size:
    """Height and width of the output of ONNX's Resize: from `sizes`, or from `scales` rounded down."""
    x = match.input(0)
    if len(x.shape) != 4 or match.attributes.get("axes") or (match.has(1) and match.input(1).elements):
        raise GraphError(f"Resize of {x.shape}, with axes or a region; supported: whole images [1, c, h, w]")
    if match.has(3):
        batch, channels, height, width = _four(match.integers(3))
    elif match.has(2):
        factors = match.constant(2).astype(np.float32).reshape(-1).tolist()
        onnx_sizes = (x.shape[0], x.shape[3], x.shape[1], x.shape[2])
        found = [math.floor(n * factor) for n, factor in zip(onnx_sizes, _four(tuple(factors)), strict=True)]
        batch, channels, height, width = found
    else:
        raise GraphError("Resize without scales and sizes; the model is damaged")
    if (batch, channels) != (x.shape[0], x.shape[3]):
        raise GraphError(f"Resize of {x.shape[3]} channels to {channels}; supported: height and width")
    return height, width


def _four(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) != 4:
        raise GraphError(f"Resize with {len(values)} sizes or scales; expected 4")
    return values


def onnx_nearest(mode: str, rounding: str, input_size: int, output_size: int) -> list[int]:
    """For each pixel of the output the input's, as the ONNX standard defines it."""
    scale, places = output_size / input_size, np.arange(output_size).astype(np.float64)
    if mode == "align_corners":
        real = places * (input_size - 1) / max(1, output_size - 1)
    elif mode in ("half_pixel", "pytorch_half_pixel"):
        real = (places + 0.5) / scale - 0.5
        real = np.zeros(1) if mode == "pytorch_half_pixel" and output_size == 1 else real
    elif mode == "asymmetric":
        real = places / scale
    else:
        raise GraphError(f"Resize with {mode}; supported: {', '.join(LINEAR_FLAGS)}")
    rounders = {
        "floor": np.floor(real),
        "ceil": np.ceil(real),
        "round_prefer_floor": np.ceil(real - 0.5),
        "round_prefer_ceil": np.floor(real + 0.5),
    }
    if rounding not in rounders:
        raise GraphError(f"Resize with nearest_mode {rounding}; supported: {', '.join(rounders)}")
    return [int(index) for index in np.clip(rounders[rounding], 0, input_size - 1)]


def nearest_flags(match: OnnxMatch, size: Size) -> tuple[int, int]:
    """The flags under which TFLite takes the same pixels. Raises GraphError if there are none."""
    mode = match.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding, source = match.attributes.get("nearest_mode", "round_prefer_floor"), match.input(0).shape[1:3]
    if min(size) < 1 or max(size) > MAX_SIZE:
        raise GraphError(f"Resize to {size}; supported: 1 to {MAX_SIZE}")
    sizes = list(zip(source, size, strict=True))
    wanted = [onnx_nearest(mode, rounding, *pair) for pair in sizes]
    for align_corners, half_pixel in FLAGS:
        if wanted == [nearest_indexes(*pair, bool(align_corners), bool(half_pixel)) for pair in sizes]:
            return align_corners, half_pixel
    raise GraphError(f"Resize with {mode} and {rounding} from {source} to {size}; supported: pixels that TFLite can name")


def linear_flags(match: OnnxMatch) -> tuple[int, int]:
    """The flags of a linear resize. Raises GraphError for modes that TFLite does not have."""
    mode = match.attributes.get("coordinate_transformation_mode", "half_pixel")
    if mode not in LINEAR_FLAGS:
        raise GraphError(f"Resize with {mode}; supported: {', '.join(LINEAR_FLAGS)}")
    return LINEAR_FLAGS[mode]


def image_sizes(x: Tensor, node: Node) -> tuple[Size, Size]:
    """(input, output) of the height and of the width."""
    height, width = node.integers("size")
    return (x.shape[1], height), (x.shape[2], width)


def resize_examples(name: str, rng: np.random.Generator) -> Iterator[Example]:
    """Images of one to six pixels a side, larger and smaller, with all the flags; every fourth by whole factors."""
    for index in range(54):
        x = make.random_image(rng, make.pick(rng, 1, 7), make.pick(rng, 1, 7), make.pick(rng, 1, 4))
        size = (make.pick(rng, 1, 13), make.pick(rng, 1, 13))
        if index % 4 == 0:
            size = (2 * x.shape[1], 3 * x.shape[2])
        align_corners, half_pixel = FLAGS[index % 3]
        attributes: dict[str, Attribute] = {"size": size, "align_corners": align_corners, "half_pixel": half_pixel}
        yield moving_example(name, (x,), attributes, f"{x.shape} to {size}, {FLAGS[index % 3]}, {index}")
