"""The written files, read back with onnx's own helpers and run by onnxruntime, onnx's reference and torch's exporter."""

from __future__ import annotations

import io
import itertools
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import fx, nn

from compress.fake_quantize import ActivationQuantizer, Mode, QuantizedLayer, set_mode
from compress.fold import fold_batch_norm, layer_of
from compress.insert_quantizers import insert_quantizers
from compress.write_onnx import onnx_bytes
from firmware_export.graph import GraphError
from train.models import ModelConfig, SameConv2d

POOL_SHAPE = (6, 6, 2)


def batch_for(shape: tuple[int, int, int], count: int = 16) -> torch.Tensor:
    """Images float [count, c, h, w] on the grid of uint8 / 255, from dark to bright."""
    height, width, channels = shape
    generator = torch.Generator().manual_seed(8)
    pixels = torch.rand((count, channels, height, width), generator=generator) * torch.rand(
        (count, channels, 1, 1), generator=generator
    )
    return torch.round(pixels * 255) / 255


def quantize(model: nn.Module, shape: tuple[int, int, int]) -> fx.GraphModule:
    traced = insert_quantizers(fold_batch_norm(model))
    set_mode(traced, Mode.CALIBRATE)
    with torch.no_grad():
        traced(batch_for(shape, 64))
    set_mode(traced, Mode.FIXED)
    return traced.eval()


def run(content: bytes, batch: torch.Tensor) -> npt.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"input": image[None].numpy()})[0] for image in batch])


class File:
    """A parsed file: constants by name, the node that makes each value, the nodes that read it."""

    def __init__(self, content: bytes) -> None:
        self.model = onnx.load_from_string(content)
        self.nodes = list(self.model.graph.node)
        self.constants = {c.name: numpy_helper.to_array(c) for c in self.model.graph.initializer}
        self.maker = {node.output[0]: node for node in self.nodes}

    def of_type(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == op_type]

    def readers(self, value: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if value in node.input]

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


@pytest.fixture
def int8(network: tuple[nn.Module, ModelConfig]) -> tuple[fx.GraphModule, File, bytes, ModelConfig]:
    model, config = network
    traced = quantize(model, config.input_shape)
    content = onnx_bytes(traced, config.input_shape, "net")
    return traced, File(content), content, config


Int8 = tuple[fx.GraphModule, File, bytes, ModelConfig]


def test_float_file_answers_as_torch(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    content = onnx_bytes(fold_batch_norm(model), config.input_shape, "net")
    batch = batch_for(config.input_shape)
    with torch.no_grad():
        np.testing.assert_allclose(run(content, batch), model(batch).numpy(), rtol=1e-4, atol=1e-5)


def test_float_file_of_the_pool_network(pool_network: nn.Module) -> None:
    content = onnx_bytes(fold_batch_norm(pool_network), POOL_SHAPE, "net")
    file = File(content)
    assert [node.op_type for node in file.nodes] == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]
    batch = batch_for(POOL_SHAPE)
    with torch.no_grad():
        np.testing.assert_allclose(run(content, batch), pool_network(batch).numpy(), rtol=1e-4, atol=1e-5)


def test_float_file_against_torchs_own_exporter(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    folded = fold_batch_norm(model)
    buffer, batch = io.BytesIO(), batch_for(config.input_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter tells that it is the older one
        torch.onnx.export(
            folded, (batch[:1],), buffer, input_names=["input"], output_names=["logits"], dynamo=False, opset_version=17
        )
    theirs, ours = File(buffer.getvalue()), File(onnx_bytes(folded, config.input_shape, "net"))
    np.testing.assert_allclose(run(ours.model.SerializeToString(), batch), run(buffer.getvalue(), batch), rtol=1e-4, atol=1e-5)
    for op_type in ("Conv", "Gemm", "Relu", "Clip", "Add"):
        assert len(ours.of_type(op_type)) == len(theirs.of_type(op_type)), op_type
    for mine, other in zip(ours.of_type("Conv"), theirs.of_type("Conv"), strict=True):
        np.testing.assert_array_equal(ours.constants[mine.input[1]], theirs.constants[other.input[1]])


def test_header_and_interface(int8: Int8) -> None:
    _, file, _, config = int8
    model, (height, width, channels) = file.model, config.input_shape
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert model.ir_version == 9
    (source,), (result,) = model.graph.input, model.graph.output
    assert (source.name, [d.dim_value for d in source.type.tensor_type.shape.dim]) == ("input", [1, channels, height, width])
    assert (result.name, [d.dim_value for d in result.type.tensor_type.shape.dim]) == ("logits", [1, config.classes])
    assert source.type.tensor_type.elem_type == result.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert not [c for c in model.graph.initializer if c.data_location == onnx.TensorProto.EXTERNAL]
    assert not file.of_type("Pad") and not file.of_type("Transpose") and not file.of_type("BatchNormalization")


def test_the_checker_and_every_shape(int8: Int8) -> None:
    _, file, _, _ = int8
    onnx.checker.check_model(file.model, full_check=True)
    shaped = {v.name for v in itertools.chain(file.model.graph.value_info, file.model.graph.output)}
    assert {name for node in file.nodes for name in node.output} <= shaped


def test_the_input_scale_is_float32_of_one_255th(int8: Int8) -> None:
    _, file, _, _ = int8
    (first,) = file.readers("input")
    assert first.op_type == "QuantizeLinear"
    scale, zero_point = (file.constants[name] for name in first.input[1:])
    assert scale.dtype == np.float32 and scale.shape == () and scale == np.float32(1 / 255)
    assert zero_point.dtype == np.int8 and zero_point.shape == () and zero_point == -128


def test_whole_tensor_scales_have_rank_0_and_pairs_agree(int8: Int8) -> None:
    _, file, _, _ = int8
    for node in file.of_type("QuantizeLinear"):
        scale, zero_point = (file.constants[name] for name in node.input[1:])
        assert scale.shape == zero_point.shape == () and scale.dtype == np.float32 and zero_point.dtype == np.int8
        (reader,) = file.readers(node.output[0])
        assert reader.op_type == "DequantizeLinear" and list(reader.input[1:]) == list(node.input[1:])


def test_every_layer_stands_between_dequantize_and_quantize(int8: Int8) -> None:
    _, file, _, _ = int8
    for node in itertools.chain(
        file.of_type("Conv"), file.of_type("Gemm"), file.of_type("Add"), file.of_type("GlobalAveragePool")
    ):
        assert {file.maker[name].op_type for name in node.input} == {"DequantizeLinear"}
        (after,) = file.readers(node.output[0])
        if after.op_type in ("Relu", "Clip", "Flatten"):
            (after,) = file.readers(after.output[0])
        assert after.op_type == "QuantizeLinear"


def test_weights_scales_zero_points_and_bias_scales(int8: Int8) -> None:
    traced, file, _, _ = int8
    layers = {node.name: layer_of(traced, node) for node in traced.graph.nodes}
    for node in itertools.chain(file.of_type("Conv"), file.of_type("Gemm")):
        x, weight, bias = (file.maker[name] for name in node.input)
        input_scale = file.constants[x.input[1]]
        stored, scales, zero_points = (file.constants[name] for name in weight.input)
        stored_bias, bias_scales, bias_zero_points = (file.constants[name] for name in bias.input)
        channels = stored.shape[0]
        assert file.attributes(weight)["axis"] == file.attributes(bias)["axis"] == 0
        assert stored.dtype == np.int8 and scales.shape == zero_points.shape == (channels,) and not zero_points.any()
        assert zero_points.dtype == np.int8 and stored.min() >= -127
        assert stored_bias.dtype == bias_zero_points.dtype == np.int32 and not bias_zero_points.any()
        assert bias_scales.dtype == np.float32
        np.testing.assert_array_equal(bias_scales, (input_scale * scales).astype(np.float32))
        layer = layers[node.output[0] if node.output[0] != "logits" else "classifier"]
        assert isinstance(layer, QuantizedLayer)
        weights = layer.layer.weight.detach().numpy().reshape(channels, -1)
        np.testing.assert_allclose(scales, np.abs(weights).max(1) / 127, rtol=1e-6)
        np.testing.assert_array_equal(stored.reshape(channels, -1), np.rint(weights / scales[:, None]))


def test_scales_in_the_file_are_those_of_the_network_bit_for_bit(int8: Int8) -> None:
    traced, file, _, _ = int8
    inside = [(m.scale.numpy(), m.zero_point.item()) for m in traced.modules() if isinstance(m, ActivationQuantizer)]
    written = [tuple(file.constants[name] for name in node.input[1:]) for node in file.of_type("QuantizeLinear")]
    assert len(inside) == len(written)
    for (scale, zero_point), (written_scale, written_zero_point) in zip(inside, written, strict=True):
        assert scale.tobytes() == written_scale.tobytes() and zero_point == written_zero_point


def test_convolution_attributes_hold_the_asymmetric_padding(int8: Int8) -> None:
    traced, file, _, _ = int8
    convolutions = [m for m in traced.modules() if isinstance(m, SameConv2d)]
    nodes = file.of_type("Conv")
    assert len(nodes) == len(convolutions)
    for node, layer in zip(nodes, convolutions, strict=True):
        attributes = file.attributes(node)
        top, bottom, left, right = layer.pads
        assert attributes["pads"] == [top, left, bottom, right]
        assert attributes["strides"] == list(layer.stride) and attributes["kernel_shape"] == list(layer.kernel_size)
        assert attributes["group"] == layer.groups and attributes["dilations"] == [1, 1]
    assert any(p[0] != p[2] for p in (file.attributes(n)["pads"] for n in nodes)), "a stride-2 layer pads unevenly"


def test_relu6_is_a_clip_with_scalar_bounds() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU6(), nn.Linear(3, 2))
    file = File(onnx_bytes(fold_batch_norm(_Flat(model)), (2, 2, 1), "net"))
    (clip,) = file.of_type("Clip")
    bounds = [file.constants[name] for name in clip.input[1:]]
    assert [float(b) for b in bounds] == [0.0, 6.0] and all(b.shape == () and b.dtype == np.float32 for b in bounds)


class _Flat(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.flatten, self.inner = nn.Flatten(), inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.flatten(x))


def test_max_pool_and_flatten_share_their_inputs_scale(pool_network: nn.Module) -> None:
    file = File(onnx_bytes(quantize(pool_network, POOL_SHAPE), POOL_SHAPE, "net"))
    for op_type in ("MaxPool", "Flatten"):
        (node,) = file.of_type(op_type)
        before, (after,) = file.maker[node.input[0]], file.readers(node.output[0])
        assert before.op_type == "DequantizeLinear" and after.op_type == "QuantizeLinear"
        assert list(before.input[1:]) == list(after.input[1:])
    assert file.attributes(file.of_type("MaxPool")[0]) == {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}


def test_int8_pool_network_agrees_with_torch(pool_network: nn.Module) -> None:
    traced = quantize(pool_network, POOL_SHAPE)
    batch = batch_for(POOL_SHAPE)
    with torch.no_grad():
        expected = traced(batch).numpy()
    found = run(onnx_bytes(traced, POOL_SHAPE, "net"), batch)
    assert np.abs(found - expected).max() <= 1.01 * traced.get_submodule("linear_quantizer").scale.item()


def test_int8_file_agrees_with_torchs_fake_quantization(int8: Int8) -> None:
    traced, _, content, config = int8
    batch = batch_for(config.input_shape, 40)
    with torch.no_grad():
        expected = traced(batch).numpy()
    step = traced.get_submodule("classifier_quantizer").scale.item()
    apart = np.abs(run(content, batch) - expected) / step
    assert apart.max() < 3.01 and np.mean(apart > 0.5) < 0.3
    assert len(np.unique(expected)) > 20


def test_int8_file_in_onnxs_reference_implementation(int8: Int8) -> None:
    """An implementation that shares no code with torch or onnxruntime."""
    traced, file, _, config = int8
    batch = batch_for(config.input_shape, 3)
    evaluator = ReferenceEvaluator(file.model)
    found = np.concatenate([evaluator.run(None, {"input": image[None].numpy()})[0] for image in batch])
    with torch.no_grad():
        expected = traced(batch).numpy()
    assert np.abs(found - expected).max() <= 3.01 * traced.get_submodule("classifier_quantizer").scale.item()


def test_the_same_network_gives_the_same_bytes(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    for make in (fold_batch_norm, lambda m: quantize(m, config.input_shape)):
        assert onnx_bytes(make(model), config.input_shape, "net") == onnx_bytes(make(model), config.input_shape, "net")


def test_other_weights_give_other_bytes(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    folded = fold_batch_norm(model)
    before = onnx_bytes(folded, config.input_shape, "net")
    with torch.no_grad():
        next(folded.parameters()).mul_(2)
    assert onnx_bytes(folded, config.input_shape, "net") != before


def test_a_dead_channel_is_written_with_a_positive_scale(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    with torch.no_grad():
        model.stem.weight[1].zero_()
        model.stem_bn.bias[1] = 3.0
    traced = quantize(model, config.input_shape)
    content = onnx_bytes(traced, config.input_shape, "net")
    file = File(content)
    _, weight, bias = (file.maker[name] for name in file.of_type("Conv")[0].input)
    stored, scales, _ = (file.constants[name] for name in weight.input)
    stored_bias, bias_scales, _ = (file.constants[name] for name in bias.input)
    assert not stored[1].any() and scales[1] > 0
    expected = 3.0 - model.stem_bn.running_mean[1] * model.stem_bn.weight[1] / torch.sqrt(model.stem_bn.running_var[1] + 1e-5)
    assert stored_bias[1] * np.float64(bias_scales[1]) == pytest.approx(expected.item(), rel=1e-5)
    batch = batch_for(config.input_shape, 4)
    with torch.no_grad():
        found = traced(batch).numpy()
    assert np.abs(run(content, batch) - found).max() <= 3.01 * traced.get_submodule("classifier_quantizer").scale.item()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(network: tuple[nn.Module, ModelConfig], poison: float) -> None:
    model, config = network
    folded = fold_batch_norm(model)
    with torch.no_grad():
        folded.get_parameter("classifier.weight")[0, 0] = poison
    with pytest.raises(GraphError, match=r"'classifier.weight' holds NaN or infinity"):
        onnx_bytes(folded, config.input_shape, "net")


def test_a_network_without_linear_layer_is_refused() -> None:
    with pytest.raises(GraphError, match="no linear layer"):
        onnx_bytes(fold_batch_norm(nn.Sequential(nn.ReLU())), (2, 2, 1), "net")


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=2)])
def test_a_pool_that_cannot_be_written_is_refused(pool_network: nn.Module, pool: nn.MaxPool2d) -> None:
    pool_network.pool = pool
    with pytest.raises(GraphError, match="max pool with ceil_mode or dilation"):
        onnx_bytes(fold_batch_norm(pool_network), POOL_SHAPE, "net")


def test_a_padded_max_pool_is_written(pool_network: nn.Module) -> None:
    pool_network.pool = nn.MaxPool2d((3, 3), stride=(2, 2), padding=(1, 1))
    content = onnx_bytes(fold_batch_norm(pool_network), POOL_SHAPE, "net")
    batch = batch_for(POOL_SHAPE)
    with torch.no_grad():
        np.testing.assert_allclose(run(content, batch), pool_network(batch).numpy(), rtol=1e-4, atol=1e-5)
