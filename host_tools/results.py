"""results.json: what one run found, as a typed model; answers.npz: every single answer behind it.

The JSON is checked when it is written and when it is read, its schema is `Results.model_json_schema()`.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from recipes.artifacts import ArtifactError, write_bytes_atomic, write_json_atomic

RESULTS = "results.json"
ANSWERS = "answers.npz"
VERSION = 1

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Model(BaseModel):
    """A part of results.json: nothing unknown, nothing infinite, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True)


class Accuracy(Model):
    """Fractions of the test images classified right. float, pruned and int8_onnx come from the stage `compress`."""

    float_: Fraction | None = Field(None, alias="float")
    pruned: Fraction | None = None
    int8_onnx: Fraction | None = None
    simulator: Fraction
    device: Fraction


class LinkCounts(Model):
    """What happened on the line.

    crc_errors: damaged frames seen at either end. resets: of the board. reconnections: times a handshake ended a silence.
    overruns: bytes the board lost because its receiver was full.
    """

    frames: Count
    crc_errors: Count
    retries: Count
    resets: Count
    reconnections: Count = 0
    overruns: Count = 0


class Spread(Model):
    """Smallest, mean and largest of a count per inference, and what was counted."""

    unit: str
    minimum: Count
    mean: Annotated[float, Field(ge=0)]
    maximum: Count


class LayerVerdict(Model):
    """One layer's output of the first image: CRC-32 as the simulator and as the device computed it."""

    index: Count
    operator: str
    expected: Annotated[int, Field(ge=0, lt=2**32)]
    device: Annotated[int, Field(ge=0, lt=2**32)]

    @property
    def identical(self) -> bool:
        """Whether both checksums agree."""
        return self.expected == self.device


class Tolerance(Model):
    """Agreement with a runtime of another arithmetic. A tolerance: it never counts as exact."""

    runtime: str
    images: Count
    bytes_compared: Count
    bytes_different: Count
    largest_difference: Count
    classes_different: Count
    note: str = ""


class Device(Model):
    """What the device said of itself in the handshake."""

    board: str
    core: str
    clock_hz: Count
    build_id: str
    protocol: Count
    selftest: Literal["passed", "failed"]


class Results(Model):
    """One run of a recipe's test images on a target."""

    version: Literal[1] = 1
    recipe: str
    board: str
    target: str
    settings: dict[str, JsonValue] = {}
    """The recipe sections the model was trained and compressed with; empty for a model that came from elsewhere."""
    model_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    arithmetic: str
    images: Annotated[int, Field(ge=1)]
    identical: Count
    different: Count
    accuracy: Accuracy
    macs: Count
    weights_bytes: Count
    flash_bytes: Count | None
    ram_bytes: Count | None
    stack_bytes: Count | None
    """Reserved in the image; stack_used_bytes is the most the device has used, measured by painting."""
    stack_used_bytes: Count | None
    activations_bytes: Count
    instructions_per_inference: Count | None
    cycles: Spread | None
    link: LinkCounts
    class_names: tuple[str, ...]
    confusion: tuple[tuple[Count, ...], ...]
    """Rows are the true classes, columns the device's answers."""
    per_class_accuracy: tuple[Fraction | None, ...]
    """None for a class without a test image."""
    layers: tuple[LayerVerdict, ...]
    tolerance: tuple[Tolerance, ...]
    simulated_images: Count
    """How many of the expected answers were computed a second time by the numpy simulator, with the same bytes."""
    resumed_images: Count
    """How many answers came from an earlier, interrupted run; `link` and stream_seconds do not cover those."""
    seconds: Annotated[float, Field(ge=0)]
    stream_seconds: Annotated[float, Field(ge=0)]
    command: str
    """The arguments that name this run: `RECIPE --board B --target T`."""
    device: Device
    versions: dict[str, str]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is not as the exact simulator says, a sentence each; empty when the device is exact."""
        found = []
        if self.different:
            found.append(f"{self.different:,} of {self.images:,} answers differ from the exact simulator")
        if self.device.selftest != "passed":
            found.append("the self-test fails")
        wrong = [layer.index for layer in self.layers if not layer.identical]
        if wrong:
            found.append(f"{len(wrong)} of {len(self.layers)} layers of the first image differ, layer {wrong[0]} first")
        return tuple(found)

    @model_validator(mode="after")
    def _adds_up(self) -> Results:
        classes = len(self.class_names)
        if self.identical + self.different != self.images:
            raise ValueError("identical and different do not add up to images")
        if len(self.confusion) != classes or any(len(row) != classes for row in self.confusion):
            raise ValueError("confusion is not a square of the classes")
        if sum(map(sum, self.confusion)) != self.images or len(self.per_class_accuracy) != classes:
            raise ValueError("confusion or per_class_accuracy does not cover every image and class")
        return self

    def to_json(self) -> dict[str, object]:
        """Plain JSON values, under the names of the file."""
        plain: dict[str, object] = json.loads(self.model_dump_json())
        return plain


@dataclass(frozen=True)
class Answers:
    """Every answer of a run, in the order of the test set.

    device, simulator: int8 [n, classes], the bytes of the output tensor. labels: int64 [n].
    counts: uint32 [n], cycles or instructions of each inference.
    """

    device: npt.NDArray[np.int8]
    simulator: npt.NDArray[np.int8]
    labels: npt.NDArray[np.int64]
    counts: npt.NDArray[np.uint32]

    @property
    def identical(self) -> npt.NDArray[np.bool_]:
        """bool [n]: every output byte of the image is the simulator's."""
        return np.asarray((self.device == self.simulator).all(axis=1))

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """int64 [n]: the device's answer, the first of the largest outputs."""
        return np.asarray(self.device.argmax(axis=1), np.int64)


def accuracy_of(outputs: npt.NDArray[np.int8], labels: npt.NDArray[np.int64]) -> float:
    """Fraction of images whose largest output (the first, when several are) stands at the label."""
    return float((outputs.argmax(axis=1) == labels).mean())


def confusion_matrix(
    labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], classes: int
) -> tuple[tuple[int, ...], ...]:
    """Counts [true class][answered class]."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, answers), 1)
    return tuple(tuple(int(v) for v in row) for row in matrix)


def per_class_accuracy(confusion: tuple[tuple[int, ...], ...]) -> tuple[float | None, ...]:
    """Diagonal over row sum; None for a class without an image."""
    return tuple(row[i] / sum(row) if sum(row) else None for i, row in enumerate(confusion))


def spread(counts: npt.NDArray[np.uint32], unit: str) -> Spread | None:
    """Smallest, mean and largest; None where the board counts nothing."""
    if unit == "none" or not counts.size:
        return None
    return Spread(unit=unit, minimum=int(counts.min()), mean=float(counts.mean()), maximum=int(counts.max()))


def write_results(folder: Path, results: Results, answers: Answers) -> None:
    """Writes results.json and answers.npz. Raises ArtifactError when nothing can be written."""
    write_json_atomic(folder / RESULTS, results.to_json())
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, device=answers.device, simulator=answers.simulator, labels=answers.labels, counts=answers.counts
    )
    write_bytes_atomic(folder / ANSWERS, buffer.getvalue())


def read_results(folder: Path) -> Results:
    """The results of a finished run.

    Raises:
        ArtifactError: there is no such run, or its file does not hold what this version writes.
    """
    path = folder / RESULTS
    try:
        return Results.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} not found: run `python -m host_tools RECIPE --target ...` first") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ArtifactError(f"{path} is not a version {VERSION} result ({where}: {first['msg'].lower()}); run again") from None


def read_answers(folder: Path) -> Answers:
    """The single answers of a finished run.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    path = folder / ANSWERS
    try:
        with np.load(path, allow_pickle=False) as stored:
            answers = Answers(stored["device"], stored["simulator"], stored["labels"], stored["counts"])
    except FileNotFoundError:
        raise ArtifactError(f"{path} not found: run `python -m host_tools RECIPE --target ...` first") from None
    except Exception as error:  # a damaged zip raises one of many kinds
        raise ArtifactError(f"{path} is damaged ({type(error).__name__}); delete it and run again") from None
    if answers.device.shape != answers.simulator.shape or len(answers.labels) != len(answers.device):
        raise ArtifactError(f"{path} holds arrays of different lengths; delete it and run again")
    return answers
