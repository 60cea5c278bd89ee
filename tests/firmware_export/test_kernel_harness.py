"""The harness itself: known loops have known counts in both emulators, and what a kernel does wrong is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from firmware_builder import COMPILER, COMPILERS, compiler, needs_gcc
from kernel_harness import program
from kernel_harness.machine import Image, between, has_qemu, instructions_in, run_host, run_qemu, run_unicorn
from kernel_harness.program import GUARD, Case, build_program, host, program_text
from kernel_harness.shared_objects import ArmLibrary, HostLibrary

from firmware_export.operators import Constant, LayerCode

PARAMS = """\
#ifndef COUNTED_H
#define COUNTED_H
#include <stdint.h>
typedef struct { uint32_t count; uint32_t wrong_at; const int8_t *added; } counted_params;
void counted(const counted_params *params, const int8_t *input, int8_t *output);
void counted_with_scratch(const counted_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
#endif
"""
SOURCE = """\
#include "counted.h"
/* 2 * count instructions in the loop on every Cortex-M. */
static void loop(uint32_t count) {
#ifdef __arm__
    __asm__ volatile(".syntax unified\\n1: subs %0, #1\\n bne 1b" : "+l"(count) : : "cc");
#else
    (void)count;
#endif
}
void counted(const counted_params *params, const int8_t *input, int8_t *output) {
    if (params->count > 0u) {
        loop(params->count);
    }
    for (int32_t i = 0; i < 4; ++i) {
        output[i] = (int8_t)(input[i] + params->added[i]);
    }
    output[(int32_t)params->wrong_at] = 99;
}
void counted_with_scratch(const counted_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    scratch[0] = scratch[15] = 1;
    counted(params, input, output);
}
"""
NOWHERE = 3
"""output[3] is 99 anyway."""


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime folder of one kernel that loops as long as it is told and may write where it should not."""
    (tmp_path / "counted.h").write_text(PARAMS)
    (tmp_path / "counted.c").write_text(SOURCE)
    (tmp_path / "runtime").mkdir()
    monkeypatch.setattr(program, "RUNTIME", _Runtime(tmp_path))


class _Runtime(type(Path())):  # type: ignore[misc]
    """The folder of the kernel, with the boards' memory.c where the harness looks for it."""

    @property
    def parent(self) -> Path:
        return Path(program.HERE).parents[2] / "firmware_export"


def case(count: int = 0, wrong_at: int = NOWHERE, scratch: bool = False, places: tuple[int, ...] | None = None) -> Case:
    added = np.array([1, 2, 3, 0], np.int8)
    x = np.array([10, 20, 30, 99], np.int8)
    code = LayerCode(
        function="counted_with_scratch" if scratch else "counted",
        params_type="counted_params",
        fields={"count": f"{count}u", "wrong_at": f"{wrong_at % (1 << 32)}u", "added": "{added}"},
        constants=(Constant("added", added),),
        sources=("counted.c",),
        scratch_bytes=16 if scratch else 0,
    )
    return Case(code, (x,), x + added, places)


COUNTS = (0, 1, 1000, 100_000)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("kind", COMPILERS)
def test_known_loops_have_known_counts(kind: str) -> None:
    run = run_unicorn(build_program([case(count) for count in COUNTS], compiler(kind)))
    assert not run.failed
    around = run.instructions[1] - 2
    assert run.instructions[2:] == [around + 2 * count for count in COUNTS[2:]]
    assert run.instructions[0] == around, "the branch around the loop is one instruction either way"


@needs_gcc
@pytest.mark.usefixtures("counted")
@pytest.mark.skipif(not has_qemu(), reason="qemu-system-arm is not installed")
@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4", "cortex-m7"])
def test_both_emulators_count_the_same(core: str) -> None:
    elf = build_program([case(count) for count in COUNTS], compiler("gcc"), core)
    in_unicorn, in_qemu = run_unicorn(elf, core), run_qemu(elf, core)
    assert in_unicorn.instructions == in_qemu.instructions
    assert not in_unicorn.failed and not in_qemu.failed


@pytest.mark.usefixtures("counted")
def test_wrong_output_is_found() -> None:
    cases = [case(), case(wrong_at=1), case()]
    elf = build_program(cases, compiler(COMPILER))
    assert run_unicorn(elf).failures == [0, 1, 0]
    assert run_host(build_program(cases, host(), "host")).failed
    if has_qemu():
        assert run_qemu(elf).failed


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("wrong_at", [-1, 4, 4 + GUARD - 1, -GUARD])
def test_a_byte_beside_the_output_is_found(wrong_at: int) -> None:
    assert run_unicorn(build_program([case(wrong_at=wrong_at)], compiler(COMPILER))).failures[0] >= 1


@pytest.mark.usefixtures("counted")
def test_scratch_may_change_and_what_lies_behind_it_may_not() -> None:
    output, scratch = 96, 160
    good = case(scratch=True, places=(GUARD, output, scratch))
    bad = case(wrong_at=scratch + 16 - output, scratch=True, places=(GUARD, output, scratch))
    assert run_unicorn(build_program([good, bad], compiler(COMPILER))).failures == [0, 1]


@pytest.mark.usefixtures("counted")
def test_output_may_lie_over_the_input() -> None:
    assert run_unicorn(build_program([case(places=(GUARD, GUARD, 2 * GUARD))], compiler(COMPILER))).failures == [0]


def test_places_keep_their_distance() -> None:
    apart = case(scratch=True).places()
    assert all(place % 16 == 0 for place in apart)
    assert apart[1] - (apart[0] + 4) >= GUARD and apart[2] - (apart[1] + 4) >= GUARD
    assert case(scratch=True).extent() == apart[2] + 16 + GUARD


def test_programs_name_every_constant_once() -> None:
    text = program_text([case(7), case(8)])
    assert text.count("k0_added[4]") == text.count("k1_added[4]") == 1
    assert ".count = 7u" in text and ".added = k1_added" in text


@pytest.mark.parametrize(
    "code, count",
    [
        ("", 0),
        ("bf00", 1),  # nop
        ("bf00 bf00 4770", 3),
        ("f3af 8000", 1),  # nop.w
        ("e8b3 0007", 1),  # ldmia.w r3!, {r0-r2}
        ("fb2a 4400", 1),  # smlad
        ("e7fe", 1),  # b: 0b11100 is still 16 bits
        ("df00 fb2a 4400 bf00 f7ff fffe", 4),
    ],
)
def test_thumb_instructions(code: str, count: int) -> None:
    halfwords = [int(word, 16) for word in code.split()]
    assert instructions_in(b"".join(word.to_bytes(2, "little") for word in halfwords)) == count


def test_counts_between_markers() -> None:
    """The first two markers have nothing between them: 5 instructions belong to a marker itself."""
    assert between([10, 15, 100, 110, 200, 305]) == [5, 100]


@pytest.mark.usefixtures("counted")
def test_images_know_their_symbols() -> None:
    image = Image(build_program([case()], compiler(COMPILER)))
    assert image.address("marker") % 2 == 0 and image.symbols["failures"][1] == 4
    assert any(address == 0 for address, _ in image.segments)


def test_libraries_find_what_a_function_breaks() -> None:
    """A write beside a piece of memory; the host and the board see the same memory."""
    for library in (HostLibrary(["patch.c"], host()), ArmLibrary(["patch.c"], ["nn_copy_patch"], compiler(COMPILER))):
        window = library.put(np.array([1, 1, 4, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0], np.uint16))
        image, to = library.put(np.arange(4, dtype=np.int8)), library.room(3)
        library.call("nn_copy_patch", window, image, 0, 0, 1, 1, 0, to)
        np.testing.assert_array_equal(library.get(to, "i1", 3), [0, 1, 2])
        with pytest.raises(AssertionError, match="beside"):
            library.assert_untouched()
        library.reset()
        library.assert_untouched()


def test_libraries_lay_structs_as_compilers_do() -> None:
    for library in (HostLibrary(["patch.c"], host()), ArmLibrary(["patch.c"], ["nn_copy_patch"], compiler(COMPILER))):
        wide = library.pointer_bytes
        address = library.put_struct("IPiP", [7, 0x12345678, -2, 9])
        assert library.get(address, "u4", 1)[0] == 7
        assert library.get(address + wide, f"u{wide}", 1)[0] == 0x12345678
        assert library.get(address + 2 * wide, "i4", 1)[0] == -2
        assert library.get(address + 3 * wide, f"u{wide}", 1)[0] == 9


def test_a_function_that_does_not_return_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stuck.c").write_text('void stuck(void);\nvoid stuck(void) { __asm__ volatile("udf #0"); }\n')
    monkeypatch.setattr("kernel_harness.shared_objects.RUNTIME", _Runtime(tmp_path))
    library = ArmLibrary(["stuck.c"], ["stuck"], compiler(COMPILER))
    with pytest.raises(Exception, match=r"(?i)stuck|exception|invalid"):
        library.call("stuck")
