"""The graph checker: every rule refuses a graph that breaks it, and only it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph_builder import Build, small_net

from firmware_export.check import check
from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor

Change = Callable[[Graph], Graph]


def with_tensor(graph: Graph, index: int, **fields: object) -> Graph:
    tensors = list(graph.tensors)
    tensors[index] = replace(tensors[index], **fields)
    return replace(graph, tensors=tensors)


def with_node(graph: Graph, place: int, **fields: object) -> Graph:
    nodes = list(graph.nodes)
    nodes[place] = replace(nodes[place], **fields)
    return replace(graph, nodes=nodes)


def with_scale(graph: Graph, index: int, scale: list[float], zero_point: list[int], axis: int | None = None) -> Graph:
    quantization = Quantization(np.array(scale, np.float32), np.array(zero_point, np.int64), axis)
    return with_tensor(graph, index, quantization=quantization)


def weights_of(graph: Graph) -> int:
    return graph.nodes[0].inputs[1]


def float_constant(value: float) -> Change:
    def change(graph: Graph) -> Graph:
        data = np.array([1.0, value], np.float32)
        return replace(graph, tensors=[*graph.tensors, Tensor("table", (2,), "float32", None, data)])

    return change


def swapped_order(graph: Graph) -> Graph:
    return replace(graph, nodes=[graph.nodes[1], graph.nodes[0], *graph.nodes[2:]])


def cycle(graph: Graph) -> Graph:
    last = graph.nodes[-1].outputs[0]
    return with_node(graph, 0, inputs=(last, *graph.nodes[0].inputs[1:]))


def written_twice(graph: Graph) -> Graph:
    return with_node(graph, 1, outputs=graph.nodes[0].outputs)


def writes_a_constant(graph: Graph) -> Graph:
    return with_node(graph, 0, outputs=(weights_of(graph),))


def writes_an_input(graph: Graph) -> Graph:
    return with_node(graph, 0, outputs=graph.inputs)


def wrong_shape(graph: Graph) -> Graph:
    output = graph.nodes[0].outputs[0]
    return with_tensor(graph, output, shape=(1, 8, 6, 5))


def wrong_data(graph: Graph) -> Graph:
    data = graph.tensors[weights_of(graph)].data
    assert data is not None
    return with_tensor(graph, weights_of(graph), data=data.astype(np.int16))


def short_data(graph: Graph) -> Graph:
    data = graph.tensors[weights_of(graph)].data
    assert data is not None
    return with_tensor(graph, weights_of(graph), data=data[:-1])


def two_outputs(graph: Graph) -> Graph:
    index = len(graph.tensors)
    graph = replace(graph, tensors=[*graph.tensors, graph.tensors[graph.nodes[-1].outputs[0]]])
    return with_node(graph, len(graph.nodes) - 1, outputs=(*graph.nodes[-1].outputs, index))


CASES: dict[str, tuple[Change, str]] = {
    "arithmetic": (lambda g: g.with_arithmetic("triple"), "arithmetic 'triple'; supported: double"),
    "no operators": (lambda g: replace(g, nodes=[]), "has 0 operators; supported: 1 to 10,000"),
    "too many operators": (lambda g: replace(g, nodes=g.nodes * 3000), "has 15,000 operators"),
    "type": (lambda g: with_tensor(g, 0, dtype="float16"), "'image' is float16; supported: int8"),
    "rank": (lambda g: with_tensor(g, 0, shape=(1,) * 7), "'image' has 7 dimensions; supported: up to 6"),
    "zero size": (lambda g: with_tensor(g, 0, shape=(1, 0, 6, 3)), "has the shape (1, 0, 6, 3); supported: 1 to"),
    "negative size": (lambda g: with_tensor(g, 0, shape=(1, -8, -6, 3)), "has the shape (1, -8, -6, 3)"),
    "overflow": (lambda g: with_tensor(g, 0, shape=(1, 2**31, 2**31, 4)), "elements"),
    "scale 0": (lambda g: with_scale(g, 0, [0.0], [0]), "has the scale 0.0; supported: finite scales above 0"),
    "scale NaN": (lambda g: with_scale(g, 0, [float("nan")], [0]), "has the scale nan"),
    "scale infinite": (lambda g: with_scale(g, 0, [float("inf")], [0]), "has the scale inf"),
    "zero point": (lambda g: with_scale(g, 0, [0.1], [-129]), "zero points outside -128..127 of its type int8"),
    "zero points": (lambda g: with_scale(g, 0, [0.1], [0, 0]), "has 1 scales and 2 zero points"),
    "no axis": (lambda g: with_scale(g, 0, [0.1, 0.1], [0, 0]), "has 2 scales and no axis"),
    "axis": (lambda g: with_scale(g, 0, [0.1] * 3, [0] * 3, 4), "along axis 4"),
    "scales": (lambda g: with_scale(g, 0, [0.1] * 2, [0] * 2, 3), "has 2 scales along axis 3; expected one for each"),
    "float scale": (
        lambda g: with_tensor(g, 0, dtype="float32"),
        "'image' is float32 and has a scale; supported: scales of integers",
    ),
    "NaN": (float_constant(float("nan")), "'table' holds NaN or infinity"),
    "infinity": (float_constant(float("inf")), "'table' holds NaN or infinity"),
    "data type": (wrong_data, "holds data int16 (4, 3, 3, 3), expected int8 (4, 3, 3, 3)"),
    "data size": (short_data, "holds data int8 (3, 3, 3, 3), expected int8 (4, 3, 3, 3)"),
    "no inputs": (lambda g: replace(g, inputs=()), "has 0 inputs; supported: 1 to 255"),
    "no outputs": (lambda g: replace(g, outputs=()), "has 0 outputs"),
    "input twice": (lambda g: replace(g, inputs=g.inputs * 2), "has 2 inputs; supported: 1 to 255, each once"),
    "input index": (lambda g: replace(g, inputs=(99,)), "model input names tensor 99"),
    "output index": (lambda g: replace(g, outputs=(-3,)), "model output names tensor -3"),
    "constant input": (lambda g: replace(g, inputs=(weights_of(g),)), "is a constant; expected a tensor that is input"),
    "batch": (lambda g: with_tensor(g, 0, shape=(2, 8, 6, 3)), "has batch 2; supported: 1"),
    "large edge": (lambda g: with_tensor(g, 0, shape=(1, 70000, 6, 3)), "supported: sizes up to 65,535"),
    "node input": (lambda g: with_node(g, 0, inputs=(0, 99, 2)), "operator 0 (conv2d) names tensor 99"),
    "node output": (lambda g: with_node(g, 0, outputs=(-7,)), "operator 0 (conv2d) names tensor -7"),
    "order": (swapped_order, "before anything has written it"),
    "cycle": (cycle, "operator 0 (conv2d) reads tensor"),
    "two writers": (written_twice, "operator 1 (conv2d) writes tensor 't3', which already has a value"),
    "constant written": (writes_a_constant, "which already has a value"),
    "input written": (writes_an_input, "writes tensor 'image', which already has a value"),
    "nothing writes the output": (lambda g: replace(g, nodes=g.nodes[:-1]), "is written by no operator"),
    "an input as output": (lambda g: replace(g, outputs=g.inputs), "'image' is written by no operator"),
    "unknown operator": (lambda g: with_node(g, 0, op="conv9d"), "unknown operator 'conv9d'; supported: add"),
    "shape": (wrong_shape, "operator 0 (conv2d) writes int8 (1, 8, 6, 5) 't3'; its inputs make int8 (1, 8, 6, 4)"),
    "output type": (lambda g: with_tensor(g, g.nodes[0].outputs[0], dtype="int16"), "int16"),
    "output count": (two_outputs, "outputs"),
    "attributes": (lambda g: with_node(g, 0, attributes=g.nodes[0].attributes | {"stride": (0, 1)}), "operator 0 (conv2d): "),
}


def test_a_sound_graph_passes() -> None:
    check(small_net())


@pytest.mark.parametrize("name", CASES)
def test_each_rule_refuses(name: str) -> None:
    change, words = CASES[name]
    with pytest.raises(GraphError) as caught:
        check(change(small_net()))
    assert words in str(caught.value)
    assert caught.value.exit_code == 6


def test_an_output_that_another_node_reads_too_is_sound() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    y = build.conv(x, 3)
    check(build.graph(x, (y, build.conv(y, 2))))


def test_a_rank_zero_constant_and_unused_tensors_are_sound() -> None:
    graph = small_net()
    graph.tensors.append(Tensor("scalar", (), "int32", None, np.array(3, np.int32)))
    graph.tensors.append(Tensor("unused", (1, 2), "int8", None))
    check(graph)


def test_the_order_of_nodes_is_free_where_they_do_not_depend_on_each_other() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    ends = build.conv(x, 3), build.conv(x, 3)
    graph = build.graph(x, ends)
    check(replace(graph, nodes=graph.nodes[::-1]))


def test_a_node_without_an_operator_of_its_name_is_named_even_when_it_is_the_last() -> None:
    graph = small_net()
    last = graph.nodes[-1]
    graph.nodes[-1] = Node("gru", last.inputs, last.outputs)
    with pytest.raises(GraphError, match="unknown operator 'gru'"):
        check(graph)
