"""About how many instructions a call of a fast kernel executes on a Cortex-M4: to choose between kernels, not to report.

Each model is a sum over what the kernel's loops do, with factors fitted to counts of the emulator (gcc, -O2). Errors on layers
of more than 5,000 instructions: Winograd and fully connected under 3 %, convolution under 10 %, depthwise under 16 %.
"""

from __future__ import annotations

from collections.abc import Callable

from firmware_export.operators import LayerCode

PIXELS = 3
"""That conv2d_r256 computes at a time."""
TILE_STEP = 2


class _Fields:
    """The numbers of a call's parameters; 0 where one is not set."""

    def __init__(self, code: LayerCode) -> None:
        self._fields = code.fields

    def __getitem__(self, name: str) -> int:
        return int(self._fields.get(name, "0"))

    def window(self, name: str) -> int:
        """A number of the window."""
        return self[f"window.{name}"]

    def inside(self, axis: str, reach: int, stride: int, count: int) -> int:
        """How many of `count` windows along an axis ("h", "w") reach over no edge; they step by `stride` and reach so far."""
        before = self.window("padding_top" if axis == "h" else "padding_left")
        size = self.window(f"input_{axis}")
        return sum(before <= place * stride and place * stride - before + reach <= size for place in range(count))


def estimate(code: LayerCode) -> int:
    """Instructions of one call; 0 for a kernel that has no model."""
    model = _MODELS.get(code.params_type)
    return 0 if model is None else max(1, round(model(_Fields(code), code.function)))


def _form(function: str, linear: float, signed: float, general: float) -> float:
    """By the form of the output stage in a function's name."""
    return general if function.endswith("general") else signed if "signed" in function else linear


def _conv2d_r256(f: _Fields, function: str) -> float:
    """Triples of pixels with all pairs of channels; windows that reach over an edge; row ends; a copied border."""
    height, width = f.window("output_h"), f.window("output_w")
    pixels = height * width
    rows = f.inside("h", f.window("kernel_h"), f.window("stride_h"), height)
    columns = f.inside("w", f.window("kernel_w"), f.window("stride_w"), width)
    if f["gathered"]:
        rows = 0
    triples, pairs, tail = -(-pixels // PIXELS), -(-f["outputs"] // 2), f["rows"] * f["row_tail"]
    one_by_one = -(-max(0, pixels - PIXELS * rows * (columns // PIXELS)) // PIXELS)
    taps = f.window("kernel_h") * f.window("kernel_w") * f.window("channels")
    dot = triples * (pairs * (18 * f["steps"] + _form(function, 19.5, 32.2, 140)) + 1.6 * f["steps"] + 181)
    edges = 260 * one_by_one + (pixels - rows * columns) * (73 * f.window("kernel_h") + 1.7 * taps)
    is_nine = f["rows"] == 3 and f["row_words"] == 2 and f["row_tail"] == 1
    tails = 0.0 if is_nine or tail == 0 else triples * (17 + 84 * tail)
    copied = f.window("input_h") * (110 + 1.15 * f.window("input_w") * f.window("channels")) if f["padded"] else 0.0
    return dot + edges + tails + copied


def _winograd(f: _Fields, _: str) -> float:
    """Products of pairs of tiles and outputs, transforms of tiles and of kernels, tiles that reach over an edge."""
    height, width = (-(-f.window(f"output_{axis}") // TILE_STEP) for axis in "hw")
    tiles, groups, pairs = height * width, f.window("channels") / 4, f["outputs"] / 2
    blocks = -(-tiles // f["tiles"])
    pairs_of_tiles = (blocks - 1) * (f["tiles"] // 2) + -(-(tiles - (blocks - 1) * f["tiles"]) // 2)
    edge = tiles - f.inside("h", 4, TILE_STEP, height) * f.inside("w", 4, TILE_STEP, width)
    products = pairs_of_tiles * pairs * (157.5 * groups + 380)
    transforms = tiles * (168 * groups + 244) + (1 if f["resident"] else blocks) * f["outputs"] * (155 * groups + 28)
    return products + transforms + 11 * blocks * pairs + edge * (32 * f.window("channels") + 107)


def _depthwise(f: _Fields, _: str) -> float:
    """Rows of outputs in each plane, bands, copies to the planes, rows kept from band to band."""
    stride, channels, group = f["stride"], f["channels"], f["group"]
    groups, bands = -(-channels // group), -(-f["rows"] // f["band"])
    pixels = f["lead"] + 2 * f["pairs"] + f["trail"]
    copied = groups * min(f["image_rows"], (f["rows"] - 1) * stride + 3 - f["before"])
    row = (23.6 * f["words"] + 2 * f["alone"] + 6) if stride == 1 else (11.5 * f["words"] + 20)
    copy = (13.5 * pixels - 20) if group > 1 else (5.7 * pixels + 12)
    kept = 2.5 * channels * (bands - 1) * (3 - stride) * -(-f["row_words"] // 4)
    return channels * f["rows"] * row + bands * (110 * channels + 215 * groups) + copied * copy + kept


def _fully_connected(f: _Fields, function: str) -> float:
    """Records of four outputs; expanding the vector unless it is read directly."""
    records = -(-f["outputs"] // 4)
    step, vector = (32.5, 0.0) if "direct" in function else (27.6, 14.5)
    one = records * (step * f["steps"] + _form(function, 20.6, 30.6, 90)) + vector * f["steps"] + 150
    return one * f["batches"]


_MODELS: dict[str, Callable[[_Fields, str], float]] = {
    "nn_conv2d_r256_params": _conv2d_r256,
    "nn_conv2d_winograd_params": _winograd,
    "nn_depthwise_planes_params": _depthwise,
    "nn_fully_connected_r256_params": _fully_connected,
}
