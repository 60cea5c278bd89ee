"""boards/memory.c against Python: compiled for this machine under other names, every alignment and size."""

from __future__ import annotations

import ctypes
import itertools
import random
import subprocess
from pathlib import Path

import pytest

from firmware_export.board import BOARDS
from firmware_export.image import SANITIZE
from firmware_export.toolchain import host_toolchain

NAMES = ("memcpy", "memmove", "memset", "memcmp")
GUARD = 0xEE
SIZE = 96


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The four functions as board_memcpy, ..."""
    output = tmp_path_factory.mktemp("memory") / "memory.so"
    tools = host_toolchain()
    renamed = [f"-D{name}=board_{name}" for name in NAMES]
    flags = [*tools.compile_flags("host", "none", "2"), "-fno-builtin", "-shared", "-fPIC", *renamed]
    tools.run([*flags, str(BOARDS / "memory.c"), "-o", str(output)], "compiling memory.c")
    loaded = ctypes.CDLL(str(output))
    for name in ("memcpy", "memmove", "memset"):
        getattr(loaded, f"board_{name}").restype = ctypes.c_void_p
    return loaded


def buffer(content: bytes) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """A buffer and the address in it that is a multiple of 8 and has `content`."""
    raw = ctypes.create_string_buffer(len(content) + 8)
    shift = -ctypes.addressof(raw) % 8
    ctypes.memmove(ctypes.addressof(raw) + shift, content, len(content))
    return raw, ctypes.addressof(raw) + shift


def call(library: ctypes.CDLL, name: str, first: int, second: int, size: int) -> int:
    second_type = ctypes.c_int if name == "memset" else ctypes.c_void_p
    return int(getattr(library, f"board_{name}")(ctypes.c_void_p(first), second_type(second), ctypes.c_size_t(size)))


@pytest.mark.parametrize("name", ["memcpy", "memmove"])
def test_copy_of_every_size_and_alignment(library: ctypes.CDLL, name: str) -> None:
    source = random.Random(1).randbytes(SIZE)
    source_raw, source_at = buffer(source)
    for size, to, start in itertools.product([*range(20), 63, 64, 65], range(5), range(5)):
        raw, at = buffer(bytes([GUARD]) * SIZE)
        assert call(library, name, at + to, source_at + start, size) == at + to
        expected = bytes([GUARD]) * to + source[start : start + size] + bytes([GUARD]) * (SIZE - to - size)
        assert ctypes.string_at(at, SIZE) == expected
        del raw
    assert ctypes.string_at(source_at, SIZE) == source
    del source_raw


def test_move_within_one_buffer(library: ctypes.CDLL) -> None:
    content = random.Random(2).randbytes(SIZE)
    for size, to, start in itertools.product((0, 1, 3, 4, 17, 32), range(12), range(12)):
        raw, at = buffer(content)
        call(library, "memmove", at + to, at + start, size)
        expected = bytearray(content)
        expected[to : to + size] = content[start : start + size]
        assert ctypes.string_at(at, SIZE) == bytes(expected)
        del raw


def test_set(library: ctypes.CDLL) -> None:
    for size, to, value in itertools.product([*range(20), 64], range(5), (0, 1, 255, 256 + 7, -1)):
        raw, at = buffer(bytes([GUARD]) * SIZE)
        assert call(library, "memset", at + to, value, size) == at + to
        expected = bytes([GUARD]) * to + bytes([value & 255]) * size + bytes([GUARD]) * (SIZE - to - size)
        assert ctypes.string_at(at, SIZE) == expected
        del raw


@pytest.mark.parametrize(
    ("first", "second", "sign"),
    [
        (b"", b"", 0),
        (b"abc", b"abc", 0),
        (b"abd", b"abc", 1),
        (b"abc", b"abd", -1),
        (b"\x80", b"\x7f", 1),
        (b"\x00\xff", b"\x01\x00", -1),
    ],
)
def test_compare_takes_bytes_as_unsigned(library: ctypes.CDLL, first: bytes, second: bytes, sign: int) -> None:
    (one, one_at), (two, two_at) = buffer(first), buffer(second)
    result = call(library, "memcmp", one_at, two_at, len(first))
    assert (result > 0) - (result < 0) == sign
    del one, two


def test_no_undefined_behaviour(tmp_path: Path) -> None:
    """Misaligned words and overruns, under the sanitizers where the host's compiler has them."""
    tools = host_toolchain()
    if tools.kind == "zig":
        pytest.skip("zig has no address sanitizer for C")
    main = tmp_path / "main.c"
    main.write_text("""
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
void *board_memcpy(void *restrict, const void *restrict, size_t);
void *board_memmove(void *, const void *, size_t);
void *board_memset(void *, int, size_t);
int board_memcmp(const void *, const void *, size_t);
int main(void) {
    for (size_t size = 0; size < 24; size++) {
        for (size_t shift = 0; shift < 4; shift++) {
            uint8_t *to = malloc(size + shift), *from = malloc(size + shift);
            board_memset(from + shift, 7, size);
            board_memcpy(to + shift, from + shift, size);
            board_memmove(to + shift, to + shift, size);
            if (board_memcmp(to + shift, from + shift, size) != 0) {
                return 1;
            }
            free(to);
            free(from);
        }
    }
    return 0;
}
""")
    flags = [*tools.compile_flags("host", "none", "2"), "-fno-builtin", *SANITIZE]
    flags += [f"-D{name}=board_{name}" for name in NAMES]
    tools.run([*flags, str(main), str(BOARDS / "memory.c"), "-o", str(tmp_path / "program")], "compiling")
    assert subprocess.run([str(tmp_path / "program")], timeout=30).returncode == 0
