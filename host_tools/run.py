"""The stage `run/<target>`: every test image through the device, every answer against the exact simulator and the label."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import firmware_export
import host_tools
import train.data
from firmware_export.board import Board
from firmware_export.progress import progress
from firmware_export.simulate import simulate_trace
from firmware_export.target import export_stage
from host_tools.board import open_target, parse_serial
from host_tools.compare import Agreement, Int8, MismatchError, agreement
from host_tools.counts import counts_before, link_counts
from host_tools.fake_quant import fake_quant_outputs
from host_tools.firmware import check_answering_board, stage_files
from host_tools.layers import layer_verdicts
from host_tools.link import Link
from host_tools.messages import Hello
from host_tools.model import INT8_ONNX, Model, load_model, simulated
from host_tools.oracles import onnxruntime_outputs
from host_tools.report import write_report
from host_tools.results import (
    Accuracy,
    Answers,
    Device,
    LayerVerdict,
    LinkCounts,
    Results,
    Tolerance,
    accuracy_of,
    confusion_matrix,
    per_class_accuracy,
    spread,
    write_results,
)
from host_tools.settings import check_settings, made_with
from host_tools.stream import StreamResult, stream
from recipes.artifacts import MANIFEST, ArtifactError, Stage, package_versions, read_manifest, source_hash
from recipes.recipe import Recipe
from train.data import Dataset, load_dataset, quantize_images

STREAM = "stream.txt"
MEMORY = ("flash_bytes", "ram_bytes", "stack_bytes")
"""Figures of the linked image; a process of this computer has none."""
SIMULATED_IMAGES = 1000
"""At most so many expected answers are computed a second time by the numpy simulator; `exact` does it for all."""
COUNTS_INSTRUCTIONS = ("unicorn", "qemu")
"""Targets whose cycle counter counts executed instructions, exactly."""


@dataclass(frozen=True)
class Order:
    """What to run where.

    recipe_words: the recipe and its overrides as they were given, for the commands that messages and the report name.
    root: build/<recipe>. images: how many test images; None for all.
    """

    recipe: Recipe
    recipe_words: tuple[str, ...]
    board: Board
    target: str
    root: Path
    images: int | None

    @property
    def words(self) -> str:
        """The arguments that name this run on a command line."""
        count = () if self.images is None else ("--images", str(self.images))
        return shlex.join([*self.recipe_words, "--board", self.board.name, "--target", self.target, *count])

    @property
    def firmware(self) -> Path:
        """The artifact folder of the image."""
        return self.root / "firmware" / self.board.name


def target_folder(target: str) -> str:
    """A folder name for a target: "host", "unicorn", "qemu", "serial_ttyACM0"; only letters, digits, dot, dash, underscore."""
    if not target.startswith("serial:"):
        return re.sub(r"[^A-Za-z0-9.-]", "_", target)
    port, _ = parse_serial(target)
    name = port.split("://")[-1] if "://" in port else re.split(r"[/\\]", port)[-1]
    return "serial_" + re.sub(r"[^A-Za-z0-9.-]", "_", name).strip(".")


def run(order: Order) -> Results | None:
    """Runs the stage, unless it is unchanged (None then).

    Raises:
        MismatchError: an answer or the self-test differs; the results are written first.
        LinkError: the port, the line or the board failed; the same command goes on where it stopped.
        ArtifactError: an earlier stage is missing, damaged, or was run with other settings than the recipe's.
    """
    name = f"run/{target_folder(order.target)}"
    with Stage(order.root, name, _config(order, name), _inputs(order)) as stage:
        check_settings(order.root, order.recipe)
        if stage.unchanged:
            print(stage.again(), flush=True)
            _raise_if_different(order, stage.manifest["figures"])
            return None
        results, answers, images = measure(order, stage.work)
        write_results(stage.work, results, answers)
        write_report(stage.work, order.root, order.recipe.firmware_export.name, results, answers, images)
        (stage.work / STREAM).unlink(missing_ok=True)
        stage.finish(_figures(results, answers), _summary(results, stage.folder))
    _raise_if_different(order, _figures(results, answers))
    return results


def _config(order: Order, name: str) -> dict[str, Any]:
    """Everything that decides the answers. A serial port is counted up: what hangs on it may have changed."""
    config = {**base_config(order), "board": order.board.name, "target": order.target}
    if order.target.startswith("serial:"):
        config["count"] = _finished_runs(order.root / name) + 1
    return config


def base_config(order: Order) -> dict[str, Any]:
    """What decides answers on every target. Not the data's folder: its files are checked by their SHA-256."""
    sections = order.recipe.model_dump(mode="json", include={"name": True, "seed": True, "data": True})
    sections["data"].pop("folder")
    return {**sections, "images": order.images, "source": code_hash()}


def code_hash() -> str:
    """SHA-256 over the sources of this program, of the data sets and of all that computes expected answers."""
    return source_hash(*(Path(str(module.__file__)).parent for module in (host_tools, train.data, firmware_export)))


def _finished_runs(folder: Path) -> int:
    try:
        return int(read_manifest(folder)["config"].get("count", 0))
    except ArtifactError:
        return 0


def _inputs(order: Order) -> list[Path]:
    """Every file of the export and of the firmware, and what the stage `compress` measured."""
    files = [order.root / "compress" / "manifest.json", order.root / "compress" / INT8_ONNX]
    return files + stage_files(order.root / export_stage(order.board.core)) + firmware_files(order)


def firmware_files(order: Order) -> list[Path]:
    """Every file of the firmware.

    Raises:
        ArtifactError: it has not been built; the message names the command that does it.
    """
    if not (order.firmware / MANIFEST).is_file():
        command = shlex.join(["python", "-m", "firmware_export", *order.recipe_words, "--board", order.board.name])
        raise ArtifactError(f"no firmware in {order.firmware}; build it with: {command}")
    return stage_files(order.firmware)


def load_images(
    recipe: Recipe, model: Model, count: int | None
) -> tuple[Dataset, Int8, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The data set and its first `count` test images: int8 as the board takes them, uint8 as they are, labels.

    Raises:
        DataError: the data set is missing or damaged.
        ArtifactError: the model was made for other images or classes.
    """
    dataset = load_dataset(recipe.data, recipe.seed)
    takes, gives = model.graph.tensors[model.graph.inputs[0]].shape[1:], model.output.elements
    if takes != dataset.input_shape or gives != dataset.classes:
        raise ArtifactError(
            f"the model takes images {takes} and tells {gives} classes apart, data set {dataset.name} has "
            f"{dataset.input_shape} and {dataset.classes}; run the pipeline again with this data set"
        )
    images, labels = dataset.test.images[:count], dataset.test.labels[:count]
    return dataset, quantize_images(images), images, labels


def expected_answers(model: Model, images: Int8) -> tuple[Int8, int]:
    """The exact answers int8 [n, outputs]: by the compiled C, and by the numpy simulator for evenly spaced images.

    Returns:
        The answers, and how many were computed twice.
    Raises:
        MismatchError: the two do not agree.
    """
    outputs = model.compiled(images)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), SIMULATED_IMAGES)).round().astype(np.int64))
    with progress("simulator", len(chosen)) as advance:
        twice = simulated(model.graph, images[chosen], advance)
    if not np.array_equal(twice, outputs[chosen]):
        first = int(chosen[np.flatnonzero((twice != outputs[chosen]).any(axis=1))[0]])
        raise MismatchError(
            f"the compiled C and the numpy simulator differ on image {first}: this is a fault of this program; "
            "please report it with `python -m host_tools exact RECIPE`"
        )
    return outputs, len(chosen)


@dataclass(frozen=True)
class Measured:
    """What came from the device."""

    hello: Hello
    selftest: bool
    layers: list[LayerVerdict]
    stream: StreamResult
    link: LinkCounts
    stack_used: int


def measure(order: Order, work: Path) -> tuple[Results, Answers, npt.NDArray[np.uint8]]:
    """Computes the expected answers, asks the device for its own and compares; also gives the images themselves."""
    started = time.monotonic()
    model = load_model(order.root, order.recipe, order.board.core)
    dataset, images, pictures, labels = load_images(order.recipe, model, order.images)
    expected, simulated_images = expected_answers(model, images)
    measured = ask_device(order, model, images, work)
    outputs = measured.stream.outputs.reshape(len(images), -1)
    counts = np.array([count or 0 for count in measured.stream.cycles], np.uint32)
    answers = Answers(outputs, expected, labels, counts)
    tolerance = tolerances(model, images, expected)
    results = _results(order, model, dataset, answers, measured, tolerance, simulated_images, time.monotonic() - started)
    return results, answers, pictures


def ask_device(order: Order, model: Model, images: Int8, work: Path) -> Measured:
    """Handshake, self-test, checksums of every layer for the first image, then all images."""
    transport = open_target(order.target, order.board, order.firmware)
    with Link(transport, model.expected()) as link:
        check_answering_board(link.hello, order.board, order.firmware, order.target)
        before = counts_before(link)
        passed = link.selftest()
        print(_greeting(link.hello, passed), flush=True)
        trace = simulate_trace(model.graph, images[:1])
        layers = layer_verdicts(link, model.graph, trace, images[0].tobytes())
        with progress(f"run/{target_folder(order.target)}", len(images)) as advance:
            answers = stream(link, images, work / STREAM, advance)
        counts, stack_used = link_counts(link, before)
        return Measured(link.hello, passed, layers, answers, counts, stack_used)


def _greeting(hello: Hello, passed: bool) -> str:
    clock = f", {hello.clock_hz / 1e6:g} MHz" if hello.clock_hz else ""
    return (
        f"hello: {hello.board} ({hello.core}{clock}, build {hello.build_id}), model {hello.model_hash[:12]}..., "
        f"arithmetic {hello.arithmetic}, self-test {'passed' if passed else 'FAILED'}"
    )


def tolerances(model: Model, images: Int8, expected: Int8) -> tuple[Tolerance, ...]:
    """Agreement with onnxruntime and with torch's fake quantization: other arithmetics, so never part of the verdict."""
    output = model.output
    others = {
        "onnxruntime": onnxruntime_outputs(model.onnx, images, output),
        "torch fake quantization": fake_quant_outputs(model.onnx, images, output),
    }
    return tuple(_tolerance(agreement("simulator", expected, name, outputs)) for name, outputs in others.items())


def _tolerance(found: Agreement) -> Tolerance:
    return Tolerance(
        runtime=found.second,
        images=found.images,
        bytes_compared=found.bytes_compared,
        bytes_different=found.bytes_different,
        largest_difference=found.largest_difference,
        classes_different=found.classes_different,
        note="requantizes in float",
    )


def _results(
    order: Order,
    model: Model,
    dataset: Dataset,
    answers: Answers,
    measured: Measured,
    tolerance: tuple[Tolerance, ...],
    simulated_images: int,
    seconds: float,
) -> Results:
    image = dict.fromkeys(MEMORY) if order.board.is_host else read_manifest(order.firmware)["figures"]
    hello, identical = measured.hello, int(answers.identical.sum())
    confusion = confusion_matrix(answers.labels, answers.classes, dataset.classes)
    counts_instructions = order.target in COUNTS_INSTRUCTIONS and hello.cycle_unit != "none"
    unit = "instructions" if counts_instructions else measured.stream.unit
    return Results(
        recipe=order.recipe.name,
        board=order.board.name,
        target=order.target,
        settings=made_with(order.root),
        model_hash=hello.model_hash,
        arithmetic=hello.arithmetic,
        images=len(answers.labels),
        identical=identical,
        different=len(answers.labels) - identical,
        accuracy=_accuracy(order.root, answers),
        macs=model.macs,
        weights_bytes=model.graph.weights_bytes(),
        flash_bytes=image["flash_bytes"],
        ram_bytes=image["ram_bytes"],
        stack_bytes=image["stack_bytes"],
        stack_used_bytes=measured.stack_used or None,
        activations_bytes=model.activations_bytes,
        instructions_per_inference=round(float(answers.counts.mean())) if counts_instructions else None,
        cycles=spread(answers.counts, unit),
        link=measured.link,
        class_names=dataset.class_names,
        confusion=confusion,
        per_class_accuracy=per_class_accuracy(confusion),
        layers=tuple(measured.layers),
        tolerance=tolerance,
        simulated_images=simulated_images,
        resumed_images=measured.stream.resumed,
        seconds=round(seconds, 3),
        stream_seconds=round(measured.stream.seconds, 3),
        command=order.words,
        device=_device(hello, measured.selftest),
        versions=package_versions(),
    )


def _accuracy(root: Path, answers: Answers) -> Accuracy:
    earlier = read_manifest(root / "compress")["figures"]["accuracy"]
    return Accuracy(
        float_=earlier["float"],
        pruned=earlier["pruned"],
        int8_onnx=earlier["int8_onnx"],
        simulator=accuracy_of(answers.simulator, answers.labels),
        device=accuracy_of(answers.device, answers.labels),
    )


def _device(hello: Hello, passed: bool) -> Device:
    return Device(
        board=hello.board,
        core=hello.core,
        clock_hz=hello.clock_hz,
        build_id=hello.build_id,
        protocol=hello.protocol,
        selftest="passed" if passed else "failed",
    )


def _figures(results: Results, answers: Answers) -> dict[str, Any]:
    differing = np.flatnonzero(~answers.identical)
    keys = ("images", "identical", "different", "accuracy", "link", "instructions_per_inference", "tolerance")
    plain = results.to_json()
    first = int(differing[0]) if differing.size else 0
    return {**{key: plain[key] for key in keys}, "faults": list(results.faults), "first_different": first}


def _summary(results: Results, folder: Path) -> str:
    share = results.accuracy
    float_share = "" if share.float_ is None else f" (float {100 * share.float_:.1f} %)"
    return (
        f"run: {results.identical:,} of {results.images:,} images identical, {100 * share.device:.1f} % on {results.target}"
        f"{float_share}, report in {folder / 'report.html'}"
    )


def _raise_if_different(order: Order, figures: dict[str, Any]) -> None:
    """Turns a written result with a fault into exit code 10, each time it is looked at."""
    if figures["faults"]:
        raise MismatchError(
            f"{order.target}: {'; '.join(figures['faults'])}; find the layer with: "
            f"python -m host_tools layers {order.words} --image {figures['first_different']}"
        )
