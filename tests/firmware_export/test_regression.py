"""Every failure that was once found and kept in tests/regression stays mended: simulator = tflite-micro = generated C."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle import gcc_or_skip
from graph_failures import kept, replay

FOLDERS = sorted(path for path in (Path(__file__).resolve().parents[1] / "regression").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_kept_failure(folder: Path) -> None:
    assert replay(folder, ("tflite-micro", "host")) == ""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_kept_failure_on_a_cortex_m4(folder: Path) -> None:
    gcc_or_skip()
    assert replay(folder, ("cortex-m4",)) == ""


def test_every_folder_is_small_and_says_what_failed() -> None:
    assert FOLDERS, "one folder is kept as an example at least"
    for folder in FOLDERS:
        assert len((folder / "README.md").read_text().splitlines()) == 1
        assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
        graph, vectors = kept(folder)
        assert len(vectors) == len(graph.inputs)
