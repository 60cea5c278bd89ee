"""What operators that move or convert values refuse: for each an example's label and changes of it with their sentences."""

from __future__ import annotations

import numpy as np
from graph_changes import Change, all_of, attribute, inputs, scales, tensor

MOVEMENT_REFUSALS: dict[str, tuple[str, list[tuple[Change, str]]]] = {}
EDGE = [
    (tensor(0, dtype="int16"), "input 0 'x' is int16; supported: int8, uint8"),
    (tensor(0, quantization=None), "'x' has no quantization"),
    (scales(0, 0.1, 0.2), "'x' is quantized per channel; expected one scale"),
    (scales(0, float("nan")), "'x' has scale nan"),
    (scales(0, 0.1, zero_point=256), "zero point 256; supported: finite scales above 0, zero points"),
    (inputs(None), "input 0 is missing; expected int8 or uint8"),
    (inputs(), "0 inputs and 1 outputs; expected 1 and 1"),
]
MOVEMENT_REFUSALS["quantize"] = (
    "int8 to uint8",
    [
        *EDGE,
        (tensor(-1, dtype="float32"), "output 'y' is float32; supported: int8, uint8"),
        (tensor(-1, dtype="int16"), "output 'y' is int16; supported: int8, uint8"),
        (scales(-1, 1e-30), r"the scales make a factor of .*; supported: below 2\^30"),
        (scales(-1, 0.1, zero_point=-1), "'y' has scale .* and zero point -1; supported: finite scales above 0, zero points 0"),
    ],
)
MOVEMENT_REFUSALS["dequantize"] = (
    "uint8 1",
    [*EDGE, (tensor(-1, dtype="int8"), "output 'y' is int8; supported: float32")],
)
MOVED = [
    (tensor(0, dtype="uint8"), "input 0 'x' is uint8; supported: int8"),
    (tensor(0, quantization=None), "'x' has no quantization"),
    (inputs(None), "input 0 is missing"),
    (scales(-1, 77.0), "output scale 77 zero point 0; supported: the same for both"),
    (inputs(), "0 inputs and 1 outputs; expected 1 and 1"),
]
MOVEMENT_REFUSALS["transpose"] = (
    "by (3, 2, 1, 0), 4",
    [
        *MOVED,
        (attribute("perm", (0, 1, 2)), r"perm is \(0, 1, 2\); expected 4 integers"),
        (attribute("perm", (0, 1, 2, 2)), r"perm is \(0, 1, 2, 2\); expected each of 0 to 3 once"),
        (attribute("perm", (0, 1, 2, -1)), "expected each of 0 to 3 once"),
        (attribute("perm", None), "perm is None; expected 4 integers"),
    ],
)
MOVEMENT_REFUSALS["strided_slice"] = (
    "(1, 5): (0, 3) by (3, 2), 0",
    [
        *MOVED,
        (attribute("stride", (1, 0)), "a slice of 1 from 3 on by 0 of 5 elements; supported: inside of the tensor"),
        (attribute("begin", (1, 3)), "a slice of 1 from 1 on by 3 of 1 elements"),
        (attribute("begin", (0, -1)), "a slice of 1 from -1 on"),
        (attribute("size", (1, 2)), "a slice of 2 from 3 on by 2 of 5"),
        (attribute("size", (0, 1)), "a slice of 0 from 0 on"),
        (attribute("begin", 0), "begin is 0; expected 2 integers"),
        (attribute("shape", (2,)), r"shape is \(2,\); expected 1 elements"),
        (attribute("shape", (-1, -1)), r"shape is \(-1, -1\); expected 1 elements"),
        (attribute("shape", None), "shape is None"),
    ],
)
AXIS = [
    (attribute("axis", 9), r"axis 9 of \d dimensions; supported: 0 to"),
    (attribute("axis", -1), "axis -1 of"),
    (attribute("axis", None), "axis None of"),
    (tensor(0, dtype="uint8"), "input 0 .* is uint8; supported: int8"),
    (inputs(None), "input 0 is missing"),
]
JOINED = [
    *AXIS,
    (inputs(), "0 inputs; supported: 1 to 64"),
    (inputs(*[0] * 65), "65 inputs; supported: 1 to 64"),
    (scales(1, 9.0, zero_point=3), "output scale 9 zero point 3; supported: the same for both"),
    (scales(-1, 77.0), "output scale 77 zero point 0; supported: the same for both"),
    (tensor(1, data=np.zeros(1, np.int8)), "input 1 .* is a constant; supported: computed tensors"),
]
DIVIDED = [
    *AXIS,
    (inputs(), "0 inputs; expected 1"),
    (inputs(0, 0), "2 inputs; expected 1"),
    (scales(-1, 77.0), "output scale 77 zero point 0; supported: the same for both"),
]
BORDER = [
    *MOVED,
    (attribute("paddings", (0, 0, -1, 0)), r"paddings is \(0, 0, -1, 0\); supported: 0 to 65535"),
    (attribute("paddings", (0, 1)), r"paddings is \(0, 1\); expected 4 integers"),
    (attribute("paddings", (60000, 60000, 60000, 0)), "supported: up to 67,108,864 elements|no wider than what it mirrors"),
    (attribute("paddings", None), "paddings is None"),
]
RESIZE = [
    *MOVED[:2],
    (tensor(0, shape=(1, 6, 21)), r"shape \(1, 6, 21\); supported: \[1, h, w, c\]"),
    (scales(-1, 77.0), "output scale 77 zero point 0; supported: the same for both"),
    (attribute("size", (0, 1)), r"size is \(0, 1\); supported: 1 to 65535"),
    (attribute("size", (1, 2, 3)), "expected 2 integers"),
    (attribute("size", (60000, 60000)), "an image of 60000x60000x3; supported: up to"),
    (attribute("align_corners", 2), "align_corners 2, half_pixel 0; supported: 0 or 1, not both 1"),
    (all_of(attribute("align_corners", 1), attribute("half_pixel", 1)), "align_corners 1, half_pixel 1; supported"),
    (attribute("half_pixel", None), "half_pixel None"),
]
MOVEMENT_REFUSALS |= {
    "concatenation": (
        "[6, 1] along axis 2 of (1, 4, 1)",
        [
            *JOINED,
            (tensor(1, shape=(1, 5, 1)), r"\(1, 4, 6\) and \(1, 5, 1\) behind it along axis 2; supported: else the same"),
        ],
    ),
    "pack": (
        "pack 2 x (1,), axis 0, 0",
        [
            *JOINED,
            (tensor(1, shape=(2,)), r"shapes \[\(1,\), \(2,\)\]; supported: one for all inputs"),
            (all_of(tensor(0, shape=(1,) * 6), tensor(1, shape=(1,) * 6)), "fewer than 6 dimensions"),
        ],
    ),
    "unpack": (
        "unpack (1, 3, 1), axis 1, 1",
        [*DIVIDED, (attribute("axis", 0), r"3 outputs of axis 0 of \(1, 3, 1\); expected one for each element")],
    ),
    "split": (
        "split (1, 8) into (4, 4), 0",
        [
            *DIVIDED,
            (attribute("sizes", (4, 3)), r"sizes \(4, 3\) along axis 1 of \(1, 8\); expected pieces that make up the whole"),
            (attribute("sizes", (8, 0)), "expected pieces"),
            (attribute("sizes", (8,)), r"sizes is \(8,\); expected 2 integers"),
            (attribute("sizes", None), "sizes is None"),
        ],
    ),
    "pad": (
        "pad (1, 1): [0, 0, 0, 1], 1",
        [
            *BORDER,
            (attribute("value", 128), r"value 128 of a pad; supported: -128\.\.127"),
            (attribute("value", None), "value None"),
        ],
    ),
    "mirror_pad": (
        "(1, 2): [0, 0, 0, 1], offset 1, 1",
        [
            *BORDER,
            (attribute("paddings", (0, 0, 2, 0)), r"a mirrored border of .* around \(1, 2\); supported: no wider"),
            (attribute("offset", 2), "offset 2 of a mirror_pad; supported: 0, 1"),
        ],
    ),
    "tile": (
        "tile (1, 1) by (1, 3), 0",
        [
            *MOVED,
            (attribute("repeats", (0, 1)), r"repeats is \(0, 1\); supported: 1 to 65535"),
            (attribute("repeats", (1,)), "expected 2 integers"),
            (attribute("repeats", (60000, 60000)), "supported: up to 67,108,864 elements"),
        ],
    ),
    "resize_nearest_neighbor": ("(1, 2, 3, 3) to (4, 9), (0, 0), 0", RESIZE),
    "resize_bilinear": (
        "(1, 4, 6, 3) to (8, 18), (0, 0), 0",
        [
            *RESIZE,
            (
                all_of(tensor(0, shape=(1, 3, 6, 3)), attribute("size", (2047, 6))),
                "3 pixels resized to 2047; supported: factors",
            ),
        ],
    ),
}
