"""What the stage leaves behind: model.pt, model_float.onnx, model_int8.onnx, each checked, and the figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.check_onnx import Agreement, check_float, check_int8, onnx_accuracy
from compress.fake_quantize import QuantizedLayer
from compress.fold import fold_batch_norm
from compress.insert_quantizers import output_quantizer
from compress.method import Candidate
from compress.write_onnx import onnx_bytes
from recipes.artifacts import write_bytes_atomic
from train.checkpoint import save_model
from train.data import Dataset
from train.evaluate import accuracy
from train.models import count_macs, count_weights

MODEL, FLOAT_ONNX, INT8_ONNX = "model.pt", "model_float.onnx", "model_int8.onnx"
CHECK_IMAGES = 256


@dataclass(frozen=True)
class Measurement:
    """A network after one step; accuracies are fractions of the test and of the validation images."""

    name: str
    accuracy: float
    validation_accuracy: float
    macs: int
    weights: int

    def text(self) -> str:
        """One line for a person."""
        shares = f"test {100 * self.accuracy:.2f} %, validation {100 * self.validation_accuracy:.2f} %"
        return f"{shares}, {self.macs:,} MACs, {self.weights:,} weights"


@dataclass(frozen=True)
class Int8File:
    """The QDQ file in onnxruntime: accuracy on the test images, agreement with the fake-quantized network, bytes of weights."""

    accuracy: float
    agreement: Agreement
    weights_bytes: int

    def text(self) -> str:
        """One line for a person."""
        found = self.agreement
        apart = f"{found.different_classes} of {found.images} classes differ from torch, logits by {found.largest:.3g} at most"
        return f"test {100 * self.accuracy:.2f} %, {apart}, {self.weights_bytes:,} bytes of weights"


def measure(name: str, candidate: Candidate, dataset: Dataset) -> Measurement:
    """What one line of the table tells."""
    return Measurement(
        name,
        accuracy(candidate.current, dataset.test),
        accuracy(candidate.current, dataset.validation),
        count_macs(candidate.model, candidate.config.input_shape),
        count_weights(candidate.model),
    )


def write_float(candidate: Candidate, dataset: Dataset, folder: Path) -> None:
    """Writes the float network as checkpoint and as ONNX, and compares the latter with the former.

    Raises:
        GraphError: the file and the network differ.
    """
    save_model(folder / MODEL, candidate.model, candidate.config)
    content = onnx_bytes(fold_batch_norm(candidate.model), candidate.config.input_shape, dataset.name)
    check_float(content, candidate.model, dataset.test.images[:CHECK_IMAGES])
    write_bytes_atomic(folder / FLOAT_ONNX, content)


def write_int8(candidate: Candidate, dataset: Dataset, folder: Path) -> Int8File | None:
    """Writes the quantized network as QDQ ONNX and measures the file; None where no step has quantized.

    Raises:
        GraphError: the file and the fake-quantized network are not the same.
    """
    quantized = candidate.quantized
    if quantized is None:
        return None
    content = onnx_bytes(quantized, candidate.config.input_shape, dataset.name)
    scale = float(output_quantizer(quantized).scale)
    found = check_int8(content, quantized, dataset.test.images[:CHECK_IMAGES], scale)
    write_bytes_atomic(folder / INT8_ONNX, content)
    layers = [module.layer for module in quantized.modules() if isinstance(module, QuantizedLayer)]
    weights_bytes = sum(layer.weight.numel() + 4 * layer.weight.shape[0] for layer in layers)
    return Int8File(onnx_accuracy(content, dataset.test), found, weights_bytes)


def figures(steps: list[Measurement], int8: Int8File | None) -> dict[str, Any]:
    """The manifest's figures; `pruned` is the last float network, `float` the one that training left."""
    last_float = [step for step in steps if not step.name.startswith("quantize")][-1]
    return {
        "steps": [asdict(step) for step in steps],
        "accuracy": {
            "float": steps[0].accuracy,
            "pruned": last_float.accuracy,
            "int8_onnx": int8.accuracy if int8 else None,
        },
        "macs": {"unpruned": steps[0].macs, "final": steps[-1].macs},
        "weights": {"unpruned": steps[0].weights, "final": steps[-1].weights},
        "weights_bytes": int8.weights_bytes if int8 else None,
        "onnx_agreement": asdict(int8.agreement) if int8 else None,
    }


def table(steps: list[Measurement]) -> str:
    """One line per step: accuracy on test and validation images, multiply-accumulates, weights."""
    rows = [f"{'step':<16}{'test':>9}{'validation':>12}{'MACs':>14}{'weights':>11}"]
    for step in steps:
        shares = f"{100 * step.accuracy:>7.2f} %{100 * step.validation_accuracy:>10.2f} %"
        rows.append(f"{step.name:<16}{shares}{step.macs:>14,}{step.weights:>11,}")
    return "\n".join(rows)


def summary(numbers: dict[str, Any], folder: Path) -> str:
    """The stage's closing line."""
    share, macs, weights = numbers["accuracy"], numbers["macs"], numbers["weights"]
    if share["int8_onnx"] is None:
        answer = f"float {100 * share['pruned']:.2f} % (was {100 * share['float']:.2f} %); no quantize step, so no {INT8_ONNX}"
    else:
        answer = f"int8 {100 * share['int8_onnx']:.2f} % of test images right (float {100 * share['float']:.2f} %)"
    cuts = [f"{name} {part['unpruned']:,} -> {part['final']:,}" for name, part in (("MACs", macs), ("weights", weights))]
    return f"compress: {answer}, {', '.join(cuts)} -> {folder}"
