"""The cases on which both convolutions are compared: the named corners, then random ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from firmware_export.graph import Attribute, Quantization
from firmware_export.operators import Example
from firmware_export.operators import _examples as make

RANDOM_CASES = 36


@dataclass(frozen=True)
class ConvolutionCase:
    """One convolution; pairs are (h, w), padding is (top, bottom, left, right).

    outputs: of conv2d; the channel multiplier of depthwise_conv2d. spread: of the outputs in steps, 40 is ordinary.
    ties: all scales are powers of two, so that many sums lie halfway between two outputs.
    """

    label: str
    size: tuple[int, int, int] = (6, 7, 3)
    kernel: tuple[int, int] = (3, 3)
    outputs: int = 4
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    zero_point: int | None = None
    bias: bool = True
    per_tensor: bool = False
    spread: float = 40.0
    clamp: tuple[int, int] | None = None
    ties: bool = False

    def example(self, rng: np.random.Generator, op: str, shape: tuple[int, ...], axis: int, depth: int) -> Example:
        """The graph, for weights of this shape with their channels along `axis` and sums of `depth` products."""
        x = make.random_image(rng, *self.size)
        weights = make.random_weights(rng, shape, None if self.per_tensor else axis)
        if self.zero_point is not None:
            x = replace(x, quantization=Quantization.per_tensor(x.scale, self.zero_point))
        output = make.spread_output(rng, x, weights, depth, self.spread)
        if self.ties:
            x, weights, output = make.tied(x, weights, depth)
        bias = make.random_bias(rng, x, weights, shape[axis]) if self.bias else None
        attributes: dict[str, Attribute] = {
            "stride": self.stride,
            "dilation": self.dilation,
            "padding": self.padding,
            "clamp": self.clamp or make.random_clamp(rng, output),
        }
        graph = make.single_node(op, (x, weights, bias), output, attributes)
        return Example(graph, self.label, make.extreme_inputs(graph))


CORNERS = (
    ConvolutionCase("3x3 same"),
    ConvolutionCase("3x3 same, stride 2, even image: the odd pixel at the end", (8, 8, 4), stride=(2, 2), padding=(0, 1, 0, 1)),
    ConvolutionCase("3x3 same, stride 2, odd image", (7, 9, 4), stride=(2, 2)),
    ConvolutionCase("1x1", (5, 4, 8), (1, 1), 8, padding=(0, 0, 0, 0)),
    ConvolutionCase("1x1, stride 2 and 3", (6, 7, 5), (1, 1), 5, (2, 3), padding=(0, 0, 0, 0)),
    ConvolutionCase("1x1 with padding", (3, 3, 2), (1, 1), 3, padding=(1, 0, 0, 2)),
    ConvolutionCase("valid, kernel of the image's size", (5, 4, 3), (5, 4), 6, padding=(0, 0, 0, 0)),
    ConvolutionCase("asymmetric padding", padding=(2, 0, 0, 1)),
    ConvolutionCase("more padding than kernel", (3, 4, 2), padding=(4, 5, 3, 6)),
    ConvolutionCase("dilation 2", (9, 8, 3), dilation=(2, 2), padding=(2, 2, 2, 2)),
    ConvolutionCase("dilation 1 and 3, stride 2 and 1", (8, 10, 2), (3, 2), 3, (2, 1), (1, 3), (1, 1, 0, 3)),
    ConvolutionCase("one channel", (7, 7, 1)),
    ConvolutionCase("one channel, one output", (7, 5, 1), outputs=1),
    ConvolutionCase("one pixel", (1, 1, 9), outputs=7),
    ConvolutionCase("wide kernel 1x7", (2, 12, 2), (1, 7), padding=(0, 0, 3, 3)),
    ConvolutionCase("input zero point -128", zero_point=-128),
    ConvolutionCase("input zero point 127", zero_point=127),
    ConvolutionCase("no bias", bias=False),
    ConvolutionCase("one scale for all weights", per_tensor=True),
    ConvolutionCase("no clamp", clamp=(-128, 127)),
    ConvolutionCase("ties", (8, 8, 4), ties=True),
    ConvolutionCase("ties, negative zero point", (8, 8, 4), outputs=3, ties=True, zero_point=-77),
    ConvolutionCase("saturation", spread=4000.0, clamp=(-128, 127)),
    ConvolutionCase("factor above 1", (4, 4, 1), (1, 1), 3, padding=(0, 0, 0, 0), spread=2.0e4, clamp=(-128, 127)),
    ConvolutionCase("all outputs near zero", spread=0.3),
    ConvolutionCase("factor below 2^-32", spread=1e-7),
)


def convolution_cases(rng: np.random.Generator, max_outputs: int = 9) -> Iterator[ConvolutionCase]:
    """The corners, then random cases; 62 in all."""
    yield from (replace(case, outputs=min(case.outputs, max_outputs)) for case in CORNERS)
    for index in range(RANDOM_CASES):
        yield _random_case(rng, f"random {index}", max_outputs)


def _random_case(rng: np.random.Generator, label: str, max_outputs: int) -> ConvolutionCase:
    size = (make.pick(rng, 1, 9), make.pick(rng, 1, 9), make.pick(rng, 1, 9))
    kernel = (make.pick(rng, 1, 5), make.pick(rng, 1, 5))
    dilation = (1, 1) if rng.random() < 0.6 else (make.pick(rng, 1, 3), make.pick(rng, 1, 3))
    return ConvolutionCase(
        label,
        size,
        kernel,
        outputs=make.pick(rng, 1, max_outputs),
        stride=(make.pick(rng, 1, 3), make.pick(rng, 1, 3)),
        dilation=dilation,
        padding=(*_edge_padding(rng, size[0], kernel[0], dilation[0]), *_edge_padding(rng, size[1], kernel[1], dilation[1])),
        bias=bool(rng.random() < 0.8),
        per_tensor=bool(rng.random() < 0.2),
        spread=float(np.exp2(rng.uniform(3, 7))),
        ties=bool(rng.random() < 0.2),
    )


def _edge_padding(rng: np.random.Generator, size: int, kernel: int, dilation: int) -> tuple[int, int]:
    """Random padding before and after, enough for the window to fit at least once."""
    reach = (kernel - 1) * dilation + 1
    before = make.pick(rng, 0, reach - 1)
    return before, max(make.pick(rng, 0, reach - 1), reach - before - size)
