"""Functions of one int8 value: near the real function, equal to both runtimes over many scales, read from ONNX and TFLite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from example_cases import cases_of
from oracles import litert, onnx_stored, onnxruntime_session, tflite_micro
from qdq_builder import Qdq

from firmware_export.emit import emit
from firmware_export.graph import Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import operator_of, registry
from firmware_export.operators._fixed_point import logistic, one_minus_over_one_plus, tanh
from firmware_export.plan import plan
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import TfliteOperator, read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

NAMES = ("logistic", "tanh", "hard_swish", "leaky_relu")
EVERY = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
STORED = {"logistic": (1 / 256, -128), "tanh": (1 / 128, 0)}
"""How TFLite stores these, whatever the model."""
REAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "leaky_relu": lambda x: np.where(x >= 0, x, 0.25 * x),
}


def one_node(op: str, x: tuple[float, int], y: tuple[float, int], shape: tuple[int, ...] = (1, 256)) -> Graph:
    """One node from one quantization to another."""
    tensors = [Tensor("t", shape, "int8", Quantization.per_tensor(float(np.float32(s)), z)) for s, z in (x, y)]
    attributes: dict[str, Attribute] = {"alpha": 0.25} if op == "leaky_relu" else {}
    return Graph(tensors, [Node(op, (0,), (1,), attributes)], (0,), (1,))


def output_for(op: str, scale: float, zero_point: int) -> tuple[float, int]:
    """TFLite's own where it has only one, else the input's."""
    return STORED.get(op, (scale, zero_point))


def real_of(graph: Graph, index: int, values: np.ndarray) -> np.ndarray:
    tensor = graph.tensors[index]
    return (values.astype(np.float64) - tensor.zero_point) * tensor.scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("scale", "zero_point"), [(0.05, 0), (0.02, -100), (0.1, 90), (0.001, 127), (0.5, -128), (0.03, 5)])
def test_near_the_real_function(name: str, scale: float, zero_point: int) -> None:
    graph = one_node(name, (scale, zero_point), output_for(name, scale, zero_point))
    found = simulate(graph, EVERY)[0]
    y = graph.tensors[1]
    exact = np.clip(REAL[name](real_of(graph, 0, EVERY)) / y.scale + y.zero_point, -128, 127)
    assert np.abs(found - exact).max() <= 1.3


@pytest.mark.parametrize("name", NAMES)
def test_every_value_under_many_scales(name: str) -> None:
    """100 input scales from 2^-12 to 4, every value, against TFLite Micro."""
    pytest.importorskip("tflite_micro", reason="the Python package tflite-micro is not installed")
    rng = np.random.default_rng(11)
    for scale in np.exp2(rng.uniform(-12, 2, 100)):
        zero_point = int(rng.integers(-128, 128))
        graph = one_node(name, (scale, zero_point), output_for(name, scale * 2.0 ** rng.uniform(-2, 3), zero_point // 2))
        expected = tflite_micro(write_tflite(graph), [EVERY])[0]
        assert np.array_equal(simulate(graph, EVERY)[0], expected), f"scale {scale}, zero point {zero_point}"


@pytest.mark.parametrize("name", ["logistic", "tanh"])
def test_litert_is_one_step_away_at_most_but_for_zero_at_wide_scales(name: str) -> None:
    """LiteRT has a table of float results. At scales of 8 and above TFLite Micro has its lowest for real 0, as here."""
    for case in cases_of(name):
        x, y, vector = *case.graph.tensors, case.vectors[0]
        if y.quantization == Quantization.per_tensor(*STORED[name]):
            expected = litert(write_tflite(case.graph), list(vector))[0]
            near = np.abs(case.answers[0][0].astype(int) - expected) <= 1
            assert np.all(near | ((vector[0] == x.zero_point) & (x.scale >= 8))), case.label


@pytest.mark.parametrize("name", ["logistic", "tanh", "leaky_relu"])
def test_results_never_fall(name: str) -> None:
    for case in cases_of(name):
        x = case.graph.tensors[0]
        alpha = case.graph.nodes[0].attributes.get("alpha", 1.0)
        if x.shape == (1, 256) and isinstance(alpha, float) and alpha >= 0:
            assert np.all(np.diff(simulate(case.graph, EVERY)[0].astype(int)) >= 0), case.label


@pytest.mark.parametrize("name", ["logistic", "tanh"])
def test_other_output_scales_are_written_with_a_quantize(name: str) -> None:
    own, other = one_node(name, (0.05, 3), STORED[name]), one_node(name, (0.05, 3), (0.01, -7))
    for graph, expected in ((own, 1), (other, 2)):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(write_tflite(graph), 0))
        builtins = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in model.subgraphs[0].operators]
        code = getattr(schema.BuiltinOperator, name.upper())
        assert builtins == [code, schema.BuiltinOperator.QUANTIZE][:expected]


def test_leaky_relu_of_slope_one_and_zero() -> None:
    graph = one_node("leaky_relu", (0.1, 10), (0.1, 10))
    for alpha, expected in ((1.0, EVERY), (0.0, np.maximum(EVERY, 10))):
        graph.nodes[0] = replace(graph.nodes[0], attributes={"alpha": alpha})
        assert np.array_equal(simulate(graph, EVERY)[0], expected)


def test_hard_swish_is_flat_below_three_and_the_input_above() -> None:
    graph = one_node("hard_swish", (0.0625, 0), (0.0625, 0))
    found = simulate(graph, EVERY)[0].ravel()
    real = np.arange(-128, 128) / 16
    assert np.all(found[real <= -3] == 0) and np.array_equal(found[real >= 3], EVERY.ravel()[real >= 3])


def test_table_is_in_the_order_of_unsigned_bytes() -> None:
    graph = one_node("leaky_relu", (0.1, 0), (0.1, 0), (1, 5))
    graph.nodes[0] = replace(graph.nodes[0], attributes={"alpha": 1.0})
    code = operator_of(graph.nodes[0]).emit(graph, graph.nodes[0])
    table = code.constants[0].data
    assert table.view(np.uint8).tolist() == list(range(256)) and table.dtype == np.int8
    assert code.fields == {"size": "5", "table": "{table}"} and code.sources == ("lookup.c",)
    text = emit(graph, plan(graph), "network", selftest=False)
    assert '#include "lookup.h"' in text["network.c"] and ".table = network_0_table" in text["network.c"]


def test_tanh_is_odd_and_logistic_symmetric() -> None:
    x = np.random.default_rng(0).integers(0, 2**31, 5000)
    assert np.array_equal(tanh(x, 4), -tanh(-x, 4))
    assert np.all(np.abs(logistic(x, 4) + logistic(-x, 4) - (2**31 - 1)) == 0)
    assert tanh(np.array([0]), 4)[0] == 0 and logistic(np.array([0]), 4)[0] == 2**30


def test_fixed_point_functions_are_near() -> None:
    x = np.random.default_rng(0).integers(-(2**31), 2**31, 5000)
    real = x / 2.0**27
    assert np.abs(logistic(x, 4) / 2.0**31 - 1 / (1 + np.exp(-real))).max() < 3e-7
    assert np.abs(tanh(x, 4) / 2.0**31 - np.tanh(real)).max() < 6e-7
    share = np.random.default_rng(1).integers(0, 2**31, 5000)
    exact = (1 - share / 2.0**31) / (1 + share / 2.0**31)
    assert np.abs(one_minus_over_one_plus(share) / 2.0**31 - exact).max() < 3e-7


# From files


def tflite(builtin: str, quantization: Quantization, options: object = None) -> TfliteOperator:
    tensors = [Tensor("x", (1, 4), "int8", Quantization.per_tensor(0.1, 0)), Tensor("y", (1, 4), "int8", quantization)]
    return TfliteOperator(builtin, (0,), (1,), options, Graph(tensors, [], (0,), (1,)))


@pytest.mark.parametrize(("name", "message"), [("logistic", "1/256, zero point -128"), ("tanh", "1/128, zero point 0")])
def test_tflite_files_have_one_output_scale(name: str, message: str) -> None:
    operator = registry()[name]
    assert operator.read_tflite(tflite(name.upper(), Quantization.per_tensor(*STORED[name]))).op == name
    with pytest.raises(GraphError, match=f"{name.upper()} to scale 0.1; TFLite's scale is {message}"):
        operator.read_tflite(tflite(name.upper(), Quantization.per_tensor(0.1, 0)))


def test_leaky_relu_options() -> None:
    options = schema.LeakyReluOptionsT()
    options.alpha = 0.5
    q = Quantization.per_tensor(0.1, 0)
    assert registry()["leaky_relu"].read_tflite(tflite("LEAKY_RELU", q, options)).attributes == {"alpha": 0.5}
    with pytest.raises(GraphError, match="the options are SoftmaxOptions, expected LeakyReluOptions"):
        registry()["leaky_relu"].read_tflite(tflite("LEAKY_RELU", q, schema.SoftmaxOptionsT()))


ONNX = {
    "Sigmoid": ("logistic", {}, (1 / 256, -128)),
    "Tanh": ("tanh", {}, (1 / 128, 0)),
    "HardSwish": ("hard_swish", {}, (0.05, -120)),
    "LeakyRelu": ("leaky_relu", {"alpha": 0.2}, (0.05, -60)),
}


@pytest.mark.parametrize("op_type", sorted(ONNX))
@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (1, 40)])
@pytest.mark.parametrize("other", [False, True])
def test_onnx(op_type: str, shape: tuple[int, ...], other: bool) -> None:
    """onnxruntime computes in float: one step, and for hard swish the two that 16 bits cost."""
    name, attributes, (scale, zero_point) = ONNX[op_type]
    net = Qdq(shape, seed=1)
    y = net.node(op_type, [net.input(scale=0.045, zero_point=-20)], **attributes)
    model = net.model(net.quantized(y, scale * (1.3 if other else 1), zero_point, shape))
    onnx.checker.check_model(model, full_check=True)
    graph = read_onnx_bytes(model.SerializeToString())
    assert [node.op for node in graph.nodes] == [name]
    inputs = np.random.default_rng(3).integers(-128, 128, graph.tensors[graph.inputs[0]].shape).astype(np.int8)
    wanted = onnx_stored(onnxruntime_session(model.SerializeToString()), graph, [inputs])[0]
    assert np.abs(simulate(graph, inputs)[0].astype(int) - wanted).max() <= 1


def test_onnx_leaky_relu_default_slope() -> None:
    net = Qdq((1, 8), seed=1)
    y = net.quantized(net.node("LeakyRelu", [net.input(scale=0.05, zero_point=0)]), 0.05, 0, (1, 8))
    assert read_onnx_bytes(net.model(y).SerializeToString()).nodes[0].attributes == {"alpha": 0.01}


def test_relu_behind_a_sigmoid_is_a_node_of_its_own() -> None:
    net = Qdq((1, 8), seed=1)
    y = net.node("Sigmoid", [net.input(scale=0.05, zero_point=0)])
    y = net.quantized(net.clamped(y, (0.25, 0.75)), 1 / 256, -128, (1, 8))
    graph = read_onnx_bytes(net.model(y).SerializeToString())
    assert [node.op for node in graph.nodes] == ["logistic", "relu"]
    assert graph.nodes[1].attributes["clamp"] == (-64, 64)


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_is_read_again(name: str) -> None:
    graph = one_node(name, (0.05, 3), output_for(name, 0.04, -5))
    again = read_tflite_bytes(write_tflite(graph))
    assert [node.op for node in again.nodes] == [name] and again.nodes[0].attributes == graph.nodes[0].attributes
    assert np.array_equal(simulate(again, EVERY)[0], simulate(graph, EVERY)[0])
