"""Fashion-MNIST as the issue wants it compared: all test images on this computer, 1,000 over the emulated serial port."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from built_recipe import build_recipe
from qdq_file import mixed_file

from host_tools.__main__ import main
from host_tools.exact import LINK_IMAGES
from host_tools.results import read_results

IMAGES = 10_000


@pytest.fixture
def fashion(shared_data: Path) -> Path:
    """The folder of the publisher's files."""
    folder = shared_data / "fashion-mnist"
    if not folder.is_dir():
        pytest.skip(f"{folder} not found")
    return folder


@pytest.fixture
def recipe(tmp_path: Path, fashion: Path) -> Callable[[], list[str]]:
    """Builds a network of every operator with random weights for 28x28 images; gives the words that name it."""

    def build() -> list[str]:
        content = mixed_file(np.random.default_rng(28), size=28, classes=10)
        file = build_recipe(tmp_path, content, ("host", "netduinoplus2"))
        file.write_text(file.read_text().replace("{name: digits}", f"{{name: fashion_mnist, folder: {fashion}}}"))
        return [str(file), "--build", str(tmp_path / "build")]

    return build


def exact_pairs(folder: Path) -> dict[tuple[str, str], dict[str, int]]:
    found = json.loads((folder / "build" / "tiny" / "exact" / "exact.json").read_text())["exact"]
    return {(pair["first"], pair["second"]): pair for pair in found}


def test_the_first_images_are_exact_on_the_host(recipe: Callable[[], list[str]], tmp_path: Path) -> None:
    words = recipe()
    assert main(["exact", *words, "--targets", "host", "--images", "50"]) == 0
    pairs = exact_pairs(tmp_path)
    assert len(pairs) == 10 and all(pair["bytes_different"] == 0 for pair in pairs.values())
    assert main([*words, "--target", "host", "--images", "50"]) == 0
    stored = read_results(tmp_path / "build" / "tiny" / "run" / "host")
    assert (stored.images, stored.identical) == (50, 50)
    assert stored.class_names[0] == "T-shirt/top" and len(stored.class_names) == 10
    assert "T-shirt/top" in (tmp_path / "build" / "tiny" / "run" / "host" / "report.html").read_text()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_images_are_exact(recipe: Callable[[], list[str]], tmp_path: Path) -> None:
    words = recipe()
    assert main(["exact", *words]) == 0
    for (first, second), pair in exact_pairs(tmp_path).items():
        over_a_line = {first, second} & {"host", "unicorn", "qemu"}
        assert pair["images"] == (LINK_IMAGES if over_a_line else IMAGES), (first, second)
        assert pair["bytes_different"] == 0, (first, second)
    assert main([*words, "--target", "host"]) == 0
    stored = read_results(tmp_path / "build" / "tiny" / "run" / "host")
    assert (stored.images, stored.identical) == (IMAGES, IMAGES)
