"""The cases on which the transposed convolution is compared: the named corners, then random ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from firmware_export.geometry import same_padding
from firmware_export.graph import Attribute, Quantization
from firmware_export.operators import Example
from firmware_export.operators import _examples as make

RANDOM_CASES = 34


@dataclass(frozen=True)
class TransposedCase:
    """One transposed convolution; pairs are (h, w).

    extra: rows and columns of output behind the last tap, negative where some are cut off. padding: (top, left); "same"
    as TFLite computes it from the output's size. spread: of the outputs in steps, 40 is ordinary.
    """

    label: str
    size: tuple[int, int, int] = (4, 5, 3)
    kernel: tuple[int, int] = (3, 3)
    outputs: int = 4
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] | str = (0, 0)
    extra: tuple[int, int] = (0, 0)
    zero_point: int | None = None
    bias: bool = True
    per_tensor: bool = False
    spread: float = 40.0
    clamp: tuple[int, int] | None = None
    ties: bool = False

    def example(self, rng: np.random.Generator) -> Example:
        """The graph."""
        x = make.random_image(rng, *self.size)
        weights = make.random_weights(rng, (self.outputs, *self.kernel, self.size[2]), None if self.per_tensor else 0)
        if self.zero_point is not None:
            x = replace(x, quantization=Quantization.per_tensor(x.scale, self.zero_point))
        taps = [max(1, k // s) for k, s in zip(self.kernel, self.stride, strict=True)]
        depth = taps[0] * taps[1] * self.size[2]
        output = make.spread_output(rng, x, weights, depth, self.spread)
        if self.ties:
            x, weights, output = make.tied(x, weights, depth)
        bias = make.random_bias(rng, x, weights, self.outputs) if self.bias else None
        graph = make.single_node("transpose_conv", (x, weights, bias), output, self._attributes(rng, output))
        return Example(graph, self.label, make.extreme_inputs(graph))

    def _attributes(self, rng: np.random.Generator, output: Quantization) -> dict[str, Attribute]:
        if isinstance(self.padding, str):
            size = (self.size[0] * self.stride[0] + self.extra[0], self.size[1] * self.stride[1] + self.extra[1])
            top, _, left, _ = same_padding(size, self.kernel, self.stride)
        else:
            top, left = self.padding
            whole = [(n - 1) * s + k for n, s, k in zip(self.size[:2], self.stride, self.kernel, strict=True)]
            size = (whole[0] + self.extra[0] - top, whole[1] + self.extra[1] - left)
        most = [n * s + k - 1 for n, s, k in zip(self.size[:2], self.stride, self.kernel, strict=True)]
        size = (max(1, min(size[0], most[0] - top)), max(1, min(size[1], most[1] - left)))
        clamp = self.clamp or make.random_clamp(rng, output)
        return {"stride": self.stride, "padding": (top, left), "size": size, "clamp": clamp}


CORNERS = (
    TransposedCase("3x3, stride 2, valid"),
    TransposedCase("3x3, stride 2, same", padding="same"),
    TransposedCase("3x3, stride 2, same, odd output", padding="same", extra=(-1, -1)),
    TransposedCase("4x4, stride 2, same", kernel=(4, 4), padding="same"),
    TransposedCase("2x2, stride 2: each tap alone", kernel=(2, 2)),
    TransposedCase("1x1, stride 2: three of four outputs are the bias", kernel=(1, 1)),
    TransposedCase("1x2, stride 3", kernel=(1, 2), stride=(3, 3), padding="same"),
    TransposedCase("3x3, stride 1, same", stride=(1, 1), padding="same"),
    TransposedCase("5x5, stride 1, valid", kernel=(5, 5), stride=(1, 1)),
    TransposedCase("5x3, stride 3 and 1", kernel=(5, 3), stride=(3, 1), padding="same"),
    TransposedCase("explicit padding", padding=(2, 0)),
    TransposedCase("explicit padding, cut at the end", kernel=(4, 3), padding=(1, 2), extra=(-2, -1)),
    TransposedCase("rows behind the last tap", stride=(2, 4), extra=(1, 3)),
    TransposedCase("one pixel", (1, 1, 7), outputs=5),
    TransposedCase("one channel, one output", (5, 4, 1), outputs=1),
    TransposedCase("stride 5 and 7", (3, 2, 2), stride=(5, 7)),
    TransposedCase("input zero point -128", zero_point=-128),
    TransposedCase("input zero point 127", zero_point=127, padding="same"),
    TransposedCase("no bias", bias=False),
    TransposedCase("no bias, one scale for all weights", bias=False, per_tensor=True, padding="same"),
    TransposedCase("one scale for all weights", per_tensor=True),
    TransposedCase("no clamp", clamp=(-128, 127)),
    TransposedCase("ties", (5, 5, 4), ties=True),
    TransposedCase("ties, negative zero point", (5, 5, 4), outputs=3, ties=True, zero_point=-77, padding="same"),
    TransposedCase("saturation", spread=4000.0, clamp=(-128, 127)),
    TransposedCase("factor above 1", (4, 4, 1), (1, 1), 3, (1, 1), spread=2.0e4, clamp=(-128, 127)),
    TransposedCase("all outputs near zero", spread=0.3),
    TransposedCase("factor below 2^-32", spread=1e-7),
)


def transposed_cases(rng: np.random.Generator) -> Iterator[TransposedCase]:
    """The corners, then random cases; 62 in all."""
    yield from CORNERS
    for index in range(RANDOM_CASES):
        yield _random_case(rng, f"random {index}")


def _random_case(rng: np.random.Generator, label: str) -> TransposedCase:
    kernel, stride = (make.pick(rng, 1, 5), make.pick(rng, 1, 5)), (make.pick(rng, 1, 3), make.pick(rng, 1, 3))
    padding: tuple[int, int] | str = "same"
    if rng.random() < 0.6:
        padding = (make.pick(rng, 0, kernel[0] - 1), make.pick(rng, 0, kernel[1] - 1)) if rng.random() < 0.5 else (0, 0)
    return TransposedCase(
        label,
        (make.pick(rng, 1, 6), make.pick(rng, 1, 6), make.pick(rng, 1, 9)),
        kernel,
        make.pick(rng, 1, 9),
        stride,
        padding,
        extra=(make.pick(rng, -1, 1), make.pick(rng, -1, 1)) if rng.random() < 0.5 else (0, 0),
        bias=bool(rng.random() < 0.8),
        per_tensor=bool(rng.random() < 0.2),
        spread=float(np.exp2(rng.uniform(3, 7))),
        ties=bool(rng.random() < 0.2),
    )
