"""Generated calls of plans written by hand: pointers, scratch, layers without a call, shared parameters; known answers of
networks with float32 ends."""

from __future__ import annotations

import ctypes
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build

from firmware_export.emit import emit, runtime_sources
from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.hostlib import RUNTIME, compile_host
from firmware_export.operators import Constant, LayerCode
from firmware_export.plan import Plan, plan
from firmware_export.selftest import KnownAnswers, MismatchError, float_step, random_inputs, selftest_source, verify, xorshift32

Vector = tuple[np.ndarray, ...]
ONES = Constant("a", np.ones(3, np.int8))


def code(function: str, *constants: Constant, scratch: int = 0, summary: str = "s") -> LayerCode:
    fields = {"size": "4", **{c.suffix: f"{{{c.suffix}}}" for c in constants}}
    return LayerCode(function, "nn_f_params", fields, constants, ("f.c",), scratch_bytes=scratch, summary=summary)


def five_layers() -> Graph:
    """relu, relu, reshape, add of both relus, split in two."""
    build = Build()
    x = build.activation((1, 4), name="x")
    a = build.relu(x, (0, 127))
    b = build.relu(a, (0, 100))
    c = build.reshape(b, (4, 1))
    d = build.node("add", (a, b), build.activation((1, 4)), clamp=(-128, 127))
    halves = tuple(build.activation((1, 2)) for _ in range(2))
    build.nodes.append(Node("split", (d,), halves, {"axis": 1, "sizes": (2, 2)}))
    return build.graph(x, (c, *halves))


CODES = (
    code("nn_f", ONES, scratch=8),
    code("nn_f", ONES),
    LayerCode("", "", {}, summary="a view"),
    code("nn_g", Constant("b", np.array([7, 8], np.int32))),
    code("nn_h"),
)
OFFSETS = {0: 16, 1: 0, 2: 24, 3: 24, 4: 32, 5: 40, 6: 48}


def emitted(codes: tuple[LayerCode, ...] = CODES, name: str = "net") -> dict[str, str]:
    layout = Plan(OFFSETS, {0: 56}, 64, 64, True, 0, codes)
    return emit(five_layers(), layout, name, selftest=False)


def body(text: str) -> list[str]:
    return (
        text.split("static void net_layers(int8_t *a, nn_observer observer, void *context) {\n")[1]
        .split("\n}\n")[0]
        .split("\n")
    )


def test_calls_have_inputs_outputs_and_scratch_in_order() -> None:
    calls = [line.strip() for line in body(emitted()["net.c"]) if line.startswith("    nn_")]
    assert calls == [
        "nn_f(&net_0_params, a + 16, a + 0, a + 56);",
        "nn_f(&net_0_params, a + 0, a + 24);",
        "nn_g(&net_3_params, a + 0, a + 24, a + 32);",
        "nn_h(&net_4_params, a + 32, a + 40, a + 48);",
    ]


def test_a_layer_without_a_call_is_still_observed() -> None:
    lines = body(emitted()["net.c"])
    at = next(place for place, line in enumerate(lines) if line.strip().startswith("/* 2:"))
    assert lines[at].endswith("nothing to move */") and "reshape a view" in lines[at]
    assert [line.strip() for line in lines[at + 1 : at + 4]] == [
        "if (observer != 0) {",
        "observer(context, 2u, 0u, a + 24, 4u);",
        "}",
    ]
    assert sum("nothing to move" in line for line in lines) == 1


def test_every_output_of_a_layer_is_observed_with_its_place_and_size() -> None:
    found = re.findall(r"observer\(context, (\d+)u, (\d+)u, a \+ (\d+), (\d+)u\);", emitted()["net.c"])
    assert [tuple(map(int, one)) for one in found] == [
        (0, 0, 0, 4), (1, 0, 24, 4), (2, 0, 24, 4), (3, 0, 32, 4), (4, 0, 40, 2), (4, 1, 48, 2),
    ]  # fmt: skip


def test_equal_parameters_are_written_once_and_equal_constants_too() -> None:
    files = emitted()
    assert re.findall(r"static const nn_f_params (\w+) = ", files["net.c"]) == ["net_0_params", "net_3_params", "net_4_params"]
    assert re.findall(r"const \w+ (\w+)\[(\d+)\]", files["net_data.c"]) == [("net_0_a", "3"), ("net_3_b", "2")]
    assert ".a = net_0_a" in files["net.c"] and ".b = net_3_b" in files["net.c"]
    other = (CODES[0], replace(CODES[1], fields={**CODES[1].fields, "size": "5"}), *CODES[2:])
    names = re.findall(r"static const nn_f_params (\w+) = ", emitted(other)["net.c"])
    assert names == ["net_0_params", "net_1_params", "net_3_params", "net_4_params"]


def test_headers_are_those_of_the_first_files() -> None:
    other = (replace(CODES[0], sources=("zed.c", "helper.c")), *CODES[1:])
    text = emitted(other)["net.c"]
    own = [name for name in re.findall(r'#include "([\w.]+)"', text) if not name.startswith("net")]
    assert own == ["f.h", "zed.h"] and "helper.h" not in text
    layout = Plan(OFFSETS, {0: 56}, 64, 64, True, 0, other)
    assert runtime_sources(layout) == ["f.c", "helper.c", "zed.c"]
    rounding = (replace(CODES[0], fields={"output": "nn_output_float32"}), *CODES[1:])
    assert '#include "requantize_float32.h"' in emitted(rounding)["net.c"] and "float32.h" not in text


def test_a_network_of_views_alone_compiles(tmp_path: Path) -> None:
    """No call, no parameters, no constants: still a network, under the firmware's warnings."""
    build = Build()
    x = build.activation((1, 12), name="x")
    graph = build.graph(x, build.reshape(build.reshape(x, (3, 4)), (2, 6)))
    layout = plan(graph)
    assert [one.function for one in layout.codes] == ["", ""] and layout.size == 16
    for name, text in emit(graph, layout, "net", selftest=False).items():
        (tmp_path / name).write_text(text)
    library = tmp_path / "net.so"
    compile_host([tmp_path / "net.c", tmp_path / "net_data.c"], [RUNTIME, tmp_path], library, ["-shared", "-fPIC"])
    memory = (ctypes.c_uint8 * 64)()
    start = -(-ctypes.addressof(memory) // 16) * 16
    ctypes.memmove(start, bytes(range(12)), 12)
    run = ctypes.CDLL(str(library)).net_run
    run.argtypes = [ctypes.c_void_p]
    assert run(start) == 0 and ctypes.string_at(start, 12) == bytes(range(12))
    assert run(start + 8) == 2 and run(None) == 1


def float_net(scale: float, zero_point: int = 3, inputs: int = 1) -> Graph:
    """float32 inputs that are quantized and added; float32 out."""
    stored = Quantization.per_tensor(scale, zero_point)
    tensors, nodes = [], []
    for number in range(inputs):
        tensors += [Tensor(f"x{number}", (1, 5), "float32"), Tensor(f"q{number}", (1, 5), "int8", stored)]
        nodes.append(Node("quantize", (2 * number,), (2 * number + 1,)))
    last = 1
    if inputs == 2:
        tensors.append(Tensor("sum", (1, 5), "int8", Quantization.per_tensor(2 * scale, zero_point)))
        nodes.append(Node("add", (1, 3), (4,), {"clamp": (-128, 127)}))
        last = 4
    tensors.append(Tensor("y", (1, 5), "float32"))
    nodes.append(Node("dequantize", (last,), (len(tensors) - 1,)))
    return Graph(tensors, nodes, tuple(range(0, 2 * inputs, 2)), (len(tensors) - 1,))


@pytest.mark.parametrize(
    ("scale", "step"), [(1.0, 2**-6), (0.5, 2**-7), (0.75, 2**-7), (2.0**-90, 2.0**-96), (2.0**-99, 2.0**-100)]
)
def test_float_inputs_have_64_values_for_each_step(scale: float, step: float) -> None:
    """The power of two at or below a 64th of the scale, but for scales that are hardly numbers any more."""
    assert float_step(float_net(scale), 0) == step
    values = random_inputs(float_net(scale), 3)
    assert all(math.fmod(float(value), step) == 0 for vector in values for value in vector[0].reshape(-1))


def test_a_float_input_that_nobody_quantizes() -> None:
    graph = float_net(8.0)
    unread = replace(graph, nodes=graph.nodes[1:])
    assert float_step(unread, 0) == 2**-12 and float_step(graph, 0) == 2**-3


def test_float_inputs_are_the_top_half_of_each_state() -> None:
    """Signed 16 bits, in the order of the generator, one input of a vector after the other."""
    states = xorshift32(99)
    drawn = [next(states) >> 16 for _ in range(20)]
    wanted = [(value - 65536 if value >= 32768 else value) * 2**-7 for value in drawn]
    found = random_inputs(float_net(0.5, inputs=2), 2, seed=99)
    assert [float(v) for vector in found for array in vector for v in array.reshape(-1)] == wanted
    assert found[0][0].dtype == np.float32 and found[0][0].shape == (1, 5)


def test_bytes_and_floats_take_turns() -> None:
    """An int8 input between: a state for each byte, one for each float."""
    graph = float_net(0.5, inputs=2)
    graph.tensors[0] = Tensor("x0", (1, 5), "int8", Quantization.per_tensor(1, 0))
    mixed = replace(graph, inputs=(2, 0))
    states = xorshift32(7)
    first, second = random_inputs(mixed, 1, seed=7)[0]
    halves = [next(states) >> 16 for _ in range(5)]
    assert (first.reshape(-1) * 2**7).astype(int).tolist() == [h - 65536 if h >= 32768 else h for h in halves]
    assert second.view(np.uint8).reshape(-1).tolist() == [next(states) >> 24 for _ in range(5)]


def expected_outputs(
    scale: float, zero_point: int, vectors: tuple[tuple[np.ndarray, ...], ...]
) -> tuple[tuple[np.ndarray], ...]:
    """Of float_net with one input: quantized by hand, halves away from zero, and back."""
    found = []
    for (x,) in vectors:
        stored = [
            min(max(int(math.copysign(math.floor(abs(v / scale) + 0.5), v)) + zero_point, -128), 127) for v in x[0].tolist()
        ]
        found.append((np.array([[np.float32(scale * (q - zero_point)) for q in stored]], np.float32),))
    return tuple(found)


def selftest_result(graph: Graph, answers: KnownAnswers, folder: Path) -> int:
    """What the compiled self-test says."""
    layout = plan(graph)
    for name, text in (emit(graph, layout, "net") | {"net_selftest.c": selftest_source(graph, layout, "net", answers)}).items():
        (folder / name).write_text(text)
    sources = [*folder.glob("*.c"), *(RUNTIME / name for name in runtime_sources(layout))]
    compile_host(sources, [RUNTIME, folder], folder / "net.so", ["-shared", "-fPIC"])
    memory = (ctypes.c_uint8 * (layout.size + 32))()
    selftest = ctypes.CDLL(str(folder / "net.so")).net_selftest
    selftest.argtypes = [ctypes.c_void_p]
    return int(selftest(-(-ctypes.addressof(memory) // 16) * 16))


@pytest.mark.parametrize("wrong", [False, True])
def test_known_answers_of_float_ends_in_c(wrong: bool, tmp_path: Path) -> None:
    """The answers are computed here; C makes the same inputs again, and sees the lowest bit of the last byte."""
    graph = float_net(0.5)
    inputs = random_inputs(graph, 4, seed=31)
    outputs = expected_outputs(0.5, 3, inputs)
    if wrong:
        outputs[3][0].view(np.uint8).reshape(-1)[-1] ^= 1
    answers = KnownAnswers(31, inputs, outputs, "hand")
    assert selftest_result(graph, answers, tmp_path) == (3 if wrong else 0)
    text = (tmp_path / "net_selftest.c").read_text()
    assert "fill_floats" in text and "static uint32_t fill(" not in text and "expected bytes from hand" in text
    assert "0x0000001Fu" in text and "#define VECTORS 4u" in text


def test_verify_counts_what_differs_in_every_output() -> None:
    graph = float_net(0.5)
    twice = replace(graph, outputs=(1, 2))
    inputs = random_inputs(graph, 2, seed=31)
    (one,), (two,) = expected_outputs(0.5, 3, inputs)
    stored = [(np.rint(y / 0.5) + 3).astype(np.int8) for y in (one, two)]
    answers = KnownAnswers(31, inputs, ((stored[0], one), (stored[1], two)), "hand")
    verify(twice, answers)
    for output, array in ((0, stored[1]), (1, two)):
        changed = array.copy()
        changed[0, :2] += 1
        vector = (changed, two) if output == 0 else (stored[1], changed)
        with pytest.raises(MismatchError) as caught:
            verify(twice, replace(answers, outputs=((stored[0], one), vector)))
        words = f"known answer 1: 2 of 5 values of output {output} differ between the simulator and hand; nothing was exported"
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="zip"):
        verify(twice, replace(answers, outputs=((stored[0],), (stored[1],))))
