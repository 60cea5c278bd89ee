"""What every test shares: one torch thread, quiet libraries, the folder of shared data sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data sets ($SHARED_DATA, or shared/data beside the checkout); skips when there is none."""
    folder = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"shared data sets not found at {folder} (set SHARED_DATA)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread() -> None:
    """Two OpenMP threads on a busy machine are up to ten times slower than one."""
    import torch

    torch.set_num_threads(1)
