"""The real firmware image through the whole program on both emulators: same answers, same number of instructions."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_recipe import FIGURES, change_manifest, copy_recipe
from qdq_file import digits_file

from firmware_export.__main__ import main as firmware_export_main
from host_tools.__main__ import main
from host_tools.errors import LinkError
from host_tools.results import Results, read_answers, read_results
from recipes.artifacts import Stage, write_bytes_atomic
from recipes.recipe import DataSection
from train.data import load_dataset

IMAGES = 25
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")


@pytest.fixture(scope="module")
def recipe(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built recipe with the firmware of the virtual board too."""
    copied = copy_recipe(built, tmp_path_factory.mktemp("virtual"))
    assert firmware_export_main([str(copied), "--build", str(copied.parent / "build"), "--board", "netduinoplus2"]) == 0
    return copied


def run(recipe: Path, target: str, *options: str) -> Results:
    words = [str(recipe), "--build", str(recipe.parent / "build"), "--target", target, "--images", str(IMAGES)]
    assert main([*words, *options]) == 0
    return read_results(folder(recipe, target))


def folder(recipe: Path, target: str) -> Path:
    return recipe.parent / "build" / "tiny" / "run" / target


def image_figures(recipe: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (recipe.parent / "build" / "tiny" / "firmware" / "netduinoplus2" / "image.json").read_text()
    )
    return content


def test_the_image_answers_right_and_its_figures_are_those_of_the_image(recipe: Path) -> None:
    found = run(recipe, "unicorn")
    image = image_figures(recipe)
    assert (found.identical, found.different, found.device.selftest) == (IMAGES, 0, "passed")
    assert (found.flash_bytes, found.ram_bytes, found.stack_bytes) == (
        image["flash_bytes"],
        image["ram_bytes"],
        image["stack_bytes"],
    )
    assert found.device.build_id == image["build_id"] and found.device.core == "cortex-m4"
    assert found.stack_used_bytes is not None and 0 < found.stack_used_bytes < image["stack_bytes"]
    assert all(layer.identical for layer in found.layers) and len(found.layers) == 3


def test_instructions_are_counted_image_by_image(recipe: Path) -> None:
    found = run(recipe, "unicorn")
    counts = read_answers(folder(recipe, "unicorn")).counts
    assert found.cycles is not None and found.cycles.unit == "instructions"
    assert (found.cycles.minimum, found.cycles.maximum) == (counts.min(), counts.max())
    assert found.instructions_per_inference == round(float(np.mean(counts)))
    assert found.macs < found.instructions_per_inference < 100 * found.macs


@needs_qemu
def test_both_emulators_agree_on_answers_and_instructions(recipe: Path) -> None:
    unicorn, qemu = run(recipe, "unicorn"), run(recipe, "qemu")
    first, second = read_answers(folder(recipe, "unicorn")), read_answers(folder(recipe, "qemu"))
    assert np.array_equal(first.device, second.device)
    assert np.array_equal(first.counts, second.counts)
    assert unicorn.instructions_per_inference == qemu.instructions_per_inference
    assert unicorn.device.build_id == qemu.device.build_id


@needs_qemu
def test_the_whole_matrix_is_exact(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["exact", str(recipe), "--build", str(recipe.parent / "build"), "--images", str(IMAGES)]
    assert main(words) == 0
    found = json.loads((recipe.parent / "build" / "tiny" / "exact" / "exact.json").read_text())
    assert found["left_out"] == {}
    assert found["boards"] == {"host": "host", "unicorn": "netduinoplus2", "qemu": "netduinoplus2"}
    assert len(found["exact"]) == 21  # every two of seven
    assert all(pair["images"] == IMAGES and pair["bytes_different"] == 0 for pair in found["exact"])
    header = next(line for line in capsys.readouterr().out.split("\n") if line.startswith("bytes differing/compared"))
    assert header.split()[-3:] == ["host", "unicorn", "qemu"]


def test_the_layers_of_the_image_are_those_of_the_simulator(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(recipe), "--build", str(recipe.parent / "build"), "--target", "unicorn"]
    assert main(["layers", *words, "--image", "11"]) == 0
    assert "all 3 layers of image 11 identical on unicorn" in capsys.readouterr().out
    assert main(["selftest", *words]) == 0 and main(["info", *words]) == 0
    assert "netduinoplus2" in capsys.readouterr().out


def test_firmware_of_another_model_is_refused(recipe: Path, tmp_path: Path) -> None:
    """The image stays, the model is exported anew with other weights: nothing may be measured by accident."""
    other = copy_recipe(recipe, tmp_path)
    root = tmp_path / "build" / "tiny"
    old = (root / "firmware" / "netduinoplus2" / "firmware.elf").read_bytes()
    change_model(root)
    assert firmware_export_main([str(other), "--build", str(tmp_path / "build"), "--board", "netduinoplus2"]) == 0
    put_back(root / "firmware" / "netduinoplus2", old)
    with pytest.raises(LinkError, match="another model"):
        run(other, "unicorn")


def test_an_old_image_on_the_board_is_refused(recipe: Path, tmp_path: Path) -> None:
    """The same model and another build: instructions, flash and stack would not be those of the image that answers."""
    other = copy_recipe(recipe, tmp_path)
    root = tmp_path / "build" / "tiny"
    old = (root / "firmware" / "netduinoplus2" / "firmware.elf").read_bytes()
    words = [str(other), "firmware_export.compiler_level=3", "--build", str(tmp_path / "build"), "--board", "netduinoplus2"]
    assert firmware_export_main(words) == 0
    put_back(root / "firmware" / "netduinoplus2", old)
    with pytest.raises(LinkError, match=r"unicorn: netduinoplus2 with build .* answers, expected .* flash .*dfu-util"):
        run(other, "unicorn")


def change_model(root: Path) -> None:
    """Exports the network with five filters instead of four."""
    with Stage(root, "compress", {"channels": 5}) as stage:
        write_bytes_atomic(stage.work / "model_int8.onnx", digits_file(load_dataset(DataSection(), 1), channels=5))
        stage.finish(FIGURES, "compress: made for a test")


def put_back(firmware: Path, image: bytes) -> None:
    """Replaces the image and its entry in the manifest, as somebody who flashes an old file does."""
    digest = hashlib.sha256(image).hexdigest()
    change_manifest(firmware, lambda manifest: manifest["outputs"].update({"firmware.elf": digest}))
    (firmware / "firmware.elf").write_bytes(image)
