"""Pruning really shrinks: shapes, multiples, consistency of what belongs together, multiply-accumulates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress.method import Candidate, Context
from compress.prune import IMPORTANCE, PruneSettings, is_depthwise, prune, rebuild, widths_of
from recipes.artifacts import UsageError
from recipes.recipe import parse
from train.evaluate import accuracy
from train.models import ModelConfig, SameConv2d, build_model, count_macs, count_weights


@pytest.fixture
def anywhere(network: tuple[nn.Module, ModelConfig], context: Context) -> Context:
    """A context for methods that do not train."""
    return replace(context, teacher=network[0])


def wide(family: str) -> ModelConfig:
    if family == "resnet":
        return ModelConfig("resnet", (8, 8, 1), 10, (16, 16, 16, 32, 32, 64, 64), (1, 1, 2, 2))
    return ModelConfig("dscnn", (8, 8, 3), 7, (16, 16, 24, 32), (2, 1, 2, 1), "relu6")


def pruned(config: ModelConfig, settings: PruneSettings, context: Context, seed: int = 0) -> tuple[Candidate, Candidate]:
    torch.manual_seed(seed)
    before = Candidate(build_model(config).eval(), config)
    return before, prune(before, settings, context)


def macs_by_hand(model: nn.Module, config: ModelConfig) -> int:
    """Sum over layers of output pixels x weights of one output, from the shapes alone."""
    height, width, _ = config.input_shape
    total = 0
    for name, layer in model.named_modules():
        if isinstance(layer, SameConv2d):
            stride = layer.stride[0]
            if "skip" in name:  # reads the input of the stage, whose stride has been counted
                stride = 1
            height, width = -(-height // stride), -(-width // stride)
            kernel = layer.kernel_size[0] * layer.kernel_size[1]
            total += height * width * layer.out_channels * kernel * (layer.in_channels // layer.groups)
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features
    return total


@pytest.mark.parametrize("family", ["resnet", "dscnn"])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_shapes_are_multiples_of_four_and_consistent(family: str, scope: str, ratio: float, context: Context) -> None:
    config = wide(family)
    settings = parse(PruneSettings, {"ratio": ratio, "scope": scope}, "prune")
    _, after = pruned(config, settings, context)
    assert all(width % 4 == 0 and width > 0 for width in after.config.widths)
    assert sum(after.config.widths) < sum(config.widths)
    for layer in after.model.modules():
        if isinstance(layer, SameConv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
            assert not is_depthwise(layer) or layer.groups == layer.in_channels == layer.out_channels
    height, width, channels = config.input_shape
    assert after.model(torch.rand(2, channels, height, width)).shape == (2, config.classes)


@pytest.mark.parametrize("family", ["resnet", "dscnn"])
def test_layer_scope_halves_every_width(family: str, context: Context) -> None:
    config = wide(family)
    _, after = pruned(config, PruneSettings(ratio=0.5), context)
    assert after.config.widths == tuple(round(w / 8) * 4 for w in config.widths)
    assert replace(after.config, widths=config.widths) == config


@pytest.mark.parametrize("family", ["resnet", "dscnn"])
def test_macs_and_weights_fall_as_the_shapes_say(family: str, context: Context) -> None:
    before, after = pruned(wide(family), PruneSettings(ratio=0.5), context)
    counted = [count_macs(c.model, c.config.input_shape) for c in (before, after)]
    assert counted == [macs_by_hand(c.model, c.config) for c in (before, after)]
    assert counted[1] < 0.4 * counted[0]
    assert count_weights(after.model) < 0.4 * count_weights(before.model)
    stored = [sum(p.numel() for p in c.model.parameters()) for c in (before, after)]
    assert stored[1] < 0.4 * stored[0], "tensors shrink, nothing is only masked"


@pytest.mark.parametrize("family", ["resnet", "dscnn"])
def test_zero_channels_are_the_ones_removed(family: str, context: Context) -> None:
    """Half of every layer's channels are dead; pruning must find them, and the answers must stay the same."""
    config = wide(family)
    torch.manual_seed(1)
    model = build_model(config).eval()
    generator = torch.Generator().manual_seed(2)
    keep: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.bias.uniform_(0.1, 0.5, generator=generator)
                mask = keep.setdefault(layer.num_features, torch.randperm(layer.num_features, generator=generator) % 2 == 0)
                layer.weight[~mask] = 0
                layer.bias[~mask] = 0
        for layer in model.modules():
            if isinstance(layer, SameConv2d):
                layer.weight[~keep[layer.out_channels]] *= 1e-3
                if layer.in_channels in keep and not is_depthwise(layer):
                    layer.weight[:, ~keep[layer.in_channels]] *= 1e-3
    after = prune(Candidate(model, config), PruneSettings(ratio=0.5), context)
    height, width, channels = config.input_shape
    batch = torch.rand(6, channels, height, width, generator=generator)
    with torch.no_grad():
        expected, found = model(batch), after.model(batch)
    assert expected.std() > 1e-2
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("importance", sorted(IMPORTANCE))
def test_every_importance_works(importance: str, context: Context) -> None:
    settings = parse(PruneSettings, {"importance": importance}, "prune")
    _, after = pruned(wide("resnet"), settings, context)
    assert after.config.widths == (8, 8, 8, 16, 16, 32, 32)


def test_ratio_0_changes_nothing(network: tuple[nn.Module, ModelConfig], anywhere: Context) -> None:
    model, config = network
    after = prune(Candidate(model, config), PruneSettings(ratio=0.0), anywhere)
    assert after.config == config
    assert all(torch.equal(a, b) for a, b in zip(after.model.state_dict().values(), model.state_dict().values(), strict=True))


def test_the_narrowest_layer_keeps_four_channels(context: Context) -> None:
    config = ModelConfig("resnet", (8, 8, 1), 10, (4, 4, 4, 8, 8), (1, 1, 2))
    _, after = pruned(config, PruneSettings(ratio=0.9), context)
    assert min(after.config.widths) == 4


def test_round_to_one_gives_exact_ratios(context: Context) -> None:
    _, after = pruned(wide("dscnn"), PruneSettings(ratio=0.25, round_to=1), context)
    assert after.config.widths == (12, 12, 18, 24)


def test_the_candidate_given_is_not_touched(network: tuple[nn.Module, ModelConfig], anywhere: Context) -> None:
    model, config = network
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune(Candidate(model, config), PruneSettings(ratio=0.5), anywhere)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert widths_of(model) == config.widths


def test_pruning_is_repeatable(context: Context) -> None:
    first, second = (pruned(wide("resnet"), PruneSettings(ratio=0.6), context)[1] for _ in range(2))
    assert first.config == second.config
    states = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_widths_of_reads_what_the_config_says(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    assert widths_of(model) == config.widths
    assert rebuild(model, replace(config, dropout=0.0)).config.widths == config.widths


def test_iterations_train_in_between(trained: Candidate, context: Context) -> None:
    at_once = prune(trained, PruneSettings(ratio=0.5), context)
    settings = PruneSettings(ratio=0.5, iterations=2, epochs=4, learning_rate=4e-3)
    in_parts = prune(trained, settings, context)
    assert in_parts.config.widths == at_once.config.widths == (4, 4, 4, 8, 8)
    scores = [accuracy(c.model, context.dataset.test) for c in (at_once, in_parts)]
    assert scores[1] != scores[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": 1.0}, "'ratio' is 1.0"),
        ({"ratio": -0.1}, "'ratio' is -0.1"),
        ({"importance": "random"}, "'importance' is 'random'"),
        ({"ration": 0.5}, "did you mean 'ratio'"),
        ({"round_to": 0}, "'round_to' is 0"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(PruneSettings, values, "compress.steps.0.prune")
