"""results.json: what it must hold, what it refuses, and figures worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from host_tools.results import (
    Accuracy,
    Answers,
    Device,
    LayerVerdict,
    LinkCounts,
    Results,
    Spread,
    Tolerance,
    accuracy_of,
    confusion_matrix,
    per_class_accuracy,
    read_answers,
    read_results,
    spread,
    write_results,
)
from recipes.artifacts import ArtifactError

REQUIRED_BY_THE_ISSUE = {
    "recipe",
    "board",
    "target",
    "model_hash",
    "arithmetic",
    "images",
    "identical",
    "different",
    "accuracy",
    "macs",
    "weights_bytes",
    "flash_bytes",
    "ram_bytes",
    "stack_bytes",
    "instructions_per_inference",
    "link",
}


def results(**changes: Any) -> Results:
    """Three images of two classes: labels 0 1 1, answers 0 0 1."""
    values: dict[str, Any] = {
        "recipe": "digits",
        "board": "netduinoplus2",
        "target": "unicorn",
        "model_hash": "0" * 64,
        "arithmetic": "double",
        "images": 3,
        "identical": 2,
        "different": 1,
        "accuracy": Accuracy(float=0.99, pruned=None, int8_onnx=0.98, simulator=2 / 3, device=2 / 3),
        "macs": 1000,
        "weights_bytes": 100,
        "flash_bytes": 20_000,
        "ram_bytes": 3_000,
        "stack_bytes": None,
        "stack_used_bytes": None,
        "activations_bytes": 512,
        "instructions_per_inference": None,
        "cycles": None,
        "link": LinkCounts(frames=7, crc_errors=0, retries=0, resets=0),
        "class_names": ("a", "b"),
        "confusion": ((1, 0), (1, 1)),
        "per_class_accuracy": (1.0, 0.5),
        "layers": (LayerVerdict(index=0, operator="conv2d", expected=1, device=1),),
        "tolerance": (
            Tolerance(
                runtime="onnxruntime",
                images=3,
                bytes_compared=6,
                bytes_different=1,
                largest_difference=1,
                classes_different=0,
            ),
        ),
        "simulated_images": 3,
        "resumed_images": 0,
        "seconds": 0.5,
        "stream_seconds": 0.25,
        "command": "digits",
        "device": device("passed"),
        "versions": {"python": "3.11.2"},
    }
    return Results(**{**values, **changes})


def device(selftest: Literal["passed", "failed"]) -> Device:
    return Device(board="b", core="c", clock_hz=1, build_id="x", protocol=1, selftest=selftest)


def layer(index: int, expected: int, told: int) -> LayerVerdict:
    return LayerVerdict(index=index, operator="conv2d", expected=expected, device=told)


def answers() -> Answers:
    device = np.array([[5, -3], [9, 9], [-128, 127]], np.int8)
    simulator = device.copy()
    simulator[1, 1] = 8
    return Answers(device, simulator, np.array([0, 1, 1]), np.array([10, 20, 60], np.uint32))


def test_the_file_holds_every_key_the_issue_names(tmp_path: Path) -> None:
    write_results(tmp_path, results(), answers())
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored.keys() >= REQUIRED_BY_THE_ISSUE
    assert stored["accuracy"].keys() == {"float", "pruned", "int8_onnx", "simulator", "device"}
    assert stored["link"].keys() >= {"frames", "crc_errors", "retries", "resets"}
    assert stored["instructions_per_inference"] is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_results(tmp_path, results(), answers())
    assert read_results(tmp_path) == results()
    back = read_answers(tmp_path)
    assert np.array_equal(back.device, answers().device) and back.device.dtype == np.int8
    assert np.array_equal(back.simulator, answers().simulator)
    assert back.counts.tolist() == [10, 20, 60] and back.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identical": 3}, "add up"),
        ({"images": 0, "identical": 0, "different": 0}, "greater than or equal to 1"),
        ({"model_hash": "xyz"}, "pattern"),
        ({"confusion": ((1, 0),)}, "square"),
        ({"confusion": ((1, 0), (0, 1))}, "cover every image"),
        ({"per_class_accuracy": (1.0,)}, "cover every image"),
        ({"seconds": float("nan")}, "finite"),
        ({"macs": -1}, "greater than or equal to 0"),
        ({"surprise": 1}, "not permitted"),
    ],
)
def test_figures_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        results(**changes)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("inf")])
def test_an_accuracy_is_a_fraction(value: float) -> None:
    with pytest.raises(ValidationError):
        Accuracy(simulator=value, device=1.0)


def test_settings_are_kept_as_they_are_and_may_be_missing(tmp_path: Path) -> None:
    settings = {"seed": 1, "train": {"epochs": 3, "augment": {"flip": False}}, "compress": {"steps": [{"quantize": {}}]}}
    told = results(settings=settings)
    write_results(tmp_path, told, answers())
    assert read_results(tmp_path).settings == settings
    content = json.loads((tmp_path / "results.json").read_text())
    assert content.pop("settings") == settings
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert read_results(tmp_path).settings == {}


def test_results_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        results().images = 5  # type: ignore[misc]


def test_the_schema_names_every_required_key() -> None:
    schema = Results.model_json_schema()
    assert set(schema["required"]) >= REQUIRED_BY_THE_ISSUE
    assert schema["additionalProperties"] is False


def test_a_missing_or_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not found"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ArtifactError, match="not a version 1 result"):
        read_results(tmp_path)
    write_results(tmp_path, results(), answers())
    stored = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({**stored, "version": 2}))
    with pytest.raises(ArtifactError, match=r"version 1 result \(version"):
        read_results(tmp_path)


def test_damaged_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not found"):
        read_answers(tmp_path)
    write_results(tmp_path, results(), answers())
    whole = (tmp_path / "answers.npz").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x93NUMPY not a zip"):
        (tmp_path / "answers.npz").write_bytes(damaged)
        with pytest.raises(ArtifactError, match="damaged"):
            read_answers(tmp_path)


def test_answers_of_different_lengths_are_refused(tmp_path: Path) -> None:
    good = answers()
    write_results(tmp_path, results(), Answers(good.device, good.simulator[:2], good.labels, good.counts))
    with pytest.raises(ArtifactError, match="different lengths"):
        read_answers(tmp_path)


def test_objects_in_an_answers_file_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "answers.npz", device=np.array([{"a": 1}], object))
    with pytest.raises(ArtifactError, match="damaged"):
        read_answers(tmp_path)


def test_identical_is_per_image_and_ties_go_to_the_first_class() -> None:
    assert answers().identical.tolist() == [True, False, True]
    assert answers().classes.tolist() == [0, 0, 1]  # [9, 9] is a tie


def test_accuracy_confusion_and_per_class_accuracy_by_hand() -> None:
    outputs = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], np.int8)
    labels = np.array([0, 1, 0, 1])
    assert accuracy_of(outputs, labels) == 0.75
    matrix = confusion_matrix(labels, outputs.argmax(axis=1), 3)
    assert matrix == ((1, 1, 0), (0, 2, 0), (0, 0, 0))
    assert per_class_accuracy(matrix) == (0.5, 1.0, None)


def test_spread_of_counts() -> None:
    assert spread(np.array([10, 20, 60], np.uint32), "cycles") == Spread(unit="cycles", minimum=10, mean=30.0, maximum=60)
    assert spread(np.array([10], np.uint32), "none") is None
    assert spread(np.array([], np.uint32), "cycles") is None


def test_a_layer_is_identical_when_both_checksums_agree() -> None:
    assert LayerVerdict(index=0, operator="add", expected=7, device=7).identical
    assert not LayerVerdict(index=0, operator="add", expected=7, device=8).identical
    with pytest.raises(ValidationError):
        LayerVerdict(index=0, operator="add", expected=2**32, device=0)


@given(st.integers(1, 6), st.data())
def test_confusion_matrix_equals_plain_counting(classes: int, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60))
    labels, said = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    matrix = confusion_matrix(labels, said, classes)
    for i in range(classes):
        for j in range(classes):
            assert matrix[i][j] == pairs.count((i, j))
    shares = per_class_accuracy(matrix)
    for i, share in enumerate(shares):
        of_class = [p for p in pairs if p[0] == i]
        assert share == (None if not of_class else of_class.count((i, i)) / len(of_class))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_spread_is_that_of_the_numbers(counts: list[int]) -> None:
    found = spread(np.array(counts, np.uint32), "cycles")
    assert found is not None
    assert (found.minimum, found.maximum) == (min(counts), max(counts))
    assert found.mean == pytest.approx(sum(counts) / len(counts), rel=1e-12)


def test_an_exact_device_has_no_fault() -> None:
    assert results(identical=3, different=0).faults == ()


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, ("1 of 3 answers differ from the exact simulator",)),
        ({"identical": 3, "different": 0, "device": device("failed")}, ("the self-test fails",)),
        (
            {"identical": 3, "different": 0, "layers": (layer(0, 1, 1), layer(1, 1, 2), layer(2, 3, 4))},
            ("2 of 3 layers of the first image differ, layer 1 first",),
        ),
        (
            {"device": device("failed"), "layers": (layer(0, 1, 2),)},
            (
                "1 of 3 answers differ from the exact simulator",
                "the self-test fails",
                "1 of 1 layers of the first image differ, layer 0 first",
            ),
        ),
    ],
)
def test_every_fault_is_told(changes: dict[str, Any], faults: tuple[str, ...]) -> None:
    assert results(**changes).faults == faults
