"""Reading an image's memory, on ELF files written byte by byte here: no compiler has a part in them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware_export.memory_usage import Contributor, ImageMemory, ImageSection, flash_image, intel_hex, map_text, read_memory
from firmware_export.toolchain import ToolchainError

FLASH, RAM = 0x08000000, 0x20000000
PROGBITS, SYMTAB, STRTAB, NOBITS = 1, 2, 3, 8
WRITE, ALLOC = 1, 2
OBJECT, FUNC, NOTYPE = 1, 2, 0


@dataclass
class Part:
    """A section: address in use, address in flash (None: not loaded), flags, and bytes (or how many of them)."""

    name: str
    address: int
    load: int | None
    flags: int
    content: bytes | int


def elf_file(parts: list[Part], symbols: list[tuple[str, int, int, int, int]] | None = None) -> bytes:
    """A 32-bit little-endian ARM ELF file (ELF for the ARM architecture; System V ABI, chapter 4).

    symbols: name, value, size, type, section index (1 for the first part).
    """
    names = b"\0" + b"\0".join(p.name.encode() for p in parts) + b"\0.symtab\0.strtab\0.shstrtab\0"
    texts = b"\0" + b"\0".join(s[0].encode() for s in symbols or []) + b"\0"
    table = bytes(16)
    for name, value, size, kind, section in symbols or []:
        table += struct.pack("<IIIBBH", texts.index(b"\0" + name.encode() + b"\0") + 1, value, size, kind, 0, section)
    loaded = [p for p in parts if p.load is not None]
    body, offset, headers, segments = b"", 52 + 32 * len(loaded), bytes(40), b""
    for part in parts:
        size = part.content if isinstance(part.content, int) else len(part.content)
        kind = NOBITS if isinstance(part.content, int) else PROGBITS
        place = offset + len(body)
        name = names.index(b"\0" + part.name.encode() + b"\0") + 1
        headers += struct.pack("<10I", name, kind, part.flags, part.address, place, size, 0, 0, 1, 0)
        if part.load is not None:
            segments += struct.pack("<8I", 1, place, part.address, part.load, size, size, 5, 1)
        body += b"" if isinstance(part.content, int) else part.content
    for name, kind, content, link, entry in (
        (".symtab", SYMTAB, table, len(parts) + 2, 16),
        (".strtab", STRTAB, texts, 0, 0),
        (".shstrtab", STRTAB, names, 0, 0),
    ):
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers += struct.pack("<10I", at, kind, 0, 0, offset + len(body), len(content), link, 1 if link else 0, 1, entry)
        body += content
    count = len(parts) + 4
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    fixed = struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, FLASH, 52, offset + len(body), 0, 52, 32, len(loaded), 40, count, count - 1)
    return ident + fixed + segments + body + headers


PARTS = [
    Part(".text", FLASH, FLASH, ALLOC, b"CODE" * 25),
    Part(".stack", RAM, None, ALLOC | WRITE, 256),
    Part(".data", RAM + 256, FLASH + 104, ALLOC | WRITE, b"INITIALS"),
    Part(".bss", RAM + 272, None, ALLOC | WRITE, 40),
    Part(".comment", 0, None, 0, b"not in memory"),
]
SYMBOLS = [
    ("main", FLASH + 1, 60, FUNC, 1),
    ("weights", FLASH + 60, 40, OBJECT, 1),
    ("$t", FLASH, 0, NOTYPE, 1),
    ("elsewhere", 0, 8, OBJECT, 0),
    ("empty", FLASH + 100, 0, OBJECT, 1),
    ("stack", RAM, 256, OBJECT, 2),
    ("tuned", RAM + 256, 8, OBJECT, 3),
    ("buffer", RAM + 272, 40, OBJECT, 4),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "firmware.elf"
    path.write_bytes(elf_file(PARTS, SYMBOLS))
    return path


def test_sections_and_symbols(image: Path) -> None:
    memory = read_memory(image)
    assert memory.sections == (
        ImageSection(".text", FLASH, FLASH, 100, loaded=True, writable=False),
        ImageSection(".stack", RAM, RAM, 256, loaded=False, writable=True),
        ImageSection(".data", RAM + 256, FLASH + 104, 8, loaded=True, writable=True),
        ImageSection(".bss", RAM + 272, RAM + 272, 40, loaded=False, writable=True),
    )
    assert memory.symbols == (
        Contributor("main", FLASH, 60),
        Contributor("weights", FLASH + 60, 40),
        Contributor("stack", RAM, 256),
        Contributor("tuned", RAM + 256, 8),
        Contributor("buffer", RAM + 272, 40),
    )


def test_bytes_by_kind(image: Path) -> None:
    memory = read_memory(image)
    assert memory.flash_bytes == 100 + 8, "initial values lie in flash, too"
    assert memory.ram_bytes == 8 + 40, "without the stack"
    assert memory.stack_bytes == 256


def test_regions_count_gaps(image: Path) -> None:
    memory = read_memory(image)
    assert memory.used(FLASH, 1024) == 112, "4 bytes of gap before the initial values"
    assert memory.used(RAM, 1024) == 312
    assert memory.used(0x10000000, 1024) == 0
    assert memory.used(RAM + 1024, 1024) == 0


def test_section_that_ends_behind_its_region_still_counts(image: Path) -> None:
    assert read_memory(image).used(RAM, 280) == 312


@pytest.mark.parametrize(
    ("origin", "count", "expected"),
    [
        (RAM, 3, ["stack", "buffer", "tuned"]),
        (RAM, 1, ["stack"]),
        (FLASH, 3, ["main", "weights"]),
        (0x10000000, 3, []),
    ],
)
def test_largest(image: Path, origin: int, count: int, expected: list[str]) -> None:
    assert [c.name for c in read_memory(image).largest(origin, 1024, count)] == expected


def test_equal_sizes_are_ordered_by_name() -> None:
    memory = ImageMemory((), tuple(Contributor(name, 4 * place, 4) for place, name in enumerate("cab")))
    assert [c.name for c in memory.largest(0, 100)] == ["a", "b", "c"]


def test_flash_image_fills_gaps_with_zero(image: Path) -> None:
    content = flash_image(image, FLASH, 1024)
    assert content == b"CODE" * 25 + bytes(4) + b"INITIALS"
    assert len(content) == read_memory(image).used(FLASH, 1024)
    assert flash_image(image, FLASH - 16, 1024) == bytes(16) + content


@pytest.mark.parametrize(("origin", "size"), [(FLASH + 4, 1024), (FLASH, 111), (0x10000000, 1024)])
def test_flash_image_outside_the_flash(image: Path, origin: int, size: int) -> None:
    with pytest.raises(
        ToolchainError, match=rf"bytes at 0x080000\w\w; the flash has [\d,]+ bytes at {origin:#010x}; build it for"
    ):
        flash_image(image, origin, size)


def test_overlapping_segments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "overlap.elf"
    parts = [PARTS[0], Part(".data", RAM, FLASH + 50, ALLOC | WRITE, b"INITIALS")]
    path.write_bytes(elf_file(parts))
    with pytest.raises(ToolchainError, match="build it for this board"):
        flash_image(path, FLASH, 1024)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"MZ" + bytes(100), b"\x7fELF\x01\x01\x01" + bytes(20)])
def test_what_is_not_elf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "firmware.elf"
    path.write_bytes(content)
    for read in (lambda: read_memory(path), lambda: flash_image(path, FLASH, 1024)):
        with pytest.raises(ToolchainError, match=r"firmware.elf is not an ELF file .* delete it and build again"):
            read()


def test_image_without_symbols(tmp_path: Path) -> None:
    path = tmp_path / "firmware.elf"
    path.write_bytes(elf_file(PARTS))
    assert read_memory(path).symbols == ()


def test_map_is_text_by_address(image: Path) -> None:
    lines = map_text(read_memory(image)).splitlines()
    assert lines[0].split() == ["section", "address", "load", "bytes"]
    assert lines[3].split() == [".data", "0x20000100", "0x08000068", "8"]
    assert [line.split()[2] for line in lines[7:]] == ["main", "weights", "stack", "tuned", "buffer"]


def parsed_hex(text: str) -> dict[int, int]:
    """A reader of Intel HEX: address -> byte. Checks every sum."""
    memory: dict[int, int] = {}
    upper, ended = 0, False
    for line in text.splitlines():
        assert line[0] == ":" and not ended
        record = bytes.fromhex(line[1:])
        assert sum(record) & 0xFF == 0 and record[0] == len(record) - 5
        address, kind, data = int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        if kind == 4:
            upper = int.from_bytes(data, "big") << 16
        elif kind == 1:
            ended = True
        else:
            assert kind == 0 and (address + len(data) - 1) < 65536, "no record crosses 64 KB"
            memory |= {upper + address + place: value for place, value in enumerate(data)}
    assert ended
    return memory


@pytest.mark.parametrize("origin", [FLASH, 0x0800FFF0, 0])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 300, 70000])
def test_hex_holds_every_byte(origin: int, size: int) -> None:
    image = bytes((7 * place + place // 256) & 0xFF for place in range(size))
    assert parsed_hex(intel_hex(image, origin)) == {origin + place: value for place, value in enumerate(image)}


def test_hex_of_the_format_description() -> None:
    """Intel's own example record: 16 bytes at 0x0100."""
    data = bytes.fromhex("214601360121470136007EFE09D21901")
    assert ":10010000214601360121470136007EFE09D2190140" in intel_hex(bytes(0x100) + data, 0).splitlines()
    assert intel_hex(b"", 0) == ":00000001FF\n"
