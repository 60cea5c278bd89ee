"""Progress: lines at the quarters where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io
import sys

import pytest

from train.progress import progress


def test_lines_at_each_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", 200, "bytes", quarters=True) as advance:
        for _ in range(20):
            advance(10)
    assert capsys.readouterr().err.splitlines() == [f"reading: {n} % of 200 bytes" for n in (25, 50, 75, 100)]


def test_one_large_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", 1_000_000, "bytes", quarters=True) as advance:
        advance(1_000_000)
    assert capsys.readouterr().err == "reading: 100 % of 1,000,000 bytes\n"


def test_steps_of_an_epoch_are_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("epoch", 3, "steps") as advance:
        for _ in range(3):
            advance(1)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress("epoch 1", 3, "steps") as advance:
        for _ in range(3):
            advance(1)
    assert "epoch 1" in screen.getvalue() and "3/3" in screen.getvalue()


def test_an_error_inside_passes_through() -> None:
    with pytest.raises(KeyError), progress("x", 1, "steps"):
        raise KeyError
