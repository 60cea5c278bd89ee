"""Fully connected layers as they are packed: run in numpy from their records; sizes; what direct kernels ask for."""

from __future__ import annotations

import numpy as np
import pytest
from step_models import linear, scaled_sums, signed, unpacked

from firmware_export.operators import LayerCode
from firmware_export.operators._accumulator import OutputStage
from firmware_export.packing import Unpackable
from firmware_export.packing.fully_connected_r256 import OUTPUTS, STEP, fully_connected_code, input_in_scratch
from firmware_export.requantize import quantize_multiplier


def stage(real: float, outputs: int, zero_point: int, clamp: tuple[int, int] = (-128, 127)) -> OutputStage:
    multiplier, shift = quantize_multiplier(np.full(outputs, real))
    return OutputStage(multiplier, shift, zero_point, clamp)


def run_packed(code: LayerCode, x: np.ndarray) -> np.ndarray:
    """The layer from its records, four outputs at a time, before the clamp."""
    steps, outputs = int(code.fields["steps"]), int(code.fields["outputs"])
    records = code.constants[0].data.reshape(-1, int(code.fields["record_words"]))
    elements = np.pad(x, (0, STEP * steps - x.size))
    form, shift = code.function.rsplit("_", 2)[1:]
    found = []
    for record in records:
        start, words, *behind = np.split(record, [OUTPUTS, OUTPUTS * (1 + 2 * steps)])
        weights = unpacked(words.reshape(2 * steps, OUTPUTS).T).reshape(OUTPUTS, -1)
        sums = scaled_sums(start.view(np.int32).astype(np.int64), weights, elements[None])[:, 0]
        constants = behind[0].view(np.int32).astype(np.int64).reshape(-1, OUTPUTS)
        if form == "linear":
            found.append(linear(sums, constants[0], int(shift)))
        else:
            found.append(signed(sums, constants[0], constants[1], int(code.fields["rounding"]), int(shift)))
    return np.concatenate(found)[:outputs]


@pytest.mark.parametrize("depth, outputs", [(8, 4), (5, 3), (64, 10), (33, 1), (128, 9)])
@pytest.mark.parametrize("zero_points", [(-128, -128), (89, -128), (-128, 24), (5, 96)])
def test_run_in_numpy_it_is_the_layer(depth: int, outputs: int, zero_points: tuple[int, int]) -> None:
    rng = np.random.default_rng(depth)
    weights, bias = rng.integers(-100, 101, (outputs, depth)).astype(np.int8), rng.integers(-3000, 3000, outputs)
    exact = stage(2.0**-5 / np.sqrt(depth), outputs, zero_points[1])
    code = fully_connected_code(weights, bias, zero_points[0], exact)
    for _ in range(5):
        x = rng.integers(-128, 128, depth)
        expected = exact.apply(((x - zero_points[0]) @ weights.astype(np.int64).T + bias)[None])[0]
        np.testing.assert_array_equal(run_packed(code, x), expected)


@pytest.mark.parametrize("depth, steps", [(1, 1), (8, 1), (9, 2), (128, 16), (640, 80)])
def test_steps_of_eight(depth: int, steps: int) -> None:
    code = fully_connected_code(np.ones((4, depth), np.int8), np.zeros(4, np.int64), 0, stage(0.01, 4, -128))
    assert int(code.fields["steps"]) == steps
    assert code.scratch_bytes == 16 * steps
    assert code.constants[0].data.size == OUTPUTS * (2 + 2 * steps)


@pytest.mark.parametrize("outputs, records", [(1, 1), (4, 1), (5, 2), (10, 3)])
def test_records_of_four(outputs: int, records: int) -> None:
    code = fully_connected_code(np.ones((outputs, 8), np.int8), np.zeros(outputs, np.int64), 0, stage(0.01, outputs, -128))
    assert code.constants[0].data.size == records * int(code.fields["record_words"])


def test_direct_kernels_share_the_records() -> None:
    """The same words with and without scratch: a change of mind costs no flash."""
    rng = np.random.default_rng(1)
    weights, bias = rng.integers(-127, 128, (7, 16)).astype(np.int8), rng.integers(-500, 500, 7)
    codes = [fully_connected_code(weights, bias, 3, stage(0.002, 7, -128), direct=direct) for direct in (False, True)]
    np.testing.assert_array_equal(codes[0].constants[0].data, codes[1].constants[0].data)
    assert codes[1].scratch_bytes == 0 and "direct_" in codes[1].function
    assert codes[0].function.replace("r256_", "r256_direct_") == codes[1].function


def test_general_kernels_keep_the_sums() -> None:
    """No short form: the reference's tables, and four bytes of scratch for each output, rounded up to four."""
    code = fully_connected_code(np.full((5, 8), 100, np.int8), np.zeros(5, np.int64), 0, stage(3.0, 5, 0))
    assert code.function.endswith("general") and code.scratch_bytes == 16 + 2 * 16
    assert {constant.suffix for constant in code.constants} == {"weights", "multipliers", "shifts"}


def test_several_vectors_and_a_clamp() -> None:
    code = fully_connected_code(np.ones((4, 8), np.int8), np.zeros(4, np.int64), 0, stage(0.01, 4, -128, (-100, 90)), batches=3)
    assert code.fields["batches"] == "3" and (code.fields["min"], code.fields["max"]) == ("-100", "90")
    assert "8 -> 4, 3 times" in code.summary


def test_refusals() -> None:
    ones = np.ones((4, 12), np.int8)
    with pytest.raises(Unpackable, match="12 is no multiple of 8"):
        fully_connected_code(ones, np.zeros(4, np.int64), 0, stage(0.01, 4, -128), direct=True)
    with pytest.raises(Unpackable, match="stands before"):
        fully_connected_code(-128 * ones.astype(np.int16), np.zeros(4, np.int64), 0, stage(0.01, 4, 0))
    with pytest.raises(Unpackable, match="int32"):
        fully_connected_code(ones, np.full(4, (1 << 31) - 1), 0, stage(0.01, 4, 0))


@pytest.mark.parametrize("depth", range(1, 30))
def test_the_input_in_the_scratch_is_read_in_time(depth: int) -> None:
    """Every four bytes become eight: at the offset no word is overwritten unread, four bytes earlier one is."""
    words = -(-depth // 4)

    def spoilt(offset: int) -> bool:
        return any(offset + 4 * later < 8 * (now + 1) for now in range(words) for later in range(now + 1, words))

    assert not spoilt(input_in_scratch(depth))
    assert words == 1 or spoilt(input_in_scratch(depth) - 4)
