"""step_winograd: transforms of tiles and kernels, products and outputs, called directly, against matrices in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness.shared_objects import ArmLibrary, Library
from step_libraries import WINOGRAD_SHIFTS, fresh, on_every_build, step_library
from step_models import convolved, group_words, lane_values, signed, winograd_input, winograd_outputs, winograd_weights, wrap

POSITIONS = 16


def test_the_transforms_are_a_convolution() -> None:
    """What the steps rest on: A' (G g G' x B' d B) A is four times the four outputs, for the largest values too."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        tile, kernel = rng.integers(-128, 128, (4, 4, 8)), rng.integers(-128, 128, (3, 3, 8))
        outputs = winograd_outputs(winograd_weights(kernel), winograd_input(tile))
        np.testing.assert_array_equal(outputs, 4 * convolved(tile, kernel))


def test_the_transforms_fit_16_bits() -> None:
    """V sums four pixels with signs, U nine weights: 512 and 1152 at most."""
    signs = np.array(np.meshgrid(*[[-128, 127]] * 4)).reshape(4, -1)
    row = np.abs(np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]) @ signs).max()
    assert 2 * row <= 512
    assert np.abs(winograd_weights(np.full((3, 3, 1), -128))).max() == 1152


def words_of(transformed: np.ndarray, half: int) -> np.ndarray:
    """[16, channels] of one tile or output -> what stands in its half of [16, groups, 4] words."""
    words = np.zeros((POSITIONS, transformed.shape[1] // 4, 4), np.uint32)
    words[..., 2 * half : 2 * half + 2] = group_words(transformed)
    return words


@on_every_build
@pytest.mark.parametrize("groups", [1, 2, 3, 16])
@pytest.mark.parametrize("half", [0, 1])
def test_input(kind: str, groups: int, half: int) -> None:
    """A tile in the middle of an image; the other tile's words stay as they are."""
    library, rng = fresh(kind), np.random.default_rng(groups)
    image = rng.integers(-128, 128, (6, 7, 4 * groups)).astype(np.int8)
    v = library.put(np.zeros(POSITIONS * groups * 4, np.uint32))
    corner = library.put(image, misaligned=1) + (1 * 7 + 2) * 4 * groups
    library.call("nn_winograd_input", corner, 4 * groups, 7 * 4 * groups, groups, v + 8 * half)
    found = library.get(v, "u4", POSITIONS * groups * 4).reshape(POSITIONS, groups, 4)
    np.testing.assert_array_equal(found, words_of(winograd_input(image[1:5, 2:6].astype(np.int64)), half))
    library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("groups", [1, 2, 5, 16])
@pytest.mark.parametrize("half", [0, 1])
def test_weights(kind: str, groups: int, half: int) -> None:
    library, rng = fresh(kind), np.random.default_rng(groups)
    kernel = rng.integers(-128, 128, (3, 3, 4 * groups)).astype(np.int8)
    u = library.put(np.zeros(POSITIONS * groups * 4, np.uint32))
    library.call("nn_winograd_weights", library.put(kernel, misaligned=3), groups, u + 8 * half)
    found = library.get(u, "u4", POSITIONS * groups * 4).reshape(POSITIONS, groups, 4)
    np.testing.assert_array_equal(found, words_of(winograd_weights(kernel.astype(np.int64)), half))
    library.assert_untouched()


@on_every_build
def test_extreme_values_do_not_carry_between_lanes(kind: str) -> None:
    library = fresh(kind)
    checked = np.where(np.indices((4, 4, 4)).sum(0) % 2, 127, -128).astype(np.int8)
    v = library.put(np.zeros(POSITIONS * 4, np.uint32))
    library.call("nn_winograd_input", library.put(checked), 4, 16, 1, v)
    words = library.get(v, "u4", POSITIONS * 4).reshape(POSITIONS, 4)
    transformed = winograd_input(checked.astype(np.int64))
    np.testing.assert_array_equal(lane_values(words[:, 0]), transformed[:, [0, 2]])
    np.testing.assert_array_equal(lane_values(words[:, 1]), transformed[:, [1, 3]])


class Block:
    """Two outputs and two tiles with random constants."""

    def __init__(self, rng: np.random.Generator, channels: int) -> None:
        self.kernels = rng.integers(-127, 128, (2, 3, 3, channels))
        self.tiles = rng.integers(-128, 128, (2, 4, 4, channels))
        self.start = rng.integers(-(1 << 24), 1 << 24, 2)
        self.factor = rng.integers(1 << 20, 1 << 26, 2)
        self.negative = rng.integers(0, 512, 2)
        self.rounding = int(rng.integers(-(1 << 17), 1 << 17))

    def u(self) -> np.ndarray:
        return sum(words_of(winograd_weights(kernel), half) for half, kernel in enumerate(self.kernels))

    def v(self) -> np.ndarray:
        return sum(words_of(winograd_input(tile), half) for half, tile in enumerate(self.tiles))

    def constants(self) -> np.ndarray:
        return np.stack([self.start, self.factor, self.negative], 1).astype(np.int32)

    def expected(self, shift: int) -> np.ndarray:
        """[output, tile, 4] from the convolution itself."""
        sums = np.array([[convolved(tile, kernel) for tile in self.tiles] for kernel in self.kernels])
        one = (slice(None), None, None)
        return signed(wrap(256 * sums + self.start[one]), self.factor[one], self.negative[one], self.rounding, shift)


def put_outputs(library: Library, size: int) -> tuple[list[int], int]:
    """Room for eight pixels, and the table of where they are."""
    places = [library.room(size) for _ in range(8)]
    return places, library.put(np.array(places, f"u{library.pointer_bytes}"))


KINDS_OF_FIELDS = "PPPPIIIIIIIiI"


@on_every_build
@pytest.mark.parametrize("shift", WINOGRAD_SHIFTS)
@pytest.mark.parametrize("groups", [1, 2, 3, 8, 15, 16])
def test_block(kind: str, shift: int, groups: int) -> None:
    """Every place where the unrolled groups can be entered matters: 1 and 16 are its ends."""
    library, rng = fresh(kind), np.random.default_rng(groups)
    block = Block(rng, 4 * groups)
    places, table = put_outputs(library, 5)
    fields = [library.put(block.u()), library.put(block.v()), table, library.put(block.constants()), 2, 1]
    fields += [0, 0, 0, 0, 0, block.rounding, groups]
    library.call(f"nn_winograd_shift_{shift}", library.put_struct(KINDS_OF_FIELDS, fields))
    found = np.array([library.get(place, "i1", 5)[2:4] for place in places]).reshape(2, 4, 2).transpose(2, 0, 1)
    np.testing.assert_array_equal(found, block.expected(shift))
    assert all(np.all(library.get(place, "u1", 5)[[0, 1, 4]] == 0xC3) for place in places)
    library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("over", ["outputs", "tiles"])
def test_several_blocks(kind: str, over: str) -> None:
    """One pair of tiles with all outputs, or one pair of outputs with all tiles: the steps decide."""
    library, groups, count = fresh(kind), 2, 3
    blocks = [Block(np.random.default_rng(seed), 4 * groups) for seed in range(count)]
    for block in blocks[1:]:
        if over == "outputs":
            block.tiles = blocks[0].tiles
        else:
            block.kernels, block.start, block.factor = blocks[0].kernels, blocks[0].start, blocks[0].factor
            block.negative = blocks[0].negative
        block.rounding = blocks[0].rounding
    size = 2 * count
    tables = [put_outputs(library, size) for _ in blocks]
    pointers = np.array([places for places, _ in tables], f"u{library.pointer_bytes}")
    words = POSITIONS * groups * 4 * 4
    u, v = (library.put(np.concatenate([part.reshape(-1) for part in parts])) for parts in (
        [block.u() for block in blocks], [block.v() for block in blocks],
    ))  # fmt: skip
    constants = library.put(np.concatenate([block.constants() for block in blocks]))
    steps = [words, 0, 0, 24, 2] if over == "outputs" else [0, words, 8 * library.pointer_bytes, 0, 0]
    fields = [u, v, library.put(pointers), constants, 0, count, *steps, blocks[0].rounding, groups]
    library.call("nn_winograd_shift_10", library.put_struct(KINDS_OF_FIELDS, fields))
    for place, block in enumerate(blocks):
        at, channel = (tables[0][0], 2 * place) if over == "outputs" else (tables[place][0], 0)
        found = np.array([library.get(pixel, "i1", size)[channel : channel + 2] for pixel in at])
        np.testing.assert_array_equal(found.reshape(2, 4, 2).transpose(2, 0, 1), block.expected(10))
    library.assert_untouched()


@pytest.mark.parametrize("groups", [1, 4, 8, 16])
def test_instructions(groups: int) -> None:
    """16 outputs: 10 for each position and group, 7 more for each position, about 13 for each output and 20 around it."""
    library = step_library("zig")
    assert isinstance(library, ArmLibrary)
    counts = []
    for count in (1, 2):
        library.reset()
        block = Block(np.random.default_rng(1), 4 * groups)
        _, table = put_outputs(library, 4)
        fields = [library.put(block.u()), library.put(block.v()), table, library.put(block.constants()), 0, count]
        library.call("nn_winograd_shift_10", library.put_struct(KINDS_OF_FIELDS, [*fields, 0, 0, 0, 0, 0, 0, groups]))
        counts.append(library.instructions)
    positions = 16 * (10 * groups + 7)
    assert positions + 16 * 13 < counts[1] - counts[0] < positions + 16 * 16
