"""Elementwise maximum of two int8 inputs that broadcast (MAXIMUM, Max)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firmware_export.operators._extremum import Extremum
from firmware_export.requantize import Int64


class Maximum(Extremum):
    """y = the larger of a and b.

    Inputs: a, b: int8, shapes that broadcast, one scale and zero point; one may be a constant, both may be the same tensor.
    Attributes: none. Output: int8 of the common shape, stored like the inputs.
    Chooses bytes only, the same in every arithmetic.
    """

    name = "maximum"
    tflite = ("MAXIMUM",)
    onnx = ("Max",)

    def choose(self, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        return np.maximum(a, b).astype(np.int8)


OPERATOR = Maximum()
