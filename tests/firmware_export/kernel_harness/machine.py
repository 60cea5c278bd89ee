"""Runs programs of kernel calls: in unicorn and qemu, counting executed instructions exactly, and on the host."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import unicorn
from elftools.elf.elffile import ELFFile
from kernel_harness.program import host
from unicorn import arm_const

from host_tools.bench_image import MACHINE

FLASH, RAM, SIZE = 0x00000000, 0x20000000, 4 << 20
TIME_LIMIT_S = 600
MODELS = {
    "cortex-m0plus": arm_const.UC_CPU_ARM_CORTEX_M0,
    "cortex-m3": arm_const.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm_const.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7,
}
MACHINES = {
    "cortex-m3": "mps2-an385",
    "cortex-m4": "mps2-an386",
    "cortex-m7": "mps2-an500",
    "cortex-m33": "mps2-an505",
    "cortex-m55": "mps3-an547",
}


@dataclass(frozen=True)
class Run:
    """instructions: one count per case, call included. failures: wrong or touched bytes per case (none on the host)."""

    instructions: list[int]
    failures: list[int]
    failed: bool


class Image:
    """An ELF file: what to load where, and its symbols."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            self.segments = [(s["p_paddr"], s.data()) for s in elf.iter_segments() if s["p_filesz"]]
            table = elf.get_section_by_name(".symtab")
            self.symbols = {s.name: (s["st_value"], s["st_size"]) for s in table.iter_symbols() if s.name}

    def address(self, name: str) -> int:
        """Of a function, without the Thumb bit."""
        return int(self.symbols[name][0]) & ~1


def instructions_in(code: bytes) -> int:
    """Thumb instructions in a straight piece of code: halfwords 0b11101.., 0b11110.. and 0b11111.. begin one of 32 bits."""
    place = count = 0
    while place < len(code):
        place += 4 if code[place + 1] >= 0xE8 else 2
        count += 1
    return count


class InstructionCounter:
    """Counts every instruction that a unicorn engine executes, block by block; notes the total on entry of one function."""

    def __init__(self, engine: Any, marker: int) -> None:
        self.total = 0
        self.laps: list[int] = []
        self._known: dict[tuple[int, int], int] = {}
        engine.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        engine.hook_add(unicorn.UC_HOOK_CODE, self._on_marker, begin=marker, end=marker)

    def _on_block(self, engine: Any, address: int, size: int, _: object) -> None:
        count = self._known.get((address, size))
        if count is None:
            count = self._known[address, size] = instructions_in(bytes(engine.mem_read(address, size)))
        self.total += count

    def _on_marker(self, *_: object) -> None:
        self.laps.append(self.total)


def run_unicorn(elf: Path, core: str = "cortex-m4") -> Run:
    """Runs a program to its end in unicorn."""
    image = Image(elf)
    engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    engine.ctl_set_cpu_model(MODELS[core])
    for base in (FLASH, RAM):
        engine.mem_map(base, SIZE)
    engine.mem_map(0xE0000000, 1 << 20)
    for address, data in image.segments:
        engine.mem_write(address, data)
    counter = InstructionCounter(engine, image.address("marker"))
    engine.reg_write(arm_const.UC_ARM_REG_SP, image.symbols["stack_top"][0])
    engine.emu_start(image.address("reset_handler") | 1, image.address("finish"), timeout=TIME_LIMIT_S * 1_000_000)
    assert engine.reg_read(arm_const.UC_ARM_REG_PC) & ~1 == image.address("finish"), "the program did not come to its end"
    address, size = image.symbols["failures"]
    words = bytes(engine.mem_read(address, size))
    failures = [int.from_bytes(words[i : i + 4], "little") for i in range(0, size, 4)]
    return Run(between(counter.laps), failures, any(failures))


def between(laps: list[int]) -> list[int]:
    """Instructions of each case from the totals at the markers; the first two markers have nothing between them."""
    empty = laps[1] - laps[0]
    return [after - before - empty for before, after in zip(laps[2::2], laps[3::2], strict=False)]


@functools.cache
def _plugin() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="count-plugin-"))
    library = folder / "count_plugin.so"
    host().run(
        ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", str(MACHINE / "count_plugin.c"), "-o", str(library)], "plugin"
    )
    return library


def has_qemu() -> bool:
    """Whether qemu for Arm is installed."""
    return shutil.which("qemu-system-arm") is not None


def run_qemu(elf: Path, core: str = "cortex-m4") -> Run:
    """Runs a program to its end in qemu."""
    image = Image(elf)
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        command = ["qemu-system-arm", "-M", MACHINES[core], "-display", "none", "-monitor", "none", "-serial", "none"]
        command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(elf)]
        command += ["-plugin", f"{_plugin()},marker={image.address('marker'):#x},out={counts}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
        laps = [int(line.split()[1]) for line in counts.read_text().splitlines()]
    failures = [int(line) for line in ended.stderr.split()]
    return Run(between(laps), failures, ended.returncode != 0)


def run_host(executable: Path) -> Run:
    """Runs a program built for the host."""
    ended = subprocess.run([str(executable)], capture_output=True, text=True, timeout=TIME_LIMIT_S)
    assert ended.stdout.startswith("failed "), ended.stderr
    return Run([], [], ended.returncode != 0)
