"""Ctrl-C while a program is still loading its modules: one line, no traceback, and the shell's code for an interrupt."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_as_program(folder: Path, statement: str) -> subprocess.CompletedProcess[str]:
    """A program like those here that has loaded `recipes` and then meets the statement."""
    (folder / "__main__.py").write_text(f"import recipes\n{statement}\n")
    return subprocess.run(
        [sys.executable, str(folder / "__main__.py")], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )


def test_an_interrupt_while_loading_is_one_line(tmp_path: Path) -> None:
    result = run_as_program(tmp_path, "raise KeyboardInterrupt")
    assert result.stderr == "error: interrupted; nothing was begun\n" and result.stdout == ""
    assert result.returncode == -signal.SIGINT, "what a shell shows as 130"


@pytest.mark.parametrize("statement", ["import no_such_module", "1 / 0"])
def test_other_errors_while_loading_keep_their_traceback(tmp_path: Path, statement: str) -> None:
    """A broken installation must be seen as it is."""
    result = run_as_program(tmp_path, statement)
    assert result.returncode == 1 and result.stderr.startswith("Traceback") and "Error" in result.stderr


def test_who_imports_a_part_keeps_the_hook_as_it_was() -> None:
    program = "import sys, recipes; assert sys.excepthook is sys.__excepthook__"
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, timeout=60).returncode == 0
