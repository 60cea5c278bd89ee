"""Everything that programs read beside their Python is installed with them: pyproject's package data against the files."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("recipes", "train", "compress", "firmware_export", "host_tools")


def files_of(package: str) -> set[Path]:
    """Files of a package that are neither Python nor text for people, as git knows them."""
    command = ["git", "ls-files", "-co", "--exclude-standard", package]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return {ROOT / name for name in listed if name and (ROOT / name).is_file() and Path(name).suffix not in (".py", ".md")}


def installed(package: str) -> set[Path]:
    """What the patterns of package data take, by the rules of Python's own globs, which setuptools uses."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"].get(package, [])
    return {path for pattern in patterns for path in (ROOT / package).glob(pattern) if path.is_file()}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_that_is_not_python_is_installed(package: str) -> None:
    missing = files_of(package) - installed(package)
    assert not missing, f"not in [tool.setuptools.package-data]: {sorted(str(path.relative_to(ROOT)) for path in missing)}"


def test_the_packages_are_those_that_are_found() -> None:
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(patterns) == sorted(f"{package}*" for package in PACKAGES)
    assert PROJECT["tool"]["setuptools"]["package-data"].keys() <= set(PACKAGES)


def test_files_are_seen_at_all() -> None:
    assert ROOT / "firmware_export" / "runtime" / "nn.h" in files_of("firmware_export") & installed("firmware_export")
    assert any(path.suffix == ".yaml" for path in files_of("recipes"))
