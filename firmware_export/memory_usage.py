"""What a linked image really uses: bytes of every region, the largest symbols, a readable map. Read from the ELF file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from firmware_export.toolchain import ToolchainError

_WRITE, _ALLOC = 1, 2  # sh_flags
STACK_SECTION = ".stack"


@dataclass(frozen=True)
class ImageSection:
    """A section that takes memory. address: where it runs; load_address: where flash holds it; loaded: has bytes in flash."""

    name: str
    address: int
    load_address: int
    size: int
    loaded: bool
    writable: bool


@dataclass(frozen=True)
class Contributor:
    """A function, table, variable or the stack (startup.c), and the bytes it takes at an address."""

    name: str
    address: int
    size: int


@dataclass(frozen=True)
class ImageMemory:
    """Every section and symbol of an image."""

    sections: tuple[ImageSection, ...]
    symbols: tuple[Contributor, ...]

    @property
    def flash_bytes(self) -> int:
        """Bytes in flash: code, constants and the initial values of variables."""
        return sum(section.size for section in self.sections if section.loaded)

    @property
    def ram_bytes(self) -> int:
        """Bytes of variables and buffers, without the stack."""
        return sum(s.size for s in self.sections if (s.writable or not s.loaded) and s.name != STACK_SECTION)

    @property
    def stack_bytes(self) -> int:
        """Bytes reserved for the stack."""
        return sum(section.size for section in self.sections if section.name == STACK_SECTION)

    def used(self, origin: int, size: int) -> int:
        """Bytes from `origin` to the end of what lies in [origin, origin + size), gaps included."""
        ends = [0]
        for section in self.sections:
            for start in {section.address, section.load_address if section.loaded else section.address}:
                if origin <= start < origin + size:
                    ends.append(start + section.size - origin)
        return max(ends)

    def largest(self, origin: int, size: int, count: int = 3) -> list[Contributor]:
        """The largest symbols inside [origin, origin + size)."""
        inside = [symbol for symbol in self.symbols if origin <= symbol.address < origin + size]
        return sorted(inside, key=lambda symbol: (-symbol.size, symbol.name))[:count]


def read_memory(elf: Path) -> ImageMemory:
    """Sections and symbols of an ELF file.

    Raises:
        ToolchainError: the file is not an ELF file.
    """
    try:
        with elf.open("rb") as stream:
            file = ELFFile(stream)
            sections = tuple(_sections(file))
            return ImageMemory(sections, tuple(_symbols(file)))
    except ELFError as error:
        raise ToolchainError(f"{elf} is not an ELF file ({error}); delete it and build again") from None


def _sections(file: ELFFile) -> Iterable[ImageSection]:
    for section in file.iter_sections():
        header = section.header
        if header.sh_flags & _ALLOC and header.sh_size > 0:
            loaded = header.sh_type != "SHT_NOBITS"
            load = _load_address(file, header) if loaded else header.sh_addr
            yield ImageSection(section.name, header.sh_addr, load, header.sh_size, loaded, bool(header.sh_flags & _WRITE))


def _load_address(file: ELFFile, header: object) -> int:
    """A section's physical address: that of its segment, as far in as the section lies in the file."""
    address, offset = header.sh_addr, header.sh_offset  # type: ignore[attr-defined]
    for segment in file.iter_segments("PT_LOAD"):
        if segment["p_offset"] <= offset < segment["p_offset"] + segment["p_filesz"]:
            return int(segment["p_paddr"] + offset - segment["p_offset"])
    return int(address)


def _symbols(file: ELFFile) -> Iterable[Contributor]:
    table = file.get_section_by_name(".symtab")
    for symbol in table.iter_symbols() if table is not None else ():
        if (
            symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT")
            and symbol["st_size"] > 0
            and symbol["st_shndx"] != "SHN_UNDEF"
        ):
            address = symbol["st_value"]
            if symbol["st_info"]["type"] == "STT_FUNC" and file["e_machine"] == "EM_ARM":
                address &= ~1  # bit 0 says Thumb
            yield Contributor(symbol.name, address, symbol["st_size"])


def flash_image(elf: Path, origin: int, size: int) -> bytes:
    """The bytes of flash from `origin` on, gaps filled with 0 as objcopy does.

    Raises:
        ToolchainError: the file has bytes outside [origin, origin + size), or is not an ELF file.
    """
    image = bytearray()
    try:
        with elf.open("rb") as stream:
            for segment in sorted(ELFFile(stream).iter_segments("PT_LOAD"), key=lambda s: s["p_paddr"]):
                start, count = segment["p_paddr"], segment["p_filesz"]
                if count > 0:
                    if start < origin + len(image) or start + count > origin + size:
                        where = f"{start:#010x}; the flash has {size:,} bytes at {origin:#010x}"
                        raise ToolchainError(f"{elf} has {count:,} bytes at {where}; build it for this board")
                    image += bytes(start - origin - len(image)) + segment.data()
    except ELFError as error:
        raise ToolchainError(f"{elf} is not an ELF file ({error}); delete it and build again") from None
    return bytes(image)


def intel_hex(image: bytes, origin: int) -> str:
    """An Intel HEX file: extended linear address records every 64 KB, 16 bytes a line, end record."""
    lines = []
    for start in range(0, len(image), 16):
        address = origin + start
        if start == 0 or address % 65536 == 0:
            lines.append(_hex_record(0, 4, (address >> 16).to_bytes(2, "big")))
        lines.append(_hex_record(address & 0xFFFF, 0, image[start : start + 16]))
    return "\n".join([*lines, _hex_record(0, 1, b"")]) + "\n"


def _hex_record(address: int, kind: int, data: bytes) -> str:
    body = bytes([len(data)]) + address.to_bytes(2, "big") + bytes([kind]) + data
    return ":" + (body + bytes([-sum(body) & 0xFF])).hex().upper()


def map_text(memory: ImageMemory) -> str:
    """A map for people: sections, then symbols by address. The same for every linker."""
    lines = ["section            address      load      bytes"]
    lines += [f"{s.name:<16} {s.address:#010x} {s.load_address:#010x} {s.size:>9}" for s in memory.sections]
    lines += ["", "   address     bytes symbol"]
    ordered = sorted(memory.symbols, key=lambda symbol: (symbol.address, symbol.name))
    return "\n".join(lines + [f"{s.address:#010x} {s.size:>9} {s.name}" for s in ordered]) + "\n"
