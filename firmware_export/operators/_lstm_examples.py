"""The cases on which the LSTM is compared: the named corners, then random ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from firmware_export.graph import Attribute, Quantization, Tensor
from firmware_export.operators import Example
from firmware_export.operators import _examples as make

RANDOM_CASES = 34


@dataclass(frozen=True)
class LstmCase:
    """One LSTM. reach: of the sums of both sides, real values; 2 is ordinary, logistic and tanh are flat at 8.

    y: output scale and zero point; what an LSTM makes lies in -1..1.
    """

    label: str
    steps: int = 4
    inputs: int = 5
    units: int = 4
    exponent: int = -11
    clip: int = 0
    reach: float = 2.0
    x: Quantization | None = None
    y: tuple[float, int] = (1 / 128, 0)

    def example(self, rng: np.random.Generator) -> Example:
        """The graph."""
        x = make.activation((1, self.steps, self.inputs), self.x or make.random_quantization(rng))
        y = Quantization.per_tensor(float(np.float32(self.y[0])), self.y[1])
        sides = ((x, self.inputs), (make.activation((), y), self.units))
        weights = [self._weights(rng, side, depth) for side, depth in sides for _ in range(4)]
        biases = [self._bias(rng, x, weights[gate]) for gate in range(4)]
        attributes: dict[str, Attribute] = {"time_major": 0, "cell_exponent": self.exponent, "cell_clip": self.clip}
        graph = make.single_node("lstm", (x, *weights, *biases), y, attributes)
        return Example(graph, self.label, make.extreme_inputs(graph))

    def _weights(self, rng: np.random.Generator, side: Tensor, depth: int) -> Tensor:
        """Random ones, of a scale at which their sums have about the size `reach`."""
        data = rng.integers(-127, 128, (self.units, depth)).astype(np.int8)
        spread = np.sqrt(74**2 + (0.5 + side.zero_point) ** 2) * side.scale * 73 * np.sqrt(depth)
        scale = float(np.float32(self.reach / spread * 2.0 ** rng.uniform(-1, 1)))
        return Tensor("w", data.shape, "int8", Quantization.per_tensor(scale, 0), data)

    def _bias(self, rng: np.random.Generator, x: Tensor, weights: Tensor) -> Tensor:
        scale = float(np.float32(x.scale * weights.scale))
        bound = min(int(self.reach / scale) + 1, 2**30)
        data = rng.integers(-bound, bound + 1, self.units).astype(np.int32)
        return Tensor("b", data.shape, "int32", Quantization.per_tensor(scale, 0), data)


def _x(scale: float, zero_point: int) -> Quantization:
    return Quantization.per_tensor(scale, zero_point)


CORNERS = (
    LstmCase("ordinary"),
    LstmCase("one step", steps=1),
    LstmCase("many steps", steps=20, units=3),
    LstmCase("one input", inputs=1),
    LstmCase("one unit", units=1),
    LstmCase("one of each", steps=1, inputs=1, units=1),
    LstmCase("more units than inputs", inputs=2, units=9),
    LstmCase("more inputs than units", inputs=17, units=2),
    LstmCase("input zero point -128", x=_x(0.02, -128)),
    LstmCase("input zero point 127", x=_x(0.02, 127)),
    LstmCase("output zero point -128", y=(1 / 256, -128)),
    LstmCase("output zero point 127", y=(1 / 256, 127)),
    LstmCase("output saturates", y=(1 / 1000, 5)),
    LstmCase("coarse output", y=(0.2, -3)),
    LstmCase("cell scale 2^-15", exponent=-15),
    LstmCase("cell scale 2^-14, saturation", exponent=-14, reach=6.0, steps=8),
    LstmCase("cell scale 2^-13", exponent=-13),
    LstmCase("cell scale 2^-12", exponent=-12),
    LstmCase("cell scale 2^-9", exponent=-9, reach=5.0, steps=10),
    LstmCase("cell scale 1", exponent=0),
    LstmCase("cell scale 2^-24", exponent=-24),
    LstmCase("clip", clip=1000, reach=4.0),
    LstmCase("clip at one step", clip=1),
    LstmCase("clip at the end", clip=32767, exponent=-15),
    LstmCase("large sums: gates open or closed", reach=30.0),
    LstmCase("sums beyond int16", reach=2000.0),
    LstmCase("sums near 0", reach=0.01),
    LstmCase("input scale 2^-20", x=_x(2.0**-20, 0)),
    LstmCase("input scale 1000", x=_x(1000.0, 3)),
    LstmCase("powers of two: ties", x=_x(2.0**-4, 0), y=(2.0**-6, 0), reach=1.0),
)


def lstm_examples(rng: np.random.Generator) -> Iterator[Example]:
    """The corners, then random cases; 64 in all."""
    for case in CORNERS:
        yield case.example(rng)
    for index in range(RANDOM_CASES):
        yield _random_case(rng, f"random {index}").example(rng)


def _random_case(rng: np.random.Generator, label: str) -> LstmCase:
    case = LstmCase(label, make.pick(rng, 1, 7), make.pick(rng, 1, 12), make.pick(rng, 1, 9), make.pick(rng, -15, -8))
    return replace(
        case,
        clip=make.pick(rng, 1, 32767) if rng.random() < 0.3 else 0,
        reach=float(np.exp2(rng.uniform(-2, 4))),
        y=(float(np.exp2(rng.uniform(-9, -5))), make.pick_zero_point(rng)),
    )
