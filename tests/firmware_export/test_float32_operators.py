"""The arithmetic float32 against LiteRT's default kernels (XNNPACK), every operator, and onnxruntime's QLinearConv: 0 bytes."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
from example_cases import Case, cases_of
from float32_cases import ACCUMULATING, in_float32, litert_default
from qlinear import run_qlinear

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import registry
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

NAMES = sorted(registry())


def ratio(graph: Graph, *upper: int) -> np.float32:
    """The product of the named inputs' scales over the output's, in float32."""
    node = graph.nodes[0]
    result = np.float32(1)
    for place in upper:
        result = result * np.float32(graph.tensors[node.inputs[place]].scale)
    return np.float32(result / np.float32(graph.tensors[node.outputs[0]].scale))


def sum_out_of_range(graph: Graph) -> bool:
    """XNNPACK takes sums and differences whose larger ratio of scales is from 2^-10 to below 2^8."""
    return not 2.0**-10 <= max(ratio(graph, 0), ratio(graph, 1)) < 2.0**8


def product_out_of_range(graph: Graph) -> bool:
    """XNNPACK takes factors from 2^-16 to below 2^8."""
    return not 2.0**-16 <= ratio(graph, 0, 1) < 2.0**8


def bytes_of_two_types(graph: Graph) -> bool:
    """uint8 is not XNNPACK's by default."""
    return "uint8" in {graph.tensors[0].dtype, graph.tensors[1].dtype} and graph.tensors[0].dtype != "float32"


def kernel_smaller_than_stride(graph: Graph) -> bool:
    """XNNPACK does not take these with SAME padding: output size = input size x stride, or up to stride - 1 less."""
    node = graph.nodes[0]
    kernel, stride = graph.tensors[node.inputs[1]].shape[1:3], node.integers("stride")
    sizes = zip(node.integers("size"), graph.tensors[node.inputs[0]].shape[1:3], stride, strict=True)
    return any(np.less(kernel, stride)) and all(-(-size // step) == source for size, source, step in sizes)


def second_zero_point(graph: Graph) -> bool:
    """XNNPACK multiplies by matrices with the zero point 0 alone."""
    return graph.tensors[graph.nodes[0].inputs[1]].zero_point != 0


def always(_graph: Graph) -> bool:
    return True


LITERT_ITSELF: dict[str, Callable[[Graph], bool]] = {
    "add": sum_out_of_range,
    "sub": sum_out_of_range,
    "mul": product_out_of_range,
    "quantize": bytes_of_two_types,
    "transpose_conv": kernel_smaller_than_stride,
    "batch_matmul": second_zero_point,
    "softmax": always,
    "mean": always,
    "sum": always,
    "lstm": always,
}
"""Where another kernel than XNNPACK's runs, or one that is not the same on every machine: there float32 is the rule of double,
which test_operators.py and test_second_implementation.py hold."""


def wrong_values(case: Case, found: list[tuple[np.ndarray, ...]]) -> int:
    """How many values differ from the simulator's."""
    wrong = 0
    for outputs, expected in zip(found, case.answers, strict=True):
        for theirs, ours in zip(outputs, expected, strict=True):
            wrong += int(np.count_nonzero(theirs.reshape(-1) != ours.reshape(-1)))
    return wrong


def check(name: str, seed: int) -> None:
    exempt = LITERT_ITSELF.get(name, lambda graph: False)
    compared = 0
    for double in cases_of(name, seed):
        case = in_float32(double)
        node = case.graph.nodes[0]
        if exempt(case.graph) and not registry()[name].litert_default(case.graph, node):
            for ours, theirs in zip(case.answers, double.answers, strict=True):
                assert [a.tobytes() for a in ours] == [b.tobytes() for b in theirs], case.label
            continue
        try:
            found = litert_default(write_tflite(case.graph), case.vectors)
        except RuntimeError as error:
            assert name == "dequantize" and "scale value" in str(error), case.label  # XNNPACK refuses uint8 at scales near 0
            continue
        assert wrong_values(case, found) == 0, case.label
        compared += 1
    assert compared >= 4 or exempt is always, f"{name}: {compared} examples compared"


def test_softmax_is_nearly_that_of_litert() -> None:
    """Its own kernel adds the shares in float32: one value in a million is another, by 1."""
    for case in cases_of("softmax"):
        found = litert_default(write_tflite(case.graph), case.vectors)
        for (theirs,), (ours,) in zip(found, case.answers, strict=True):
            assert np.abs(theirs.astype(int) - ours).max() <= 1 and np.count_nonzero(theirs != ours) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_equals_litert_default(name: str) -> None:
    check(name, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("name", NAMES)
def test_equals_litert_default_with_more_seeds(name: str, seed: int) -> None:
    check(name, seed)


@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d", "fully_connected"])
def test_equals_qlinear_conv(name: str) -> None:
    for double in cases_of(name):
        case = in_float32(double)
        assert wrong_values(case, [(output,) for output in run_qlinear(case.graph, case.vectors)]) == 0, case.label


def many_scales(op: str, seed: int) -> tuple[Graph, np.ndarray]:
    """256 sums around a tie in each of 256 channels: a scale that is off by one unit of float32 shows.

    One weight of 1 for each channel; the bias brings the sums, about 2^23, to where the output lies between two integers.
    """
    rng = np.random.default_rng(seed)
    count = 256
    s_in, s_out = np.float32(rng.uniform(0.001, 0.1)), np.float32(rng.uniform(0.01, 0.2))
    s_w = (rng.uniform(0.5, 2, count) * 1e-5 * s_out / s_in).astype(np.float32)
    real = np.float64(s_in) * s_w / np.float64(s_out)
    bias = np.rint((rng.integers(-100, 100, count) + 0.5) / real).astype(np.int32)
    image = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    shapes = {
        "conv2d": ((1, 16, 16, 1), (count, 1, 1, 1), 0, (1, 16, 16, count), image),
        "depthwise_conv2d": ((1, 16, 16, 1), (1, 1, 1, count), 3, (1, 16, 16, count), image),
        "fully_connected": ((1, 256, 1), (count, 1), 0, (1, 256, count), {"clamp": (-128, 127), "keep_dims": 1}),
    }
    x_shape, w_shape, axis, y_shape, attributes = shapes[op]
    zeros = np.zeros(count, np.int64)
    tensors = [
        Tensor("x", x_shape, "int8", Quantization.per_tensor(float(s_in), 0)),
        Tensor("w", w_shape, "int8", Quantization(s_w, zeros, axis), np.ones(w_shape, np.int8)),
        Tensor("b", (count,), "int32", Quantization((s_in * s_w).astype(np.float32), zeros, 0), bias),
        Tensor("y", y_shape, "int8", Quantization.per_tensor(float(s_out), 0)),
    ]
    graph = Graph(tensors, [Node(op, (0, 1, 2), (3,), attributes)], (0,), (3,), "float32")
    return graph, np.arange(-128, 128).astype(np.int8).reshape(x_shape)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d", "fully_connected"])
def test_the_scale_to_its_last_bit(op: str, seed: int) -> None:
    """And a scale made in another order would not do: so the test can see the difference."""
    graph, x = many_scales(op, seed)
    ours = simulate(graph, x)[0]
    assert np.array_equal(litert_default(write_tflite(graph), ((x,),))[0][0], ours)
    assert np.array_equal(run_qlinear(graph, ((x,),))[0], ours)
    s_in, s_out = (np.float32(graph.tensors[index].scale) for index in (0, 3))
    s_w, bias = graph.tensors[1].quantization.scale, graph.tensors[2].data
    sums = (x.reshape(-1, 1).astype(np.int64) + bias).astype(np.float32)
    for scale in (s_in * (s_w / s_out), (s_in / s_out) * s_w, (np.float64(s_in) * s_w / np.float64(s_out)).astype(np.float32)):
        other = np.clip(np.rint(sums * scale), -128, 127).reshape(ours.shape)
        assert np.count_nonzero(other != ours) > 5
    assert np.count_nonzero(simulate(graph.with_arithmetic("double"), x)[0] != ours) > 5


@pytest.mark.parametrize("name", sorted(set(ACCUMULATING) - {"fully_connected"}))
def test_the_arithmetics_differ(name: str) -> None:
    """On some example; else nothing would have been shown. Fully connected layers differ in the test above alone."""
    assert any(wrong_values(in_float32(case), list(case.answers)) for case in cases_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_says_what_float32_means_for_it(name: str) -> None:
    text = " ".join((inspect.getdoc(type(registry()[name])) or "").split())
    assert "In float32" in text or "in every arithmetic" in text
