"""The figures that the default recipe promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.__main__ import main as compress_main
from recipes.artifacts import read_manifest
from train.__main__ import main as train_main


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_digits(tmp_path: Path) -> None:
    """int8 at least 97.5 % and at most 0.6 points under float; MACs and weights both cut by 60 % or more."""
    for program in (train_main, compress_main):
        assert program(["digits", "--build", str(tmp_path)]) == 0
    figures = read_manifest(tmp_path / "digits" / "compress")["figures"]
    accuracy = figures["accuracy"]
    assert accuracy["int8_onnx"] >= 0.975
    assert accuracy["int8_onnx"] >= accuracy["float"] - 0.006
    for kind in ("macs", "weights"):
        assert figures[kind]["final"] <= 0.4 * figures[kind]["unpruned"]
    assert figures["weights_bytes"] <= 40_000
