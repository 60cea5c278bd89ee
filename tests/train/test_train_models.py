"""Network families: SAME padding, shapes, counts, the leaves of the traced graph, and configs from hostile values."""

from __future__ import annotations

import json
import operator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recipes.artifacts import UsageError
from recipes.recipe import ModelSection
from train.models import (
    GlobalAveragePool,
    ModelConfig,
    ResidualStage,
    SameConv2d,
    build_model,
    config_for,
    count_macs,
    count_weights,
    same_pads,
    trace,
)

RESNET = ModelConfig("resnet", (8, 8, 1), 10, (16, 16, 16, 32, 32, 64, 64), (1, 1, 2, 2))
DSCNN = ModelConfig("dscnn", (28, 28, 1), 10, (8, 12, 16), (2, 1, 2))
UNEVEN = ModelConfig("resnet", (9, 14, 3), 5, (8, 4, 8, 12, 20), (2, 1, 2), "relu6")
CONFIGS = [RESNET, DSCNN, UNEVEN]


# padding


@pytest.mark.parametrize("size", range(1, 33))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_pads_follow_tensorflows_formula(size: int, kernel: int, stride: int) -> None:
    """TensorFlow's own wording ("Neural Network" notes): by the remainder of size / stride, not by the output size."""
    along = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    top, bottom, left, right = same_pads((size, 7), (kernel, 3), (stride, 1))
    assert (top, bottom) == (along // 2, along - along // 2)
    assert (left, right) == (1, 1)
    assert (size + top + bottom - kernel) // stride + 1 == (size + stride - 1) // stride


def convolve(image: np.ndarray, weight: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """TensorFlow's SAME convolution by its definition, loop by loop: image [c, h, w], weight [out, c/groups, k, k]."""
    outputs, per_group, kernel, _ = weight.shape
    height, width = image.shape[1:]
    out_h, out_w = -(-height // stride), -(-width // stride)
    top = max((out_h - 1) * stride + kernel - height, 0) // 2
    left = max((out_w - 1) * stride + kernel - width, 0) // 2
    result = np.zeros((outputs, out_h, out_w))
    for o, y, x, c, ky, kx in np.ndindex(outputs, out_h, out_w, per_group, kernel, kernel):
        row, column = y * stride + ky - top, x * stride + kx - left
        if 0 <= row < height and 0 <= column < width:
            channel = o // (outputs // groups) * per_group + c
            result[o, y, x] += image[channel, row, column] * weight[o, c, ky, kx]
    return result


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (7, 3)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2), (1, 1)])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_same_convolution_is_the_definition(size: tuple[int, int], kernel: int, stride: int, groups: int) -> None:
    torch.manual_seed(1)
    layer = SameConv2d(4, 8, kernel, stride, size, groups)
    image = torch.randn(1, 4, *size)
    expected = convolve(image[0].numpy(), layer.weight.detach().numpy(), stride, groups)
    found = layer(image).detach()[0].numpy()
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=1e-5)
    assert layer.padding == (0, 0) and layer.bias is None


# structure


@pytest.mark.parametrize("config", CONFIGS)
def test_a_network_gives_one_logit_per_class(config: ModelConfig) -> None:
    height, width, channels = config.input_shape
    assert build_model(config)(torch.zeros(3, channels, height, width)).shape == (3, config.classes)


def test_the_resnet_of_a_recipe() -> None:
    config = config_for(ModelSection(width=16, depth=3), (8, 8, 1), 10, 0.25)
    assert config == ModelConfig("resnet", (8, 8, 1), 10, (16, 16, 16, 32, 32, 64, 64), (1, 1, 2, 2), "relu", 0.25)


def test_the_dscnn_of_a_recipe() -> None:
    config = config_for(ModelSection(family="dscnn", width=64, depth=4, stem_stride=2, activation="relu6"), (28, 28, 1), 12, 0)
    assert config == ModelConfig("dscnn", (28, 28, 1), 12, (64,) * 5, (2, 1, 1, 1, 1), "relu6", 0)


def test_a_recipe_for_an_absurd_network_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"train\.model: widths .*; use less depth or width"):
        config_for(ModelSection(width=256, depth=16), (8, 8, 1), 10, 0)


@pytest.mark.parametrize("config", CONFIGS)
def test_only_the_documented_leaves_remain_in_the_graph(config: ModelConfig) -> None:
    known = (SameConv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Dropout, nn.Linear, nn.MaxPool2d, GlobalAveragePool)
    graph = trace(build_model(config))
    for node in graph.graph.nodes:
        if node.op == "call_module":
            assert isinstance(graph.get_submodule(node.target), known)
        else:
            assert node.op in ("placeholder", "output") or (node.op, node.target) == ("call_function", operator.add)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_traced_graph_computes_the_same(config: ModelConfig) -> None:
    torch.manual_seed(2)
    model = build_model(config).eval()
    images = torch.rand(2, config.input_shape[2], *config.input_shape[:2])
    assert torch.equal(trace(model)(images), model(images))


def test_every_convolution_is_followed_by_batch_norm() -> None:
    graph = trace(build_model(UNEVEN))
    for node in graph.graph.nodes:
        if node.op == "call_module" and isinstance(graph.get_submodule(node.target), SameConv2d):
            (user,) = node.users
            assert isinstance(graph.get_submodule(user.target), nn.BatchNorm2d)


def test_only_the_first_stage_keeps_its_input_as_it_is() -> None:
    stages = [m for m in build_model(RESNET).modules() if isinstance(m, ResidualStage)]
    assert [s.projected for s in stages] == [False, True, True]


def test_the_activation_is_the_configs() -> None:
    kinds = {type(m) for m in build_model(UNEVEN).modules()}
    assert nn.ReLU6 in kinds and nn.ReLU not in kinds


def test_global_average_pool_is_the_mean() -> None:
    images = torch.randn(2, 3, 4, 5)
    assert torch.allclose(GlobalAveragePool()(images), images.flatten(2).mean(2), atol=1e-6)


def test_dropout_acts_in_training_only() -> None:
    model = build_model(ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8), (1, 1), dropout=0.5))
    images = torch.rand(4, 1, 8, 8)
    model.eval()
    assert torch.equal(model(images), model(images))
    for module in model.modules():
        module.train(isinstance(module, nn.Dropout))
    assert not torch.equal(model(images), model(images))


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in build_model(RESNET).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_fresh_convolutions_have_he_variance() -> None:
    torch.manual_seed(0)
    layer = build_model(ModelConfig("dscnn", (8, 8, 64), 10, (256,), (1,))).get_submodule("stem")
    assert isinstance(layer, SameConv2d)
    assert abs(float(layer.weight.detach().var()) * 256 * 9 / 2 - 1) < 0.02


# counts


def test_counts_of_a_resnet_by_hand() -> None:
    model = build_model(RESNET)
    convolutions = [(1, 16, 9, 64), (16, 16, 9, 64), (16, 16, 9, 64)]
    convolutions += [(16, 32, 9, 16), (32, 32, 9, 16), (16, 32, 1, 16), (32, 64, 9, 4), (64, 64, 9, 4), (32, 64, 1, 4)]
    assert count_macs(model, (8, 8, 1)) == sum(i * o * k * pixels for i, o, k, pixels in convolutions) + 640
    assert count_weights(model) == sum(i * o * k + o for i, o, k, _ in convolutions) + 650


def test_counts_of_a_dscnn_by_hand() -> None:
    model = build_model(DSCNN)
    macs = 9 * 8 * 196 + 9 * 8 * 196 + 8 * 12 * 196 + 9 * 12 * 49 + 12 * 16 * 49 + 160
    weights = (72 + 8) + (72 + 8) + (96 + 12) + (108 + 12) + (192 + 16) + (160 + 10)
    assert count_macs(model, (28, 28, 1)) == macs
    assert count_weights(model) == weights


def test_counting_leaves_the_network_as_it_was() -> None:
    model = build_model(RESNET).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model, (8, 8, 1))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


# configs


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_survives_json(config: ModelConfig) -> None:
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def changed(**values: Any) -> dict[str, Any]:
    return {**RESNET.to_json(), **values}


@pytest.mark.parametrize(
    "values",
    [
        changed(family="vgg"),
        changed(activation="tanh"),
        changed(input_shape=[8, 8]),
        changed(input_shape=[8, 8, 0]),
        changed(input_shape=[8, -8, 1]),
        changed(classes=0),
        changed(classes=1 << 40),
        changed(classes="10"),
        changed(widths=[16, 16]),
        changed(widths=[16, 16, 16, 32, 32, 64, 0]),
        changed(widths=[16, 16, 16, 32, 32, 64, 6.5]),
        changed(widths=[16, 16, 16, 32, 32, 64, 1 << 20]),
        changed(widths=None),
        changed(strides=[1, 1, 2, 3]),
        changed(strides=[]),
        changed(strides=[1] * 200),
        changed(dropout=1.0),
        changed(dropout="x"),
        changed(surprise=1),
        {"family": "resnet"},
        {},
    ],
)
def test_hostile_configs_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        ModelConfig.from_json(values)
