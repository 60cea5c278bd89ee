"""`python -m firmware_export.tables`: the README's tables of operators and boards, from the code itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from firmware_export.board import Board, board_names, load_board
from firmware_export.operators import registry


def operator_table() -> str:
    """A Markdown table: operator, the TFLite and ONNX names it reads, what it computes."""
    rows = [
        (f"`{name}`", ", ".join(operator.tflite) or "-", ", ".join(operator.onnx) or "-", _first_line(operator))
        for name, operator in registry().items()
    ]
    return _markdown(("operator", "TFLite", "ONNX (between Q and DQ)", "what it computes"), rows)


def board_table() -> str:
    """A Markdown table: board, core, clock, memory, serial port, where its image runs without the board."""
    boards = [load_board(name) for name in board_names()]
    rows = [(f"`{b.name}`", b.title, b.core, _clock(b), _memory(b), _serial(b), _runs_on(b)) for b in boards]
    return _markdown(("board", "part", "core", "clock", "memory", "serial port", "runs without the board on"), rows)


def _first_line(operator: object) -> str:
    text = (type(operator).__doc__ or "").split("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")


def _clock(board: Board) -> str:
    return f"{board.clock_hz // 1_000_000} MHz" if board.clock_hz else "-"


def _memory(board: Board) -> str:
    return ", ".join(f"{m.name} {m.size // 1024} KB" for m in board.memory) or "-"


def _serial(board: Board) -> str:
    return board.uart.pins if board.uart else "socket"


def _runs_on(board: Board) -> str:
    if board.is_host:
        return "this computer"
    names = ["unicorn"] if board.emulator.unicorn else []
    return ", ".join(names + (["qemu"] if board.emulator.qemu_machine else []))


def _markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def main() -> None:
    """Prints both tables."""
    sys.stdout.write(f"{operator_table()}\n\n{board_table()}\n")


if __name__ == "__main__":
    main()
