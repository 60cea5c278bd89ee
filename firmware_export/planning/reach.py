"""How far the outputs of the operators' own kernels, and of the fast pools, may reach over their inputs in memory.

By the order in which the loops of runtime/*.c read and write; kernels that are not named here keep apart. Fast kernels with
packed weights say it themselves (packing/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from firmware_export.graph import Graph, Node
from firmware_export.operators import LayerCode
from firmware_export.operators._checks import int8_image
from firmware_export.operators._window import Window

Distances = tuple[int | None, ...]
"""As LayerCode.distances."""

ELEMENTWISE = ("nn_lookup", "nn_relu", "nn_quantize", "nn_quantize_float", "nn_add", "nn_softmax", "nn_mean", "nn_mean_fast")
"""Element k of the output is written when no element of any input before k is needed any more, and their sizes are no
larger than the inputs'. (A row of a softmax and a block of a mean are read again or farther on, never farther back.)"""
BROADCAST = ("nn_add_broadcast", "nn_sub", "nn_mul", "nn_maximum", "nn_minimum", "nn_prelu")
"""Element k of the output is written when element k has been read of those inputs that have the output's shape."""


def with_reach(graph: Graph, node: Node, code: LayerCode) -> LayerCode:
    """The code with its distances, where it is known and it does not tell them itself."""
    if code.distances or any(code.in_place):
        return code
    found = _distances(graph, node, code)
    return replace(code, distances=found) if found else code


def _distances(graph: Graph, node: Node, code: LayerCode) -> Distances:
    inputs = [graph.tensors[index] for index in graph.activation_inputs(node)]
    output = graph.tensors[node.outputs[0]]
    if code.function in ELEMENTWISE:
        return (0,) * len(inputs)
    if code.function.removesuffix("_constant") in BROADCAST:
        return tuple(0 if tensor.elements == output.elements else None for tensor in inputs)
    if code.function == "nn_dequantize":
        return (max(0, 3 * (output.elements - 1)),)
    if code.function == "nn_strided_slice":
        return (_copied_piece(graph, node),)
    found = WINDOWED.get(code.function)
    return (found(graph, node),) if found is not None else ()


def _copied_piece(graph: Graph, node: Node) -> int | None:
    """One piece of the input is copied: it must not overlap its copy. None for more pieces."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    begin, size = node.integers("begin"), node.integers("size")
    whole = [count == n and first == 0 for first, count, n in zip(begin, size, x.shape, strict=True)]
    outer = next((axis for axis, count in enumerate(size) if count > 1), len(size) - 1)
    if not all(whole[outer + 1 :]) or any(step != 1 for step in node.integers("stride")):
        return None
    row = x.nbytes // x.elements
    place = 0
    for first, n in zip(begin, x.shape, strict=True):
        place = place * n + first
    return y.nbytes - place * row


def _convolution(graph: Graph, node: Node) -> int:
    """The window is copied to the scratch, then all outputs of its pixel are written."""
    return window_distance(_window(graph, node), _channels(graph, node), last=_channels(graph, node), before=0)


def _pointwise(graph: Graph, node: Node) -> int:
    """The pixel is read until its last output is written."""
    return window_distance(_window(graph, node), _channels(graph, node), last=1, before=0)


def _pool(graph: Graph, node: Node) -> int:
    """Channel after channel: each is written when those before it are not needed any more."""
    return window_distance(_window(graph, node), _channels(graph, node), last=1, before=_channels(graph, node) - 1)


def _channels(graph: Graph, node: Node) -> int:
    return graph.tensors[node.outputs[0]].shape[3]


def _window(graph: Graph, node: Node) -> Window:
    x = int8_image(graph, node)
    if "kernel" in node.attributes:
        kernel = node.integers("kernel")
    else:
        kernel = graph.tensors[node.inputs[1]].shape[1:3]
    return Window.of(node, x, (kernel[0], kernel[1]))


WINDOWED: dict[str, Callable[[Graph, Node], int]] = {
    "nn_conv2d": _convolution,
    "nn_conv2d_pointwise": _pointwise,
    "nn_depthwise_conv2d": _convolution,
    "nn_average_pool2d": _pool,
    "nn_average_pool2d_fast": _pool,
    "nn_max_pool2d": _pool,
    "nn_max_pool2d_fast": _pool,
}


def window_distance(window: Window, outputs: int, *, last: int, before: int) -> int:
    """Pixel after pixel of the output, row by row: bytes that it must begin before the image at least.

    Args:
        outputs: channels of an output pixel.
        last: how many of them are written when the pixel's window has been read for the last time.
        before: how many bytes of the window's first pixel are not needed any more when the others of them are written.
    """
    pixels = window.output[0] * window.output[1]
    row, column = np.divmod(np.arange(pixels), window.output[1])
    needed = np.minimum.accumulate(first_read(window, row, column)[::-1])[::-1]
    written = np.arange(1, pixels + 1) * outputs
    image = window.size[0] * window.size[1] * window.channels
    between = (written[:-1] - needed[1:]).max(initial=-image)
    within = (written - last - needed - before).max(initial=-image) if last < outputs else -image
    return int(max(between, within))


def distance_in_groups(window: Window, outputs: int, group: int) -> int:
    """The same for a kernel that reads the windows of `group` pixels, then writes all their channels: after every group the
    highest byte written must not lie behind the lowest that is still to be read."""
    pixels = window.output[0] * window.output[1]
    row, column = np.divmod(np.arange(pixels), window.output[1])
    needed = np.minimum.accumulate(first_read(window, row, column)[::-1])[::-1]
    written = np.arange(group, pixels, group)
    image = window.size[0] * window.size[1] * window.channels
    return int((written * outputs - needed[written]).max(initial=-image))


def first_read(
    window: Window, row: np.typing.NDArray[np.int64], column: np.typing.NDArray[np.int64]
) -> np.typing.NDArray[np.int64]:
    """Byte of the image at which what lies under an output's window begins."""
    top = np.clip(row * window.stride[0] - window.padding[0], 0, window.size[0])
    left = np.clip(column * window.stride[1] - window.padding[2], 0, window.size[1])
    return np.asarray((top * window.size[1] + left) * window.channels)
