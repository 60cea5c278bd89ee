"""What average_pool2d and max_pool2d share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.geometry import same_padding
from firmware_export.graph import Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Example, LayerCode, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import (
    check_counts,
    clamp_attribute,
    int8_image,
    int8_output,
    integers,
    same_quantization,
    shape_text,
)  # fmt: skip
from firmware_export.operators._window import Window

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator


def pool_parts(graph: Graph, node: Node) -> tuple[Tensor, Window]:
    """Image and window of a pool, checked."""
    x = int8_image(graph, node)
    kernel = integers(node, "kernel", 2, 1)
    return x, Window.of(node, x, (kernel[0], kernel[1]))


def infer_pool(graph: Graph, node: Node) -> list[OutputSpec]:
    """Shape of a pool's output; every window must see at least one pixel of the image."""
    check_counts(node, (1,))
    x, window = pool_parts(graph, node)
    window.check_touches_image()
    same_quantization(x, int8_output(graph, node))
    clamp_attribute(node)
    return [OutputSpec((1, *window.output, window.channels), "int8")]


def pool_code(graph: Graph, node: Node, name: str) -> LayerCode:
    """The call of nn_<name>."""
    x, window = pool_parts(graph, node)
    low, high = clamp_attribute(node)
    return LayerCode(
        function=f"nn_{name}",
        params_type=f"nn_{name}_params",
        fields=window.fields() | {"min": str(low), "max": str(high)},
        sources=(f"{name}.c", "window.c"),
        summary=f"{window.summary()}, {shape_text(x)} -> {'x'.join(map(str, (*window.output, window.channels)))}",
    )


def read_tflite_pool(op: TfliteOperator, name: str) -> Node:
    """AVERAGE_POOL_2D or MAX_POOL_2D."""
    options = op.options_as(schema.Pool2DOptionsT)
    kernel, stride = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    padding, clamp = op.padding(options.padding, kernel, stride), op.clamp(options.fusedActivationFunction)
    attributes: dict[str, Attribute] = {"kernel": kernel, "stride": stride, "padding": padding, "clamp": clamp}
    return Node(name, op.inputs, op.outputs, attributes)


def read_onnx_pool(match: OnnxMatch, name: str) -> Node:
    """AveragePool, MaxPool or GlobalMaxPool."""
    if len(match.outputs) != 1:
        raise GraphError(f"{match.op_type} with {len(match.outputs)} outputs; supported: 1 (no indices)")
    shape = match.input(0).shape
    if match.op_type.startswith("Global"):
        kernel, stride, padding = (shape[1], shape[2]), (1, 1), (0, 0, 0, 0)
    else:
        kernel, stride = match.window("kernel_shape"), match.window("strides")
        padding = match.padding(kernel, stride)
    if match.window("dilations") != (1, 1):
        raise GraphError(f"{match.op_type} with dilations {match.attributes['dilations']}; supported: 1")
    if match.attributes.get("ceil_mode", 0):
        padding = (*_ceil_padding(shape[1], kernel[0], stride[0], padding[:2]),
                   *_ceil_padding(shape[2], kernel[1], stride[1], padding[2:]))  # fmt: skip
    attributes: dict[str, Attribute] = {"kernel": kernel, "stride": stride, "padding": padding, "clamp": match.int8_clamp()}
    return Node(name, match.inputs[:1], match.outputs, attributes)


def _ceil_padding(size: int, kernel: int, stride: int, padding: tuple[int, ...]) -> tuple[int, int]:
    """Padding at the end as ceil_mode makes it: one more window where it starts on the image or the padding before it."""
    before, after = padding
    left_over = (size + before + after - kernel) % stride
    next_start = size + before + after - kernel - left_over + stride
    return (before, after + stride - left_over) if left_over and next_start < size + before else (before, after)


def write_pool_options(window: Window, padding: int, activation: int) -> Any:
    """The schema's options of a pool."""
    options = schema.Pool2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, activation
    options.filterHeight, options.filterWidth = window.kernel
    options.strideH, options.strideW = window.stride
    return options


def pool_examples(rng: np.random.Generator, name: str, explicit_padding: bool) -> Iterator[Example]:
    """Corners, then random ones; explicit_padding: also padding that is neither SAME nor VALID."""
    corners: list[tuple[tuple[int, int, int], tuple[int, int], tuple[int, int], str]] = [
        ((6, 6, 3), (2, 2), (2, 2), "2x2 stride 2"),
        ((7, 5, 3), (2, 2), (2, 2), "2x2 stride 2, odd image"),
        ((5, 5, 4), (3, 3), (1, 1), "3x3 stride 1"),
        ((4, 6, 2), (4, 6), (1, 1), "the whole image"),
        ((1, 1, 5), (1, 1), (1, 1), "one pixel"),
        ((3, 3, 2), (3, 3), (2, 2), "3x3 stride 2"),
        ((20, 19, 2), (20, 19), (1, 1), "380 pixels"),
        ((1, 9, 2), (1, 4), (1, 2), "1x4"),
    ]
    for size, kernel, stride, label in corners:
        for same in (False, True):
            yield _pool_example(rng, name, size, kernel, stride, _padding(size, kernel, stride, same), f"{label}, same {same}")
    for zero_point in (-128, 127):
        yield _pool_example(rng, name, (5, 5, 3), (3, 3), (2, 2), (1, 1, 1, 1), f"zero point {zero_point}", zero_point)
    for index in range(36):
        size = (make.pick(rng, 1, 9), make.pick(rng, 1, 9), make.pick(rng, 1, 7))
        kernel = (make.pick(rng, 1, size[0]), make.pick(rng, 1, size[1]))
        stride = (make.pick(rng, 1, 3), make.pick(rng, 1, 3))
        padding = _padding(size, kernel, stride, bool(rng.random() < 0.5))
        if explicit_padding and rng.random() < 0.4:
            edges = [make.pick(rng, 0, edge - 1) for edge in (kernel[0], kernel[0], kernel[1], kernel[1])]
            padding = (edges[0], edges[1], edges[2], edges[3])
        yield _pool_example(rng, name, size, kernel, stride, padding, f"random {index}")


def _padding(size: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], same: bool) -> tuple[int, int, int, int]:
    return same_padding(size[:2], kernel, stride) if same else (0, 0, 0, 0)


def _pool_example(
    rng: np.random.Generator,
    name: str,
    size: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    label: str,
    zero_point: int | None = None,
) -> Example:
    x = make.random_image(rng, *size)
    if zero_point is not None:
        x = replace(x, quantization=Quantization.per_tensor(x.scale, zero_point))
    assert x.quantization is not None
    clamp = make.random_clamp(rng, x.quantization)
    attributes: dict[str, Attribute] = {"kernel": kernel, "stride": stride, "padding": padding, "clamp": clamp}
    graph = make.single_node(name, (x,), x.quantization, attributes)
    return Example(graph, label, make.extreme_inputs(graph))
