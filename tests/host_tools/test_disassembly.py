"""Disassembly against encodings written out from the ARMv7-M Architecture Reference Manual, and call graphs made by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from firmware_export.toolchain import ToolchainError, arm_toolchain
from host_tools.call_graph import callees, deepest, own_stack
from host_tools.disassembly import Function, Instruction, disassemble, functions, taken_addresses

CORE = "cortex-m4"


def halfwords(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}H", *words)


def only(*words: int, place: int = 0x100) -> Instruction:
    (found,) = disassemble(halfwords(*words), place)
    return found


@pytest.mark.parametrize(
    ("words", "kind", "moved"),
    [
        ((0x6808,), "load", 0),  # ldr r0, [r1]
        ((0x5688,), "load", 0),  # ldrsb r0, [r1, r2]
        ((0x6008,), "store", 0),  # str r0, [r1]
        ((0xC90F,), "load many", 4),  # ldm r1!, {r0-r3}
        ((0xE9D1, 0x2300), "load many", 2),  # ldrd r2, r3, [r1]
        ((0xE9C1, 0x2300), "store many", 2),  # strd r2, r3, [r1]
        ((0xB5F0,), "store many", 5),  # push {r4-r7, lr}
        ((0xED2D, 0x8B04), "store many", 4),  # vpush {d8, d9}
        ((0xD1FE,), "branch", 0),  # bne .
        ((0xB108,), "branch", 0),  # cbz r0, ...
        ((0xF000, 0xF800), "call", 0),  # bl ...
        ((0x4798,), "pointer", 0),  # blx r3
        ((0x4718,), "pointer", 0),  # bx r3
        ((0x4770,), "return", 0),  # bx lr
        ((0x4687,), "return", 0),  # mov pc, r0
        ((0xE8D0, 0xF001), "table", 0),  # tbb [r0, r1]
        ((0xFB91, 0xF0F2), "divide", 0),  # sdiv r0, r1, r2
        ((0xBF08,), "it", 0),  # it eq
        ((0xEE80, 0x0A01), "float long", 0),  # vdiv.f32 s0, s0, s2
        ((0xFB21, 0x0302), "alu", 0),  # smlad r3, r1, r2, r0
        ((0x1840,), "alu", 0),  # adds r0, r0, r1
        ((0xA001,), "address", 0),  # adr r0, ...
        ((0xF20F, 0x0314), "address", 0),  # adr.w r3, ...
    ],
)
def test_kinds(words: tuple[int, ...], kind: str, moved: int) -> None:
    found = only(*words)
    assert (found.kind, found.words, found.size) == (kind, moved, 2 * len(words))


@pytest.mark.parametrize(
    ("words", "pushed"),
    [
        ((0xB5F0,), 20),  # push {r4-r7, lr}
        ((0xE92D, 0x4FF0), 36),  # stmdb sp!, {r4-r11, lr}
        ((0xED2D, 0x8B04), 16),  # vpush {d8, d9}
        ((0xB084,), 16),  # sub sp, #16
        ((0xF5AD, 0x7D00), 512),  # sub.w sp, sp, #512
        ((0xF84D, 0x0D04), 4),  # str r0, [sp, #-4]!
        ((0xEBAD, 0x0D01), -1),  # sub.w sp, sp, r1
        ((0xB004,), 0),  # add sp, #16
        ((0x9001,), 0),  # str r0, [sp, #4]
        ((0xBDF0,), 0),  # pop {r4-r7, pc}
    ],
)
def test_stack_use(words: tuple[int, ...], pushed: int) -> None:
    assert only(*words).pushed == pushed


def test_registers_of_an_address() -> None:
    plain, indexed = only(0x6808), only(0x5888)  # ldr r0, [r1]; ldr r0, [r1, r2]
    assert not plain.indexed and indexed.indexed
    assert plain.address < indexed.address and len(indexed.address) == 2 and len(plain.writes) == 1


def test_targets_and_alignment() -> None:
    back = only(0xE7FE, place=0x40)  # b .
    assert back.target == 0x40 and not back.misaligned
    call = only(0xF000, 0xF802, place=0x42)  # bl .+8
    assert call.target == 0x4A and call.misaligned


def test_unknown_halfwords_keep_their_size() -> None:
    found = disassemble(halfwords(0xDE01, 0xFFFF, 0xFFFF, 0x4770), 0)
    assert sum(i.size for i in found) == 8 and found[-1].kind == "return"


def function(name: str, place: int, *instructions: Instruction) -> Function:
    return Function(name, place, tuple(instructions))


def step(place: int, kind: str = "alu", **fields: object) -> Instruction:
    return Instruction(place, 2, str(fields.pop("mnemonic", kind)), kind, **fields)  # type: ignore[arg-type]


def graph(*made: Function) -> dict[int, Function]:
    return {f.place: f for f in made}


def test_a_chain_adds_up_and_the_deepest_wins() -> None:
    known = graph(
        function("a", 0, step(0, pushed=8), step(2, "call", target=100), step(4, "call", target=200)),
        function("b", 100, step(100, pushed=16)),
        function("c", 200, step(200, pushed=4), step(202, "branch", target=300)),
        function("d", 300, step(300, pushed=40), step(302, pushed=4)),
    )
    assert own_stack(known[300]) == 44
    assert deepest(known, 0, {"": frozenset()}) == 8 + 4 + 44
    assert deepest(known, 100, {"": frozenset()}) == 16


def test_a_branch_inside_is_no_call() -> None:
    loop = function("loop", 0, step(0, pushed=8), step(2, "branch", target=0))
    assert callees(loop, graph(loop)) == (set(), False)


def test_recursion_has_no_bound() -> None:
    known = graph(
        function("even", 0, step(0, "call", target=100)),
        function("odd", 100, step(100, "call", target=0)),
    )
    with pytest.raises(ToolchainError, match="even -> odd -> even is a recursion"):
        deepest(known, 0, {"": frozenset()})


def test_a_pointer_may_reach_what_is_given() -> None:
    known = graph(
        function("a", 0, step(0, "pointer", mnemonic="blx"), step(2, pushed=4)),
        function("b", 100, step(100, pushed=64)),
    )
    assert deepest(known, 0, {"": frozenset({100})}) == 68
    assert deepest(known, 0, {"": frozenset({100}), "a": frozenset()}) == 4


def test_what_runs_already_is_not_reached_through_a_pointer() -> None:
    """two hands its caller's step on; one -> two -> step and one -> step are the ways, whichever is looked at first."""
    known = graph(
        function("one", 0, step(0, pushed=4), step(2, "pointer", mnemonic="blx")),
        function("two", 100, step(100, pushed=16), step(102, "pointer", mnemonic="blx")),
        function("step", 200, step(200, pushed=64)),
    )
    assert deepest(known, 0, {"": frozenset({0, 100, 200})}) == 4 + 16 + 64
    assert deepest(known, 100, {"": frozenset({0, 100, 200})}) == 16 + 4 + 64
    assert deepest(known, 200, {"": frozenset({0, 100, 200})}) == 64


def test_a_way_back_that_needs_a_pointer_is_no_recursion() -> None:
    """`sum` calls a form through a pointer; `passes`, whose address is taken too, calls `sum`."""
    known = graph(
        function("sum", 0, step(0, pushed=4), step(2, "pointer", mnemonic="blx")),
        function("passes", 100, step(100, pushed=16), step(102, "call", target=0)),
        function("form", 200, step(200, pushed=32)),
    )
    taken = {"": frozenset({100, 200})}
    assert deepest(known, 0, taken) == 4 + 32
    assert deepest(known, 100, taken) == 16 + 4 + 32


def test_a_jump_into_an_own_loop_is_no_call() -> None:
    inner = (step(0, "address"), step(2, "pointer", mnemonic="bx"))
    assert callees(function("loop", 0, *inner), {}) == (set(), False)
    assert callees(function("tail", 0, inner[1]), {}) == (set(), True)
    called = step(2, "pointer", mnemonic="blx")
    assert callees(function("both", 0, inner[0], called), {}) == (set(), True)


def test_a_computed_frame_has_no_bound() -> None:
    with pytest.raises(ToolchainError, match="grows lowers the stack pointer by a computed amount"):
        own_stack(function("grows", 0, step(0, pushed=8), step(2, pushed=-1)))


SOURCE = """
typedef int (*operation)(int);
int twice(int x);
int thrice(int x);
int apply(operation chosen, int x);
void reset_handler(void);
__attribute__((noinline)) int twice(int x) { return 2 * x; }
__attribute__((noinline)) int thrice(int x) { return 3 * x; }
__attribute__((noinline)) int apply(operation chosen, int x) { return chosen(x) + 1; }
volatile int input;
void reset_handler(void) {
    volatile int frame[32];
    frame[input] = apply(input != 0 ? twice : thrice, input);
    input = frame[0] + 0x12345678;
}
"""
SCRIPT = """
SECTIONS {
    .text 0x8000 : { *(.text .text.*) }
    .bss 0x20000000 : { *(.bss .bss.*) }
    /DISCARD/ : { *(.ARM.*) *(.comment) }
}
"""


def built(folder: Path, kind: str) -> Path:
    toolchain = arm_toolchain(kind)
    (folder / "a.c").write_text(SOURCE)
    (folder / "a.ld").write_text(SCRIPT)
    toolchain.compile(folder / "a.c", folder / "a.o", toolchain.compile_flags(CORE, "none", "2"))
    toolchain.link([folder / "a.o"], folder / "a.elf", folder / "a.ld", CORE, "none")
    return folder / "a.elf"


def kinds() -> Sequence[str]:
    return sorted({"zig", arm_toolchain().kind})


@pytest.mark.parametrize("kind", kinds())
def test_functions_of_a_linked_image(tmp_path: Path, kind: str) -> None:
    elf = built(tmp_path, kind)
    known = functions(elf)
    names = {f.name: place for place, f in known.items()}
    assert {"twice", "thrice", "apply", "reset_handler"} <= names.keys()
    assert all(f.place >= 0x8000 for f in known.values())
    assert not any(i.mnemonic == "unknown" for f in known.values() for i in f.instructions), "constants are left out"
    taken = {known[place].name for place in taken_addresses(elf, known)}
    assert {"twice", "thrice"} <= taken and "apply" not in taken
    reachable = frozenset({names["twice"], names["thrice"]})
    bound = deepest(known, names["reset_handler"], {"": reachable})
    assert 128 <= bound < 256
