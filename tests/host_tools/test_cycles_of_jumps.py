"""What jumps cost in the cycle estimate, instruction by instruction, from Arm DDI 0439, table 3-1, and its notes on pairs."""

from __future__ import annotations

import struct

import pytest

from host_tools.cycles import Block, estimate, straight_cycles
from host_tools.disassembly import Instruction, disassemble

ORIGIN = 0x8000


def decoded(*words: int) -> tuple[Instruction, ...]:
    return tuple(disassemble(struct.pack(f"<{len(words)}H", *words), ORIGIN))


JUMPS = {
    "b": ((0xE7FE,), 1, 1),
    "bne": ((0xD1FD,), 1, 1),
    "bl": ((0xF000, 0xF800), 1, 1),
    "bx lr": ((0x4770,), 1, 2),
    "blx r3": ((0x4798,), 1, 2),
    "pop {pc}": ((0xBD00,), 2, 3),
    "pop {r4, r5, pc}": ((0xBD30,), 4, 3),
    "ldr pc, [r0]": ((0xF8D0, 0xF000), 2, 3),
    "tbb [pc, r0]": ((0xE8DF, 0xF000), 3, 1),
    "tbh [pc, r0]": ((0xE8DF, 0xF010), 3, 1),
}
"""Halfwords; cycles without a jump; cycles more when it is taken: by a fixed target, a register, a loaded address."""


@pytest.mark.parametrize("name", JUMPS)
def test_a_jump_that_is_taken_and_one_that_is_not(name: str) -> None:
    words, straight, refill = JUMPS[name]
    block = decoded(*words)
    assert len(block) == 1 and straight_cycles(block) == straight
    assert estimate([Block(block, 1, 0, 0)]) == straight
    assert estimate([Block(block, 1, 1, 0)]) == straight + refill
    assert estimate([Block(block, 7, 5, 2)]) == 7 * straight + 5 * refill + 2, "and one for a target that is not aligned"


def test_a_block_that_falls_through_to_another_one() -> None:
    """No jump: adds; what is left by an interrupt of the emulator's own counts like a jump to a fixed target."""
    block = decoded(0x1840)
    assert estimate([Block(block, 9, 0, 0)]) == 9 and estimate([Block(block, 9, 1, 0)]) == 10
    assert estimate([]) == 0 and straight_cycles([]) == 0


PAIRS = {
    "two loads": ((0x6808, 0x684A), 2 + 1),
    "a load and a store": ((0x6808, 0x604A), 2 + 1),
    "a store by index behind a load": ((0x6808, 0x508A), 2 + 1),
    "a store by index alone": ((0x1840, 0x508A), 1 + 2),
    "a load behind a store": ((0x600A, 0x6848), 1 + 2),
    "a load of an address that was loaded": ((0x6809, 0x6808), 2 + 2),
    "a load of an address that was computed": ((0x3104, 0x6808), 1 + 2 + 1),
    "a load beside what was computed": ((0x3204, 0x6808), 1 + 2),
    "a store to an address that was computed": ((0x3104, 0x6008), 1 + 1 + 1),
    "a store of what was computed": ((0x3004, 0x6008), 1 + 1),
    "three loads and a sum": ((0x6808, 0x684A, 0x688B, 0x1840), 2 + 1 + 1 + 1),
    "loads with a sum between": ((0x6808, 0x1840, 0x684A), 2 + 1 + 2),
    "a multiple load behind a computed address": ((0x3104, 0xC90C), 1 + 1 + 2 + 1),
    "it and two": ((0xBF04, 0x3001, 0x3001), 0 + 1 + 1),
    "divide": ((0xFBB0, 0xF0F1), 6),
    "two divides": ((0xFBB0, 0xF0F1, 0xFB90, 0xF0F1), 12),
    "long product": ((0xFB81, 0x2303), 1),
    "square root": ((0xEEB1, 0x0AC0), 14),
    "no operation": ((0xBF00,), 1),
}
"""r0 = [r1]; r2 = [r1, 4]; r1 += 4: halfwords by the Armv7-M manual, and cycles counted by hand."""


@pytest.mark.parametrize("name", PAIRS)
def test_what_stands_before_a_load_or_store(name: str) -> None:
    words, cycles = PAIRS[name]
    assert straight_cycles(decoded(*words)) == cycles


def test_blocks_add_up() -> None:
    """A loop of a hundred passes: its first is part of the block that comes before it."""
    entry, loop = decoded(0x2064, 0x3801, 0xD1FD), decoded(0x3801, 0xD1FD)
    assert estimate([Block(entry, 1, 1, 0), Block(loop, 99, 98, 0)]) == (3 + 1) + 99 * 2 + 98
