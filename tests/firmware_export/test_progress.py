"""Progress: lines at intervals for logs, nothing for short work, a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from firmware_export.progress import _Lines, progress


def test_short_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("quick", 10) as advance:
        for _ in range(10):
            advance(1)
    assert capsys.readouterr().err == ""


def test_long_work_prints_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = _Lines("slow", 1000, "images", clock=lambda: now[0])
    for _ in range(10):
        now[0] += 2.0
        lines.advance(100)
    assert capsys.readouterr().err == "slow: 30 % of 1,000 images\nslow: 60 % of 1,000 images\nslow: 90 % of 1,000 images\n"


def test_no_work_at_all_does_not_divide_by_zero() -> None:
    now = [0.0]
    lines = _Lines("none", 0, "images", clock=lambda: now[0])
    now[0] = 60.0
    lines.advance(0)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("moving", 4) as advance:
        advance(4)
    assert "moving" in terminal.getvalue() and "4/4" in terminal.getvalue()
