"""Passes: what each removes or fuses, what it must leave alone, and that no answer changes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graph_builder import Build, inputs_of, small_net
from oracles import tflite_micro
from qdq_builder import dscnn, resnet

from firmware_export.check import check
from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.passes import PASSES, simplify
from firmware_export.passes.fuse_relu import fuse_relu
from firmware_export.passes.merge_reshapes import merge_reshapes
from firmware_export.passes.remove_unused import remove_unused
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def answers(graph: Graph, count: int = 3) -> list[bytes]:
    return [value.tobytes() for seed in range(count) for value in simulate(graph, *inputs_of(graph, seed))]


def assert_same_answers(before: Graph, after: Graph) -> None:
    """By the simulator, and by TFLite Micro on both files."""
    check(after)
    assert answers(before) == answers(after)
    inputs, count = inputs_of(before, 9), len(before.outputs)
    one, other = (tflite_micro(write_tflite(graph), inputs, count) for graph in (before, after))
    assert [value.tobytes() for value in one] == [value.tobytes() for value in other]


# fuse_relu


@pytest.mark.parametrize("clamp", [(-3, 127), (-3, 60), (-128, 127)])
def test_a_relu_becomes_the_clamp_of_the_convolution_before_it(clamp: tuple[int, int]) -> None:
    build = Build(1)
    x = build.activation((1, 5, 5, 3), name="x")
    y = build.relu(build.conv(x, 4, scale=6 / 63), clamp)
    graph = build.graph(x, y)
    fused = fuse_relu(graph)
    assert operators(fused) == ["conv2d"] and fused.nodes[0].integers("clamp") == clamp
    assert fused.nodes[0].outputs == graph.outputs
    assert_same_answers(graph, remove_unused(fused))


def test_clamps_add_up() -> None:
    build = Build(1)
    x = build.activation((1, 5, 5, 3), name="x")
    y = build.relu(build.conv(x, 4, clamp=(-3, 127), scale=6 / 63), (-128, 60))
    graph = build.graph(x, y)
    fused = fuse_relu(graph)
    assert fused.nodes[0].integers("clamp") == (-3, 60)
    assert answers(graph) == answers(fused)


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
def test_a_relu_behind_an_elementwise_operator(op: str) -> None:
    build = Build()
    x, other = build.activation((1, 4, 3)), build.activation((1, 1, 3))
    y = build.node(op, (x, other), build.activation((1, 4, 3), 0.05, -20), clamp=(-128, 127))
    graph = build.graph((x, other), build.relu(y, (-20, 127)))
    fused = fuse_relu(graph)
    assert operators(fused) == [op] and fused.nodes[0].integers("clamp") == (-20, 127)
    assert_same_answers(graph, remove_unused(fused))


def test_two_relus_in_a_row_are_both_fused() -> None:
    build = Build(1)
    x = build.activation((1, 5, 5, 3), name="x")
    y = build.relu(build.relu(build.conv(x, 4, scale=6 / 63), (-3, 127)), (-3, 60))
    graph = build.graph(x, y)
    fused = fuse_relu(graph)
    assert operators(fused) == ["conv2d"] and fused.nodes[0].integers("clamp") == (-3, 60)
    assert_same_answers(graph, remove_unused(fused))


def read_twice(build: Build, x: int) -> tuple[int, ...]:
    y = build.conv(x, 4)
    return build.relu(y, (-3, 127)), build.conv(y, 2)


def also_an_output(build: Build, x: int) -> tuple[int, ...]:
    y = build.conv(x, 4)
    return y, build.relu(y, (-3, 127))


def another_scale(build: Build, x: int) -> tuple[int, ...]:
    y = build.conv(x, 4)
    return (build.relu(y, (-3, 127), scale=build.tensors[y].scale * 1.5),)


def behind_a_reshape(build: Build, x: int) -> tuple[int, ...]:
    y = build.reshape(build.conv(x, 4), (1, 100))
    return (build.relu(y, (-3, 127)),)


def on_the_input(build: Build, x: int) -> tuple[int, ...]:
    return (build.relu(x, (0, 127)),)


def apart(build: Build, x: int) -> tuple[int, ...]:
    """The two clamps have no value in common: the answer is the second one's end, not an empty range."""
    return (build.relu(build.conv(x, 4, clamp=(-128, -3)), (60, 127)),)


@pytest.mark.parametrize("make", [read_twice, also_an_output, another_scale, behind_a_reshape, on_the_input, apart])
def test_a_relu_that_cannot_be_fused_stays(make: Any) -> None:
    build = Build(1)
    x = build.activation((1, 5, 5, 3), name="x")
    graph = build.graph(x, make(build, x))
    assert fuse_relu(graph) is graph


def test_a_clamp_that_tflite_cannot_fuse_stays_on_its_own() -> None:
    """RELU (0..) and RELU_N1_TO_1 (-1..1) together are 0..1, which TFLite has no name for."""
    build = Build(1)
    x = build.activation((1, 5, 5, 3), name="x")
    y = build.conv(x, 4, clamp=(0, 127), scale=0.05, zero_point=0)
    graph = build.graph(x, build.relu(y, (-20, 20)))
    assert fuse_relu(graph) is graph
    assert answers(graph) == answers(simplify(graph))


# merge_reshapes


def test_reshapes_in_a_row_become_one() -> None:
    build = Build(1)
    x = build.activation((1, 4, 6, 2), name="x")
    y = build.conv(x, 2)
    flat = build.reshape(build.reshape(build.reshape(y, (1, 6, 4, 2)), (1, 2, 12, 2)), (1, 48))
    graph = build.graph(x, build.fully_connected(flat, 3))
    merged = remove_unused(merge_reshapes(graph))
    assert operators(merged) == ["conv2d", "reshape", "fully_connected"]
    assert_same_answers(graph, merged)


def test_a_reshape_there_and_back_vanishes() -> None:
    build = Build(1)
    x = build.activation((1, 4, 6, 2), name="x")
    y = build.reshape(build.reshape(build.conv(x, 2), (1, 6, 4, 2)), (1, 4, 6, 2))
    graph = build.graph(x, build.conv(y, 3))
    merged = remove_unused(merge_reshapes(graph))
    assert operators(merged) == ["conv2d", "conv2d"]
    assert_same_answers(graph, merged)


def test_a_reshape_that_makes_an_output_stays() -> None:
    build = Build(1)
    x = build.activation((1, 4, 6, 2), name="x")
    y = build.conv(x, 2)
    graph = build.graph(x, (y, build.reshape(build.reshape(y, (1, 48)), (1, 4, 6, 2))))
    merged = remove_unused(merge_reshapes(graph))
    assert operators(merged) == ["conv2d", "reshape"]
    assert_same_answers(graph, merged)


def test_both_readers_of_a_reshape_chain_keep_their_values() -> None:
    build = Build(1)
    x = build.activation((1, 4, 6, 2), name="x")
    one = build.reshape(build.conv(x, 2), (1, 6, 4, 2))
    other = build.reshape(one, (1, 2, 12, 2))
    graph = build.graph(x, (build.conv(one, 3), build.conv(other, 3)))
    merged = remove_unused(merge_reshapes(graph))
    assert operators(merged).count("reshape") == 2
    assert_same_answers(graph, merged)


def test_nothing_to_merge_leaves_the_graph_itself() -> None:
    graph = small_net()
    assert merge_reshapes(graph) is graph


# remove_unused


def with_dead_ends(graph: Graph) -> Graph:
    """Two dead nodes in a row, an unused constant, an unused activation."""
    build = Build(5)
    build.tensors, build.nodes = list(graph.tensors), list(graph.nodes)
    build.tensor(Tensor("spare", (2,), "int32", None, np.zeros(2, np.int32)))
    build.tensor(Tensor("idle", (1, 2), "int8", Quantization.per_tensor(0.1, 0)))
    build.conv(build.conv(graph.nodes[0].outputs[0], 2), 2)
    return build.graph(graph.inputs, graph.outputs)


def test_dead_nodes_and_tensors_go_and_the_rest_keeps_its_order() -> None:
    graph = small_net()
    cleaned = remove_unused(with_dead_ends(graph))
    assert cleaned.hash() == graph.hash()


def test_nothing_unused_leaves_the_graph_itself() -> None:
    graph = small_net()
    assert remove_unused(graph) is graph


def test_inputs_nobody_reads_stay() -> None:
    build = Build(1)
    x, idle = build.activation((1, 4, 4, 2), name="x"), build.activation((1, 3), name="idle")
    graph = remove_unused(build.graph((idle, x), build.conv(x, 2)))
    assert [graph.tensors[index].name for index in graph.inputs] == ["idle", "x"]


def test_absent_inputs_stay_absent() -> None:
    build = Build(1)
    build.activation((1, 9), name="unused")
    x = build.activation((1, 4, 4, 2), name="x")
    graph = remove_unused(build.graph(x, build.conv(x, 2, bias=False)))
    assert graph.nodes[0].inputs == (0, 1, -1)


# All of them


def random_graph(seed: int) -> Graph:
    """Convolutions, relus, reshapes and dead ends in any order."""
    rng = random.Random(seed)
    build = Build(seed)
    x = build.activation((1, 4, 6, 2), name="x")
    values = [x]
    for _ in range(rng.randint(3, 12)):
        source = rng.choice(values[-3:])
        shape, choice = build.tensors[source].shape, rng.random()
        if choice < 0.35:
            values.append(build.conv(source, 2, rng.choice((1, 3)), scale=6 / 63, zero_point=-3))
        elif choice < 0.7:
            clamp = rng.choice([(-3, 127), (-3, 60), (-14, 8), (-128, 127)])
            if build.tensors[source].zero_point == -3:
                values.append(build.relu(source, clamp))
        else:
            values.append(build.reshape(source, rng.choice([shape, (1, shape[2], shape[1], shape[3])])))
    makers = [node.outputs[0] for node in build.nodes if node.op != "reshape" or node.inputs[0] != x]
    ends = tuple(dict.fromkeys(rng.choice(makers or [build.conv(x, 2)]) for _ in range(rng.randint(1, 2))))
    return build.graph(x, ends)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_keep_their_answers(seed: int) -> None:
    graph = random_graph(seed)
    check(graph)
    simple = simplify(graph)
    check(simple)
    assert answers(simple) == answers(graph)
    assert simplify(simple).hash() == simple.hash(), "a second time changes nothing"


def test_some_random_graphs_get_smaller() -> None:
    shrunk = sum(len(simplify(random_graph(seed)).nodes) < len(random_graph(seed).nodes) for seed in range(60))
    assert shrunk > 30


@pytest.mark.parametrize("run", PASSES, ids=lambda run: run.__name__)
@pytest.mark.parametrize("net", [resnet, dscnn])
def test_each_pass_alone_keeps_the_answers_of_whole_nets(net: Any, run: Any) -> None:
    graph = read_onnx_bytes(net(3).SerializeToString())
    assert answers(run(graph)) == answers(graph)


def test_a_pass_does_not_change_the_graph_it_is_given() -> None:
    graph = with_dead_ends(small_net())
    copy = replace(graph, tensors=list(graph.tensors), nodes=list(graph.nodes))
    simplify(graph)
    assert graph == copy
