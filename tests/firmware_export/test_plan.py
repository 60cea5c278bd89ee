"""Memory plans of small graphs: whole networks run in compiled C while every byte that nobody needs is spoilt."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_cases import random_values
from graph_builder import Build, inputs_of, small_net
from plan_verifier import PoisonedRuns, check_places, needed_after
from random_graphs import random_graph

from firmware_export.graph import Graph
from firmware_export.plan import ALIGNMENT, Plan, plan
from firmware_export.target import GOALS, Target

DSP = [Target("dsp", goal) for goal in GOALS]


def convolutions(seed: int) -> Graph:
    """Convolutions that read any earlier value (so that lives overlap in all ways), with reshapes between."""
    rng = random.Random(seed)
    build = Build(seed)
    x = build.activation((1, 6, 6, rng.randint(1, 5)), name="x")
    values = [x]
    for _ in range(rng.randint(2, 10)):
        source = rng.choice(values[-4:])
        if rng.random() < 0.25:
            side = build.tensors[source].shape
            values.append(build.reshape(source, (1, side[2], side[1], side[3])))
        else:
            values.append(build.conv(source, rng.choice((1, 2, 3, 4, 8, 12)), rng.choice((1, 3)), stride=rng.choice((1, 1, 2))))
    read = {index for node in build.nodes for index in node.inputs}
    return build.graph(x, tuple(value for value in values[1:] if value not in read))


def assert_right(folder: Path, graphs: list[Graph], plans: list[Plan]) -> None:
    """Places are right, and every network answers right however often its dead bytes are spoilt."""
    for graph, layout in zip(graphs, plans, strict=True):
        check_places(graph, layout)
        assert layout.lower_bound <= layout.size
    runs = PoisonedRuns(folder, graphs, plans)
    for number, graph in enumerate(graphs):
        rng = np.random.default_rng(number)
        inputs = [random_values(graph.tensors[index], rng) for index in graph.inputs]
        assert runs.faults(number, inputs) == [], f"network {number}"


@pytest.mark.parametrize("target", [Target(), *DSP], ids=lambda target: f"{target.core_class}-{target.optimize}")
def test_convolutions_that_read_any_earlier_value(target: Target, tmp_path: Path) -> None:
    graphs = [convolutions(seed) for seed in range(25)]
    plans = [plan(graph, target) for graph in graphs]
    assert_right(tmp_path, graphs, plans)
    assert sum(layout.proven for layout in plans) >= 0.9 * len(plans)


@pytest.mark.parametrize("target", [Target(), Target("dsp", "ram")], ids=lambda target: target.core_class)
def test_random_networks_of_every_operator(target: Target, tmp_path: Path) -> None:
    graphs = [random_graph(seed) for seed in range(400, 460)]
    assert_right(tmp_path, graphs, [plan(graph, target) for graph in graphs])


@pytest.mark.parametrize("core_class", ["v7m", "v6m", "mve"])
def test_networks_of_other_cores(core_class: str, tmp_path: Path) -> None:
    """Their kernels run here in portable form, on their packed data, under their plans."""
    graphs = [convolutions(seed) for seed in range(40, 50)] + [random_graph(seed) for seed in range(500, 515)]
    assert_right(tmp_path, graphs, [plan(graph, Target(core_class, "ram")) for graph in graphs])


@pytest.mark.long
@pytest.mark.parametrize("core_class", ["v7m", "v6m", "mve"])
def test_many_networks_of_other_cores(core_class: str, tmp_path: Path) -> None:
    graphs = [make(seed) for seed in range(3000, 3100) for make in (random_graph, convolutions)]
    assert_right(tmp_path, graphs, [plan(graph, Target(core_class)) for graph in graphs])


@pytest.mark.long
@pytest.mark.parametrize("target", [Target(), *DSP], ids=lambda target: f"{target.core_class}-{target.optimize}")
@pytest.mark.parametrize("begin", range(1000, 2000, 250))
def test_many_random_networks(target: Target, begin: int, tmp_path: Path) -> None:
    graphs = [make(seed) for seed in range(begin, begin + 125) for make in (random_graph, convolutions)]
    assert_right(tmp_path, graphs, [plan(graph, target) for graph in graphs])


def test_the_same_graph_gives_the_same_plan() -> None:
    for target in DSP:
        assert plan(convolutions(3), target) == plan(convolutions(3), target)


def spoilt(folder: Path, graph: Graph, layout: Plan) -> list[str]:
    return PoisonedRuns(folder, [graph], [layout]).faults(0, inputs_of(graph))


def test_the_verifier_sees_a_tensor_that_lies_too_low(tmp_path: Path) -> None:
    """One step of the alignment less than the kernel's distance."""
    build = Build()
    x = build.activation((1, 8, 8, 8), name="x")
    graph = build.graph(x, build.conv(x, 8))
    layout = plan(graph)
    output = graph.nodes[0].outputs[0]
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        folder.mkdir()
    assert layout.offsets[x] - layout.offsets[output] in range(8 * 8, 8 * 8 + 3 * 8), "a row and a pixel apart"
    assert spoilt(good, graph, layout) == []
    assert spoilt(bad, graph, replace(layout, offsets=layout.offsets | {x: layout.offsets[x] - ALIGNMENT})) != []


def test_the_verifier_sees_a_scratch_on_top_of_an_input(tmp_path: Path) -> None:
    graph = small_net()
    layout = plan(graph)
    place = next(iter(layout.scratch))
    bad = replace(layout, scratch=layout.scratch | {place: layout.offsets[graph.nodes[place].inputs[0]]})
    assert spoilt(tmp_path, graph, bad) != []


def test_the_verifier_sees_tensors_that_lie_on_each_other(tmp_path: Path) -> None:
    """The skip connection's tensor is overwritten by what the inner convolution makes."""
    build = Build()
    x = build.activation((1, 4, 4, 4), name="x")
    skip = build.conv(x, 4)
    inner = build.conv(skip, 4)
    total = build.node("add", (skip, inner), build.activation((1, 4, 4, 4)), clamp=(-128, 127))
    graph = build.graph(x, total)
    layout = plan(graph)
    assert set(needed_after(graph, 1)) == {skip, inner}
    bad = replace(layout, offsets=layout.offsets | {inner: layout.offsets[skip]})
    with pytest.raises(AssertionError, match="overlap"):
        check_places(graph, bad)
    assert spoilt(tmp_path, graph, bad) != []


def test_a_reshape_takes_no_memory() -> None:
    graph = small_net()
    layout = plan(graph)
    node = next(node for node in graph.nodes if node.op == "reshape")
    assert layout.offsets[node.inputs[0]] == layout.offsets[node.outputs[0]]


def test_a_reshaped_input_that_is_read_later_again_lives_as_long_as_its_reader(tmp_path: Path) -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    flat = build.reshape(x, (1, 2, 8, 2))
    y = build.conv(build.conv(flat, 8), 8)
    z = build.conv(build.reshape(flat, (1, 8, 2, 2)), 3)
    graph = build.graph(x, (y, z))
    assert_right(tmp_path, [graph], [plan(graph)])


def test_two_outputs_and_an_input_nobody_reads_after_the_first_node(tmp_path: Path) -> None:
    build = Build()
    x = build.activation((1, 16, 16, 4), name="x")
    y = build.conv(x, 1)
    z = build.conv(y, 4)
    graph = build.graph(x, (y, z))
    layout = plan(graph)
    assert_right(tmp_path, [graph], [layout])
    assert layout.size < 16 * 16 * (4 + 1) + 4 * ALIGNMENT + 36, "the input's place is used again"


def test_a_chain_of_elementwise_operators_takes_one_tensor() -> None:
    build = Build()
    x = y = build.activation((1, 10, 10, 3), name="x")
    for _ in range(5):
        y = build.node("relu", (y,), build.activation((1, 10, 10, 3)), clamp=(0, 127))
    layout = plan(build.graph(x, y))
    assert layout.size == 304 and set(layout.offsets.values()) == {0} and layout.proven


def test_an_input_that_is_an_operators_both_sides() -> None:
    build = Build()
    x = build.activation((1, 5, 5, 3), name="x")
    graph = build.graph(x, build.node("add", (x, x), build.activation((1, 5, 5, 3)), clamp=(-128, 127)))
    assert plan(graph).size == 80


def test_values_that_are_read_again_are_not_overwritten() -> None:
    build = Build()
    x = build.activation((1, 64), name="x")
    y = build.node("relu", (x,), build.activation((1, 64)), clamp=(0, 127))
    graph = build.graph(x, build.node("add", (x, y), build.activation((1, 64)), clamp=(-128, 127)))
    layout = plan(graph)
    assert layout.size == 128 and layout.offsets[x] != layout.offsets[y]


def test_a_long_chain_is_planned_in_time() -> None:
    """A thousand nodes, alternately wide and narrow."""
    build = Build()
    x = y = build.activation((1, 4, 4, 2), name="x")
    for place in range(1000):
        y = build.conv(y, 2 + place % 3, 1, scale=0.05)
    layout = plan(build.graph(x, y))
    assert layout.size <= 16 * 8


def test_sizes_are_multiples_of_the_alignment() -> None:
    build = Build()
    x = build.activation((1, 3, 3, 1), name="x")
    graph = build.graph(x, build.conv(x, 1, bias=False))
    layout = plan(graph)
    assert {offset % ALIGNMENT for offset in (*layout.offsets.values(), layout.size)} == {0}


def test_places_are_what_the_plan_says() -> None:
    """Tensors that own bytes and scratches, with the layers during which they are there."""
    build = Build()
    x = build.activation((1, 8, 8, 4), name="x")
    y = build.conv(x, 4)
    z = build.reshape(y, (1, 256))
    graph = build.graph(x, build.fully_connected(z, 3))
    layout = plan(graph, Target("dsp"))
    tensors = {place.owner: place for place in layout.places if place.owner is not None}
    scratches = {place.node: place for place in layout.places if place.node is not None}
    assert set(tensors) == {x, y, graph.outputs[0]}, "a reshape owns nothing"
    assert (tensors[x].first, tensors[x].last) == (0, 0) and (tensors[y].first, tensors[y].last) == (0, 2)
    assert all(place.offset == layout.offsets[owner] for owner, place in tensors.items())
    assert all(place.size == graph.tensors[owner].nbytes for owner, place in tensors.items())
    assert {node: place.offset for node, place in scratches.items()} == layout.scratch
    assert all(place.first == place.last == node for node, place in scratches.items())
    assert all(place.size == layout.codes[node].scratch_bytes for node, place in scratches.items())
    assert max(place.offset + place.size for place in layout.places) <= layout.size


def test_a_residual_block_holds_two_tensors() -> None:
    """conv - conv - add on 16 x 16 x 16: the sum over the skip connection, the second convolution below its input."""
    build = Build()
    x = build.activation((1, 16, 16, 16), name="x")
    inner = build.conv(build.conv(x, 16, scale=0.1), 16, scale=0.1)
    total = build.node("add", (x, inner), build.activation((1, 16, 16, 16), 0.2, 0), clamp=(-128, 127))
    layout = plan(build.graph(x, total))
    distance = layout.codes[1].distances[0]
    assert distance is not None and distance >= 16 * 16
    assert layout.size <= 2 * 4096 + distance + layout.codes[1].scratch_bytes + 2 * ALIGNMENT and layout.proven


def test_a_growing_pointwise_convolution_starts_at_the_end_of_its_output() -> None:
    """8 to 16 channels: the input's last pixels coincide with the output's."""
    build = Build()
    x = build.activation((1, 20, 20, 8), name="x")
    graph = build.graph(x, build.conv(x, 16, 1, padding=(0, 0, 0, 0), scale=0.1))
    layout = plan(graph, Target("dsp", "ram"))
    assert layout.size <= 6400 + 72 + ALIGNMENT
    assert layout.offsets[x] - layout.offsets[graph.outputs[0]] in range(3200 - 24, 3200 + 8)


def test_depthwise_and_pointwise_run_in_one_tensor() -> None:
    """A keyword-spotting block: 25 x 5 x 64 throughout, and the scratch of one plane."""
    build = Build()
    x = y = build.activation((1, 25, 5, 64), name="x")
    for _ in range(2):
        weights = build.weights((1, 3, 3, 64), 3)
        window = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1), "clamp": (-128, 127)}
        z = build.activation((1, 25, 5, 64), 0.5, -128)
        y = build.node("depthwise_conv2d", (y, weights, build.bias(y, weights, 64)), z, **window)
        y = build.conv(y, 64, 1, padding=(0, 0, 0, 0), scale=0.5, clamp=(-3, 127))
    layout = plan(build.graph(x, y), Target("dsp", "ram"))
    assert layout.size <= 8000 + 1000


def test_the_first_layer_of_an_autoencoder_expands_its_input_over_itself() -> None:
    """640 bytes become 1280 of scratch, which lie over them: the buffer holds those and the 128 outputs."""
    build = Build()
    x = build.activation((1, 640), name="x")
    layout = plan(build.graph(x, build.fully_connected(x, 128)), Target("dsp", "time"))
    assert layout.size == 1280 + 128 and layout.proven
