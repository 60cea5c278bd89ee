"""step_depthwise: copies to planes and 3x3 windows over them, called directly, against plain loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness.shared_objects import ArmLibrary, Library
from step_libraries import PLANE_FORMS, fresh, on_every_build, step_library
from step_models import linear

PITCH = {"": 128, "_wide": 256}
CHANNELS = 4


def copy(library: Library, image: int, plane: int, values: dict[str, int]) -> None:
    """Calls nn_planes_copy."""
    fields = [image, plane]
    fields += [values[name] for name in ("rows", "pixel_step", "plane_step", "fill", "pairs", "lead", "trail", "row_step")]
    library.call("nn_planes_copy", library.put_struct("PPIIIIIIIiI", [*fields, values["plane_row_step"]]))


@on_every_build
@pytest.mark.parametrize("lead, pairs, trail", [(0, 1, 0), (0, 3, 1), (1, 0, 0), (1, 2, 0), (1, 2, 1), (0, 0, 1), (1, 0, 1)])
@pytest.mark.parametrize("rows", [1, 3])
def test_copy(kind: str, lead: int, pairs: int, trail: int, rows: int) -> None:
    """Four of six channels; the first pixel may share its word with the border, the last one too."""
    library, rng = fresh(kind), np.random.default_rng(pairs)
    pixels, fill, channels = lead + 2 * pairs + trail, -77, 6
    image = rng.integers(-128, 128, (rows, pixels + 2, channels)).astype(np.int8)
    words, pitch = lead + pairs + trail, 128
    plane_step = rows * pitch
    planes = library.room(CHANNELS * plane_step)
    values = {
        "rows": rows,
        "pixel_step": channels,
        "plane_step": plane_step,
        "fill": 0x01010101 * (fill & 0xFF),
        "pairs": pairs,
        "lead": lead,
        "trail": trail,
        "row_step": 2 * channels,
        "plane_row_step": pitch - 4 * words,
    }
    copy(library, library.put(image) + 1, planes, values)
    found = library.get(planes, "i2", CHANNELS * plane_step // 2).reshape(CHANNELS, rows, -1)[..., : 2 * words]
    expected = np.full((CHANNELS, rows, 2 * words), fill)
    expected[..., lead : lead + pixels] = image[:, :pixels, 1:5].transpose(2, 0, 1)
    np.testing.assert_array_equal(found, expected)
    library.assert_untouched()


@on_every_build
def test_copy_backwards_through_an_image(kind: str) -> None:
    """Planes along the columns: a pixel's step is a row of the image, a row's step goes back and one column on."""
    library, rng = fresh(kind), np.random.default_rng(1)
    height, width = 6, 5
    image = rng.integers(-128, 128, (height, width, CHANNELS)).astype(np.int8)
    planes = library.room(CHANNELS * width * 128)
    values = {
        "rows": width,
        "pixel_step": width * CHANNELS,
        "plane_step": width * 128,
        "fill": 0,
        "pairs": height // 2,
        "lead": 0,
        "trail": 0,
        "row_step": CHANNELS - height * width * CHANNELS,
        "plane_row_step": 128 - 2 * height,
    }
    copy(library, library.put(image), planes, values)
    found = library.get(planes, "i2", CHANNELS * width * 64).reshape(CHANNELS, width, 64)[..., :height]
    np.testing.assert_array_equal(found, image.transpose(2, 1, 0))


def windows(planes: np.ndarray, weights: np.ndarray, stride: int, rows: int, columns: int) -> np.ndarray:
    """Sums [channels, rows, columns] of planes [channels, h, w] under 3x3 kernels, product by product."""
    sums = np.zeros((planes.shape[0], rows, columns), np.int64)
    for i in range(3):
        for j in range(3):
            part = planes[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
            sums += part * weights[:, i, j, None, None]
    return sums


@on_every_build
@pytest.mark.parametrize("form", PLANE_FORMS)
def test_planes(kind: str, form: str) -> None:
    """Every number of outputs in a row around the unrolled ones, alone ones included; one and more channels and rows."""
    stride, shift = int(form[1]), int(form.split("_")[1])
    pitch = PITCH["_wide" if form.endswith("wide") else ""]
    for columns in (1, 2, 3, 4, 5, 6, 9, 12):
        for rows, channels in ((1, 1), (3, 2), (2, 4)):
            library, rng = fresh(kind), np.random.default_rng(columns)
            planes = rng.integers(-128, 128, (channels, (rows - 1) * stride + 3, pitch // 2)).astype(np.int16)
            weights = rng.integers(-127, 128, (channels, 3, 3)).astype(np.int8)
            start, factor = rng.integers(-(1 << 24), 1 << 24, channels), rng.integers(1 << 22, 1 << 28, channels)
            output_step, row_gap = 7, 11
            row_step = columns * output_step + row_gap
            output = library.room(rows * row_step + channels)
            words, alone = (columns // 2, columns % 2) if stride == 1 else (columns, 0)
            constants = np.stack([start, factor], 1).astype(np.int32)
            fields = [
                output_step,
                0,
                0,
                stride * pitch - 4 * words,
                row_gap + alone * output_step,
                words,
                alone,
                4 * words,
                rows,
            ]
            fields += [library.put(planes), output, library.put(weights.tobytes() + bytes(3)), library.put(constants)]
            fields += [planes[0].size * 2, channels]
            library.call(f"nn_plane_{form}", library.put_struct("IIIiiIIIIPPPPII", fields))
            sums = 256 * windows(planes.astype(np.int64), weights.astype(np.int64), stride, rows, columns)
            expected = linear(sums + start[:, None, None], factor[:, None, None], shift)
            memory = library.get(output, "i1", rows * row_step + channels)
            for channel, row, column in np.ndindex(channels, rows, columns):
                assert memory[row * row_step + column * output_step + channel] == expected[channel, row, column]
            library.assert_untouched()


@on_every_build
def test_weights_of_minus_128_and_extreme_pixels(kind: str) -> None:
    """256 times a weight is an int16 for every weight; nine products of them stay far inside int32."""
    library = fresh(kind)
    planes = np.full((1, 3, 64), -128, np.int16)
    planes[0, ::2] = 127
    weights = np.full((1, 3, 3), -128, np.int8)
    weights[0, 1] = 127
    output = library.room(2)
    constants = np.array([[0, 1 << 20]], np.int32)
    fields = [1, 0, 0, 124, 0, 1, 0, 4, 1, library.put(planes), output, library.put(weights.tobytes() + bytes(3))]
    library.call("nn_plane_s1_10", library.put_struct("IIIiiIIIIPPPPII", [*fields, library.put(constants), 0, 1]))
    expected = linear(256 * windows(planes.astype(np.int64), weights.astype(np.int64), 1, 1, 2), np.array(1 << 20), 10)
    np.testing.assert_array_equal(library.get(output, "i1", 2), expected.reshape(-1))


@pytest.mark.parametrize("stride, per_word", [(1, 24), (2, 14.5)])
def test_instructions_of_the_inner_loop(stride: int, per_word: float) -> None:
    """48 for two words of stride 1, which are four outputs; 29 for two words of stride 2, which are two."""
    library = step_library("zig")
    assert isinstance(library, ArmLibrary)
    counts = []
    for words in (2, 12):
        library.reset()
        planes = library.put(np.zeros(512, np.int16))
        output = library.room(64)
        fields = [1, 0, 0, 128 * stride - 4 * words, 0, words, 0, 4 * words, 1, planes, output]
        fields += [library.put(bytes(12)), library.put(bytes(8)), 0, 1]
        library.call(f"nn_plane_s{stride}_7", library.put_struct("IIIiiIIIIPPPPII", fields))
        counts.append(library.instructions)
    assert counts[1] - counts[0] == 10 * per_word
    assert counts[0] < 2 * per_word + 80
