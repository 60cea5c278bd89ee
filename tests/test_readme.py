"""The README tells the truth: its tables come from the code, its targets, commands, options and files exist."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_export.tables import board_table, operator_table
from recipes.artifacts import PipelineError

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("table", [operator_table, board_table])
def test_tables_are_those_of_the_code(table: object) -> None:
    assert callable(table)
    assert table() in TEXT, "run `python -m firmware_export.tables` and put its tables into README.md"


def test_tables_have_a_row_for_every_file() -> None:
    operators = {p.stem for p in (ROOT / "firmware_export" / "operators").glob("[a-z]*.py")}
    boards = {p.parent.name for p in (ROOT / "firmware_export" / "boards").glob("*/board.toml")}
    assert set(re.findall(r"^\| `(\w+)` \|", operator_table(), re.MULTILINE)) == operators
    assert set(re.findall(r"^\| `(\w+)` \|", board_table(), re.MULTILINE)) == boards


def test_make_targets_exist() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE))
    used = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", TEXT, re.MULTILINE))
    assert {a or b for a, b in used} <= known


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_programs_have_a_help_that_names_what_the_readme_uses() -> None:
    for line in re.findall(r"^\.venv/bin/python -m (.+)$", TEXT, re.MULTILINE):
        words = line.split("#")[0].split()
        shown = subprocess.run(
            [sys.executable, "-m", words[0], "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for option in (w for w in words if w.startswith("--")):
            assert option in shown, line


def exit_codes() -> dict[int, str]:
    """The README's list of exit codes."""
    part = TEXT[TEXT.index("Exit codes:") :].split("\n\n")[0]
    return {int(n): text for n, text in re.findall(r"(\d+) ([a-z][^,(.]*)", " ".join(part.split()))}


def all_errors(base: type[PipelineError]) -> set[type[PipelineError]]:
    return {base} | {e for sub in base.__subclasses__() for e in all_errors(sub)}


def test_every_error_class_has_a_documented_exit_code() -> None:
    for module in ("train.loop", "compress.method", "firmware_export.export", "firmware_export.image", "host_tools.link"):
        importlib.import_module(module)
    errors = all_errors(PipelineError)
    assert len(errors) >= 9
    for error in errors:
        assert error.exit_code in exit_codes(), f"{error.__name__} leaves with {error.exit_code}"


def test_no_placeholder_is_left() -> None:
    assert "@@" not in TEXT
