"""What is loaded of the earlier stages: checked against each other, refused in one line where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from built_recipe import copy_recipe

import host_tools.model
from firmware_export.__main__ import main as firmware_export_main
from host_tools.model import load_model, read_info, simulated
from recipes.artifacts import ArtifactError
from recipes.recipe import load_recipe


@pytest.fixture
def recipe(built: Path, tmp_path: Path) -> Path:
    return copy_recipe(built, tmp_path)


def root(recipe: Path) -> Path:
    return recipe.parent / "build" / "tiny"


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(8).integers(-128, 128, (count, 8, 8, 1)).astype(np.int8)


def test_the_parts_fit_together(recipe: Path) -> None:
    model = load_model(root(recipe), load_recipe(recipe))
    assert model.hash == model.info["model_hash"] == model.graph.hash()
    assert model.macs == 3 * 3 * 4 * 16 + 4 * 4 * 4 * 10
    assert 64 + 64 <= model.activations_bytes <= 1024, "image, output of the convolution, scratch"
    assert model.output.shape == (1, 10) and model.output.dtype == "int8"
    assert model.twin[4:8] == b"TFL3" and model.onnx == (root(recipe) / "compress" / "model_int8.onnx").read_bytes()


def test_what_the_board_must_say(recipe: Path) -> None:
    model = load_model(root(recipe), load_recipe(recipe))
    expected = model.expected()
    assert (expected.hash, expected.arithmetic) == (model.hash, "double")
    assert (expected.input_size, expected.output_size) == (64, 10)
    assert (expected.input_type, expected.output_type) == ("int8", "int8")


def test_compiled_and_simulated_answers_have_one_row_for_each_image(recipe: Path) -> None:
    model = load_model(root(recipe), load_recipe(recipe))
    images = random_images(50)
    told: list[int] = []
    first, second = model.compiled(images), simulated(model.graph, images, told.append)
    assert first.shape == second.shape == (50, 10) and first.dtype == second.dtype == np.int8
    assert np.array_equal(first, second) and sum(told) == 50
    assert len(np.unique(first)) > 50


def test_a_single_image_is_a_batch_of_one(recipe: Path) -> None:
    model = load_model(root(recipe), load_recipe(recipe))
    images = random_images(3)
    assert np.array_equal(model.compiled(images[1:2])[0], model.compiled(images)[1])


def test_the_c_is_compiled_once(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    original = host_tools.model.HostNetwork

    def counted(folder: Path, name: str) -> object:
        made.append(folder)
        return original(folder, name)

    monkeypatch.setattr(host_tools.model, "HostNetwork", counted)
    model = load_model(root(recipe), load_recipe(recipe))
    for count in (1, 2, 3):
        model.compiled(random_images(count))
    assert made == [root(recipe) / "export"]


def test_another_name_of_the_generated_files(recipe: Path) -> None:
    words = [str(recipe), "firmware_export.name=digit_net", "--build", str(recipe.parent / "build")]
    assert firmware_export_main(words) == 0
    named = load_recipe(recipe, ["firmware_export.name=digit_net"])
    model = load_model(root(recipe), named)
    assert model.name == "digit_net" and np.array_equal(
        model.compiled(random_images(4)), simulated(model.graph, random_images(4))
    )
    with pytest.raises(ArtifactError, match=r"network\.tflite not found"):
        load_model(root(recipe), load_recipe(recipe))


FILES = ["compress/model_int8.onnx", "export/network.tflite", "export/network_c_info.json", "export/network_data.c"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "flipped", "cut"])
def test_a_missing_or_damaged_file_is_named(recipe: Path, name: str, damage: str) -> None:
    path = root(recipe) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(data if damage == "flipped" else data[: len(data) // 2]))
    with pytest.raises(ArtifactError, match="not found" if damage == "gone" else "is damaged") as caught:
        load_model(root(recipe), load_recipe(recipe))
    assert path.name in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 4


@pytest.mark.parametrize("key", ["macs", "layers", "memory", "constants_bytes"])
def test_a_description_without_a_key_is_refused(recipe: Path, key: str) -> None:
    path = root(recipe) / "export" / "network_c_info.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not a version 1 network description"):
        read_info(path.parent, "network")


def test_a_description_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"net_c_info\.json not found; run python -m firmware_export again"):
        read_info(tmp_path, "net")
