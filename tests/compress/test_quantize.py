"""The quantization step: calibration only, or training on; what each changes and what it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import fx

from compress.check_onnx import onnx_accuracy
from compress.fake_quantize import ActivationQuantizer, Mode, QuantizedLayer
from compress.fold import fold_batch_norm
from compress.insert_quantizers import insert_quantizers
from compress.method import Candidate, Context
from compress.quantize import QuantizeSettings, calibrate, quantize
from compress.write_onnx import onnx_bytes
from recipes.artifacts import UsageError
from recipes.recipe import parse
from train.data import to_float_nchw
from train.diagnose import TrainingError
from train.evaluate import accuracy


def graph_of(candidate: Candidate) -> fx.GraphModule:
    assert candidate.quantized is not None
    return candidate.quantized


@pytest.fixture(scope="module")
def ptq_settings() -> QuantizeSettings:
    return QuantizeSettings(method="ptq", calibration_images=200)


def test_ptq_keeps_the_weights_and_the_accuracy(trained: Candidate, context: Context, ptq_settings: QuantizeSettings) -> None:
    after = quantize(trained, ptq_settings, context)
    folded = fold_batch_norm(trained.model)
    for name, parameter in folded.named_parameters():
        layer, _, kind = name.rpartition(".")
        assert torch.equal(parameter, graph_of(after).get_parameter(f"{layer}.layer.{kind}"))
    test = context.dataset.test
    assert accuracy(graph_of(after), test) >= accuracy(trained.model, test) - 0.03
    assert after.model is trained.model and after.config == trained.config


def test_qat_trains_weights_and_ranges(trained: Candidate, context: Context, ptq_settings: QuantizeSettings) -> None:
    ptq = graph_of(quantize(trained, ptq_settings, context))
    qat = graph_of(quantize(trained, QuantizeSettings(epochs=2, calibration_images=200, learning_rate=2e-3), context))
    same = [torch.equal(a, b) for a, b in zip(ptq.parameters(), qat.parameters(), strict=True)]
    assert not any(same)
    scales = [[m.scale.item() for m in g.modules() if isinstance(m, ActivationQuantizer)] for g in (ptq, qat)]
    assert scales[0][0] == scales[1][0] and scales[0][1:] != scales[1][1:]
    assert accuracy(qat, context.dataset.test) >= accuracy(trained.model, context.dataset.test) - 0.03


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_afterwards_nothing_moves_any_more(trained: Candidate, context: Context, method: str) -> None:
    settings = parse(QuantizeSettings, {"method": method, "epochs": 1, "calibration_images": 100}, "quantize")
    graph = graph_of(quantize(trained, settings, context))
    modes = {m.mode for m in graph.modules() if isinstance(m, ActivationQuantizer | QuantizedLayer)}
    assert modes == {Mode.FIXED} and not graph.training
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    with torch.no_grad():
        graph.train()(torch.rand(8, 1, 8, 8) * 5)
    assert all(torch.equal(before[name], tensor) for name, tensor in graph.state_dict().items())


def test_the_file_is_as_right_as_the_network(trained: Candidate, context: Context, ptq_settings: QuantizeSettings) -> None:
    graph = graph_of(quantize(trained, ptq_settings, context))
    content = onnx_bytes(graph, trained.config.input_shape, "net")
    test = context.dataset.test
    assert abs(onnx_accuracy(content, test) - accuracy(graph, test)) <= 1.01 / len(test)


def test_calibration_sees_the_extremes(trained: Candidate, context: Context) -> None:
    """Ranges with percentile 100 over one batch are the float network's own minima and maxima."""
    images = context.dataset.train.images[:50]
    folded = fold_batch_norm(trained.model)
    graph = insert_quantizers(folded)
    calibrate(graph, images, 100.0)
    with torch.no_grad():
        logits = folded(torch.from_numpy(to_float_nchw(images)))
    quantizer = graph.get_submodule("classifier_quantizer")
    assert quantizer.low.item() == pytest.approx(logits.min().item(), rel=1e-5)
    assert quantizer.high.item() == pytest.approx(logits.max().item(), rel=1e-5)


def test_a_lower_percentile_narrows_the_ranges(trained: Candidate, context: Context) -> None:
    widths = []
    for percentile in (100.0, 99.0, 95.0):
        graph = insert_quantizers(fold_batch_norm(trained.model))
        calibrate(graph, context.dataset.train.images[:128], percentile)
        widths.append([m.scale.item() for m in graph.modules() if isinstance(m, ActivationQuantizer) and not m.fixed])
    assert np.all(np.diff(np.array(widths), axis=0) <= 0) and np.all(np.array(widths[2]) < np.array(widths[0]))


def test_fewer_images_than_asked_for_are_enough(trained: Candidate, context: Context) -> None:
    settings = QuantizeSettings(method="ptq", calibration_images=10**6)
    few = replace(context, dataset=replace(context.dataset, train=context.dataset.train.take(slice(3))))
    graph = graph_of(quantize(trained, settings, few))
    assert all(torch.isfinite(t).all() for t in graph.state_dict().values())


def test_the_seed_chooses_the_calibration_images(trained: Candidate, context: Context) -> None:
    settings = QuantizeSettings(method="ptq", calibration_images=64)
    first, again, other = (
        graph_of(quantize(trained, settings, replace(context, seed=seed))).get_buffer("stem_act_quantizer.high").item()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_nan_is_refused(trained: Candidate, context: Context) -> None:
    settings = QuantizeSettings(epochs=2, learning_rate=1e30, calibration_images=64)
    with pytest.raises(TrainingError, match=r"quantize \(qat\) failed.*this step's learning_rate"):
        quantize(trained, settings, context)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "dynamic"}, "'method' is 'dynamic'"),
        ({"percentile": 50}, "'percentile' is 50"),
        ({"percentile": 101}, "'percentile' is 101"),
        ({"calibration_images": 0}, "'calibration_images' is 0"),
        ({"percentil": 99}, "did you mean 'percentile'"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(QuantizeSettings, values, "compress.steps.0.quantize")
