"""Float32 and uint8 at a model's edges: quantize and dequantize by hand, in whole models, in the self-test, from files."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from example_cases import Case, differences
from graph_builder import Build
from oracles import litert, tflite_micro

from firmware_export.check import check
from firmware_export.emit import emit
from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.hostlib import RUNTIME, HostNetwork, compile_host
from firmware_export.plan import plan
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.selftest import float_step, known_answers, random_inputs, selftest_source, verify, xorshift32
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter, write_tflite

EDGES = [("float32", "float32"), ("uint8", "uint8"), ("float32", "uint8"), ("uint8", "float32"), ("int8", "float32")]


def edge(dtype: str, shape: tuple[int, ...], scale: float, zero_point: int) -> Tensor:
    """A tensor of a model's edge, for the int8 zero point of the tensor inside."""
    if dtype == "float32":
        return Tensor(dtype, shape, dtype)
    return Tensor(dtype, shape, dtype, Quantization.per_tensor(scale, zero_point + (128 if dtype == "uint8" else 0)))


def edged_net(source: str, target: str) -> Graph:
    """quantize - convolution - quantize or dequantize, where the edges are not int8."""
    build = Build(3)
    x = build.tensor(edge(source, (1, 5, 4, 2), 0.03, -7))
    inside = x
    if source != "int8":
        inside = build.node("quantize", (x,), build.activation((1, 5, 4, 2), 0.03, -7))
    y = build.conv(inside, 3)
    tensor = build.tensors[y]
    z = build.tensor(edge(target, tensor.shape, tensor.scale * 1.5, 3))
    build.node("dequantize" if target == "float32" else "quantize", (y,), z)
    return build.graph(x, z)


def edge_inputs(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    tensor = graph.tensors[graph.inputs[0]]
    if tensor.dtype == "float32":
        return [rng.normal(0, 3, tensor.shape).astype(np.float32)]
    return [rng.integers(np.iinfo(tensor.dtype).min, 256, tensor.shape).astype(tensor.dtype)]


def test_float_to_bytes_by_hand() -> None:
    """Scale 1/2, zero point 1: halves of a step go away from zero."""
    values = [0.0, 0.24, 0.25, -0.25, -0.24, 0.75, -0.75, 63.0, 63.25, 100.0, -64.5, -64.75, 1e30, -1e30]
    expected = [1, 1, 2, 0, 1, 3, -1, 127, 127, 127, -128, -128, 127, -128]
    assert quantized(values, 0.5, 1) == expected


def test_what_is_no_number_gives_the_zero_point() -> None:
    assert quantized([math.nan, math.inf, -math.inf], 0.5, 9) == [9, 127, -128]


def quantized(values: list[float], scale: float, zero_point: int) -> list[int]:
    """By the simulator and by the compiled kernel, which must agree."""
    x = Tensor("x", (len(values),), "float32")
    y = Tensor("y", x.shape, "int8", Quantization.per_tensor(scale, zero_point))
    graph = Graph([x, y], [Node("quantize", (0,), (1,))], (0,), (1,))
    array = np.array(values, np.float32)
    found = simulate(graph, array)[0].tolist()
    assert found == kernel_quantize(array, scale, zero_point).tolist()
    return found


class FloatParams(ctypes.Structure):
    """nn_quantize_float_params."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("scale", ctypes.c_float),
        ("output_zero_point", ctypes.c_int16),
        ("output_flip", ctypes.c_uint8),
    ]


@pytest.fixture(scope="module", autouse=True)
def kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The compiled kernels, for kernel_quantize."""
    global KERNEL
    library = tmp_path_factory.mktemp("kernel") / "quantize.so"
    compile_host([RUNTIME / "quantize.c"], [RUNTIME], library, ["-shared", "-fPIC"])
    KERNEL = ctypes.CDLL(str(library))


KERNEL: ctypes.CDLL


def kernel_quantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    result = np.zeros(values.shape, np.int8)
    params = FloatParams(values.size, scale, zero_point, 0)
    KERNEL.nn_quantize_float(
        ctypes.byref(params), values.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p)
    )
    return result


def test_any_bits_of_a_float() -> None:
    """Random bit patterns, NaNs and infinities among them: nearest of the rounded quotient, saturated."""
    bits = np.random.default_rng(5).integers(0, 2**32, 20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    scale = float(np.float32(0.7))
    for value, found in zip(values.tolist(), kernel_quantize(values, scale, 11).tolist(), strict=True):
        if math.isnan(value):
            assert found == 11
        elif abs(value) > 1e6:
            assert found == (127 if value > 0 else -128)
        else:
            quotient = np.float32(value) / np.float32(scale)
            assert found == max(-128, min(127, 11 + half_away(float(quotient))))


def half_away(x: float) -> int:
    """Nearest integer in exact arithmetic, halves away from zero."""
    whole = math.floor(abs(Fraction(x)) + Fraction(1, 2))
    return whole if x >= 0 else -whole


def test_bytes_to_float_is_rounded_once() -> None:
    """Every product of a scale and a byte, against exact fractions."""
    scale = np.float32(0.1)
    x = Tensor("x", (256,), "uint8", Quantization.per_tensor(float(scale), 3))
    graph = Graph([x, Tensor("y", (256,), "float32")], [Node("dequantize", (0,), (1,))], (0,), (1,))
    found = simulate(graph, np.arange(256).astype(np.uint8))[0]
    for byte in range(256):
        exact = Fraction(float(scale)) * (byte - 3)
        error = abs(Fraction(float(found[byte])) - exact)
        assert error <= abs(Fraction(float(np.spacing(found[byte])))) / 2


@pytest.mark.parametrize(("source", "target"), EDGES)
def test_whole_models(source: str, target: str, tmp_path: Path) -> None:
    """Simulator, generated C, TFLite Micro and LiteRT give the same bytes."""
    graph = edged_net(source, target)
    check(graph)
    for name, text in emit(graph, plan(graph), "edged", selftest=False).items():
        (tmp_path / name).write_text(text)
    compiled, twin = HostNetwork(tmp_path, "edged"), write_tflite(graph)
    assert (compiled.inputs[0].dtype, compiled.outputs[0].dtype) == (source, target)
    for seed in range(3):
        inputs = edge_inputs(graph, seed)
        expected = simulate(graph, *inputs)[0]
        assert expected.dtype == target and len(np.unique(expected)) > 8
        assert compiled.run(*inputs)[0].tobytes() == expected.tobytes()
        assert tflite_micro(twin, inputs)[0].tobytes() == expected.tobytes()
        assert litert(twin, inputs)[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize(("source", "target"), EDGES)
def test_the_twin_reads_back(source: str, target: str) -> None:
    graph = edged_net(source, target)
    again = read_tflite_bytes(write_tflite(graph))
    assert [node.op for node in again.nodes] == [node.op for node in graph.nodes]
    assert again.tensors[again.inputs[0]].dtype == source and again.tensors[again.outputs[0]].dtype == target
    inputs = edge_inputs(graph)
    assert simulate(again, *inputs)[0].tobytes() == simulate(graph, *inputs)[0].tobytes()


@pytest.mark.parametrize(("source", "target"), EDGES)
def test_known_answers(source: str, target: str, tmp_path: Path) -> None:
    """The compiled self-test makes the same float inputs and finds TFLite Micro's answers; one changed byte is seen."""
    graph = edged_net(source, target)
    layout, twin = plan(graph), write_tflite(graph)
    answers = known_answers(graph, twin, 3)
    verify(graph, answers)
    for name, text in emit(graph, layout, "edged").items():
        (tmp_path / name).write_text(text)
    (tmp_path / "edged_selftest.c").write_text(selftest_source(graph, layout, "edged", answers))
    assert HostNetwork(tmp_path, "edged").selftest()
    wrong = replace(answers, outputs=(*answers.outputs[:2], (np.zeros_like(answers.outputs[2][0]),)))
    (tmp_path / "edged_selftest.c").write_text(selftest_source(graph, layout, "edged", wrong))
    assert not HostNetwork(tmp_path, "edged").selftest()


def test_random_floats_cover_the_range() -> None:
    graph = edged_net("float32", "int8")
    step = float_step(graph, 0)
    assert math.log2(step).is_integer() and 0.03 / 128 < step <= 0.03 / 64
    values = random_inputs(graph, 20, seed=7)
    states = xorshift32(7)
    first = [next(states) >> 16 for _ in range(3)]
    assert values[0][0].reshape(-1)[:3].tolist() == [((s + 0x8000) % 0x10000 - 0x8000) * step for s in first]
    stored = np.concatenate([simulate(quantize_only(graph), *vector)[0].reshape(-1) for vector in values])
    assert stored.min() == -128 and stored.max() == 127 and len(np.unique(stored)) > 150


def quantize_only(graph: Graph) -> Graph:
    return replace(graph, nodes=graph.nodes[:1], outputs=graph.nodes[0].outputs)


def test_a_float_that_nothing_quantizes_has_the_range_of_one() -> None:
    graph = edged_net("uint8", "float32")
    assert float_step(graph, graph.outputs[0]) == 2.0**-12


def test_reading_constants_only_is_refused() -> None:
    graph = edged_net("float32", "uint8")
    data = np.zeros((1, 5, 4, 2), np.float32)
    graph.tensors += [Tensor("c", data.shape, "float32", None, data), edge("int8", data.shape, 0.1, 3)]
    graph.nodes.insert(0, Node("quantize", (len(graph.tensors) - 2,), (len(graph.tensors) - 1,)))
    with pytest.raises(GraphError, match=r"operator 0 \(quantize\) reads constants only"):
        check(graph)


def test_a_float_operator_is_still_refused() -> None:
    """A dequantize may make a float; a convolution may not read it."""
    graph = edged_net("int8", "float32")
    conv, dequantize = graph.nodes
    graph.tensors += [Tensor("inside", (1, 5, 4, 2), "float32")]
    writer, inside = TfliteWriter(graph), len(graph.tensors) - 1
    writer.add("DEQUANTIZE", (conv.inputs[0],), (inside,), schema.DequantizeOptionsT(), 2)
    writer.add("CONV_2D", (inside, *conv.inputs[1:]), conv.outputs, schema.Conv2DOptionsT(), 3)
    writer.add("DEQUANTIZE", dequantize.inputs, dequantize.outputs, schema.DequantizeOptionsT(), 2)
    with pytest.raises(GraphError, match="hybrid model: CONV_2D has int8 weights but the float activation 'inside'"):
        read_tflite_bytes(writer.finish())


def test_a_case_compares_floats() -> None:
    """The comparison of examples sees one float that differs in its last bit."""
    graph = edged_net("int8", "float32")
    inputs = tuple(edge_inputs(graph))
    answer = simulate(graph, *inputs)[0]
    case = Case("case", graph, (inputs,), ((answer,),))
    assert differences(case, [(answer.copy(),)]) == ""
    other = answer.copy()
    other.reshape(-1)[3] = np.nextafter(other.reshape(-1)[3], np.float32(1e9))
    assert "1 of" in differences(case, [(other,)])
