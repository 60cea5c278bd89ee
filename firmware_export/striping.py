"""Layers in stripes of rows: neighbouring layers run together, a few rows at a time, so that what lies between them is small.

A stripe of the last layer's rows needs some rows of the layer before, and so on back to what the first one reads. Rows that the
next stripe needs too are kept, so that nothing is computed twice. In the graph a stripe is ordinary operators on slices, joined
in the end; slices and joined parts of rows take no memory and no time (planning/lives.py), but for the kept rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from firmware_export.check import check
from firmware_export.graph import Attribute, Change, Graph, Node
from firmware_export.kernels import Known
from firmware_export.operators import operator_of
from firmware_export.plan import Plan, plan
from firmware_export.planning.choice import PRICE, RAM_INSTRUCTIONS, footprint
from firmware_export.planning.lives import Lives
from firmware_export.target import Target

WINDOWED = ("conv2d", "depthwise_conv2d")
ELEMENTWISE = ("add", "relu", "logistic", "tanh", "hard_swish", "leaky_relu")
LONGEST = 4
"""Layers that are run together at most."""
STRIPES = (2, 3, 4, 5, 6, 7, 8, 10, 12)
CLOSE = 1.1
"""Buffers so much larger than the best one are about as small."""
LEAST_GAIN = 2048
"""Bytes that striping must save."""
TRIALS, ROUNDS = 5, 3
ALIGNMENT = 4
"""Stripes begin at multiples of it, else they would be copied."""

Rows = tuple[int, int]
"""First row, and the one behind the last."""


@dataclass(frozen=True)
class Segment:
    """Node indexes, in order, of layers to run together, and into how many stripes."""

    nodes: tuple[int, ...]
    stripes: int


def striped(graph: Graph, goal: str) -> Graph:
    """The graph with some layers in stripes where the goal, "balanced" or "ram", gains by it; else the same graph.

    The answers are bit-identical: every value is computed by the same operators from the same values.
    """
    if goal not in ("balanced", "ram") or not any(node.op in WINDOWED for node in graph.nodes):
        return graph
    target = Target("dsp", goal)
    known: Known = {}
    now = plan(graph, target, known)
    limit = RAM_INSTRUCTIONS * (now if goal == "balanced" else plan(graph, Target("dsp"))).instructions
    for _ in range(ROUNDS):
        found = [(other, plan(other, target, known)) for other in _candidates(graph, now)]
        better = [pair for pair in found if _gains(now, pair[1], goal, limit)]
        if not better:
            break
        result, now = _best(better, goal)
        graph = replace(result, changes=(*graph.changes, _change(graph, result)))
    return graph


def _best(better: Sequence[tuple[Graph, Plan]], goal: str) -> tuple[Graph, Plan]:
    """The best score; with the goal "balanced" the fewest instructions among those whose buffers are about as small."""
    best = min(better, key=lambda pair: _score(goal, pair[1].instructions, pair[1].size))
    if goal == "ram":
        return best
    close = [pair for pair in better if pair[1].size <= CLOSE * best[1].size]
    return min(close, key=lambda pair: (pair[1].instructions, pair[1].size))


def _change(graph: Graph, result: Graph) -> Change:
    macs = [sum(operator_of(node).macs(whole, node) for node in whole.nodes) for whole in (graph, result)]
    weights = sum(tensor.elements for _, tensor in graph.constants() if tensor.dtype == "int8")
    return Change("striped", (len(graph.nodes), len(result.nodes)), (macs[0], macs[1]), (weights, weights))


def _score(goal: str, instructions: float, size: float) -> tuple[float, float]:
    """What is to be smallest."""
    return (size, instructions) if goal == "ram" else (instructions * size**PRICE, size)


def _gains(now: Plan, other: Plan, goal: str, limit: float) -> bool:
    before, after = (_score(goal, layout.instructions, layout.size) for layout in (now, other))
    return now.size - other.size >= LEAST_GAIN and other.instructions <= limit and after < before


def _candidates(graph: Graph, layout: Plan) -> list[Graph]:
    """The most promising stripings of what needs most memory: by a count of bytes the smallest, of equals fewest stripes."""
    rated = []
    for nodes in segments(graph, peak_nodes(layout)):
        floor = _floor(graph, layout, nodes)
        for stripes in STRIPES:
            needed = estimated(graph, Segment(nodes, stripes))
            if needed is not None and needed + LEAST_GAIN <= layout.size:
                rated.append((max(needed, floor), stripes, nodes))
    return [with_stripes(graph, Segment(nodes, stripes)) for _, stripes, nodes in sorted(rated)[:TRIALS]]


def _floor(graph: Graph, layout: Plan, nodes: Sequence[int]) -> int:
    """Bytes that other nodes need in any case."""
    lives = Lives.of(graph)
    others = (place for place in range(len(graph.nodes)) if place not in nodes)
    codes = {place: replace(layout.codes[place], scratch_bytes=0) for place in others}
    return max((footprint(graph, lives, place, code) for place, code in codes.items()), default=0)


def peak_nodes(layout: Plan) -> set[int]:
    """Nodes during which the buffer is full to its end."""
    ends = [place for place in layout.places if place.offset + place.size + ALIGNMENT >= layout.size]
    return {node for place in ends for node in range(place.first, place.last + 1)}


def segments(graph: Graph, around: set[int]) -> Iterator[tuple[int, ...]]:
    """Chains of layers that can be striped, the last or an earlier one of which is among the nodes `around`."""
    readers: dict[int, list[int]] = {}
    for place, node in enumerate(graph.nodes):
        for index in graph.activation_inputs(node):
            readers.setdefault(index, []).append(place)
    for first in range(len(graph.nodes)):
        chain = [first]
        while can_stripe(graph, graph.nodes[chain[-1]]) and len(chain) <= LONGEST:
            if len(chain) > 1 and around & set(chain):
                yield tuple(chain)
            output = graph.nodes[chain[-1]].outputs[0]
            after = readers.get(output, [])
            if len(after) != 1 or output in graph.outputs:
                break
            chain.append(after[0])


def can_stripe(graph: Graph, node: Node) -> bool:
    """Whether each row of the output depends on some neighbouring rows of images only."""
    output = graph.tensors[node.outputs[0]]
    images = [graph.tensors[index] for index in graph.activation_inputs(node)]
    if len(output.shape) != 4 or not images or any(len(tensor.shape) != 4 or tensor.shape[0] != 1 for tensor in images):
        return False
    if node.op in WINDOWED:
        return len(images) == 1 and _all_rows_touch(graph, node)
    same = all(tensor.shape == output.shape for tensor in images)
    return node.op in ELEMENTWISE and same and len(images) == len(node.inputs)


def _all_rows_touch(graph: Graph, node: Node) -> bool:
    """Whether every row of windows lies on some row of the image: one in the padding alone would need a slice of none."""
    height, kernel = graph.tensors[node.inputs[0]].shape[1], graph.tensors[node.inputs[1]].shape[1]
    top = node.integers("padding")[0]
    last = (graph.tensors[node.outputs[0]].shape[1] - 1) * node.integers("stride")[0] - top
    return top <= (kernel - 1) * node.integers("dilation")[0] and last < height


def rows_read(graph: Graph, node: Node, rows: Rows) -> tuple[Rows, tuple[int, int]]:
    """The rows of the inputs that some rows of the output need, and how many rows of padding lie above and below them."""
    if node.op not in WINDOWED:
        return rows, (0, 0)
    height = graph.tensors[node.inputs[0]].shape[1]
    kernel, stride = graph.tensors[node.inputs[1]].shape[1], node.integers("stride")[0]
    dilation = node.integers("dilation")[0]
    begin = rows[0] * stride - node.integers("padding")[0]
    end = (rows[1] - 1) * stride - node.integers("padding")[0] + (kernel - 1) * dilation + 1
    inside = (min(max(begin, 0), height - 1), max(min(end, height), 1))
    return inside, (max(0, -begin), max(0, end - height))


@dataclass(frozen=True)
class Stripe:
    """Rows of one stripe: `whole` of every tensor as its reader sees it, `new` of those that the segment makes in it."""

    whole: dict[int, Rows]
    new: dict[int, Rows]


def stripes_of(graph: Graph, segment: Segment) -> list[Stripe]:
    """The rows of each stripe; the last output's are divided as evenly as can be."""
    output = graph.nodes[segment.nodes[-1]].outputs[0]
    height = graph.tensors[output].shape[1]
    cuts = [height * number // segment.stripes for number in range(segment.stripes + 1)]
    found: list[Stripe] = []
    for rows in pairwise(cuts):
        found.append(_stripe(graph, segment.nodes, rows, found[-1] if found else None))
    return found


def _stripe(graph: Graph, nodes: Sequence[int], rows: Rows, before: Stripe | None) -> Stripe:
    output = graph.nodes[nodes[-1]].outputs[0]
    made = {graph.nodes[place].outputs[0] for place in nodes}
    whole, new = {output: rows}, {output: rows}
    for place in reversed(nodes):
        node = graph.nodes[place]
        read, _ = rows_read(graph, node, new[node.outputs[0]])
        for index in graph.activation_inputs(node):
            if index in made:
                done = 0 if before is None else before.whole[index][1]
                whole[index], new[index] = read, (max(read[0], done), read[1])
            else:
                other = whole.get(index, read)
                whole[index] = (min(other[0], read[0]), max(other[1], read[1]))
    return Stripe(whole, new)


def estimated(graph: Graph, segment: Segment) -> int | None:
    """About how many bytes the striped layers need; None where a stripe would be empty or would be copied."""
    nodes = [graph.nodes[place] for place in segment.nodes]
    made = [node.outputs[0] for node in nodes]
    output = made[-1]
    if graph.tensors[output].shape[1] < segment.stripes:
        return None
    stripes = stripes_of(graph, segment)
    if any(rows[0] >= rows[1] for stripe in stripes for rows in (*stripe.new.values(), *stripe.whole.values())):
        return None
    if any(row_bytes(graph, index) % ALIGNMENT for index in stripes[0].whole):
        return None
    between = max(
        sum(_height(stripe.whole[index]) * row_bytes(graph, index) for index in {*pair} - {output})
        for stripe in stripes
        for pair in zip(made, [*made[1:], output], strict=True)
    )
    outside = [index for index in stripes[0].whole if index not in made]
    return between + _outside_bytes(graph, segment.nodes, outside, stripes)


def _outside_bytes(graph: Graph, nodes: Sequence[int], outside: Sequence[int], stripes: Sequence[Stripe]) -> int:
    """Bytes of what the segment reads, of its output, which may lie over the first input that dies, and of what lives on."""
    output = graph.nodes[nodes[-1]].outputs[0]
    dying = [index for index in outside if _last_reader(graph, index) in nodes][:1]
    kept = sum(graph.tensors[index].nbytes for index in {*outside, *_alive_past(graph, nodes)} - {*dying})
    if not dying:
        return kept + graph.tensors[output].nbytes
    source = dying[0]
    ahead = [
        now.whole[output][1] * row_bytes(graph, output) - later.whole[source][0] * row_bytes(graph, source)
        for now, later in pairwise(stripes)
    ]
    return kept + max(graph.tensors[source].nbytes + max(0, *ahead, 0), graph.tensors[output].nbytes)


def _height(rows: Rows) -> int:
    return rows[1] - rows[0]


def row_bytes(graph: Graph, index: int) -> int:
    """Bytes of one row of an image."""
    tensor = graph.tensors[index]
    return tensor.nbytes // tensor.shape[1]


def _last_reader(graph: Graph, index: int) -> int:
    if index in graph.outputs:
        return len(graph.nodes)
    return max(place for place, node in enumerate(graph.nodes) if index in node.inputs)


def _alive_past(graph: Graph, nodes: Sequence[int]) -> Iterator[int]:
    """Tensors that exist before the segment's last node and are needed behind it, but not made by the segment."""
    before = {*graph.inputs, *(index for node in graph.nodes[: nodes[-1]] for index in node.outputs)}
    made = {index for place in nodes for index in graph.nodes[place].outputs}
    return (index for index in before - made if _is_read(graph, index) and _last_reader(graph, index) > nodes[-1])


def _is_read(graph: Graph, index: int) -> bool:
    return index in graph.outputs or any(index in node.inputs for node in graph.nodes)


def with_stripes(graph: Graph, segment: Segment) -> Graph:
    """The graph with a segment in stripes, in the place of its last node."""
    result = replace(graph, tensors=list(graph.tensors), nodes=[])
    output = graph.nodes[segment.nodes[-1]].outputs[0]
    for place, node in enumerate(graph.nodes):
        if place == segment.nodes[-1]:
            parts = _Stripes(graph, result, segment.nodes).add(stripes_of(graph, segment))
            result.nodes.append(Node("concatenation", tuple(parts), (output,), {"axis": 1}))
        elif place not in segment.nodes:
            result.nodes.append(node)
    check(result)
    return result


class _Stripes:
    """Adds the nodes of stripes to a graph; `before`: tensors of the stripe before, as their readers saw them."""

    def __init__(self, graph: Graph, result: Graph, nodes: Sequence[int]) -> None:
        self.graph, self.result = graph, result
        self.nodes = [graph.nodes[place] for place in nodes]
        self.before: dict[int, tuple[int, Rows]] = {}

    def add(self, stripes: Sequence[Stripe]) -> list[int]:
        """All stripes; gives the parts of the last output."""
        output = self.nodes[-1].outputs[0]
        parts = []
        for stripe in stripes:
            made: dict[int, int] = {}
            cut: dict[tuple[int, Rows], int] = {}
            for node in self.nodes:
                self._add_node(node, stripe, made, cut)
            self.before = {index: (part, stripe.whole[index]) for index, part in made.items()}
            parts.append(made[output])
        return parts

    def _add_node(self, node: Node, stripe: Stripe, made: dict[int, int], cut: dict[tuple[int, Rows], int]) -> None:
        """One node of a stripe, the slices that it reads, and the rows of its output that are kept from before."""
        output = node.outputs[0]
        read, (above, below) = rows_read(self.graph, node, stripe.new[output])
        parts = dict(made)
        for index in self.graph.activation_inputs(node):
            if index not in made:
                if (index, read) not in cut:
                    cut[index, read] = self._sliced(index, (0, self.graph.tensors[index].shape[1]), read)
                parts[index] = cut[index, read]
        kept = self._kept(output, stripe)
        part = self._rows(output, stripe.new[output])
        attributes = dict(node.attributes)
        if node.op in WINDOWED:
            attributes["padding"] = (above, below, *node.integers("padding")[2:])
        inputs = tuple(parts.get(index, index) for index in node.inputs)
        self.result.nodes.append(Node(node.op, inputs, (part,), attributes))
        made[output] = part if kept is None else self._rows(output, stripe.whole[output])
        if kept is not None:
            self.result.nodes.append(Node("concatenation", (kept, part), (made[output],), {"axis": 1}))

    def _kept(self, index: int, stripe: Stripe) -> int | None:
        """Rows that the stripe before has left of a tensor."""
        begin, end = stripe.whole[index][0], stripe.new[index][0]
        return self._sliced(*self.before[index], (begin, end)) if end > begin else None

    def _rows(self, index: int, rows: Rows) -> int:
        """A new tensor for some rows of a tensor of the original graph."""
        tensor = self.graph.tensors[index]
        shape = (1, _height(rows), *tensor.shape[2:])
        self.result.tensors.append(replace(tensor, name=f"{tensor.name}/rows {rows[0]} to {rows[1] - 1}", shape=shape))
        return len(self.result.tensors) - 1

    def _sliced(self, source: int, held: Rows, rows: Rows) -> int:
        """Some rows of a tensor that holds the rows `held`, cut out unless it is all of them."""
        if rows == held:
            return source
        tensor = self.result.tensors[source]
        size = (1, _height(rows), *tensor.shape[2:])
        self.result.tensors.append(replace(tensor, name=f"{tensor.name}/{rows[0]} to {rows[1] - 1}", shape=size))
        part = len(self.result.tensors) - 1
        begin = (0, rows[0] - held[0], 0, 0)
        attributes: dict[str, Attribute] = {"begin": begin, "stride": (1, 1, 1, 1), "size": size, "shape": size}
        self.result.nodes.append(Node("strided_slice", (source,), (part,), attributes))
        return part
