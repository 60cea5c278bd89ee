"""A recipe in the arithmetic float32, from the int8 model to the answers of a board; mixing arithmetics is an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from built_recipe import NAME, build_recipe

from firmware_export.__main__ import main as firmware_export_main
from firmware_export.board import load_board
from firmware_export.hostlib import HostNetwork
from host_tools.__main__ import main
from host_tools.board import open_target
from host_tools.errors import LinkError
from host_tools.exact import exact, plan_targets
from host_tools.inspect_device import print_selftest
from host_tools.link import Link
from host_tools.messages import ARITHMETICS
from host_tools.model import load_model
from host_tools.oracles import litert_outputs, tflite_micro_outputs
from host_tools.run import Order, load_images
from recipes.recipe import load_recipe


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.yaml with the arithmetic in it, its export and the firmware of board host, and that of `double` beside it."""
    folder = tmp_path_factory.mktemp("float32")
    recipe = build_recipe(folder)
    shutil.copytree(folder / "build" / NAME / "firmware" / "host", folder / "double")
    recipe.write_text(recipe.read_text() + "firmware_export: {arithmetic: float32}\n")
    assert firmware_export_main([str(recipe), "--build", str(folder / "build"), "--board", "host"]) == 0
    return recipe


def order(recipe: Path, images: int | None = 40) -> Order:
    return Order(load_recipe(recipe), (str(recipe),), load_board("host"), "host", recipe.parent / "build" / NAME, images)


def test_the_generated_files_name_it(float32: Path) -> None:
    export = float32.parent / "build" / NAME / "export"
    assert ".arithmetic = NN_ARITHMETIC_FLOAT32," in (export / "network.c").read_text()
    assert "expected bytes from LiteRT" in (export / "network_selftest.c").read_text()
    info = json.loads((export / "network_c_info.json").read_text())
    assert info["arithmetic"] == "float32"
    network = HostNetwork(export)
    assert network.arithmetic == "float32" and network.hash == info["model_hash"]


def test_everything_agrees(float32: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact(plan_targets(order(float32, None), ["host"]))
    found = json.loads((float32.parent / "build" / NAME / "exact" / "exact.json").read_text())
    pairs = found["exact"]
    assert found["arithmetic"] == "float32" and len(pairs) == 6  # every two of four
    assert {p["first"] for p in pairs} | {p["second"] for p in pairs} == {"simulator", "compiled C", "LiteRT", "host"}
    assert all(p["bytes_compared"] == 3600 and p["bytes_different"] == 0 for p in pairs)
    assert "exact: 0 of 21,600 bytes differ over 360 images" in capsys.readouterr().out


def test_the_arithmetics_answer_differently(float32: Path) -> None:
    """Or the test above would show nothing."""
    model = load_model(float32.parent / "build" / NAME, load_recipe(float32))
    _, images, _, _ = load_images(load_recipe(float32), model, None)
    single = litert_outputs(model.graph, model.twin, images)
    double = tflite_micro_outputs(model.graph, model.twin, images)
    assert 0 < np.count_nonzero(single != double) < single.size // 2
    assert np.abs(single.astype(int) - double).max() <= 2


def test_the_board_knows_its_answers(float32: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_selftest(order(float32))
    assert "gives the known answers of LiteRT" in capsys.readouterr().out


def test_a_run_reports_it(float32: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = str(float32.parent / "build")
    assert main(["run", str(float32), "--board", "host", "--target", "host", "--build", build, "--images", "20"]) == 0
    assert "arithmetic float32, self-test passed" in capsys.readouterr().out


def test_firmware_of_the_other_arithmetic_is_an_error(float32: Path) -> None:
    """The same model, the same sizes: told by its name, not by wrong answers."""
    model = load_model(float32.parent / "build" / NAME, load_recipe(float32))
    transport = open_target("host", load_board("host"), float32.parent / "double")
    with (
        pytest.raises(LinkError, match="computes in arithmetic 'double', expected 'float32'; build and flash the firmware"),
        Link(transport, model.expected()),
    ):
        pass


def test_the_names_are_those_of_the_device() -> None:
    assert ARITHMETICS == {0: "double", 1: "float32"}
