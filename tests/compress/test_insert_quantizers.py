"""Where quantizers stand: after fused activations, after additions, none after max pool and flatten."""

from __future__ import annotations

import torch
from torch import fx, nn

from compress.fake_quantize import ActivationQuantizer, Mode, QuantizedLayer, set_mode
from compress.fold import fold_batch_norm, layer_of
from compress.insert_quantizers import insert_quantizers, output_quantizer, quantizer_before
from train.models import GlobalAveragePool, ModelConfig


def sources_of_quantizers(traced: fx.GraphModule) -> list[str]:
    """Names of the nodes that a quantizer follows, in order."""
    return [str(node.args[0]) for node in traced.graph.nodes if isinstance(layer_of(traced, node), ActivationQuantizer)]


def quantized(model: nn.Module) -> fx.GraphModule:
    return insert_quantizers(fold_batch_norm(model))


def test_residual_network(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    found = sources_of_quantizers(quantized(model))
    if config.family == "resnet":
        assert found == [
            *("input_1", "stem_act"),
            *("body_0_act1", "body_0_conv2", "body_0_act2"),
            *("body_1_act1", "body_1_skip_conv", "body_1_conv2", "body_1_act2"),
            *("pool", "classifier"),
        ]
    else:
        assert found == [
            *("input_1", "stem_act", "body_0_act1", "body_0_act2", "body_1_act1", "body_1_act2"),
            *("pool", "classifier"),
        ]


def test_max_pool_and_flatten_keep_the_quantization_of_their_input(pool_network: nn.Module) -> None:
    traced = quantized(pool_network)
    assert sources_of_quantizers(traced) == ["x", "activation", "linear"]
    flatten = next(node for node in traced.graph.nodes if isinstance(layer_of(traced, node), nn.Flatten))
    assert quantizer_before(traced, flatten).name == "activation_quantizer"


def test_max_pool_gives_only_values_that_its_input_scale_can_hold(pool_network: nn.Module) -> None:
    traced = quantized(pool_network)
    batch = torch.rand(5, 2, 6, 6)
    set_mode(traced, Mode.CALIBRATE)
    traced(batch)
    set_mode(traced, Mode.FIXED)
    seen: list[torch.Tensor] = []
    pool = next(module for module in traced.modules() if isinstance(module, nn.MaxPool2d))
    pool.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        traced(batch)
    steps = seen[0] / traced.get_submodule("activation_quantizer").scale
    assert torch.allclose(steps, steps.round(), atol=1e-3) and steps.max() > 50


def test_every_weighted_layer_reads_the_scale_of_the_quantizer_before_it(network: tuple[nn.Module, ModelConfig]) -> None:
    traced = quantized(network[0])
    layers = [node for node in traced.graph.nodes if isinstance(layer_of(traced, node), QuantizedLayer)]
    assert len(layers) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network[0].modules())
    for node in layers:
        assert node.args[1].target == f"{quantizer_before(traced, node).target}.scale"


def test_calibrating_computes_in_float(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    folded = fold_batch_norm(model)
    traced = insert_quantizers(folded)
    height, width, channels = config.input_shape
    batch = torch.rand(3, channels, height, width)
    set_mode(traced, Mode.CALIBRATE)
    with torch.no_grad():
        assert torch.equal(traced(batch), folded(batch))


def test_quantizing_comes_close_to_float_but_is_not_float(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    traced = quantized(model)
    height, width, channels = config.input_shape
    batch = torch.rand(16, channels, height, width, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = model(batch)
        set_mode(traced, Mode.CALIBRATE)
        traced(batch)
        set_mode(traced, Mode.FIXED)
        found = traced(batch)
    error = (found - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.1


def test_the_folded_network_is_not_touched(network: tuple[nn.Module, ModelConfig]) -> None:
    folded = fold_batch_norm(network[0])
    names = list(folded.state_dict())
    traced = insert_quantizers(folded)
    with torch.no_grad():
        for parameter in traced.parameters():
            parameter.add_(1)
    assert list(folded.state_dict()) == names
    assert not any(isinstance(module, ActivationQuantizer | QuantizedLayer) for module in folded.modules())
    assert not torch.equal(next(folded.parameters()), next(traced.parameters()))


class ActivationTwice(nn.Module):
    """The convolution's output is read by its activation and by the addition: nothing may be fused."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return self.activation(y) + y


def test_an_output_with_two_readers_gets_its_own_quantizer() -> None:
    assert sources_of_quantizers(quantized(ActivationTwice())) == ["x", "linear", "activation", "add"]


class PoolThenActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = GlobalAveragePool()
        self.activation = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.pool(x))


def test_an_activation_after_the_pool_is_fused_too() -> None:
    assert sources_of_quantizers(quantized(PoolThenActivation())) == ["x", "activation"]


def test_the_momentum_reaches_the_quantizers(network: tuple[nn.Module, ModelConfig]) -> None:
    traced = insert_quantizers(fold_batch_norm(network[0]), momentum=0.5)
    assert {m.momentum for m in traced.modules() if isinstance(m, ActivationQuantizer) and not m.fixed} == {0.5}


def test_the_output_quantizer_is_the_last_one(network: tuple[nn.Module, ModelConfig]) -> None:
    traced = quantized(network[0])
    assert output_quantizer(traced) is traced.get_submodule("classifier_quantizer")
