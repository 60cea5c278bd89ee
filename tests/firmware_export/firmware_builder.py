"""Builds the echo firmware for a board, once for each board and compiler in a test run."""

from __future__ import annotations

import functools
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware_export.board import board_names, load_board
from firmware_export.image import ImageReport, link_image
from firmware_export.toolchain import Toolchain, arm_toolchain

ECHO_MAIN = Path(__file__).with_name("echo_main.c")
BOARDS = [name for name in board_names() if name != "host"]
_FOLDER = tempfile.TemporaryDirectory(prefix="echo-")

needs_gcc = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed")
COMPILERS = [pytest.param("gcc", marks=needs_gcc), "zig"]
ONE_QUICK_COMPILER = [COMPILERS[0], pytest.param("zig", marks=[pytest.mark.long] if shutil.which("arm-none-eabi-gcc") else [])]
"""For tests that compile much: zig is among the long ones where gcc does the same."""
COMPILER = "gcc" if shutil.which("arm-none-eabi-gcc") else "zig"
"""For tests that need any one compiler."""


@functools.cache
def compiler(kind: str) -> Toolchain:
    """arm_toolchain(kind), asked for its version once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TOOLCHAIN", raising=False)
        return arm_toolchain(kind)


@functools.cache
def echo_image(board: str, kind: str = COMPILER) -> ImageReport:
    """echo_main.c built for a board."""
    return link_image(load_board(board), [ECHO_MAIN], [], Path(_FOLDER.name) / kind / board, compiler(kind))


@dataclass(frozen=True)
class Description:
    """The echo firmware's answer to 'h'."""

    clock_hz: int
    stack_size: int
    stack_used: int
    overruns: int
    texts: tuple[str, ...]
    """Board, core, build id, cycle unit."""

    @staticmethod
    def parse(answer: bytes) -> Description:
        """Four words and four texts, each closed by a zero byte."""
        texts = answer[16:].split(b"\0")
        assert len(texts) == 5 and texts[4] == b"", answer
        return Description(*struct.unpack_from("<4I", answer), tuple(text.decode() for text in texts[:4]))
