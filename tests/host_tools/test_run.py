"""The run stage on a board that answers right, and on boards that lie, reset, die or run something else."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from built_recipe import build_recipe, change_manifest, copy_recipe
from graph_board import GraphBoard, who
from qdq_file import mixed_file

import host_tools.model
import host_tools.run
import recipes.artifacts
from firmware_export.board import load_board
from firmware_export.graph import Array
from firmware_export.hostlib import HostNetwork
from host_tools.__main__ import main
from host_tools.compare import MismatchError
from host_tools.errors import LinkError
from host_tools.link import Link
from host_tools.model import Model, load_model, simulated
from host_tools.results import read_answers, read_results
from host_tools.run import Order, expected_answers, load_images, run, target_folder
from recipes.artifacts import ArtifactError
from recipes.recipe import load_recipe

IMAGES = 12


@pytest.fixture
def recipe(built: Path, tmp_path: Path) -> Path:
    """A copy of the built recipe, free to be changed."""
    return copy_recipe(built, tmp_path)


@pytest.fixture
def model(built: Path) -> Model:
    """What is on the board."""
    return load_model(built.parent / "build" / "tiny", load_recipe(built))


@pytest.fixture
def put_on(monkeypatch: pytest.MonkeyPatch, model: Model) -> Callable[..., GraphBoard]:
    """Makes every target lead to a board in Python."""

    def put(**options: object) -> GraphBoard:
        board = GraphBoard(model.graph, **{**who(model.export.parent), **options})  # type: ignore[arg-type]
        monkeypatch.setattr(host_tools.run, "open_target", lambda *_: board)
        monkeypatch.setattr(host_tools.run, "Link", partial(Link, clock=board.clock))
        monkeypatch.setattr(host_tools.model, "HostNetwork", lambda folder, name: compiled_once(model))
        return board

    return put


COMPILED: dict[str, HostNetwork] = {}


def compiled_once(model: Model) -> HostNetwork:
    """The generated C of a model, compiled at its first use only: the tests here are about what is done with it."""
    if model.hash not in COMPILED:
        COMPILED[model.hash] = HostNetwork(model.export, model.name)
    return COMPILED[model.hash]


def order(recipe: Path, target: str = "host", images: int | None = IMAGES) -> Order:
    root = recipe.parent / "build" / "tiny"
    return Order(load_recipe(recipe), (str(recipe),), load_board("host"), target, root, images)


def folder(recipe: Path, target: str = "host") -> Path:
    return recipe.parent / "build" / "tiny" / "run" / target


def flip(layer: int, only: Callable[[Array], bool] = lambda output: True) -> Callable[[int, Array], Array]:
    """A lie: the first element of one layer's output has its lowest bit flipped."""

    def lie(index: int, output: Array) -> Array:
        if index == layer and only(output):
            output = output.copy()
            output.reshape(-1)[0] ^= 1
        return output

    return lie


def test_more_images_than_there_are_is_all_of_them(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on()
    results = run(order(recipe, images=100_000))
    assert results is not None and results.images == 360


def test_the_recipe_may_limit_the_data_set(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    recipe.write_text(recipe.read_text().replace("{name: digits}", "{name: digits, limit: 40}"))
    board = put_on()
    results = run(order(recipe, images=None))
    assert results is not None and results.images == 40 == board.runs
    assert sum(map(sum, results.confusion)) == 40


def test_accuracy_and_confusion_are_those_of_the_answers(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on()
    results = run(order(recipe, images=None))
    kept = read_answers(folder(recipe))
    assert results is not None
    right = [int(np.argmax(row)) == int(label) for row, label in zip(kept.device, kept.labels, strict=True)]
    assert results.accuracy.device == pytest.approx(sum(right) / 360)
    assert sum(results.confusion[i][i] for i in range(10)) == sum(right)
    for label in range(10):
        of_class = [r for r, true in zip(right, kept.labels, strict=True) if true == label]
        assert results.per_class_accuracy[label] == pytest.approx(sum(of_class) / len(of_class))


def test_accuracies_that_the_stage_before_does_not_know_stay_unknown(
    recipe: Path, put_on: Callable[..., GraphBoard], capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = {"float": None, "pruned": None, "int8_onnx": None}
    change_manifest(order(recipe).root / "compress", lambda manifest: manifest["figures"].update(accuracy=unknown))
    put_on()
    results = run(order(recipe))
    assert results is not None and results.accuracy.float_ is None and results.accuracy.int8_onnx is None
    assert json.loads((folder(recipe) / "results.json").read_text())["accuracy"]["float"] is None
    assert "(float" not in capsys.readouterr().out


def test_the_versions_of_what_decides_the_result_are_kept(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on()
    results = run(order(recipe))
    assert results is not None and {"python", "numpy", "onnxruntime", "tflite-micro", "unicorn"} <= results.versions.keys()
    assert results.command == f"{recipe} --board host --target host --images 12"


def test_a_wrong_board_may_still_classify_right(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    """Exactness is about every byte: an answer that is one step off is different, whatever its class."""
    put_on(lie=flip(2))
    with pytest.raises(MismatchError):
        run(order(recipe))
    stored = read_results(folder(recipe))
    assert stored.identical == 0 and stored.accuracy.device > 0.5


def test_a_model_for_other_images_or_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, (channels, classes) in enumerate(((2, 10), (1, 12))):
        content = mixed_file(np.random.default_rng(0), channels=channels, classes=classes)
        (tmp_path / str(place)).mkdir()
        recipe = build_recipe(tmp_path / str(place), content)
        with pytest.raises(
            ArtifactError, match=rf"takes images \(8, 8, {channels}\) and tells {classes} classes apart, data set digits has"
        ):
            run(order(recipe))
        assert not folder(recipe).exists()


def test_a_right_board(recipe: Path, put_on: Callable[..., GraphBoard], capsys: pytest.CaptureFixture[str]) -> None:
    board = put_on()
    results = run(order(recipe))
    assert results is not None and (results.images, results.identical, results.different) == (12, 12, 0)
    stored = read_results(folder(recipe))
    assert stored == results
    assert stored.accuracy.model_dump() == {
        "float": 0.9,
        "pruned": 0.895,
        "int8_onnx": 0.89,
        "simulator": stored.accuracy.device,
        "device": stored.accuracy.device,
    }
    assert (stored.macs, stored.weights_bytes, stored.arithmetic) == (1216, 732, "double")
    assert stored.device.selftest == "passed" and stored.stack_used_bytes == 321
    assert (stored.link.crc_errors, stored.link.overruns) == (0, 0)
    assert board.runs == 12 and (stored.cycles.minimum, stored.cycles.maximum) == (5001, 5012)
    assert stored.instructions_per_inference is None
    assert [layer.identical for layer in stored.layers] == [True, True, True]
    text = capsys.readouterr().out
    assert re.search(r"run: 12 of 12 images identical, \d+\.\d % on host \(float 90\.0 %\), report in \S+report\.html\n$", text)


def test_every_answer_is_kept(recipe: Path, put_on: Callable[..., GraphBoard], model: Model) -> None:
    put_on()
    run(order(recipe))
    kept = read_answers(folder(recipe))
    dataset, images, pictures, labels = load_images(load_recipe(recipe), model, IMAGES)
    assert np.array_equal(kept.device, simulated(model.graph, images))
    assert np.array_equal(kept.labels, dataset.test.labels[:IMAGES]) and np.array_equal(kept.labels, labels)
    assert np.array_equal(images.astype(int) + 128, pictures)
    assert kept.counts.tolist() == list(range(5001, 5013))
    assert {"results.json", "answers.npz", "report.html", "manifest.json"} == {p.name for p in folder(recipe).iterdir()}


def test_the_second_run_does_nothing_and_says_so(
    recipe: Path, put_on: Callable[..., GraphBoard], capsys: pytest.CaptureFixture[str]
) -> None:
    board = put_on()
    run(order(recipe))
    assert run(order(recipe)) is None
    assert board.hellos == 1
    assert "run/host: unchanged, not run again" in capsys.readouterr().out


def test_data_in_another_folder_is_the_same_data(recipe: Path, put_on: Callable[..., GraphBoard], tmp_path: Path) -> None:
    put_on()
    run(order(recipe))
    moved = replace(order(recipe), recipe=load_recipe(recipe, [f"data.folder={tmp_path}"]))
    assert run(moved) is None
    other = replace(order(recipe), recipe=load_recipe(recipe, ["data.validation_fraction=0.2"]))
    assert run(other) is not None


@pytest.mark.parametrize("module", ["host_tools/stream.py", "train/data.py", "firmware_export/simulate.py"])
def test_other_code_runs_again(
    recipe: Path, put_on: Callable[..., GraphBoard], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """A simulator or compiled C that computes something else must not meet answers it has not seen."""
    put_on()
    run(order(recipe))
    original, changed = recipes.artifacts.sha256_file, Path(host_tools.__file__).parents[1] / module
    monkeypatch.setattr(recipes.artifacts, "sha256_file", lambda path: "00" * 32 if path == changed else original(path))
    assert run(order(recipe)) is not None


def test_another_number_of_images_runs_again(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    board = put_on()
    run(order(recipe))
    assert run(order(recipe, images=3)) is not None
    assert board.hellos == 2


def test_a_serial_port_is_always_run(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    board = put_on()
    for count in (1, 2, 3):
        assert run(order(recipe, "serial:/dev/ttyACM0:115200")) is not None
        assert board.hellos == count
    assert json.loads((folder(recipe, "serial_ttyACM0") / "manifest.json").read_text())["config"]["count"] == 3


def test_a_wrong_answer_is_found_written_and_told(recipe: Path, put_on: Callable[..., GraphBoard], model: Model) -> None:
    _, images, _, _ = load_images(load_recipe(recipe), model, IMAGES)
    right = simulated(model.graph, images)
    put_on(lie=flip(2, lambda output: output.tobytes() == right[5].tobytes()))
    with pytest.raises(MismatchError) as caught:
        run(order(recipe))
    assert caught.value.exit_code == 10
    assert str(caught.value).startswith("host: 1 of 12 answers differ from the exact simulator; find the layer with: ")
    assert str(caught.value).endswith(f"layers {recipe} --board host --target host --images 12 --image 5")
    stored = read_results(folder(recipe))
    assert (stored.identical, stored.different) == (11, 1)
    assert "1 of 12 answers differ" in (folder(recipe) / "report.html").read_text()


def test_a_wrong_result_stays_wrong_when_nothing_is_run_again(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    board = put_on(lie=flip(2))
    for _ in range(2):
        with pytest.raises(MismatchError, match="12 of 12 answers"):
            run(order(recipe))
    assert board.hellos == 1


def test_a_failing_selftest_is_a_difference(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on(selftest_status=3)
    with pytest.raises(MismatchError, match=r"^host: the self-test fails; find the layer with: .* --image 0$"):
        run(order(recipe))
    stored = read_results(folder(recipe))
    assert stored.device.selftest == "failed" and stored.different == 0
    assert "The self-test fails." in (folder(recipe) / "report.html").read_text()


def test_a_wrong_inner_layer_is_a_difference_though_the_answers_agree(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on(lie=flip(0))  # this board's later layers do not see the lie
    with pytest.raises(MismatchError, match=r"^host: 1 of 3 layers of the first image differ, layer 0 first; find the layer"):
        run(order(recipe))
    stored = read_results(folder(recipe))
    assert stored.different == 0 and [layer.identical for layer in stored.layers] == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_hash": "00" * 32}, "another model"),
        ({"arithmetic": 1}, "computes in arithmetic 'float32', expected 'double'"),
        ({"silent": True}, "no answer"),
        (
            {"build_id": "fe" * 8},
            rf"^host: host with build {'fe' * 8} answers, expected host with build [0-9a-f]{{16}}; build ",
        ),
        ({"name": "nucleo_f446re"}, r"^host: nucleo_f446re with build .* expected host .*; choose --board nucleo_f446re or "),
    ],
)
def test_another_firmware_or_none_is_refused_before_anything_is_measured(
    recipe: Path, put_on: Callable[..., GraphBoard], options: dict[str, object], message: str
) -> None:
    board = put_on(**options)
    with pytest.raises(LinkError, match=message) as caught:
        run(order(recipe))
    assert caught.value.exit_code == 5 and board.runs == 0
    assert not folder(recipe).exists()


def test_resets_are_survived_and_counted(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    board = put_on(reset_at={3, 7})
    results = run(order(recipe))
    assert results is not None and results.identical == 12
    assert results.link.resets == 2 and board.hellos == 3
    assert (results.link.reconnections, results.link.overruns) == (0, 0)


def test_only_what_happened_during_the_run_is_counted(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    """A board that has been on for days has seen noise that is not this run's."""
    put_on(errors=(2000, 4000), error_step=3)
    results = run(order(recipe))
    assert results is not None and (results.link.crc_errors, results.link.overruns) == (36, 36)


def test_a_reset_board_counts_from_zero(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on(errors=(2000, 4000), error_step=3, reset_at={7})
    results = run(order(recipe))
    assert results is not None and results.link.resets == 1
    # Run 7 is lost with the counts of the six before it, and done again after the reset: six runs are left.
    assert (results.link.crc_errors, results.link.overruns) == (18, 18)


def flipping(every: int) -> Callable[[bytes], bytes]:
    """A line that flips one bit in each `every` bytes, at places drawn from a fixed seed."""
    rng = np.random.default_rng(every)

    def line(data: bytes) -> bytes:
        damaged = bytearray(data)
        for place in np.flatnonzero(rng.random(len(data)) < 1 / every):
            damaged[place] ^= 1 << int(rng.integers(8))
        return bytes(damaged)

    return line


@pytest.mark.parametrize("every", [2000, 500])
def test_a_bad_line_costs_time_and_nothing_else(recipe: Path, put_on: Callable[..., GraphBoard], every: int) -> None:
    board = put_on(line=flipping(every))
    results = run(order(recipe, images=120))
    assert results is not None and results.identical == 120
    assert results.link.retries > 0 and results.link.frames == 120 + 6 + results.link.retries
    assert results.link.crc_errors > 0
    assert board.runs == 120  # a repeated request is never run twice
    text = (folder(recipe) / "report.html").read_text()
    assert f'<td class="number">{results.link.retries}</td>' in text


def test_a_line_that_is_cut_now_and_then_is_survived(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    rng = np.random.default_rng(4)
    board = put_on(line=lambda data: b"" if rng.random() < 0.1 else data)
    results = run(order(recipe, images=60))
    assert results is not None and results.identical == 60 and results.link.retries > 0
    assert board.runs == 60


def test_an_interrupted_run_goes_on_where_it_stopped(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on(dies_at=7)
    with pytest.raises(LinkError, match="has gone"):
        run(order(recipe))
    assert not folder(recipe).exists()
    board = put_on()
    results = run(order(recipe))
    assert results is not None and results.identical == 12
    assert (board.runs, results.resumed_images) == (5, 7)


def test_an_interrupted_serial_run_goes_on_too(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    for dies_at, runs in ((4, 5), (None, 8)):
        board = put_on(dies_at=dies_at)
        if dies_at is None:
            assert run(order(recipe, "serial:COM7")) is not None
        else:
            with pytest.raises(LinkError):
                run(order(recipe, "serial:COM7"))
        assert board.runs == runs


@pytest.mark.parametrize("target", ["unicorn", "qemu"])
def test_instructions_are_told_where_the_target_counts_them(
    recipe: Path, put_on: Callable[..., GraphBoard], target: str
) -> None:
    put_on()
    results = run(order(recipe, target))
    assert results is not None and results.cycles is not None
    assert results.instructions_per_inference == round(sum(range(5001, 5013)) / 12)
    assert results.cycles.unit == "instructions"


def test_a_board_that_cannot_count_has_no_figures(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on(cycle_unit="none")
    results = run(order(recipe, "unicorn"))
    assert results is not None and results.cycles is None and results.instructions_per_inference is None


def test_tolerances_are_apart_from_the_verdict(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on()
    results = run(order(recipe, images=None))
    assert results is not None and results.identical == 360
    names = [t.runtime for t in results.tolerance]
    assert names == ["onnxruntime", "torch fake quantization"]
    for tolerance in results.tolerance:
        assert tolerance.bytes_compared == 3600 and 0 < tolerance.bytes_different < 360
        assert tolerance.largest_difference == 1 and tolerance.classes_different <= 2


@pytest.mark.parametrize(
    "name", ["compress/model_int8.onnx", "export/network.tflite", "export/network.c", "firmware/host/firmware"]
)
def test_a_damaged_artifact_is_refused(recipe: Path, put_on: Callable[..., GraphBoard], name: str) -> None:
    board = put_on()
    path = recipe.parent / "build" / "tiny" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="is damaged") as caught:
        run(order(recipe))
    assert caught.value.exit_code == 4 and board.hellos == 0


def test_missing_firmware_names_the_command(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on()
    wanted = Order(load_recipe(recipe), ("tiny.yaml",), load_board("nucleo_f446re"), "unicorn", order(recipe).root, 1)
    with pytest.raises(ArtifactError, match=r"build it with: python -m firmware_export tiny\.yaml --board nucleo_f446re"):
        run(wanted)


def test_an_export_of_another_model_is_refused(recipe: Path) -> None:
    info = recipe.parent / "build" / "tiny" / "export" / "network_c_info.json"
    change_manifest(info.parent, lambda manifest: manifest["outputs"].pop(info.name))  # unlisted files are taken as they are
    content = json.loads(info.read_text())
    info.write_text(json.dumps({**content, "model_hash": "12" * 32}))
    with pytest.raises(ArtifactError, match="made from another model"):
        load_model(order(recipe).root, load_recipe(recipe))
    for damaged in ("{", "[]", json.dumps({**content, "version": 9})):
        info.write_text(damaged)
        with pytest.raises(ArtifactError, match="run python -m firmware_export again"):
            load_model(order(recipe).root, load_recipe(recipe))


def test_no_space_for_the_results_leaves_the_earlier_ones(
    recipe: Path, put_on: Callable[..., GraphBoard], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on()
    run(order(recipe, images=2))
    before = {path.name: path.read_bytes() for path in folder(recipe).iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(host_tools.run, "write_report", full)
    with pytest.raises(ArtifactError, match="no space left on the device"):
        run(order(recipe, images=3))
    assert {path.name: path.read_bytes() for path in folder(recipe).iterdir()} == before
    monkeypatch.undo()


def test_a_build_folder_that_cannot_be_written_is_one_line(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on()
    (folder(recipe).parent).write_text("a file where the folder should be")
    with pytest.raises(ArtifactError, match="cannot write"):
        run(order(recipe))


def test_the_same_run_gives_the_same_report(recipe: Path, put_on: Callable[..., GraphBoard]) -> None:
    """But for the seconds it took, which are figures of their own."""
    pages = []
    for images in (6, 7, 6):
        put_on()
        run(order(recipe, images=images))
        text = (folder(recipe) / "report.html").read_text()
        pages.append(re.sub(r"(seconds for the images|images per second)</td><td class=\"number\">[^<]*", "", text))
    assert pages[0] == pages[2] != pages[1]


def test_compiled_c_and_simulator_must_agree(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(-128, 128, (5, 8, 8, 1)).astype(np.int8)
    outputs, count = expected_answers(model, images)
    assert np.array_equal(outputs, simulated(model.graph, images)) and count == 5
    wrong = outputs.copy()
    wrong[3, 1] += 1
    monkeypatch.setattr(Model, "compiled", lambda self, batch: wrong)
    with pytest.raises(MismatchError, match="differ on image 3"):
        expected_answers(model, images)


def test_the_simulator_checks_evenly_spaced_images_of_a_large_set(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.run, "SIMULATED_IMAGES", 3)
    images = np.random.default_rng(0).integers(-128, 128, (9, 8, 8, 1)).astype(np.int8)
    seen: list[bytes] = []

    def spy(graph: object, batch: np.ndarray, advance: object) -> np.ndarray:
        seen.extend(image.tobytes() for image in batch)
        return model.compiled(batch)

    monkeypatch.setattr(host_tools.run, "simulated", spy)
    assert expected_answers(model, images)[1] == 3
    assert seen == [images[i].tobytes() for i in (0, 4, 8)]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("host", "host"),
        ("unicorn", "unicorn"),
        ("serial:/dev/ttyACM0", "serial_ttyACM0"),
        ("serial:/dev/ttyACM0:921600", "serial_ttyACM0"),
        ("serial:COM7:115200", "serial_COM7"),
        ("serial:socket://127.0.0.1:5000", "serial_127.0.0.1_5000"),
        ("serial:/dev/serial/by-id/usb-ST link;rm -rf", "serial_usb-ST_link_rm_-rf"),
        ("serial:..", "serial_"),
    ],
)
def test_folder_names_are_safe(target: str, name: str) -> None:
    assert target_folder(target) == name
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)


def test_the_real_firmware_of_board_host_from_the_command_line(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent)
    assert main([str(recipe), "--target", "host"]) == 0
    stored = json.loads((folder(recipe) / "results.json").read_text())
    assert (stored["images"], stored["identical"], stored["board"]) == (360, 360, "host")
    assert stored["flash_bytes"] is None and stored["accuracy"]["device"] > 0.85
    assert "360 of 360 images identical" in capsys.readouterr().out
    assert main([str(recipe), "--target", "host"]) == 0
    assert "unchanged, not run again" in capsys.readouterr().out
