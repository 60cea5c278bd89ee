"""What operators that sum products of computed tensors refuse; test_operator_refusals.py applies it."""

from __future__ import annotations

import numpy as np
from graph_changes import Change, all_of, attribute, data, inputs, scales, tensor

PRODUCT_REFUSALS: dict[str, tuple[str, list[tuple[Change, str]]]] = {
    "transpose_conv": (
        "3x3, stride 2, valid",
        [
            (tensor(0, dtype="uint8"), "input 0 'x' is uint8; supported: int8"),
            (tensor(0, shape=(2, 4, 5, 3)), r"shape \(2, 4, 5, 3\); supported: \[1, h, w, c\]"),
            (tensor(0, shape=(1, 4, 5, 9)), "for an image of 9 channels"),
            (data(0, np.zeros((1, 4, 5, 3), np.int8)), "'x' is a constant"),
            (tensor(1, data=None), "weights 'w' are computed int8"),
            (scales(1, 0.1, zero_point=3), r"have zero points \[3\]"),
            (inputs(0), "1 inputs and 1 outputs; expected 2 or 3"),
            (attribute("stride", (0, 1)), "stride is"),
            (attribute("padding", (0, 0, 0, 0)), "padding is .* expected 2 integers"),
            (attribute("size", (0, 4)), "size is"),
            (attribute("size", (12, 4)), "together at most"),
            (attribute("size", (65535, 70000)), "size is"),
            (attribute("clamp", (5, 4)), "clamp is"),
        ],
    ),
    "batch_matmul": (
        "two matrices",
        [
            (tensor(0, dtype="uint8"), "input 0 'a' is uint8; supported: int8"),
            (tensor(1, dtype="int16"), "input 1 'b' is int16; supported: int8"),
            (tensor(0, shape=(5,)), r"matrices of \(5,\) and"),
            (tensor(0, shape=(1, 1, 1, 1, 2, 5)), "supported: 2 to 5 dimensions"),
            (tensor(0, shape=(1, 4, 6)), "matrices of 4x6 and 5x6"),
            (all_of(tensor(0, shape=(3, 4, 5)), tensor(1, shape=(2, 5, 6))), "inputs of .* shapes that broadcast"),
            (scales(1, 0.1, 0.2, axis=0), "quantized per channel; expected one scale"),
            (scales(-1, 1e-38), r"factor of .*; supported: below 2\^30"),
            (inputs(0), "1 inputs and 1 outputs; expected 2"),
            (attribute("adj_x", 2), "adj_x and adj_y are"),
            (attribute("clamp", (-128, 5)), "clamp is"),
            (attribute("clamp", None), "clamp is None"),
        ],
    ),
    "lstm": (
        "ordinary",
        [
            (tensor(0, dtype="int16"), "input 0 'x' is int16; supported: int8"),
            (tensor(0, shape=(2, 4, 5)), "a sequence of .* supported: one sequence"),
            (tensor(0, shape=(1, 4, 5, 1)), "a sequence of"),
            (attribute("time_major", 1), "a sequence of"),
            (attribute("time_major", 2), "time_major 2"),
            (tensor(0, shape=(1, 4, 6)), "of gate 0 are .* for 6 inputs"),
            (tensor(3, shape=(5, 5), data=np.zeros((5, 5), np.int8)), "of gate 2 are"),
            (tensor(1, data=None), "input 1 'w' is computed int8"),
            (tensor(9, dtype="int8"), "input 9 'b' is constant int8"),
            (scales(2, 0.1, zero_point=1), "weights 'w' have the zero point 1; supported: 0"),
            (scales(2, 0.1, 0.2, 0.3, 0.4, axis=0), "quantized per channel; expected one scale"),
            (inputs(0, 1, 2), "3 inputs and 1 outputs; expected 13"),
            (inputs(0, *range(1, 12), None), "input 12 is missing"),
            (data(0, np.zeros((1, 4, 5), np.int8)), "'x' is a constant"),
            (attribute("cell_exponent", 1), r"scale 2\^1; supported: 2\^-24 to 2\^0"),
            (attribute("cell_exponent", None), r"scale 2\^None"),
            (attribute("cell_clip", -1), "cell_clip is -1"),
            (scales(1, 1e30), r"factor of .*; supported: below 2\^30"),
        ],
    ),
}
