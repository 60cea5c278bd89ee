"""Plans for two regions of memory, and the C generated from them on the host, each buffer apart and under sanitizers."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import bundle as bundle_module
import numpy as np
import pytest
from bundle import Bundle
from example_cases import Case, differences, random_values
from graph_builder import Build, inputs_of
from plan_verifier import PoisonedRuns
from random_graphs import random_graph
from sanitized import SANITIZE
from two_regions import TwoRegionRuns, check_regions, wide_middle

from firmware_export.emit import emit
from firmware_export.graph import Graph
from firmware_export.hostlib import HostNetwork
from firmware_export.plan import Plan, RegionsError, plan
from firmware_export.planning.blocks import Block, Overlap, Problem
from firmware_export.planning.regions import split
from firmware_export.report import network_info, report_text
from firmware_export.simulate import simulate
from firmware_export.target import Target
from firmware_export.toolchain import Toolchain

DSP = Target("dsp")
SEEDS = range(12)


@cache
def planned(seed: int, target: Target = DSP) -> tuple[Graph, Plan, tuple[int, int]]:
    """A network whose buffer is a few hundred bytes too large for the first region."""
    graph = wide_middle(seed)
    size = plan(graph, target).size
    rooms = (size * 5 // 8, size)
    return graph, plan(graph, target, rooms=rooms), rooms


def blocks(*sizes: int) -> list[Block]:
    """That live all at the same time."""
    return [Block(size, 0, 0) for size in sizes]


def test_what_does_not_fit_the_first_region_lies_in_the_second() -> None:
    found = split(Problem(blocks(64, 32, 24)), {2}, (64, 200))
    assert found is not None and found.regions[2] == 0
    assert sorted(found.sizes) == [56, 64] and sum(found.sizes) == 120
    assert found.sizes[1] in (56, 64)


def test_the_second_region_holds_as_little_as_can_be() -> None:
    """Of 48, 40 and 16 bytes 64 can lie in the first region."""
    found = split(Problem(blocks(48, 40, 16)), set(), (64, 200))
    assert found is not None and found.sizes == (64, 40) and found.regions == (0, 1, 0)
    assert found.joined == [*((0, 64, 48) if found.offsets[0] == 0 else (16, 64, 0))]


def test_blocks_that_never_meet_share_bytes_in_both_regions() -> None:
    problem = Problem([Block(40, 0, 1), Block(40, 0, 1), Block(40, 2, 3), Block(40, 2, 3)])
    found = split(problem, set(), (40, 40))
    assert found is not None and found.sizes == (40, 40) and set(found.offsets) == {0}


def test_an_overlap_that_a_kernel_allows_is_used_in_one_region_only() -> None:
    """Block 1 may begin 8 bytes before block 0; with a third one beside them 48 + 40 bytes are enough."""
    problem = Problem([Block(40, 0, 1), Block(40, 1, 2), Block(40, 0, 2)], {(1, 0): Overlap(8)})
    found = split(problem, {0, 1}, (48, 40))
    assert found is not None and found.sizes == (48, 40) and found.offsets[0] - found.offsets[1] == 8


@pytest.mark.parametrize("rooms", [(56, 200), (64, 48), (0, 0)])
def test_no_room_is_told(rooms: tuple[int, int]) -> None:
    """64 bytes must lie in the first region, 56 in the second."""
    assert split(Problem(blocks(64, 56)), {0}, rooms) is None
    assert split(Problem(blocks(64, 56)), {0}, (64, 56)) is not None


def test_nothing_needs_no_room() -> None:
    found = split(Problem(), (), (0, 0))
    assert found is not None and found.sizes == (0, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_tensors_lie_whole_in_one_region(seed: int) -> None:
    graph, layout, rooms = planned(seed)
    check_regions(graph, layout, rooms)
    assert not layout.proven and layout.lower_bound <= layout.size


def test_the_check_sees_a_tensor_across_both_regions() -> None:
    graph, layout, rooms = planned(0)
    shift = next(i for i, offset in layout.offsets.items() if offset == layout.regions[0])
    with pytest.raises(AssertionError, match="lie across"):
        check_regions(graph, replace(layout, offsets=layout.offsets | {shift: layout.regions[0] - 8}), rooms)


def test_a_network_that_fits_the_first_region_has_the_ordinary_plan() -> None:
    graph = wide_middle(1)
    alone = plan(graph, DSP)
    assert plan(graph, DSP, rooms=(alone.size, 1000)) == alone and alone.regions == ()
    assert plan(graph, DSP, rooms=(alone.size - 8, 10 * alone.size)).regions != ()


def test_the_same_arguments_give_the_same_plan() -> None:
    graph, layout, rooms = planned(2)
    assert plan(graph, DSP, rooms=rooms) == layout


def test_too_small_regions_are_told_with_both() -> None:
    graph = wide_middle(3)
    with pytest.raises(RegionsError) as caught:
        plan(graph, DSP, rooms=(200, 300))
    text = str(caught.value)
    assert caught.value.exit_code == 7 and "\n" not in text and caught.value.rooms == (200, 300)
    assert f"need {caught.value.needed:,} bytes in one region" in text and caught.value.needed > 500
    assert "the first region has room for 200 and the second has room for 300" in text


def test_an_input_larger_than_the_first_region_is_refused() -> None:
    build = Build()
    x = build.activation((1, 16, 16, 4), name="x")
    graph = build.graph(x, build.conv(x, 2))
    with pytest.raises(RegionsError):
        plan(graph, DSP, rooms=(1016, 1 << 20))


def test_generated_c_keeps_to_its_two_buffers(tmp_path: Path) -> None:
    found = [planned(seed)[:2] for seed in SEEDS]
    runs = TwoRegionRuns(tmp_path, [graph for graph, _ in found], [layout for _, layout in found])
    for number, (graph, _) in enumerate(found):
        rng = np.random.default_rng(number)
        inputs = [random_values(graph.tensors[index], rng) for index in graph.inputs]
        assert runs.faults(number, inputs) == [], f"network {number}"


@pytest.mark.parametrize("core_class", ["portable", "v7m", "v6m", "mve"])
def test_kernels_of_other_cores(core_class: str, tmp_path: Path) -> None:
    found = [planned(seed, Target(core_class, "ram")) for seed in range(3)]
    for graph, layout, rooms in found:
        check_regions(graph, layout, rooms)
    runs = TwoRegionRuns(tmp_path, [graph for graph, _, _ in found], [layout for _, layout, _ in found])
    assert [runs.faults(number, inputs_of(graph)) for number, (graph, _, _) in enumerate(found)] == [[], [], []]


def test_random_networks_of_every_operator(tmp_path: Path) -> None:
    """Parts of tensors, joined ones, two inputs and outputs; where inputs and outputs leave no room, there is no such plan."""
    found = []
    for graph in map(random_graph, range(700, 730)):
        rooms = (plan(graph, DSP).size - 8, 1 << 16)
        try:
            found.append((graph, plan(graph, DSP, rooms=rooms)))
        except RegionsError:
            continue
        if found[-1][1].regions:  # with smaller kernels some fit the first region alone
            check_regions(*found[-1], rooms)
    found = [(graph, layout) for graph, layout in found if layout.regions]
    assert len(found) >= 8
    runs = TwoRegionRuns(tmp_path, [graph for graph, _ in found], [layout for _, layout in found])
    for number, (graph, _) in enumerate(found):
        assert runs.faults(number, inputs_of(graph)) == [], f"network {number}"


def test_the_judge_sees_a_tensor_that_lies_on_another(tmp_path: Path) -> None:
    """Two values that are both read later, at the begin of the second region."""
    graph, layout, _ = planned(0)
    first = graph.nodes[0].outputs[0]
    bad = replace(layout, offsets=layout.offsets | {first: layout.offsets[graph.nodes[1].outputs[0]]})
    assert TwoRegionRuns(tmp_path, [graph], [bad]).faults(0, inputs_of(graph)) != []


def case_of(seed: int) -> Case:
    graph = wide_middle(seed)
    vectors = tuple(tuple(inputs_of(graph, number)) for number in range(3))
    return Case(f"wide middle {seed}", graph, vectors, tuple(tuple(simulate(graph, *vector)) for vector in vectors))


def test_under_sanitizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first buffer is a heap block of exactly the promised size; red zones lie around the second. Several inferences."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; the sanitizers are tested with gcc")
    cases = [case_of(seed) for seed in SEEDS]
    layouts = [planned(seed)[1] for seed in SEEDS]
    remaining = iter(layouts)
    monkeypatch.setattr(bundle_module, "plan", lambda graph, target: next(remaining))
    made = Bundle(tmp_path, cases, DSP)
    assert made.plans == layouts
    program = made.host_program(Toolchain("cc", ("gcc",), "any"), SANITIZE, optimize="1")
    for case, found in zip(cases, made.run_host(program), strict=True):
        assert differences(case, found) == ""


def written(folder: Path, graph: Graph, layout: Plan) -> Path:
    for name, text in emit(graph, layout, selftest=False).items():
        (folder / name).write_text(text)
    return folder


def test_the_library_for_the_host_runs_it(tmp_path: Path) -> None:
    graph, layout, _ = planned(4)
    network = HostNetwork(written(tmp_path, graph, layout))
    assert network.activations_bytes == layout.regions[0]
    (x,) = inputs_of(graph)
    assert [found.tobytes() for found in network.run(x)] == [wanted.tobytes() for wanted in simulate(graph, x)]
    assert network.trace(x)[-1][0].tobytes() == simulate(graph, x)[0].tobytes()


def test_the_header_tells_both_sizes_and_every_call_uses_the_right_buffer(tmp_path: Path) -> None:
    graph, layout, _ = planned(5)
    files = emit(graph, layout, "net", selftest=False)
    macros = dict(re.findall(r"#define NET_(\w+) (\d+)u", files["net.h"]))
    assert (int(macros["ACTIVATIONS_SIZE"]), int(macros["REGION_1_SIZE"])) == layout.regions
    assert "extern int8_t net_region_1[NET_REGION_1_SIZE];" in files["net.h"]
    assert f".activations_size = {layout.regions[0]}u," in files["net.c"]
    used = [(name, int(offset)) for name, offset in re.findall(r"\b([ab]) \+ (\d+)", files["net.c"])]
    assert {name for name, _ in used} == {"a", "b"}
    assert all(offset < layout.regions["ab".index(name)] for name, offset in used)


def test_one_region_has_no_word_of_a_second() -> None:
    graph = wide_middle(5)
    text = "".join(emit(graph, plan(graph, DSP), "net", selftest=False).values())
    assert "region" not in text.lower() and " b + " not in text


def test_the_section_of_the_second_buffer_can_be_chosen(tmp_path: Path) -> None:
    graph, layout, _ = planned(6)
    PoisonedRuns(tmp_path, [graph], [layout], ['-DP0_REGION_1_ATTRIBUTE=__attribute__((section(".chosen")))'])
    assert b".chosen" in (tmp_path / "poisoned.so").read_bytes()


def test_the_report_tells_both_regions() -> None:
    graph, layout, _ = planned(7)
    info = network_info(graph, layout, "net")
    assert info["memory"]["regions_bytes"] == list(layout.regions)
    first, second = layout.regions
    line = f"in two regions: {first:,} bytes in the first, the {second:,} from offset {first:,} on in the second"
    assert line in report_text(info)
    alone = network_info(graph, plan(graph, DSP), "net")
    assert "regions_bytes" not in alone["memory"] and "two regions" not in report_text(alone)
