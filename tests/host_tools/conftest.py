"""Makes the modules beside the tests importable, and the simulated board available to every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from built_recipe import build_recipe
from simulated_board import SimulatedBoard, build_simulated_board


@pytest.fixture(scope="session")
def simulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C server on a board of two byte queues, as a shared library."""
    return build_simulated_board(tmp_path_factory.mktemp("simulated"))


@pytest.fixture
def board(simulated_library: Path) -> Iterator[SimulatedBoard]:
    """A freshly started simulated board."""
    yield SimulatedBoard(simulated_library)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a recipe that is built up to the firmware of board `host`; copy it before changing anything."""
    return build_recipe(tmp_path_factory.mktemp("built"))
