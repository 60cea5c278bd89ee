"""The comparisons must pass what is right and refuse what is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.check_onnx import agreement, check_float, check_int8, onnx_accuracy, run_onnx
from compress.fold import fold_batch_norm
from compress.insert_quantizers import insert_quantizers
from compress.method import Candidate
from compress.quantize import calibrate
from compress.write_onnx import onnx_bytes
from firmware_export.graph import GraphError
from train.data import Dataset
from train.evaluate import accuracy


@pytest.fixture(scope="module")
def float_file(trained: Candidate) -> bytes:
    return onnx_bytes(fold_batch_norm(trained.model), trained.config.input_shape, "net")


def changed_constant(content: bytes, suffix: str, factor: float) -> bytes:
    """The file with the first constant of that name multiplied."""
    model = onnx.load_from_string(content)
    constant = next(c for c in model.graph.initializer if c.name.endswith(suffix))
    values = numpy_helper.to_array(constant)
    constant.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), constant.name))
    return model.SerializeToString()


def test_agreement_by_hand() -> None:
    first = np.array([[1.0, 2.0], [5.0, 1.0], [0.0, 3.0]], np.float32)
    second = np.array([[1.0, 2.5], [1.0, 2.0], [0.0, 3.0]], np.float32)
    found = agreement(first, second)
    assert (found.largest, found.different_classes, found.images) == (4.0, 1, 3)


def test_a_right_float_file_passes(trained: Candidate, few_digits: Dataset, float_file: bytes) -> None:
    found = check_float(float_file, trained.model, few_digits.test.images[:20])
    assert found.largest < 1e-4 and found.different_classes == 0 and found.images == 20


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_a_wrong_float_file_is_refused(trained: Candidate, few_digits: Dataset, float_file: bytes, factor: float) -> None:
    with pytest.raises(GraphError, match="the float ONNX file differs from the network by"):
        check_float(changed_constant(float_file, "stem_weight", factor), trained.model, few_digits.test.images[:20])


def test_int8_file_passes_and_a_changed_one_is_refused(trained: Candidate, few_digits: Dataset) -> None:
    traced = insert_quantizers(fold_batch_norm(trained.model))
    calibrate(traced, few_digits.train.images[:128], 99.99)
    content = onnx_bytes(traced, trained.config.input_shape, "net")
    scale = traced.get_submodule("classifier_quantizer").scale.item()
    found = check_int8(content, traced, few_digits.test.images, scale)
    assert found.different_classes <= 1 and found.largest < 4 * scale
    with pytest.raises(GraphError, match=r"the int8 ONNX file differs from the network: [\d.]+ % of logits"):
        check_int8(changed_constant(content, "stem_weight_scale", 1.3), traced, few_digits.test.images, scale)


def test_accuracy_is_torchs(trained: Candidate, few_digits: Dataset, float_file: bytes) -> None:
    found = onnx_accuracy(float_file, few_digits.test)
    assert found == accuracy(trained.model, few_digits.test) and 0.7 < found <= 1


def test_run_gives_one_row_of_logits_per_image(few_digits: Dataset, float_file: bytes, trained: Candidate) -> None:
    logits = run_onnx(float_file, few_digits.test.images[:3])
    assert logits.shape == (3, 10) and logits.dtype == np.float32
    batch = torch.from_numpy(few_digits.test.images[:3].astype(np.float32).transpose(0, 3, 1, 2) / 255)
    with torch.no_grad():
        np.testing.assert_allclose(logits, trained.model(batch).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09"])
def test_a_damaged_file_is_refused_in_one_line(few_digits: Dataset, content: bytes) -> None:
    with pytest.raises(GraphError, match="onnxruntime refuses the file") as raised:
        run_onnx(content, few_digits.test.images[:1])
    assert "\n" not in str(raised.value)
