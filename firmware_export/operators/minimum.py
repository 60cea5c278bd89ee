"""Elementwise minimum of two int8 inputs that broadcast (MINIMUM, Min)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firmware_export.operators._extremum import Extremum
from firmware_export.requantize import Int64


class Minimum(Extremum):
    """y = the smaller of a and b.

    Inputs: a, b: int8, shapes that broadcast, one scale and zero point; one may be a constant, both may be the same tensor.
    Attributes: none. Output: int8 of the common shape, stored like the inputs.
    Chooses bytes only, the same in every arithmetic.
    """

    name = "minimum"
    tflite = ("MINIMUM",)
    onnx = ("Min",)

    def choose(self, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        return np.minimum(a, b).astype(np.int8)


OPERATOR = Minimum()
