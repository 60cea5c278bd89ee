"""Random chains of ONNX operators that move, choose, join and combine values of any rank, against onnxruntime.

Images are NCHW in the file and NHWC here: whatever follows whatever, no element may end in another place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_builder import inputs_of
from onnx import helper
from oracles import onnx_stored, onnxruntime_session
from plan_verifier import PoisonedRuns, check_places
from qdq_builder import Qdq

from firmware_export.graph import Graph, GraphError
from firmware_export.ordering import ordered
from firmware_export.passes import simplify
from firmware_export.plan import plan
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.simulate import simulate
from firmware_export.target import Target

Shape = tuple[int, ...]
MAX_ELEMENTS = 3000


@dataclass
class Unsigned(Qdq):
    """Activations are uint8 in the file; zero points are given as of int8."""

    def quantized(self, value: str, scale: float, zero_point: int, shape: Shape) -> str:
        s, z = self.constant(np.float32(scale), "scale"), self.constant(np.uint8(zero_point + 128), "zp")
        result = self.node("DequantizeLinear", [self.node("QuantizeLinear", [value, s, z]), s, z])
        self.shapes[result], self.scales[result], self.rms[result] = shape, (float(np.float32(scale)), zero_point), 70 * scale
        return result


@dataclass
class Program:
    """A chain in the making: the value at its end, its shape, and what came before it."""

    net: Qdq
    x: str
    steps: list[str] = field(default_factory=list)

    @property
    def rng(self) -> np.random.Generator:
        """Decides everything."""
        return self.net.rng

    @property
    def shape(self) -> Shape:
        """Of the value at the end."""
        return self.net.shapes[self.x]

    def pick(self, count: int) -> int:
        """A number below count."""
        return int(self.rng.integers(count))

    def axis(self) -> int:
        """One of the value's axes, sometimes counted from the end."""
        axis = self.pick(len(self.shape))
        return axis - len(self.shape) if self.rng.random() < 0.3 else axis

    def numbers(self, *values: int) -> str:
        """A constant of int64."""
        return self.net.constant(np.array(values, np.int64))

    def moved(self, op_type: str, shape: Shape, *constants: str, **attributes: object) -> None:
        """An operator that keeps the scale, bare or with a QuantizeLinear behind it."""
        add = self.net.bare if self.rng.random() < 0.6 else self.net.same_scale
        self.x = add(op_type, self.x, shape, *constants, **attributes)
        self.steps.append(f"{op_type} {shape} {attributes}")

    def computed(
        self, op_type: str, inputs: list[str], shape: Shape, scale: float, zero_point: int, **attributes: object
    ) -> None:
        """An operator with a scale of its own."""
        self.x = self.net.quantized(self.net.node(op_type, inputs, **attributes), scale, zero_point, shape)
        self.steps.append(f"{op_type} {shape} {attributes}")


def transpose(p: Program) -> None:
    """Not where the file's edge is [n, h, w, c]: there a Transpose says only how the file is fed (test_onnx_nhwc.py)."""
    perm = [int(axis) for axis in p.rng.permutation(len(p.shape))]
    if perm == [0, 2, 3, 1] or (perm == [0, 3, 1, 2] and len(p.steps) == 1):
        return
    p.moved("Transpose", tuple(p.shape[axis] for axis in perm), perm=perm)


def factored(p: Program, count: int, rank: int) -> Shape:
    """A shape of so many elements."""
    sizes = []
    for _ in range(rank - 1):
        divisors = [size for size in range(1, count + 1) if count % size == 0]
        sizes.append(divisors[p.pick(len(divisors))])
        count //= sizes[-1]
    order = p.rng.permutation(rank)
    return tuple([*sizes, count][place] for place in order)


def reshape(p: Program) -> None:
    shape = factored(p, int(np.prod(p.shape)), 2 + p.pick(4))
    if p.rng.random() < 0.7:
        shape = (1, *factored(p, int(np.prod(p.shape)), 1 + p.pick(4)))
    p.moved("Reshape", shape, p.numbers(*shape))


def flatten(p: Program) -> None:
    axis = p.pick(len(p.shape) + 1)
    p.moved("Flatten", (int(np.prod(p.shape[:axis])), int(np.prod(p.shape[axis:]))), axis=axis)


def unsqueeze(p: Program) -> None:
    place = p.pick(len(p.shape) + 1)
    if len(p.shape) < 5:
        p.moved("Unsqueeze", (*p.shape[:place], 1, *p.shape[place:]), p.numbers(place))


def squeeze(p: Program) -> None:
    ones = [axis for axis, size in enumerate(p.shape) if size == 1]
    if ones and len(p.shape) > 2:
        axis = ones[p.pick(len(ones))]
        p.moved("Squeeze", tuple(size for place, size in enumerate(p.shape) if place != axis), p.numbers(axis))


def slice_(p: Program) -> None:
    axis = p.axis()
    size = p.shape[axis]
    begin, step = p.pick(size), 1 + p.pick(2)
    end = begin + 1 + p.pick(size - begin)
    shape = list(p.shape)
    shape[axis] = -(-(end - begin) // step)
    p.moved("Slice", tuple(shape), p.numbers(begin), p.numbers(end), p.numbers(axis), p.numbers(step))


def pad(p: Program) -> None:
    before, after = ([p.pick(3) if p.rng.random() < 0.4 else 0 for _ in p.shape] for _ in range(2))
    shape = tuple(size + b + a for size, b, a in zip(p.shape, before, after, strict=True))
    p.moved("Pad", shape, p.numbers(*before, *after), p.net.constant(np.float32(0)))


def tile(p: Program) -> None:
    repeats = [1 + p.pick(2) if p.rng.random() < 0.4 else 1 for _ in p.shape]
    p.moved("Tile", tuple(size * count for size, count in zip(p.shape, repeats, strict=True)), p.numbers(*repeats))


def joined(p: Program) -> None:
    """With a part of itself."""
    axis, first = p.axis(), p.x
    shape = list(p.shape)
    slice_(p)
    if p.shape[:axis] + p.shape[axis:][1:] == tuple(shape[:axis] + shape[axis:][1:]):
        shape[axis] += p.shape[axis]
        p.computed("Concat", [first, p.x], tuple(shape), *p.net.scales[first], axis=axis)


def split(p: Program) -> None:
    axis = p.axis()
    if p.shape[axis] < 2:
        return
    first = 1 + p.pick(p.shape[axis] - 1)
    sizes, names = (first, p.shape[axis] - first), [p.net.fresh("part"), p.net.fresh("part")]
    p.net.nodes.append(helper.make_node("Split", [p.x, p.numbers(*sizes)], names, axis=axis))
    chosen, shape = p.pick(2), list(p.shape)
    shape[axis] = sizes[chosen]
    p.x = p.net.quantized(names[chosen], *p.net.scales[p.x], tuple(shape))
    p.steps.append(f"Split {axis} {sizes} {chosen}")


def combined(p: Program) -> None:
    """With a stored constant that is repeated along some axes, perhaps of a lower rank."""
    rank = 1 + p.pick(len(p.shape))
    shape = tuple(size if p.rng.random() < 0.6 else 1 for size in p.shape[-rank:])
    values = p.net.constant(p.rng.integers(-100, 101, shape).astype(np.int8))
    constant = p.net.node("DequantizeLinear", [values, p.net.constant(np.float32(0.006)), p.net.constant(np.int8(3))])
    op_type = ["Add", "Sub", "Mul"][p.pick(3)]
    inputs = [p.x, constant] if p.rng.random() < 0.7 or op_type == "Sub" else [constant, p.x]
    scale = p.net.scales[p.x][0]
    p.computed(op_type, inputs, p.shape, 1.3 * scale + 0.003 if op_type != "Mul" else 0.7 * scale, 2)


def doubled(p: Program) -> None:
    """With itself in another shape and back, or turned round."""
    first, shape = p.x, p.shape
    transpose(p)
    if p.shape == shape:
        p.computed("Add", [first, p.x], shape, 2 * p.net.scales[first][0], -3)


def curve(p: Program) -> None:
    p.computed("Sigmoid", [p.x], p.shape, 1 / 256, -128)


def softmax(p: Program) -> None:
    p.computed("Softmax", [p.x], p.shape, 1 / 256, -128, axis=p.axis())


def reduced(p: Program) -> None:
    axes = sorted({p.pick(len(p.shape)) for _ in range(1 + p.pick(2))})
    kept = bool(p.pick(2))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(p.shape) if kept or axis not in axes)
    op_type = ["ReduceMean", "ReduceMax"][p.pick(2)]
    if len(shape) > 1:
        p.computed(op_type, [p.x, p.numbers(*axes)], shape, *p.net.scales[p.x], keepdims=int(kept))


def convolution(p: Program) -> None:
    if len(p.shape) == 4 and p.shape[0] == 1 and min(p.shape[2:]) > 1:
        p.x = p.net.conv(p.x, 1 + p.pick(5), 3, activation="")
        p.steps.append(f"Conv {p.shape}")


def dense(p: Program) -> None:
    if len(p.shape) == 2:
        weights, _ = p.net.weights((p.shape[1], 5), p.net.gain(p.x, p.shape[1]), per_channel=False)
        p.computed("MatMul", [p.x, weights], (p.shape[0], 5), 0.04, 1)


STEPS: list[Callable[[Program], None]] = [
    transpose, reshape, reshape, flatten, unsqueeze, squeeze, slice_, pad, tile, joined, split, combined, combined, doubled,
    curve, softmax, reduced, convolution, dense,
]  # fmt: skip


def program(seed: int) -> tuple[onnx.ModelProto, list[str]]:
    """A model of two to six steps on an image, a signal or a row; and the steps in words. Odd seeds: stored as uint8."""
    rng = np.random.default_rng(seed)
    shape = (1, *(int(size) for size in rng.integers(1, 7, int(rng.choice([1, 2, 3, 3, 3, 4])))))
    net = Unsigned(shape, seed) if seed % 2 else Qdq(shape, seed)
    p = Program(net, net.input(scale=1 / 100, zero_point=-20), [f"{shape}"])
    wanted = 2 + p.pick(5)
    for _ in range(50):
        if len(p.steps) > wanted:
            break
        STEPS[p.pick(len(STEPS))](p)
        if np.prod(p.shape) > MAX_ELEMENTS:
            break
    p.x = net.quantized(p.x, *net.scales[p.x], p.shape)
    return net.model(p.x), p.steps


def disagreement(model: onnx.ModelProto) -> float | None:
    """The share of outputs that are more than a few steps beside onnxruntime's; None for a model that is refused."""
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    try:
        graph = read_onnx_bytes(data)
    except GraphError:
        return None
    inputs = inputs_of(graph, 1)
    found, wanted = simulate(graph, *inputs)[0], onnx_stored(onnxruntime_session(data), graph, inputs)[0]
    assert found.shape == wanted.shape
    simple = simplify(graph)
    assert simulate(simple, *inputs)[0].tobytes() == found.tobytes()
    return float(np.mean(np.abs(found.astype(int) - wanted) > 4))


def share_read(seeds: range) -> float:
    """How many of the programs are read; every one that is must agree."""
    shares = {}
    for seed in seeds:
        model, steps = program(seed)
        share = disagreement(model)
        assert not share, f"seed {seed}: {share:.0%} of the outputs differ; {'; '.join(steps)}"
        shares[seed] = share
    return sum(share is not None for share in shares.values()) / len(seeds)


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_programs(first: int) -> None:
    assert share_read(range(first, first + 100)) > 0.5, "most programs are read"


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 9000, 1000))
def test_many_programs(first: int) -> None:
    assert share_read(range(first, first + 1000)) > 0.5


TARGETS = [Target(), Target("dsp", "ram"), Target("v7m"), Target("mve")]


def small_graphs(count: int, goal: str) -> list[Graph]:
    """The first programs that are read, simplified and put in order as they would be exported."""
    found: list[Graph] = []
    for seed in range(10 * count):
        try:
            graph = ordered(simplify(read_onnx_bytes(program(seed)[0].SerializeToString())), goal)
        except GraphError:
            continue
        found += [graph] if graph.nodes else []
        if len(found) == count:
            return found
    raise AssertionError("most programs are refused")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.core_class}-{target.optimize}")
def test_programs_in_c(target: Target, tmp_path: Path) -> None:
    """Parts of tensors, joined tensors, outputs over inputs: with all bytes spoilt that nobody needs, every layer is right."""
    graphs = small_graphs(30, target.optimize)
    plans = [plan(graph, target) for graph in graphs]
    runs = PoisonedRuns(tmp_path, graphs, plans)
    for number, (graph, layout) in enumerate(zip(graphs, plans, strict=True)):
        check_places(graph, layout)
        assert runs.faults(number, inputs_of(graph, number)) == [], f"program {number}"


def test_the_programs_are_varied() -> None:
    words = [step.split()[0] for seed in range(100) for step in program(seed)[1][1:]]
    assert {"Transpose", "Reshape", "Concat", "Split", "Softmax", "Conv", "MatMul", "Add", "Tile", "Pad"} <= set(words)


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 4, 4)])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_signals_with_as_many_channels_as_places(shape: Shape, axis: int) -> None:
    """With a dimension of one between them, two sizes that are equal hide which axis went where."""
    net = Qdq(shape, 1)
    p = Program(net, net.input(scale=1 / 100, zero_point=-20))
    p.moved("Unsqueeze", (*shape[:axis], 1, *shape[axis:]), p.numbers(axis))
    curve(p)
    p.moved("Squeeze", shape, p.numbers(axis))
    combined(p)
    assert disagreement(net.model(p.x)) == 0


@pytest.mark.parametrize("shape", [(1, 4, 4, 1), (1, 4, 1, 4), (1, 1, 4, 4), (1, 5, 5, 5)])
def test_square_images_become_rows_and_images_again(shape: Shape) -> None:
    net = Qdq(shape, 2)
    p = Program(net, net.input(scale=1 / 100, zero_point=-20))
    curve(p)
    count = int(np.prod(shape))
    p.moved("Reshape", (1, count), p.numbers(1, count))
    p.moved("Reshape", (1, *shape[:0:-1]), p.numbers(1, *shape[:0:-1]))
    curve(p)
    p.moved("Flatten", (1, count), axis=1)
    dense(p)
    assert disagreement(net.model(p.x)) == 0


def test_a_wrong_layout_would_be_seen() -> None:
    """The check itself: an image read as if it were turned differs in most places."""
    net = Qdq((1, 3, 4, 6), 1)
    data = net.model(net.same_scale("Transpose", net.input(), (1, 3, 6, 4), perm=[0, 1, 3, 2])).SerializeToString()
    graph = read_onnx_bytes(data)
    inputs = inputs_of(graph, 1)
    wanted = onnx_stored(onnxruntime_session(data), graph, inputs)[0]
    found = simulate(graph, *inputs)[0]
    assert np.array_equal(found, wanted)
    assert np.mean(found.swapaxes(1, 2).reshape(found.shape) != wanted) > 0.5
