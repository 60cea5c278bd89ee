"""The stage's files and figures."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compress.check_onnx import Agreement
from compress.method import Candidate, Context
from compress.outputs import Int8File, Measurement, figures, measure, summary, table, write_float, write_int8
from compress.quantize import QuantizeSettings, quantize
from firmware_export.graph import GraphError
from train.checkpoint import load_model
from train.data import to_float_nchw
from train.evaluate import predict

STEPS = [
    Measurement("train", 0.99, 0.98, 1000, 500),
    Measurement("prune", 0.20, 0.21, 300, 100),
    Measurement("distill", 0.97, 0.96, 300, 100),
    Measurement("quantize", 0.96, 0.95, 300, 100),
]
INT8 = Int8File(0.965, Agreement(0.5, 1, 256), 140)


@pytest.fixture(scope="module")
def quantized(trained: Candidate, few_digits: object) -> Candidate:
    context = Context(few_digits, None, trained.model, 1)  # type: ignore[arg-type]  # ptq reads no training settings
    return quantize(trained, QuantizeSettings(method="ptq", calibration_images=128), context)


def test_measure_counts_right_answers_itself(trained: Candidate, context: Context) -> None:
    found = measure("train", trained, context.dataset)
    for share, split in ((found.accuracy, context.dataset.test), (found.validation_accuracy, context.dataset.validation)):
        with torch.no_grad():
            logits = trained.model(torch.from_numpy(to_float_nchw(split.images))).numpy()
        assert share == np.mean(logits.argmax(1) == split.labels)
    stem = 8 * 8 * 9 * 8
    assert found.name == "train" and found.macs > stem
    assert found.weights == sum(p.numel() for n, p in trained.model.named_parameters() if "bn" not in n) + sum(
        m.num_features for m in trained.model.modules() if isinstance(m, torch.nn.BatchNorm2d)
    )


def test_measure_takes_the_quantized_network(quantized: Candidate, context: Context) -> None:
    found = measure("quantize", quantized, context.dataset)
    assert quantized.quantized is not None
    test = context.dataset.test
    assert found.accuracy == np.mean(predict(quantized.quantized, test.images).argmax(1) == test.labels)


def test_float_outputs_can_be_read_back(trained: Candidate, context: Context, tmp_path: Path) -> None:
    write_float(trained, context.dataset, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt", "model_float.onnx"]
    model, config, _ = load_model(tmp_path / "model.pt")
    assert config == trained.config
    images = context.dataset.test.images[:10]
    np.testing.assert_array_equal(predict(model, images), predict(trained.model, images))
    onnx.checker.check_model(onnx.load(tmp_path / "model_float.onnx"), full_check=True)


def test_int8_output_and_its_bytes_of_weights(quantized: Candidate, context: Context, tmp_path: Path) -> None:
    found = write_int8(quantized, context.dataset, tmp_path)
    assert found is not None and [p.name for p in tmp_path.iterdir()] == ["model_int8.onnx"]
    constants = onnx.load(tmp_path / "model_int8.onnx").graph.initializer
    stored = [c for c in constants if c.name.endswith("_stored")]
    assert found.weights_bytes == sum(len(c.raw_data) for c in stored)
    assert found.accuracy > 0.7 and found.agreement.images == len(context.dataset.test)


def test_without_quantization_there_is_no_int8_file(trained: Candidate, context: Context, tmp_path: Path) -> None:
    assert write_int8(trained, context.dataset, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_network_with_nan_writes_no_onnx(trained: Candidate, context: Context, tmp_path: Path) -> None:
    poisoned = replace(trained, model=copy.deepcopy(trained.model))
    with torch.no_grad():
        poisoned.model.get_parameter("stem.weight")[0] = float("nan")
    with pytest.raises(GraphError, match=r"'stem.weight' holds NaN or infinity"):
        write_float(poisoned, context.dataset, tmp_path)
    assert not (tmp_path / "model_float.onnx").exists()


def test_figures() -> None:
    found = figures(STEPS, INT8)
    assert found["accuracy"] == {"float": 0.99, "pruned": 0.97, "int8_onnx": 0.965}
    assert found["macs"] == {"unpruned": 1000, "final": 300} and found["weights"] == {"unpruned": 500, "final": 100}
    assert found["steps"][1] == {"name": "prune", "accuracy": 0.20, "validation_accuracy": 0.21, "macs": 300, "weights": 100}
    assert found["weights_bytes"] == 140
    assert found["onnx_agreement"] == {"largest": 0.5, "different_classes": 1, "images": 256}
    assert json.loads(json.dumps(found)) == found


def test_figures_without_an_int8_file_and_without_steps() -> None:
    found = figures(STEPS[:1], None)
    assert found["accuracy"] == {"float": 0.99, "pruned": 0.99, "int8_onnx": None}
    assert found["weights_bytes"] is None and found["onnx_agreement"] is None


def test_table_has_one_aligned_line_per_step() -> None:
    lines = table(STEPS).splitlines()
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["step", "test", "validation", "MACs", "weights"]
    assert lines[3].split() == ["distill", "97.00", "%", "96.00", "%", "300", "100"]


def test_closing_line_says_what_figures_and_where() -> None:
    line = summary(figures(STEPS, INT8), Path("build/x/compress"))
    assert line == (
        "compress: int8 96.50 % of test images right (float 99.00 %), MACs 1,000 -> 300, weights 500 -> 100 -> build/x/compress"
    )
    without = summary(figures(STEPS[:3], None), Path("b"))
    assert "float 97.00 % (was 99.00 %); no quantize step, so no model_int8.onnx" in without and "\n" not in without


def test_lines_for_a_person() -> None:
    assert STEPS[1].text() == "test 20.00 %, validation 21.00 %, 300 MACs, 100 weights"
    assert INT8.text() == "test 96.50 %, 1 of 256 classes differ from torch, logits by 0.5 at most, 140 bytes of weights"
