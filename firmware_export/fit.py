"""Does a model fit a board, before anything is built: estimates of flash and RAM. The build (image.py) has the true figures.

Constants and activations are exact. Code is estimated from the size of the C files that the network needs; the factors were
measured with arm-none-eabi-gcc -Os and are held by the tests against built images.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from firmware_export.board import BOARDS, Board
from firmware_export.graph import Graph
from firmware_export.hostlib import RUNTIME, runtime_files
from firmware_export.plan import Plan
from firmware_export.stored_constants import stored_bytes
from firmware_export.target import CORE_CLASSES

FIRMWARE_SOURCES = ("main.c", "startup.c", "memory.c", "stm32_board.c")
"""Of boards/: what is in every image beside the board's own board.c."""
CODE_PER_CHARACTER = 0.175
"""Bytes of Thumb code for a character of C without comments, unused functions left out by the linker."""
LAYER_BYTES = 90
"""Parameters and the call of one layer."""
LIBRARY_BYTES = {"v6m": 1600}
"""Division, 64-bit products and floats that the compiler's library adds on a core class."""
OTHER_LIBRARY_BYTES = 1200
VARIABLE_BYTES = 1128
"""Variables of the server and the board, beside the UART's ring."""
ROOM_MARGIN = 256
GRANULE = 16
"""Of rooms: NN_ALIGNMENT."""


@dataclass(frozen=True)
class RegionNeed:
    """Bytes that one memory region is estimated to need, and has."""

    name: str
    needed: int
    size: int


@dataclass(frozen=True)
class Fit:
    """One board. short_of: the region that lacks most, "" when everything fits; short_bytes: how much."""

    board: str
    core: str
    flash: RegionNeed
    ram: tuple[RegionNeed, ...]
    short_of: str
    short_bytes: int

    @property
    def fits(self) -> bool:
        """Whether every region is large enough."""
        return not self.short_of

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"fits": self.fits}


def estimate(graph: Graph, plan: Plan, board: Board, vectors: int) -> Fit:
    """What the firmware of a network needs on a board.

    Args:
        plan: for the board's core.
        vectors: known answers in the image (firmware_export.selftest_vectors).
    """
    constants = stored_bytes(plan.codes)
    answers = vectors * sum(graph.tensors[index].nbytes for index in graph.outputs)
    flash = RegionNeed(board.code.name, constants + answers + _code_bytes(plan, board), board.code.size)
    needs = dict.fromkeys((board.data, board.activations), 0)
    needs[board.data] += _data_bytes(board)
    within = plan.size if not board.activations_overflow else min(plan.size, activation_rooms(board)[0])
    needs[board.activations] += within
    if within < plan.size:
        needs[board.activations_overflow] = needs.get(board.activations_overflow, 0) + plan.size - within
    ram = tuple(RegionNeed(name, needed, board.region(name).size) for name, needed in needs.items())
    worst = max((flash, *ram), key=lambda need: need.needed - need.size)
    short = max(0, worst.needed - worst.size)
    return Fit(board.name, board.core, flash, ram, worst.name if short else "", short)


def _data_bytes(board: Board) -> int:
    """Stack and variables."""
    return board.stack_bytes + (0 if board.uart is None else board.uart.ring) + VARIABLE_BYTES


def activation_rooms(board: Board) -> tuple[int, ...]:
    """Bytes that activations can have in the board's region for them and, if it has one, in that for what does not fit it.

    Where stack and variables lie too, ROOM_MARGIN is kept, by which the estimate of variables may be wrong.
    """
    names = [name for name in (board.activations, board.activations_overflow) if name]
    taken = {board.data: _data_bytes(board) + ROOM_MARGIN}
    return tuple(max(0, board.region(name).size - taken.get(name, 0)) // GRANULE * GRANULE for name in names)


def _code_bytes(plan: Plan, board: Board) -> int:
    kernels = [RUNTIME / source for code in plan.codes for source in code.sources]
    fixed = [*(BOARDS / name for name in FIRMWARE_SOURCES), board.folder / "board.c"]
    core_class = CORE_CLASSES[board.core]
    code = sum(_file_bytes(path) for path in {*fixed, *runtime_files([*kernels, BOARDS / "main.c"]), *kernels})
    return code + LAYER_BYTES * len(plan.codes) + LIBRARY_BYTES.get(core_class, OTHER_LIBRARY_BYTES)


@cache
def _file_bytes(path: Path) -> int:
    text = re.sub(r"/\*.*?\*/|//[^\n]*|\s+", " ", path.read_text(), flags=re.DOTALL)
    return round(len(re.sub(" +", " ", text)) * CODE_PER_CHARACTER)
