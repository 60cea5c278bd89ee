"""The firmware image: runtime, generated network and board, compiled and linked; its memory measured from the result."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firmware_export.board import BOARDS, Board, Memory
from firmware_export.hostlib import RUNTIME, runtime_files
from firmware_export.memory_usage import ImageMemory, flash_image, intel_hex, map_text, read_memory
from firmware_export.toolchain import CORES, Toolchain, ToolchainError, arm_toolchain, host_toolchain
from recipes.artifacts import ArtifactError, PipelineError, write_bytes_atomic, write_json_atomic, write_text_atomic

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
_HUGE = 0x04000000
"""Bytes of every region when the true size of an image that does not fit is measured; regions lie farther apart."""


OVERFLOW_SECTION = """
    .activations_overflow (NOLOAD) : ALIGN(16)
    {{
        *(.bss.*_region_1)
    }} > {region}
"""
"""A section of its own for each variable (-fdata-sections) makes the generated <name>_region_1 known by its name."""


class FitError(PipelineError):
    """The image does not fit the board: region, bytes over, the three largest contributors."""

    exit_code = 7

    def __init__(self, board: str, region: str, used: int, size: int, largest: Sequence[tuple[str, int]]) -> None:
        self.region, self.bytes_over, self.largest = region, used - size, tuple(largest)
        names = ", ".join(f"{name} {count:,}" for name, count in largest)
        super().__init__(
            f"does not fit {board}: {region} needs {used:,} of {size:,} bytes, {used - size:,} bytes over; "
            f"largest: {names}; take a smaller model or a larger board"
        )


@dataclass(frozen=True)
class RegionUse:
    """One memory region: bytes used (gaps included), bytes there, the largest contributors (name, bytes)."""

    name: str
    used: int
    size: int
    largest: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ImageReport:
    """What was built. flash_bytes, ram_bytes (without stack), stack_bytes (reserved) come from the linked image.

    image: firmware.elf, or the executable `firmware` of board `host`.
    """

    board: str
    toolchain: str
    optimize: str
    build_id: str
    image: Path
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    regions: tuple[RegionUse, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the image's path is its name only, so that equal images give equal reports."""
        return asdict(self) | {"image": self.image.name}


def toolchain_for(board: Board, preference: str = "auto") -> Toolchain:
    """The compiler for a board: the machine's own for `host`, else as arm_toolchain. Raises ToolchainError."""
    return host_toolchain() if board.is_host else arm_toolchain(preference)


def build_image(
    board: Board, export_folder: Path, work: Path, toolchain: Toolchain, optimize: str = "2", *, sanitize: bool = False
) -> ImageReport:
    """Builds the firmware of an exported network.

    Args:
        export_folder: the generated C, network_config.h included.
        work: where firmware.elf, .bin, .hex, .map and image.json go (`firmware` and image.json for board `host`).
        optimize: the compiler's -O level, "s", "2" or "3".
        sanitize: address and undefined-behaviour sanitizers; board `host` only.
    Raises:
        FitError: a region overflows; nothing is left in `work`.
        ToolchainError: the compiler failed.
        ArtifactError: the export is not there.
    """
    if not (export_folder / "network_config.h").is_file():
        raise ArtifactError(
            f"{export_folder}/network_config.h not found: run the export first (python -m firmware_export RECIPE)"
        )
    generated = [*export_folder.glob("*.c"), BOARDS / "main.c"]
    sources = [*generated, *runtime_files(generated)]
    return link_image(board, sources, [RUNTIME, export_folder], work, toolchain, optimize, sanitize=sanitize)


def link_image(
    board: Board,
    sources: Sequence[Path],
    includes: Sequence[Path],
    work: Path,
    toolchain: Toolchain,
    optimize: str = "2",
    *,
    sanitize: bool = False,
) -> ImageReport:
    """As build_image, of any program: `sources` hold main, the board's own files are added."""
    work.mkdir(parents=True, exist_ok=True)
    everything = sorted([*sources, *board_sources(board)], key=lambda path: (path.name, str(path)))
    flags = toolchain.compile_flags(board.core, board.fpu, optimize) + list(SANITIZE if sanitize else ())
    folders = [*includes, BOARDS, board.folder]
    build_id = _build_id(board, everything, folders, flags, toolchain)
    with tempfile.TemporaryDirectory(prefix="firmware-") as scratch:
        (Path(scratch) / "board_config.h").write_text(board_config(board))
        flags += [f'-DBOARD_BUILD_ID="{build_id}"', f"-I{scratch}", *(f"-I{folder}" for folder in folders)]
        objects = _compile(everything, Path(scratch), flags, toolchain)
        if board.is_host:
            memory, image = _link_host(objects, work, toolchain, SANITIZE if sanitize else ())
        else:
            memory, image = _link_board(board, objects, Path(scratch), work, toolchain)
    report = _report(board, memory, image, toolchain, optimize, build_id)
    write_json_atomic(work / "image.json", report.to_json())
    return report


def board_sources(board: Board) -> list[Path]:
    """The C files of a board: its own and, on every core but the host's, start-up, memory functions and UART."""
    shared = () if board.is_host else ("startup.c", "memory.c", "stm32_board.c")
    return [board.folder / "board.c", *(BOARDS / name for name in shared)]


def board_config(board: Board) -> str:
    """board_config.h: board.toml as macros."""
    values: dict[str, str] = {"NAME": f'"{board.name}"', "CORE": f'"{board.core}"'}
    if board.uart is not None:
        values |= {
            "CLOCK_HZ": f"{board.clock_hz}u",
            "CRYSTAL_HZ": f"{board.crystal_hz}u",
            "HAS_FPU": str(int(board.fpu != "none")),
            "HAS_DWT": str(int(CORES[board.core].dwt)),
            "STACK_BYTES": f"{board.stack_bytes}u",
            "UART_DRIVER": f'"{board.uart.driver}.h"',
            "UART_BASE": f"{board.uart.base:#010x}u",
            "UART_IRQ": f"{board.uart.irq}u",
            "UART_BAUD": f"{board.uart.baud}u",
            "UART_RING": f"{board.uart.ring}u",
        }
    macros = "".join(f"#define BOARD_{key} {value}\n" for key, value in values.items())
    return f"/* From boards/{board.name}/board.toml. */\n#ifndef BOARD_CONFIG_H\n#define BOARD_CONFIG_H\n\n{macros}\n#endif\n"


def linker_script(board: Board, sizes: dict[str, int] | None = None) -> str:
    """firmware.ld.in with the board's regions; `sizes` replaces the real ones to measure an image that does not fit."""
    sizes = sizes or {memory.name: memory.size for memory in board.memory}
    regions = [f"    {m.name} ({_access(m)}) : ORIGIN = {m.origin:#010x}, LENGTH = {sizes[m.name]}" for m in board.memory]
    text = (BOARDS / "firmware.ld.in").read_text()
    values = {
        "MEMORY": "\n".join(regions),
        "CODE": board.code.name,
        "DATA": board.data,
        "ACTIVATIONS": board.activations,
        "OVERFLOW": OVERFLOW_SECTION.format(region=board.activations_overflow) if board.activations_overflow else "",
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _access(memory: Memory) -> str:
    return "rx" if memory.kind == "flash" else "rwx"


def _build_id(
    board: Board, sources: Sequence[Path], folders: Sequence[Path], flags: Sequence[str], toolchain: Toolchain
) -> str:
    """16 hexadecimal digits over everything that decides the image: sources, headers, board, flags, compiler."""
    digest = hashlib.sha256("\0".join([*flags, toolchain.label, board_config(board)]).encode())
    if not board.is_host:
        digest.update(linker_script(board).encode())
    for path in [*sources, *_headers(sources, folders)]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _headers(sources: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    """Every header that the sources include, directly or not, and all of boards/ (one of them is chosen by a macro)."""
    found = {path.resolve(): path for path in BOARDS.glob("*.h")}
    waiting = [*sources, *found]
    while waiting:
        path = waiting.pop()
        for name in _INCLUDE.findall(path.read_text()):
            header = next((f / name for f in (path.parent, *folders) if (f / name).is_file()), None)
            if header is not None and header.resolve() not in found:
                found[header.resolve()] = header
                waiting.append(header)
    return sorted(found.values(), key=lambda path: (path.name, str(path)))


def _compile(sources: Sequence[Path], folder: Path, flags: Sequence[str], toolchain: Toolchain) -> list[Path]:
    objects = []
    for number, source in enumerate(sources):
        output = folder / f"{number:03}_{source.stem}.o"
        # The loops of memory.c must not be turned into calls of the functions they implement.
        extra = ["-fno-builtin"] if source == BOARDS / "memory.c" else []
        if extra and toolchain.kind == "gcc":
            extra.append("-fno-tree-loop-distribute-patterns")
        toolchain.compile(source, output, [*flags, *extra])
        objects.append(output)
    return objects


def _link_host(objects: Sequence[Path], work: Path, toolchain: Toolchain, sanitize: Sequence[str]) -> tuple[ImageMemory, Path]:
    image = work / "firmware"
    flags = [*toolchain.target_flags("host", "none"), *sanitize, "-Wl,--gc-sections", "-Wl,--build-id=none"]
    toolchain.run([*flags, *map(str, objects), "-o", str(image)], "linking firmware")
    return read_memory(image), image


def _link_board(
    board: Board, objects: Sequence[Path], scratch: Path, work: Path, toolchain: Toolchain
) -> tuple[ImageMemory, Path]:
    script, image = scratch / "firmware.ld", scratch / "firmware.elf"
    script.write_text(linker_script(board))
    try:
        toolchain.link(objects, image, script, board.core, board.fpu)
    except ToolchainError:
        _raise_if_too_large(board, objects, scratch, toolchain)
        raise
    memory = read_memory(image)
    binary = flash_image(image, board.code.origin, board.code.size)
    write_bytes_atomic(work / "firmware.elf", image.read_bytes())
    write_bytes_atomic(work / "firmware.bin", binary)
    write_text_atomic(work / "firmware.hex", intel_hex(binary, board.code.origin))
    write_text_atomic(work / "firmware.map", map_text(memory))
    return memory, work / "firmware.elf"


def _raise_if_too_large(board: Board, objects: Sequence[Path], scratch: Path, toolchain: Toolchain) -> None:
    """Links again with room for everything: what then lies beyond a real region's end is what did not fit."""
    script, image = scratch / "huge.ld", scratch / "huge.elf"
    script.write_text(linker_script(board, {memory.name: _HUGE for memory in board.memory}))
    toolchain.link(objects, image, script, board.core, board.fpu)
    used = read_memory(image)
    over = [memory for memory in board.memory if used.used(memory.origin, _HUGE) > memory.size]
    if over:
        worst = max(over, key=lambda memory: used.used(memory.origin, _HUGE) - memory.size)
        largest = [(c.name, c.size) for c in used.largest(worst.origin, _HUGE)]
        raise FitError(board.name, worst.name, used.used(worst.origin, _HUGE), worst.size, largest)


def _report(board: Board, memory: ImageMemory, image: Path, toolchain: Toolchain, optimize: str, build_id: str) -> ImageReport:
    regions = tuple(
        RegionUse(
            region.name,
            memory.used(region.origin, region.size),
            region.size,
            tuple((c.name, c.size) for c in memory.largest(region.origin, region.size)),
        )
        for region in board.memory
    )
    sizes = memory.flash_bytes, memory.ram_bytes, memory.stack_bytes
    return ImageReport(board.name, toolchain.label, optimize, build_id, image, *sizes, regions)
