"""The comparison of C, simulator and oracle: equal where it must be, and the first layer named where one of them is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from golden_models import MODELS
from graph_builder import Build, inputs_of, small_net
from oracles import tflite_micro

import firmware_export.compare
from firmware_export.compare import Oracle, Sides, choose_oracle, compare
from firmware_export.emit import emit
from firmware_export.exposed import exposed
from firmware_export.graph import Graph, GraphError, Quantization
from firmware_export.hostlib import HostNetwork
from firmware_export.inputs import ModelInputs, random_model_inputs
from firmware_export.plan import plan
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.selftest import MismatchError
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.write_tflite import write_tflite

Change = Callable[[dict[str, str]], None]


def built(graph: Graph, folder: Path, change: Change = lambda files: None) -> HostNetwork:
    """The generated C of a graph, changed where a test wants it wrong, compiled."""
    files = emit(graph, plan(graph), selftest=False)
    change(files)
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return HostNetwork(folder, optimize="2")


def sides(graph: Graph, network: HostNetwork, model: bytes | None = None) -> Sides:
    return Sides(graph, network, Oracle("TFLite Micro", write_tflite(graph) if model is None else model))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> HostNetwork:
    return built(small_net(), tmp_path_factory.mktemp("small"))


def mismatch(three: Sides, inputs: ModelInputs) -> str:
    with pytest.raises(MismatchError) as caught:
        compare(three, inputs)
    text = str(caught.value)
    assert text.isprintable() and caught.value.exit_code == 10
    return text


def layer_of(text: str) -> int:
    found = re.search(r"the first layer that differs is (\d+) ", text)
    assert found, text
    return int(found[1])


# Equal


def test_three_that_agree(network: HostNetwork) -> None:
    graph, ready = small_net(), list[int]()
    inputs = random_model_inputs(graph, 45)
    found = compare(sides(graph, network), inputs, ready.append)
    assert found.inputs == 45 and found.bytes_compared == 45 * 4 and found.correct is None and found.accuracy_text == ""
    assert ready == [20, 20, 5], "reported batch after batch"


@pytest.mark.parametrize("model", ["residual", "perceptron", "two_ends"])
def test_models_with_every_kind_of_end(tmp_path: Path, model: str) -> None:
    graph = MODELS[model]()
    found = compare(sides(graph, built(graph, tmp_path)), random_model_inputs(graph, 5))
    assert found.bytes_compared == 5 * sum(graph.tensors[index].nbytes for index in graph.outputs)


def test_right_answers_are_counted(network: HostNetwork) -> None:
    graph = small_net()
    inputs = random_model_inputs(graph, 10)
    right = [int(np.argmax(tflite_micro(write_tflite(graph), list(inputs.vector(i)))[0])) for i in range(10)]
    labels = np.array(right)
    labels[:3] += 1
    found = compare(sides(graph, network), replace(inputs, labels=labels))
    assert found.correct == 7 and found.accuracy_text == ", accuracy 70.0 % (7 of 10)"
    assert found.to_json() == {"inputs": 10, "bytes_compared": 40, "oracle": "TFLite Micro", "correct": 7}


# The compiled C is wrong


def other_number(array: str) -> Change:
    """Changes the first number of an array of the generated constants by much."""

    def change(files: dict[str, str]) -> None:
        pattern = re.compile(rf"({array}\[\d+\][^{{]*{{\s*)(-?\d+)")
        text, count = pattern.subn(lambda m: f"{m[1]}{(int(m[2]) + 200) % 256 - 128}", files["network_data.c"])
        assert count == 1
        files["network_data.c"] = text

    return change


@pytest.mark.parametrize(("array", "layer", "op"), [("network_0_weights", 0, "conv2d"), ("network_2_weights", 2, "conv2d")])
def test_the_layer_in_which_the_c_goes_wrong_is_named(tmp_path: Path, array: str, layer: int, op: str) -> None:
    graph = small_net()
    text = mismatch(sides(graph, built(graph, tmp_path, other_number(array))), random_model_inputs(graph, 3))
    assert "differ between the compiled C and the simulator" in text and text.startswith("input ")
    assert layer_of(text) == layer and f"({op} '" in text and "please report the model" in text


def test_the_element_that_is_named_is_the_first_wrong_one(tmp_path: Path) -> None:
    """The last layer alone is wrong, so what it should be and what it is can be told from the outputs."""
    graph = small_net()
    last = len(graph.nodes) - 1
    wrong, right = built(graph, tmp_path / "wrong", other_number(f"network_{last}_bias")), built(graph, tmp_path / "right")
    inputs = random_model_inputs(graph, 3)
    text = mismatch(sides(graph, wrong), inputs)
    place = int(text.split(":")[0].removeprefix("input "))
    image = inputs.arrays[0][place]
    one, two = wrong.run(image)[0].reshape(-1), right.run(image)[0].reshape(-1)
    first = int(np.flatnonzero(one != two)[0])
    assert f"element [0, {first}] of (1, 4) is {one[first]}, expected {two[first]}" in text
    assert f"{np.count_nonzero(one != two)} of 4 bytes of output 0" in text and layer_of(text) == last


def test_the_second_output_is_compared_too(tmp_path: Path) -> None:
    graph = MODELS["two_ends"]()
    relu = next(place for place, node in enumerate(graph.nodes) if graph.outputs[1] in node.outputs)

    def change(files: dict[str, str]) -> None:
        text, count = re.subn(rf"(network_{relu}_params = {{[^}}]*?)127", r"\g<1>20", files["network.c"], count=1)
        assert count == 1
        files["network.c"] = text

    text = mismatch(sides(graph, built(graph, tmp_path, change)), random_model_inputs(graph, 5))
    assert "bytes of output 1 differ" in text and layer_of(text) == relu


# The oracle runs something else


def changed_weights(graph: Graph, place: int) -> Graph:
    """The same graph with other weights in one layer."""
    index = graph.nodes[place].inputs[1]
    tensor = graph.tensors[index]
    assert tensor.data is not None
    tensors = list(graph.tensors)
    tensors[index] = replace(tensor, data=np.ascontiguousarray(tensor.data[::-1]))
    return replace(graph, tensors=tensors)


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_the_layer_in_which_the_oracle_differs_is_named(network: HostNetwork, place: int) -> None:
    graph = small_net()
    model = write_tflite(changed_weights(graph, place))
    text = mismatch(sides(graph, network, model), random_model_inputs(graph, 3))
    assert "differ between the simulator and TFLite Micro" in text and layer_of(text) == place


def test_tensors_without_names_of_their_own_are_told_by_shape_and_scale(tmp_path: Path) -> None:
    graph = small_net()
    same = replace(graph, tensors=[replace(tensor, name="t") for tensor in graph.tensors])
    text = mismatch(sides(same, built(same, tmp_path), write_tflite(changed_weights(same, 1))), random_model_inputs(same, 3))
    assert layer_of(text) == 1 and "not shown" not in text


def test_layers_that_cannot_be_told_apart_are_said_to_be_hidden(tmp_path: Path) -> None:
    """Two equal convolutions of one name; the first one is wrong, the third is the first in which that is seen."""
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    y = build.conv(build.conv(x, 2, scale=0.5), 2, scale=0.5)
    graph = build.graph(x, build.conv(y, 3))
    for node in graph.nodes[:2]:
        graph.tensors[node.outputs[0]] = replace(graph.tensors[node.outputs[0]], name="twin")
    model = write_tflite(changed_weights(graph, 0))
    text = mismatch(sides(graph, built(graph, tmp_path), model), random_model_inputs(graph, 3))
    assert layer_of(text) == 2 and "(of those before it 2 are not shown)" in text


# Which oracle


def test_the_original_file_is_the_oracle_where_there_is_one() -> None:
    graph = small_net()
    original = write_tflite(graph)
    oracle, note = choose_oracle(graph, original, b"twin", random_model_inputs(graph, 1))
    assert oracle == Oracle("TFLite Micro on the original file", original) and note == ""


def test_without_a_tflite_file_or_where_it_is_refused_the_twin_is(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_net()
    twin, inputs = write_tflite(graph), random_model_inputs(graph, 1)
    assert choose_oracle(graph, None, twin, inputs) == (Oracle("TFLite Micro on the .tflite twin", twin), "")

    def refuse(*_: object) -> None:
        raise GraphError("no such operator")

    monkeypatch.setattr(firmware_export.compare, "run_oracle", refuse)
    oracle, note = choose_oracle(graph, b"another file", twin, inputs)
    assert oracle.model == twin and note == "TFLite Micro does not run the file as it is"


# Exposed inner tensors


@pytest.mark.parametrize("model", ["residual", "perceptron", "two_ends"])
def test_every_layers_output_becomes_an_output(model: str) -> None:
    graph = MODELS[model]()
    inputs = inputs_of(graph, 3)
    shown, data = exposed(graph, write_tflite(graph))
    made = [index for node in graph.nodes for index in node.outputs]
    assert sorted(shown.outputs) == sorted(made)
    answers = tflite_micro(data, inputs, len(made))
    for ours, theirs in zip(simulate(shown, *inputs), answers, strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_the_exposed_file_is_a_model_of_its_own() -> None:
    graph = small_net()
    _, data = exposed(graph, write_tflite(graph))
    again = read_tflite_bytes(data)
    assert len(again.outputs) == len(graph.nodes)
    inputs = inputs_of(graph)
    expected = [layer[0] for layer in simulate_trace(graph, *inputs)]
    found = {again.tensors[index].name: value for index, value in zip(again.outputs, simulate(again, *inputs), strict=True)}
    for node, value in zip(graph.nodes, expected, strict=True):
        assert found[graph.tensors[node.outputs[0]].name].tobytes() == value.tobytes()


def test_names_that_occur_twice_are_left_out() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    one, two = build.conv(x, 2), build.conv(x, 2)
    tensors = list(build.tensors)
    total = build.node("add", (one, two), build.activation((1, 4, 4, 2), 0.5, name="sum"), clamp=(-128, 127))
    graph = build.graph(x, total)
    for index in (one, two):
        graph.tensors[index] = replace(tensors[index], name="twice")
    shown, data = exposed(graph, write_tflite(graph))
    assert shown.outputs == (total,)
    assert len(read_tflite_bytes(data).outputs) == 1


def other_tensor(graph: Graph, place: int, **changes: object) -> Graph:
    """The same graph with something changed in what one node makes."""
    tensors, index = list(graph.tensors), graph.nodes[place].outputs[0]
    tensors[index] = replace(tensors[index], **changes)  # type: ignore[arg-type]
    return replace(graph, tensors=tensors)


@pytest.mark.parametrize(
    "changes",
    [{"name": "renamed"}, {"shape": (1, 8, 6, 5)}, {"quantization": Quantization.per_tensor(0.125, 3)}, {"quantization": None}],
)
def test_what_a_pass_has_changed_is_not_taken_for_a_difference(changes: dict[str, object]) -> None:
    graph = small_net()
    data = write_tflite(graph)
    left, _ = exposed(graph, data)
    fewer, model = exposed(other_tensor(graph, 0, **changes), data)
    assert set(left.outputs) - set(fewer.outputs) == {graph.nodes[0].outputs[0]}
    assert len(read_tflite_bytes(model).outputs) == len(fewer.outputs) == len(graph.nodes) - 1


def test_a_file_without_zero_points_means_zero() -> None:
    graph = small_net()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(write_tflite(graph), 0))
    zero = other_tensor(graph, 0, quantization=Quantization.per_tensor(0.5, 0))
    index = graph.nodes[0].outputs[0]
    (tensor,) = [t for t in model.subgraphs[0].tensors if t.name.decode() == graph.tensors[index].name]
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.array([0.5], np.float32), None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    assert index in exposed(zero, bytes(builder.Output()))[0].outputs


def test_one_value_has_no_class(tmp_path: Path) -> None:
    """Labels of a model with a single output value say nothing here, and no accuracy is made up from them."""
    build = Build()
    x = build.activation((1, 6), name="x")
    graph = build.graph(x, build.fully_connected(x, 1))
    inputs = replace(random_model_inputs(graph, 4), labels=np.zeros(4, np.int64))
    assert compare(sides(graph, built(graph, tmp_path)), inputs).correct is None
