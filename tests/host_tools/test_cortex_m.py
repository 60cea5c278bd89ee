"""The machine in this process: exact instruction counts, faults that name themselves, registers, resets."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import capstone
import pytest
from unicorn import UC_HOOK_BLOCK

sys.path.insert(0, str(Path(__file__).parents[1] / "firmware_export"))

from firmware_builder import BOARDS, COMPILER, compiler, echo_image

from firmware_export.board import load_board
from firmware_export.image import link_image
from firmware_export.toolchain import ToolchainError
from host_tools import cortex_m
from host_tools.cortex_m import Machine
from host_tools.errors import LinkError

BUDGET = 10_000_000


def machine_of(board: str, main: Path, work: Path) -> Machine:
    """A machine that runs a program of its own."""
    return Machine(load_board(board), link_image(load_board(board), [main], [], work, compiler(COMPILER)).image)


def ask(machine: Machine, request: bytes) -> bytes:
    """The answer to a request, after which the firmware sleeps."""
    machine.received += request
    while not machine.run(BUDGET) or machine.received:
        pass
    answer = bytes(machine.sent)
    machine.sent.clear()
    return answer


LOOP = """
#include "board.h"
#include "board_config.h"
const board_info board = {BOARD_NAME, BOARD_CORE, BOARD_BUILD_ID};

static void spin(uint32_t rounds) {
    __asm__ volatile(".syntax unified\\n1:\\n\\t" BODY "\\n\\tsubs %0, %0, #1\\n\\tbne 1b" : "+l"(rounds) : : "cc", "r4", "lr");
}

int main(void) {
    uint8_t rounds;
    board_init();
    for (;;) {
        if (board_uart_read(&rounds, 1u, 1) == 1u) {
            uint32_t before = board_cycles();
            spin(rounds + 1u);
            uint32_t count = board_cycles() - before;
            uint8_t bytes[2] = {(uint8_t)count, (uint8_t)(count >> 8)};
            board_uart_write(bytes, 2u);
        }
    }
}
"""
WIDE_CALL = "bl 2f\\n\\tb 3f\\n2:\\n\\tnop\\n\\tbx lr\\n3:"
SKIPPED = "cmp %0, %0\\n\\titte ne\\n\\taddne.w r4, r4, #1\\n\\taddne r4, r4, #1\\n\\tnopeq"


@pytest.mark.parametrize(
    ("name", "body", "instructions"),
    [
        ("nucleo_g071rb", "nop", 3),
        ("nucleo_g071rb", WIDE_CALL, 6),
        ("nucleo_f103rb", "add.w r4, r4, #1", 3),
        ("nucleo_f446re", SKIPPED, 7),
        ("nucleo_h743zi", "smlad r4, r4, r4, r4", 3),
    ],
)
def test_hand_counted_loop(tmp_path: Path, name: str, body: str, instructions: int) -> None:
    """The instructions of one round are counted by hand; what the readings themselves cost cancels out."""
    main = tmp_path / "loop_main.c"
    main.write_text(LOOP.replace("BODY", f'"{body}"'))
    machine = machine_of(name, main, tmp_path / "work")
    counts = [struct.unpack("<H", ask(machine, bytes([rounds])))[0] for rounds in (0, 1, 2, 100, 255)]
    assert [count - counts[0] for count in counts] == [instructions * rounds for rounds in (0, 1, 2, 100, 255)]


@pytest.mark.parametrize("name", BOARDS)
def test_block_counter_equals_another_decoder(name: str) -> None:
    """capstone says how many instructions each executed block has."""
    machine = Machine(load_board(name), echo_image(name).image)
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    known: dict[bytes, int] = {}
    total = [0]

    def count(engine: Any, address: int, size: int, data: Any) -> None:
        code = bytes(engine.mem_read(address, size))
        if code not in known:
            known[code] = len(list(decoder.disasm(code, address)))
        total[0] += known[code]

    machine.engine.hook_add(UC_HOOK_BLOCK, count)
    for request in (b"", b"ABC", b"h", b"c", b"a"):
        machine.received += request
        assert machine.run(10_000_000)
        assert machine.instructions == total[0]
    assert machine._counter.unknown == 0 and len(known) > 50


@pytest.mark.parametrize("slice_", [1, 7, 1000])
def test_count_and_answer_do_not_depend_on_the_slices(slice_: int) -> None:
    """A machine that is stopped and goes on executes nothing twice and skips nothing."""
    whole, sliced = (Machine(load_board("nucleo_f446re"), echo_image("nucleo_f446re").image) for _ in range(2))
    for request in (b"", b"cah"):
        whole.received += request
        sliced.received += request
        assert whole.run(10_000_000)
        while not sliced.run(slice_) or sliced.received:
            pass
        assert sliced.instructions == whole.instructions
        assert sliced.sent == whole.sent


def test_run_stops_at_its_limit() -> None:
    machine = Machine(load_board("nucleo_f446re"), echo_image("nucleo_f446re").image)
    assert machine.run(10_000_000)
    machine.received += b"b"
    before = machine.instructions
    assert not machine.run(1_000_000)
    assert 1_000_000 <= machine.instructions - before < 1_001_000, "at most one basic block more"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("*(volatile int *)0x30000000", "read address 0x30000000"),
        ("*(volatile int *)0x08000000 = 1", "wrote to address 0x08000000"),
        ("((void (*)(void))0x30000001)()", "jumped to address 0x30000000"),
        ('__asm__ volatile(".short 0xde00")', "stopped with|jumped to"),
    ],
)
def test_every_kind_of_fault(tmp_path: Path, code: str, message: str) -> None:
    main = tmp_path / "fault_main.c"
    main.write_text(
        '#include "board.h"\n#include "board_config.h"\nconst board_info board = {BOARD_NAME, BOARD_CORE, BOARD_BUILD_ID};\n'
        f"int main(void) {{\n    board_init();\n    {code};\n    for (;;) {{\n    }}\n}}\n"
    )
    with pytest.raises(LinkError, match=message):
        machine_of("nucleo_f103rb", main, tmp_path / "work").run(1_000_000)


def test_firmware_that_resets_itself(tmp_path: Path) -> None:
    main = tmp_path / "reset_main.c"
    main.write_text("""
#include "board.h"
#include "board_config.h"
#include "cortex_m.h"
const board_info board = {BOARD_NAME, BOARD_CORE, BOARD_BUILD_ID};
int main(void) {
    uint8_t byte;
    board_init();
    board_uart_write((const uint8_t *)"START", 5);
    while (board_uart_read(&byte, 1, 1) == 0 || byte != 'R') {
    }
    SCB_AIRCR = 0x05FA0000u; /* no request in it */
    SCB_AIRCR = 0x00000004u; /* no key in it */
    board_uart_write((const uint8_t *)"NOW", 3);
    for (;;) {
        SCB_AIRCR = AIRCR_RESET;
    }
}
""")
    machine = machine_of("nucleo_f446re", main, tmp_path / "work")
    assert ask(machine, b"") == b"START"
    assert ask(machine, b"RX") == b"NOWSTART", "what follows on the line is lost"
    assert machine.resets == 1


def test_flash_is_read_only_and_memory_has_its_real_size() -> None:
    machine = Machine(load_board("nucleo_f103rb"), echo_image("nucleo_f103rb").image)
    regions = sorted((start, end + 1, access) for start, end, access in machine.engine.mem_regions())
    memory = [region for region in regions if region[0] in (0x08000000, 0x20000000)]
    assert [end - start for start, end, _ in memory] == [128 << 10, 20 << 10]
    assert [access & 2 for *_, access in memory] == [0, 2]


def test_unmodelled_registers_read_zero_and_models_can_be_added() -> None:
    machine = Machine(load_board("nucleo_f446re"), echo_image("nucleo_f446re").image)
    reads: list[int] = []
    machine.readers[0x40023800] = lambda: reads.append(1) or 0  # type: ignore[func-returns-value]
    written: list[int] = []
    machine.writers[0x40023800] = written.append
    assert machine.run(10_000_000)
    assert len(reads) > 10_000 and written == [4 << 16, 1 << 16], "HSE bypassed, then on; it never gets ready"


def test_files_that_are_no_image_of_the_board(tmp_path: Path) -> None:
    other = tmp_path / "firmware.elf"
    other.write_bytes(b"\x7fELF but no more")
    with pytest.raises(ToolchainError, match="is not an ELF file"):
        Machine(load_board("nucleo_f446re"), other)
    board = load_board("nucleo_f446re")
    moved = tuple(m.model_copy(update={"origin": 0x08100000}) if m.kind == "flash" else m for m in board.memory)
    small = tuple(m.model_copy(update={"size": 1024}) if m.kind == "flash" else m for m in board.memory)
    for memory in (moved, small):
        with pytest.raises(ToolchainError, match=r"has [\d,]+ bytes at 0x08000000; the flash has .* build it for this board"):
            Machine(board.model_copy(update={"memory": memory}), echo_image("nucleo_f446re").image)


def test_counter_is_compiled_once() -> None:
    assert cortex_m._counter_library() is cortex_m._counter_library()
