"""Windows that lie in the padding alone, and windows of one row or column that are spread: every kernel, striping, the planner.

A border that a model adds by itself can be wider than the kernel behind it; it becomes the convolution's padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import COMPILER
from graph_builder import Build, inputs_of
from kernel_harness.program import Case
from oracles import tflite_micro
from packed_cases import Packer, packed_case, random_input, trained_weights
from plain_core_cases import CORES, fails_on_host, moved, wrong
from plain_core_cases import conv2d_packer as trio
from plain_core_cases import depthwise_packer as trio_depthwise
from plan_verifier import PoisonedRuns
from sanitized import run_sanitized

from firmware_export.graph import Graph, GraphError, Quantization
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_mve import conv2d_layer as mve
from firmware_export.packing.conv2d_r256 import conv2d_layer as r256
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_mve import depthwise_layer as mve_depthwise
from firmware_export.packing.depthwise_planes import depthwise_layer as planes
from firmware_export.passes import simplify
from firmware_export.plan import plan
from firmware_export.simulate import simulate
from firmware_export.striping import Segment, can_stripe, estimated, segments, with_stripes
from firmware_export.target import Target
from firmware_export.write_tflite import write_tflite

Pair = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """Of a convolution. image: h, w, c. outputs: 0 for a depthwise one. padding: top, bottom, left, right."""

    image: tuple[int, int, int]
    outputs: int
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


def convolution(rng: np.random.Generator, shape: Shape, zero_point: int = 17) -> Graph:
    """One layer with the statistics of a trained one behind a ReLU; zero_point: of the input, what the padding stands for."""
    channels = shape.image[2]
    op, axis = ("conv2d", 0) if shape.outputs else ("depthwise_conv2d", 3)
    sizes = (shape.outputs, *shape.kernel, channels) if shape.outputs else (1, *shape.kernel, channels)
    weights = trained_weights(rng, sizes, axis)
    x = make.activation((1, *shape.image), Quantization.per_tensor(0.02, zero_point))
    bias = make.random_bias(rng, x, weights, sizes[axis], 2000)
    depth = int(np.prod(sizes)) // sizes[axis]
    scale = float(np.float32(74 * 32 * np.sqrt(depth) * 0.02 * 2.0**-8 / 60))
    attributes = {"stride": shape.stride, "dilation": shape.dilation, "padding": shape.padding, "clamp": (-128, 127)}
    return make.single_node(op, (x, weights, bias), Quantization.per_tensor(scale, -128), attributes)


def random_shape(rng: np.random.Generator, kind: str) -> Shape:
    """Small images, borders of up to eight pixels; kernels and strides that the kind of kernel takes."""
    image = (int(rng.integers(1, 9)), int(rng.integers(1, 9)), int(rng.integers(1, 7)) * (4 if kind == "winograd" else 1))
    three = kind not in ("any", "spread")
    kernel = (3, 3) if three else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    step = int(rng.integers(1, 3))
    stride = (1, 1) if kind == "winograd" else (step, step)
    dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3))) if kind == "spread" else (1, 1)
    borders = [int(pixels) for pixels in rng.integers(0, 9, 4)]
    outputs = 0 if kind == "depthwise" else 2 * int(rng.integers(1, 5))
    return Shape(image, outputs, kernel, stride, dilation, (borders[0], borders[1], borders[2], borders[3]))


KERNELS: dict[str, tuple[str, Packer]] = {
    "r256": ("spread", partial(r256, border_limit=0)),
    "r256 with a copied border": ("spread", partial(r256, border_limit=4096)),
    "winograd": ("winograd", partial(winograd_layer, scratch_limit=9000)),
    "planes": ("depthwise", planes),
    "planes in bands": ("depthwise", partial(planes, scratch_limit=600)),
    "trio": ("spread", trio("v7m")),
    "flipped trio": ("spread", trio("v6m")),
    "depthwise trio": ("depthwise", trio_depthwise("v7m")),
    "mve": ("spread", mve),
    "depthwise mve": ("depthwise", mve_depthwise),
    "depthwise mve by rows": ("depthwise", partial(mve_depthwise, small=True)),
}


def random_cases(kind: str, packer: Packer, count: int, seed: int) -> list[Case]:
    """Layers that exist and that the kernel takes."""
    rng = np.random.default_rng(seed)
    found: list[Case] = []
    for _ in range(40 * count):
        try:
            graph = convolution(rng, random_shape(rng, kind), int(rng.integers(-128, 128)))
            found.append(packed_case(graph, packer, random_input(rng, graph)))
        except (GraphError, Unpackable):
            continue
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} layers could be packed")


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_under_the_sanitizers(name: str, tmp_path: Path) -> None:
    kind, packer = KERNELS[name]
    run_sanitized(random_cases(kind, packer, 30, 5), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6, 16))
@pytest.mark.parametrize("name", KERNELS)
def test_many_more_under_the_sanitizers(name: str, seed: int, tmp_path: Path) -> None:
    kind, packer = KERNELS[name]
    run_sanitized(random_cases(kind, packer, 150, seed), tmp_path)


SPREAD = {
    "a column, spread both ways": Shape((9, 8, 6), 4, (3, 1), dilation=(2, 2), padding=(2, 2, 0, 0)),
    "a column, spread along the rows alone": Shape((5, 7, 3), 4, (2, 1), dilation=(1, 3), padding=(1, 0, 1, 1)),
    "one pixel, spread": Shape((4, 7, 5), 6, (1, 1), dilation=(2, 3), padding=(1, 1, 2, 2)),
    "a row, spread both ways": Shape((7, 9, 4), 4, (1, 3), dilation=(2, 2), padding=(0, 0, 2, 2)),
    "a column that steps": Shape((9, 13, 4), 6, (3, 1), stride=(2, 1), dilation=(1, 2), padding=(1, 1, 0, 0)),
}


@pytest.mark.parametrize("core_class", CORES)
def test_spread_windows_on_plain_cores(core_class: str) -> None:
    """Windows at the edge are copied as one strip of neighbouring columns: the spread of a single column must not part them."""
    rng = np.random.default_rng(11)
    cases = {}
    for label, shape in SPREAD.items():
        graph = convolution(rng, shape)
        inputs = random_input(rng, graph)
        assert np.array_equal(simulate(graph, *inputs)[0], tflite_micro(write_tflite(graph), list(inputs))[0]), label
        cases[label] = moved(rng, packed_case(graph, trio(core_class), inputs))
    assert wrong(cases, core_class, COMPILER) == []
    assert not fails_on_host(list(cases.values()))


def bordered(rng: np.random.Generator, border: tuple[int, int, int, int], kernel: int) -> Graph:
    """A pad, as a model has it, and a convolution behind it without a padding of its own."""
    build = Build(int(rng.integers(1000)))
    x = build.activation((1, 6, 6, 4), 0.05, 9, name="x")
    top, bottom, left, right = border
    wide = build.activation((1, 6 + top + bottom, 6 + left + right, 4), 0.05, 9)
    paddings = (0, 0, *border, 0, 0)
    padded = build.node("pad", (x,), wide, paddings=paddings, value=9)
    return build.graph(x, build.conv(padded, 4, kernel, padding=(0, 0, 0, 0)))


@pytest.mark.parametrize("border", [(5, 0, 0, 5), (0, 4, 4, 0), (3, 3, 3, 3), (7, 6, 5, 4)])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_a_wide_border_becomes_padding(border: tuple[int, int, int, int], kernel: int) -> None:
    rng = np.random.default_rng(kernel)
    graph = bordered(rng, border, kernel)
    simple = simplify(graph)
    assert [node.op for node in simple.nodes] == ["conv2d"]
    assert simple.nodes[0].integers("padding") == border
    for seed in range(3):
        inputs = inputs_of(graph, seed)
        wanted = tflite_micro(write_tflite(graph), list(inputs))[0]
        assert np.array_equal(simulate(simple, *inputs)[0], wanted)
        assert np.array_equal(tflite_micro(write_tflite(simple), list(inputs))[0], wanted)


TARGETS = [Target(), *(Target("dsp", goal) for goal in ("time", "ram")), Target("v7m"), Target("v6m"), Target("mve")]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.core_class}-{target.optimize}")
def test_plans_of_wide_borders(target: Target, tmp_path: Path) -> None:
    """Where outputs may lie over inputs: with all bytes spoilt that nobody needs, the network still answers right."""
    rng = np.random.default_rng(3)
    borders = [(5, 0, 0, 5), (0, 6, 0, 0), (6, 0, 0, 0), (0, 0, 7, 0), (4, 4, 4, 4)]
    graphs = [simplify(bordered(rng, border, kernel)) for border in borders for kernel in (1, 3)]
    runs = PoisonedRuns(tmp_path, graphs, [plan(graph, target) for graph in graphs])
    for number, graph in enumerate(graphs):
        assert runs.faults(number, inputs_of(graph, number)) == [], f"network {number}"


def chain(seed: int, padding: tuple[int, int, int, int], kernel: int, stride: int) -> Graph:
    """A pointwise layer and one whose rows may lie outside the image."""
    build = Build(seed)
    x = build.activation((1, 8, 8, 4), name="x")
    return build.graph(x, build.conv(build.conv(x, 4, 1), 4, kernel, stride=stride, padding=padding, scale=0.3))


def stripings(graph: Graph) -> list[Graph]:
    """Both layers together in every number of stripes that is possible."""
    found = [Segment(nodes, count) for nodes in segments(graph, {0, 1}) for count in (2, 3, 4, 6)]
    return [with_stripes(graph, segment) for segment in found if estimated(graph, segment) is not None]


def tried_stripings(count: int) -> int:
    """How many stripings of random chains there are; each must answer like the chain."""
    rng, tried = np.random.default_rng(12), 0
    for seed in range(count):
        kernel, stride = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        graph = chain(seed, (int(rng.integers(0, 4)), int(rng.integers(0, 4)), 0, 0), kernel, stride)
        inputs = inputs_of(graph, seed)
        wanted = simulate(graph, *inputs)[0]
        for other in stripings(graph):
            assert np.array_equal(simulate(other, *inputs)[0], wanted), graph.nodes[1].attributes
            tried += 1
    return tried


def test_stripes_of_wide_borders() -> None:
    assert tried_stripings(60) > 40


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "striped"),
    [
        (3, 1, (2, 2, 0, 0), True),  # the outermost windows have one row on the image
        (3, 1, (3, 0, 0, 0), False),  # the first window has none
        (3, 1, (0, 3, 0, 0), False),  # the last
        (1, 1, (0, 0, 3, 3), True),  # columns do not matter
        (1, 1, (1, 0, 0, 0), False),
        (1, 2, (0, 2, 0, 0), False),  # the fifth row of windows begins at row 8
        (1, 2, (0, 1, 0, 0), False),  # so it does here: 9 rows, every second one
        (2, 2, (1, 1, 0, 0), True),
        (2, 3, (0, 5, 0, 0), False),
        (3, 2, (0, 1, 0, 0), True),
    ],
)
def test_rows_of_padding_alone_are_not_striped(
    kernel: int, stride: int, padding: tuple[int, int, int, int], striped: bool
) -> None:
    graph = chain(1, padding, kernel, stride)
    assert can_stripe(graph, graph.nodes[0])
    assert can_stripe(graph, graph.nodes[1]) is striped
