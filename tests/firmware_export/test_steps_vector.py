"""step_r256_vector: one vector times four outputs at a time, called directly, against the model in step_models."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness.shared_objects import ArmLibrary, Library
from step_libraries import VECTOR_FORMS, fresh, on_every_build, step_library
from step_models import expanded, linear, packed, scaled_sums, signed

OUTPUTS = 4
STEP_COUNTS = (1, 2, 3, 4, 5, 7, 8, 9, 16)
"""Of eight elements, around the four unrolled ones."""


def vector_words(elements: np.ndarray) -> np.ndarray:
    """[k] -> A, B of every four elements; zeros up to a multiple of eight."""
    padded = np.pad(elements, (0, -elements.size % 8)).reshape(-1, 4)
    return np.stack(expanded(padded), 1).reshape(-1)


@on_every_build
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 7, 8, 9, 12, 22, 64])
def test_expand(kind: str, depth: int) -> None:
    """Elements that fill no word or step are followed by zeros; nothing behind the vector is read into it."""
    library, rng = fresh(kind), np.random.default_rng(depth)
    x = rng.integers(-128, 128, depth).astype(np.int8)
    words = 4 * -(-depth // 8)
    to = library.room(4 * words)
    library.call("nn_r256_vector_expand", library.put(x, misaligned=1), depth, to)
    np.testing.assert_array_equal(library.get(to, "u4", words), vector_words(x.astype(np.int64)))
    library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("depth", [8, 20, 33])
def test_expand_over_itself(kind: str, depth: int) -> None:
    """The vector may lie in the second half of where it is expanded to."""
    library, rng = fresh(kind), np.random.default_rng(depth)
    x = rng.integers(-128, 128, depth).astype(np.int8)
    words = 4 * -(-depth // 8)
    place = 4 * (-(-depth // 4) - 1)
    to = library.put(bytes(place) + x.tobytes() + bytes(4 * words))
    library.call("nn_r256_vector_expand", to + place, depth, to)
    np.testing.assert_array_equal(library.get(to, "u4", words), vector_words(x.astype(np.int64)))


class Outputs:
    """A random call of records of four outputs."""

    def __init__(self, rng: np.random.Generator, records: int, steps: int) -> None:
        count = OUTPUTS * records
        self.weights = rng.integers(-127, 128, (count, 8 * steps))
        self.x = rng.integers(-128, 128, 8 * steps)
        self.start = rng.integers(-(1 << 26), 1 << 26, count)
        self.factor = rng.integers(1 << 24, 1 << 30, count) // steps
        self.negative = rng.integers(0, 512, count)
        self.rounding = int(rng.integers(-(1 << 15), 1 << 15))
        self.steps = steps

    def sums(self) -> np.ndarray:
        return scaled_sums(self.start, self.weights, self.x[None])[:, 0]

    def records(self, constants: list[np.ndarray]) -> np.ndarray:
        words = packed(self.weights.reshape(self.weights.shape[0], -1, 4))
        rows = []
        for first in range(0, words.shape[0], OUTPUTS):
            one = slice(first, first + OUTPUTS)
            parts = [self.start[one], words[one].T.reshape(-1), *(values[one] for values in constants)]
            rows.append(np.concatenate([part.astype(np.int64) & 0xFFFFFFFF for part in parts]))
        return np.concatenate(rows).astype(np.uint32)


def call_outputs(library: Library, function: str, case: Outputs, x: int, output: int, constants: list[np.ndarray]) -> None:
    records = case.records(constants)
    weights = library.put(records)
    fields = [x, case.steps, output, weights + 4 * records.size, case.rounding, weights]
    library.call(function, library.put_struct("PIPPiP", fields))


@on_every_build
@pytest.mark.parametrize("form", VECTOR_FORMS)
def test_outputs(kind: str, form: str) -> None:
    name, shift = form.removeprefix("direct_").split("_")
    for steps in STEP_COUNTS:
        library, rng = fresh(kind), np.random.default_rng(steps)
        case = Outputs(rng, 1 + steps % 3, steps)
        direct = form.startswith("direct")
        x = library.put(case.x.astype(np.int8), misaligned=1) if direct else library.put(vector_words(case.x))
        output = library.room(case.start.size, misaligned=2)
        constants = [case.factor] if name == "linear" else [case.factor, case.negative]
        call_outputs(library, f"nn_r256_vector_{form}", case, x, output, constants)
        expected = (
            linear(case.sums(), case.factor, int(shift))
            if name == "linear"
            else signed(case.sums(), case.factor, case.negative, case.rounding, int(shift))
        )
        np.testing.assert_array_equal(library.get(output, "i1", case.start.size), expected)
        library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("steps", STEP_COUNTS)
def test_sums(kind: str, steps: int) -> None:
    library, rng = fresh(kind), np.random.default_rng(steps)
    case = Outputs(rng, 2, steps)
    output = library.room(4 * case.start.size)
    call_outputs(library, "nn_r256_vector_sums", case, library.put(vector_words(case.x)), output, [])
    np.testing.assert_array_equal(library.get(output, "i4", case.start.size), case.sums())
    library.assert_untouched()


@pytest.mark.parametrize("direct, step", [(False, 27), (True, 32)])
def test_instructions_of_the_inner_loop(direct: bool, step: int) -> None:
    """27 or 32 for 32 products; 3 for every four steps; at most 20 for four outputs."""
    library = step_library("zig")
    assert isinstance(library, ArmLibrary)
    counts = []
    for records in (1, 2):
        library.reset()
        case = Outputs(np.random.default_rng(1), records, 16)
        x = library.put(case.x.astype(np.int8)) if direct else library.put(vector_words(case.x))
        output = library.room(case.start.size)
        call_outputs(library, f"nn_r256_vector_{'direct_' if direct else ''}linear_8", case, x, output, [case.factor])
        counts.append(library.instructions)
    per_record = counts[1] - counts[0]
    assert 16 * step + 4 * 3 < per_record <= 16 * step + 4 * 3 + 20
    assert counts[0] - per_record <= 30
