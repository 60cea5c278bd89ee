"""LSTM: functions of the cell value by value, state that every inference forgets, forms of the file, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from example_cases import cases_of
from graph_builder import Build, inputs_of
from oracles import litert, tflite_micro
from second_implementation import compute
from second_implementation_lstm import TABLE
from second_implementation_lstm import logistic as plain_logistic
from second_implementation_lstm import tanh as plain_tanh

from firmware_export.export import export_model
from firmware_export.graph import Graph, GraphError, Quantization, Tensor
from firmware_export.hostlib import HostNetwork
from firmware_export.operators import operator_of
from firmware_export.operators._lstm_cell import logistic, sigmoid_table, tanh
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.target import Target
from firmware_export.write_tflite import TfliteWriter, write_tflite
from recipes.recipe import FirmwareExportSection

EVERY = np.arange(-32768, 32768)


def int16_answers(builtin: str, scale: float) -> np.ndarray:
    """TFLite Micro's int16 operator on every value."""
    edges = [Quantization.per_tensor(scale, 0), Quantization.per_tensor(2.0**-15, 0)]
    tensors = [Tensor(name, (1, EVERY.size), "int16", q) for name, q in zip("xy", edges, strict=True)]
    writer = TfliteWriter(Graph(tensors, [], (0,), (1,)))
    writer.add(builtin, (0,), (1,), None, 3)
    return tflite_micro(writer.finish(), [EVERY.astype(np.int16)[np.newaxis]])[0][0]


def test_logistic_is_that_of_tflite_micro_for_every_value() -> None:
    assert np.array_equal(logistic(EVERY), int16_answers("LOGISTIC", 2.0**-12))


@pytest.mark.parametrize("exponent", [-15, -13, -12, -11, -9, -5])
def test_tanh_is_that_of_tflite_micro_for_every_value(exponent: int) -> None:
    assert np.array_equal(tanh(EVERY, exponent), int16_answers("TANH", 2.0**exponent))


def test_functions_equal_the_plain_ones() -> None:
    some = EVERY[::37]
    assert logistic(some).tolist() == [plain_logistic(int(x)) for x in some]
    for exponent in (-24, -16, -12, -3, 0):
        assert tanh(some, exponent).tolist() == [plain_tanh(int(x), exponent) for x in some]


def test_functions_are_near_the_real_ones() -> None:
    real = EVERY / 4096
    assert np.abs(logistic(EVERY) / 32768 - 1 / (1 + np.exp(-real))).max() < 1e-4
    assert np.abs(tanh(EVERY, -12) / 32768 - np.tanh(real)).max() < 2e-4
    assert np.all(np.diff(logistic(EVERY)) >= 0) and np.all(np.diff(tanh(EVERY, -12)) >= 0)


def test_table() -> None:
    """Two thirds of a step above the curve at most, where it bends most; the ends are the curve's."""
    table = sigmoid_table()
    assert table.tolist() == TABLE and table[0] == 32768 and table[-1] == 65535
    above = table[:-1] - 65536 / (1 + np.exp(-np.arange(255) / 24))
    assert above.min() > -0.51 and above.max() < 0.5 + 0.7


def lstm_case(label: str) -> Graph:
    graph = next(case.graph for case in cases_of("lstm") if case.label.endswith(label))
    return replace(graph, tensors=list(graph.tensors), nodes=list(graph.nodes))


def interpreter_of(graph: Graph) -> Any:
    from tflite_micro import runtime

    return runtime.Interpreter.from_bytes(write_tflite(graph), arena_size=10**6)


def test_state_is_forgotten_as_by_reset() -> None:
    """The interpreter's second answer depends on the first inference, ours and the one after reset() do not."""
    graph = lstm_case("many steps")
    first, second = (inputs_of(graph, seed)[0] for seed in (1, 2))
    interpreter, answers = interpreter_of(graph), {}
    for name, reset in (("kept", False), ("reset", True)):
        interpreter.reset()
        interpreter.set_input(first, 0)
        interpreter.invoke()
        if reset:
            interpreter.reset()
        interpreter.set_input(second, 0)
        interpreter.invoke()
        answers[name] = np.array(interpreter.get_output(0)).tobytes()
    assert answers["kept"] != answers["reset"]
    assert simulate(graph, second)[0].tobytes() == answers["reset"]


def test_compiled_c_starts_every_inference_anew(tmp_path: Path) -> None:
    """The same buffer for three inferences in turn, the first one again at the end."""
    graph = lstm_case("many steps")
    (tmp_path / "model.tflite").write_bytes(write_tflite(graph))
    export_model(tmp_path / "model.tflite", tmp_path / "export", FirmwareExportSection(), Target())
    network = HostNetwork(tmp_path / "export", "network")
    vectors = [inputs_of(graph, seed)[0] for seed in (1, 2, 1)]
    answers = [network.run(vector)[0].tobytes() for vector in vectors]
    assert answers == [simulate(graph, vector)[0].tobytes() for vector in vectors]
    assert network.selftest()


def test_a_step_does_not_look_ahead() -> None:
    """The first outputs of a longer sequence are those of a shorter one."""
    graph = lstm_case("many steps")
    x = inputs_of(graph)[0]
    whole = simulate(graph, x)[0]
    short = replace(graph, tensors=list(graph.tensors))
    for index in (0, len(graph.tensors) - 1):
        shape = graph.tensors[index].shape
        short.tensors[index] = replace(graph.tensors[index], shape=(1, 7, shape[2]))
    assert np.array_equal(simulate(short, x[:, :7])[0], whole[:, :7])


def test_litert_answers_nearly_the_same() -> None:
    """LiteRT's kernel rounds in other places; the file means the same there."""
    for case in cases_of("lstm")[:12]:
        arrays = list(case.vectors[-1])
        distance = np.abs(litert(write_tflite(case.graph), arrays)[0].astype(int) - case.answers[-1][0])
        assert distance.max() <= 3


def time_major_net() -> Graph:
    """[1, steps, inputs] -> transpose -> LSTM of [steps, 1, inputs] -> transpose -> LSTM of [1, steps, units]."""
    first, build = lstm_case("many steps"), Build()
    weights = [build.tensor(t) for t in first.tensors[1:-1]]
    x, y = first.tensors[0], first.tensors[-1]
    turned = (x.shape[1], 1, x.shape[2])
    source = build.tensor(x)
    swapped = build.tensor(replace(x, name="swapped", shape=turned))
    build.node("transpose", (source,), swapped, perm=(1, 0, 2))
    out = build.tensor(replace(y, shape=(y.shape[1], 1, y.shape[2])))
    attributes = first.nodes[0].attributes | {"time_major": 1}
    build.node("lstm", (swapped, *weights), out, **attributes)
    back = build.tensor(replace(y, name="back"))
    build.node("transpose", (out,), back, perm=(1, 0, 2))
    return build.graph(source, back)


def test_time_major() -> None:
    graph, plain = time_major_net(), lstm_case("many steps")
    for seed in range(3):
        arrays = inputs_of(graph, seed)
        wanted = simulate(plain, *arrays)[0].tobytes()
        assert simulate(graph, *arrays)[0].tobytes() == wanted
        assert tflite_micro(write_tflite(graph), arrays)[0].tobytes() == wanted
        assert compute(graph, arrays)[0].tobytes() == wanted
    again = read_tflite_bytes(write_tflite(graph))
    assert again.nodes[1].attributes == graph.nodes[1].attributes


def test_macs_scratch_and_weights() -> None:
    """Four gates of 3 units, each 5 inputs and 3 outputs, 20 steps; two bytes of state for each unit."""
    graph = lstm_case("many steps")
    operator, node = operator_of(graph.nodes[0]), graph.nodes[0]
    assert operator.macs(graph, node) == 20 * 4 * 3 * (5 + 3)
    code = operator.emit(graph, node)
    assert code.scratch_bytes == 2 * 3
    sizes = {constant.suffix: constant.data.shape for constant in code.constants}
    assert sizes["input_weights"] == (3, 4, 5) and sizes["recurrent_bias"] == (3, 4)


Edit = Callable[[Any, Any], None]
"""Of a model's subgraph and its operator."""


def edited(edit: Edit) -> bytes:
    """The file of an LSTM, changed."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(write_tflite(lstm_case("ordinary")), 0))
    operator = model.subgraphs[0].operators[0]
    operator.inputs = list(operator.inputs)
    edit(model.subgraphs[0], operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def without(*places: int) -> Edit:
    """Inputs that are left out."""

    def edit(_: Any, operator: Any) -> None:
        for place in places:
            operator.inputs[place] = -1

    return edit


def also(place: int) -> Edit:
    """The input bias at another place."""

    def edit(_: Any, operator: Any) -> None:
        operator.inputs[place] = operator.inputs[12]

    return edit


def option(name: str, value: Any) -> Edit:
    """An option of another value."""
    return lambda _, operator: setattr(operator.builtinOptions, name, value)


def state(place: int, **fields: Any) -> Edit:
    """A state tensor of another kind."""

    def edit(subgraph: Any, operator: Any) -> None:
        for name, value in fields.items():
            owner = subgraph.tensors[operator.inputs[place]]
            setattr(owner.quantization if hasattr(owner.quantization, name) else owner, name, value)

    return edit


def float_edges(subgraph: Any, operator: Any) -> None:
    """x and y in float32: a hybrid LSTM."""
    for index in (operator.inputs[0], operator.outputs[0]):
        subgraph.tensors[index].type = schema.TensorType.FLOAT32
        subgraph.tensors[index].quantization = None


def state_as_output(subgraph: Any, operator: Any) -> None:
    """The model gives its hidden state away."""
    subgraph.outputs = [operator.inputs[18]]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without(1), r"coupled input and forget gates \(CIFG\)"),
        (without(5), r"\(CIFG\)"),
        (without(2), "input 2 is missing"),
        (without(14), "input 11 is missing"),
        (without(19), "input 19 is missing"),
        (also(9), "peephole weights"),
        (also(11), "peephole weights"),
        (also(16), "a projection"),
        (also(20), "layer normalization"),
        (option("diagonalRecurrentTensors", True), "diagonal recurrent weights"),
        (option("fusedActivationFunction", schema.ActivationFunctionType.RELU), r"activation 1; supported: 4 \(TANH\)"),
        (option("cellClip", -1.0), "cell clip -1"),
        (option("cellClip", 1e-9), "bounds of a step or more"),
        (option("cellClip", float("nan")), "cell clip nan"),
        (state(19, scale=[0.3]), "powers of two"),
        (state(19, scale=[2.0]), r"scale 2\^1; supported"),
        (state(19, type=schema.TensorType.INT8), "is int8; supported: int16"),
        (state(18, scale=[0.3]), "are stored differently; supported: alike"),
        (state(18, type=schema.TensorType.INT16), "are stored differently"),
        (float_edges, "hybrid model"),
        (state_as_output, "is written by no operator"),
    ],
)
def test_forms_that_are_refused(edit: Edit, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_tflite_bytes(edited(edit))


def test_a_clip_of_any_size_is_read() -> None:
    graph = read_tflite_bytes(edited(option("cellClip", 1.5)))
    assert graph.nodes[0].attributes["cell_clip"] == 1.5 * 2**11
    assert read_tflite_bytes(edited(option("cellClip", 1e9))).nodes[0].attributes["cell_clip"] == 32767


def test_other_operators_have_no_state() -> None:
    """A variable tensor that a RELU reads."""
    quantization = Quantization.per_tensor(0.1, 0)
    tensors = [Tensor(name, (1, 4), "int8", quantization) for name in "xy"]
    writer = TfliteWriter(Graph(tensors, [], (0,), (1,)))
    kept = writer.add_variable("kept", (1, 4), "int8", quantization)
    writer.add("ADD", (0, kept), (1,), schema.AddOptionsT(), 2)
    with pytest.raises(GraphError, match=r"'kept' keeps its value between inferences; supported: the states of an LSTM"):
        read_tflite_bytes(writer.finish())
