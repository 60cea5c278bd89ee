"""The written file is what firmware_export reads: the exact integer simulator answers as torch's fake quantization."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress.fold import fold_batch_norm
from compress.insert_quantizers import insert_quantizers, output_quantizer
from compress.method import Candidate, Context
from compress.quantize import QuantizeSettings, calibrate, quantize
from compress.write_onnx import onnx_bytes
from firmware_export.check import check
from firmware_export.graph import Graph
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.simulate import simulate
from train.data import Uint8
from train.evaluate import predict
from train.models import ModelConfig


def images_of(shape: tuple[int, int, int], count: int) -> Uint8:
    """From dark to bright."""
    rng = np.random.default_rng(11)
    images = rng.random((count, *shape)) * rng.random((count, 1, 1, 1)) * 255
    return images.round().astype(np.uint8)


def simulated(graph: Graph, images: Uint8) -> np.ndarray:
    """Stored logits int8 [n, classes] of the exact simulator."""
    stored = (images.astype(np.int16) - 128).astype(np.int8)
    return np.concatenate([simulate(graph, image[None])[0] for image in stored])


def far_apart(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Graph, np.ndarray]:
    """The graph that firmware_export reads, and how many steps its logits are from torch's."""
    images = images_of(shape, 24)
    traced = insert_quantizers(fold_batch_norm(model))
    calibrate(traced, images, 100.0)
    graph = read_onnx_bytes(onnx_bytes(traced, shape, "net"))
    check(graph)
    quantizer = output_quantizer(traced)
    steps = predict(traced, images) / quantizer.scale.item() + quantizer.zero_point.item()
    return graph, np.abs(simulated(graph, images) - np.rint(steps))


def test_both_families(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    graph, apart = far_apart(model, config.input_shape)
    assert apart.max() <= 3 and np.mean(apart > 0) < 0.5
    ops = [node.op for node in graph.nodes]
    assert "pad" not in ops and "transpose" not in ops
    assert ("depthwise_conv2d" in ops) == (config.family == "dscnn")


def test_max_pool_and_flatten(pool_network: nn.Module) -> None:
    graph, apart = far_apart(pool_network, (6, 6, 2))
    assert apart.max() <= 1
    assert "max_pool2d" in [node.op for node in graph.nodes]


@pytest.mark.parametrize("bias", [0.0, 2.0, -40.0])
def test_dead_channels_are_within_what_the_requantizer_can_do(network: tuple[nn.Module, ModelConfig], bias: float) -> None:
    model, config = network
    with torch.no_grad():
        for layer in (model.stem, model.body[0].get_submodule("conv1" if config.family == "resnet" else "pointwise")):
            layer.weight[2].zero_()
        model.stem_bn.bias[2] = bias
    _, apart = far_apart(model, config.input_shape)
    assert apart.max() <= 3


def test_a_network_that_is_always_zero(network: tuple[nn.Module, ModelConfig]) -> None:
    """Every range is empty and every weight dead, yet the file is valid and answers with its zero point."""
    model, config = network
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running_var" not in name and tensor.is_floating_point():
                tensor.zero_()
    _, apart = far_apart(model, config.input_shape)
    assert apart.max() == 0


def test_weights_and_scales_arrive_unchanged(trained: Candidate, context: Context) -> None:
    quantized = quantize(trained, QuantizeSettings(method="ptq", calibration_images=64), context).quantized
    assert quantized is not None
    graph = read_onnx_bytes(onnx_bytes(quantized, trained.config.input_shape, "net"))
    scale = output_quantizer(quantized).scale.numpy()
    output = graph.tensors[graph.outputs[0]].quantization
    assert output is not None and output.scale.tobytes() == scale.reshape(1).tobytes()
    stem = graph.nodes[0]
    read, written = graph.tensors[stem.inputs[1]], quantized.get_submodule("stem")
    stored, _ = written.integers(torch.tensor(np.float32(1 / 255)))
    assert read.data is not None and read.quantization is not None
    np.testing.assert_array_equal(read.data.transpose(0, 3, 1, 2), stored.numpy())
    assert read.quantization.scale.tobytes() == written.scales(torch.tensor(np.float32(1 / 255))).numpy().tobytes()


def test_accuracy_of_the_simulator(trained: Candidate, context: Context) -> None:
    quantized = quantize(trained, QuantizeSettings(method="ptq", calibration_images=200), replace(context, seed=1)).quantized
    assert quantized is not None
    test = context.dataset.test
    graph = read_onnx_bytes(onnx_bytes(quantized, trained.config.input_shape, "net"))
    classes = simulated(graph, test.images).argmax(1)
    assert abs(np.mean(classes == test.labels) - np.mean(predict(quantized, test.images).argmax(1) == test.labels)) < 0.02
