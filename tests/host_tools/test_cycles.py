"""The cycle estimate against snippets counted by hand from Arm DDI 0439, table 3-1 and its notes; exact counts of loops."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from unicorn import UC_ARCH_ARM, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, arm_const

from host_tools.bench_run import UNICORN_CPUS, _blocks, _Trace
from host_tools.cycles import Block, estimate, straight_cycles
from host_tools.disassembly import disassemble

ORIGIN = 0x8000


def code(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}H", *words)


@pytest.mark.parametrize(
    ("words", "cycles"),
    [
        ((0x1840, 0x1840), 2),  # adds, adds
        ((0x6808,), 2),  # ldr r0, [r1]
        ((0x6808, 0x684A, 0x688B), 4),  # three loads in a row: 2 + 1 + 1
        ((0x6809, 0x6808), 4),  # ldr r1, [r1]; ldr r0, [r1]: the second waits for its address
        ((0x6008,), 1),  # str r0, [r1]
        ((0x5088,), 2),  # str r0, [r1, r2]
        ((0xC90F,), 5),  # ldm r1!, {r0-r3}: 1 + 4
        ((0xB5F0,), 6),  # push {r4-r7, lr}: 1 + 5
        ((0xE9D1, 0x2300), 3),  # ldrd: 1 + 2
        ((0xFB21, 0x0302), 1),  # smlad
        ((0xFA2F, 0xF081), 1),  # sxtb16
        ((0xEE80, 0x0A01), 14),  # vdiv.f32
        ((0xEE00, 0x0A01), 3),  # vmla.f32
        ((0x1849, 0x6808), 4),  # adds r1, r1, r1; ldr r0, [r1]: 1 + 2, and 1 for the address made just before
    ],
)
def test_snippets_counted_by_hand(words: tuple[int, ...], cycles: int) -> None:
    assert straight_cycles(disassemble(code(*words), ORIGIN)) == cycles


def test_jumps_cost_by_what_jumps() -> None:
    branch = disassemble(code(0x3801, 0xD1FD), ORIGIN)  # subs r0, #1; bne back
    assert estimate([Block(branch, 10, 9, 0)]) == 10 * 2 + 9 * 1
    assert estimate([Block(branch, 10, 9, 9)]) == 10 * 2 + 9 * 1 + 9, "to a 32-bit instruction that is not aligned"
    back = disassemble(code(0x4770), ORIGIN)  # bx lr
    assert estimate([Block(back, 5, 5, 0)]) == 5 * 1 + 5 * 2
    popped = disassemble(code(0xBDF0), ORIGIN)  # pop {r4-r7, pc}: 1 + 5, and 3 to fill the pipeline
    assert estimate([Block(popped, 1, 1, 0)]) == 9


class Machine:
    """A few instructions in unicorn, counted by the same hook that bench uses."""

    def __init__(self, program: bytes, core: str) -> None:
        self.engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.engine.ctl_set_cpu_model(UNICORN_CPUS[core])
        for address in (0, 0x20000000):
            self.engine.mem_map(address, 1 << 16)
        self.engine.mem_write(ORIGIN, program)
        self.engine.reg_write(arm_const.UC_ARM_REG_SP, 0x20008000)
        self.program = program

    def run(self, end: int, marks: set[int] | None = None) -> _Trace:
        trace = _Trace(self.engine, ORIGIN, self.program, marks or {ORIGIN})
        self.engine.emu_start(ORIGIN | 1, end)
        return trace


LOOP = code(0x2064, 0x3801, 0xD1FD, 0xBF00)
"""movs r0, #100; again: subs r0, #1; bne again; nop"""


@pytest.mark.parametrize("core", sorted(UNICORN_CPUS))
def test_a_known_loop_gives_its_known_count(core: str) -> None:
    trace = Machine(LOOP, core).run(ORIGIN + 6)
    assert trace.counter.executed == 1 + 100 * 2 and trace.counter.unknown == 0


def test_nested_loops() -> None:
    # movs r0, #7; outer: movs r1, #5; inner: subs r1, #1; bne inner; subs r0, #1; bne outer; nop
    trace = Machine(code(0x2007, 0x2105, 0x3901, 0xD1FD, 0x3801, 0xD1FA, 0xBF00), "cortex-m4").run(ORIGIN + 12)
    assert trace.counter.executed == 1 + 7 * (1 + 5 * 2 + 2)


def test_an_instruction_that_is_not_taken_in_an_it_block_counts() -> None:
    # movs r0, #1; cmp r0, #0; itt eq; addeq r0, #1; addeq r0, #1; nop
    trace = Machine(code(0x2001, 0x2800, 0xBF04, 0x3001, 0x3001, 0xBF00), "cortex-m4").run(ORIGIN + 10)
    assert trace.counter.executed == 5


def test_wide_instructions_count_once() -> None:
    # mov.w r0, #3; smlad r3, r1, r2, r0; ldrd r2, r3, [sp]; nop
    program = code(0xF04F, 0x0003, 0xFB21, 0x0302, 0xE9DD, 0x2300, 0xBF00)
    assert Machine(program, "cortex-m4").run(ORIGIN + 12).counter.executed == 3


def test_laps_tell_what_ran_before_a_mark() -> None:
    laps = Machine(LOOP, "cortex-m4").run(ORIGIN + 6, {ORIGIN, ORIGIN + 2}).laps()
    # unicorn begins a block at the entry and after every jump: the first pass of the loop is in the entry's block
    assert laps[0] == (ORIGIN, 0)
    assert laps[1] == (ORIGIN + 2, 3)


def test_blocks_and_jumps_of_a_loop() -> None:
    trace = Machine(LOOP, "cortex-m4").run(ORIGIN + 6)
    found = {block.instructions[0].place: block for block in _blocks(trace, LOOP, ORIGIN)}
    entry, again = found[ORIGIN], found[ORIGIN + 2]
    assert (entry.count, again.count) == (1, 99)
    assert entry.jumps + again.jumps == 99, "the branch is taken 99 times"
    # 1 for movs, 100 x (subs and bne), 99 refills of one cycle: table 3-1, P = 1
    assert estimate(found.values()) == 1 + 100 * 2 + 99


def test_a_block_outside_the_code_is_told() -> None:
    machine = Machine(LOOP + code(0xE7FE), "cortex-m4")
    trace = _Trace(machine.engine, ORIGIN, LOOP[:4], {ORIGIN})
    machine.engine.emu_start(ORIGIN | 1, ORIGIN + 6)
    assert trace.counter.unknown > 0


def test_laps_beyond_the_room_are_dropped() -> None:
    trace = Machine(LOOP, "cortex-m4").run(ORIGIN + 6, {ORIGIN + 2})
    assert len(trace.laps()) == trace.counter.lap_limit == 3
    assert np.all(np.diff([count for _, count in trace.laps()]) == 2)
