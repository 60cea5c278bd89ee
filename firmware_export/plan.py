"""Where every activation lies in the one activation buffer: liveness, best-fit offsets, a bounded search for better ones.

Times are node indexes: a graph input lives from before node 0 to its last reader and may then be overwritten, a graph
output lives to the end, a node's scratch lives during the node. What a reshape makes is the same bytes as its input and
gets the same place.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from firmware_export.graph import Graph
from firmware_export.kernels import layer_codes
from firmware_export.operators import LayerCode
from firmware_export.target import Target

ALIGNMENT = 16
"""NN_ALIGNMENT of runtime/nn.h."""
SEARCH_WORK = 200_000
"""Placements that the search may try; decides its time, and with it the result, independently of the machine."""


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes from the start of the activation buffer, all multiples of ALIGNMENT.

    offsets: activation tensor index -> offset. scratch: node index -> offset, for nodes that need scratch.
    size: bytes of the buffer. lower_bound: most bytes that are live at once; no plan can be smaller.
    codes: the call of every node, on which scratch depends.
    """

    offsets: dict[int, int]
    scratch: dict[int, int]
    size: int
    lower_bound: int
    codes: tuple[LayerCode, ...] = field(compare=False)


@dataclass(frozen=True)
class _Block:
    """Bytes that live from the first to the last node index, both included."""

    size: int
    first: int
    last: int


def plan(graph: Graph, target: Target = Target()) -> Plan:  # noqa: B008 (frozen)
    """Kernels and a memory plan for a graph that `check` has passed. The same graph and target give the same plan."""
    codes = layer_codes(graph, target)
    storage = _storage(graph)
    lives = _lives(graph, storage)
    scratch_bytes = {place: code.scratch_bytes for place, code in enumerate(codes)}
    owners = sorted(lives)
    scratched = [place for place, size in scratch_bytes.items() if size > 0]
    blocks = [_Block(_aligned(graph.tensors[index].nbytes), *lives[index]) for index in owners]
    blocks += [_Block(_aligned(scratch_bytes[place]), place, place) for place in scratched]
    offsets, size, bound = place_blocks([(block.size, block.first, block.last) for block in blocks])
    by_owner = dict(zip(owners, offsets, strict=False))
    return Plan(
        offsets={index: by_owner[owner] for index, owner in storage.items()},
        scratch=dict(zip(scratched, offsets[len(owners) :], strict=True)),
        size=size,
        lower_bound=bound,
        codes=codes,
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _storage(graph: Graph) -> dict[int, int]:
    """Activation tensor -> the tensor whose bytes it shares (itself, but for what a reshape makes)."""
    storage = {index: index for index in graph.inputs}
    for node in graph.nodes:
        for index in node.outputs:
            shares = node.op == "reshape" and node.inputs[0] in storage
            storage[index] = storage[node.inputs[0]] if shares else index
    return storage


def _lives(graph: Graph, storage: dict[int, int]) -> dict[int, tuple[int, int]]:
    """First and last time of every tensor that owns its bytes."""
    first = dict.fromkeys(graph.inputs, -1)
    last = dict(first)
    for place, node in enumerate(graph.nodes):
        for index in node.outputs:
            first.setdefault(storage[index], place)
            last[storage[index]] = place
        for index in graph.activation_inputs(node):
            last[storage[index]] = place
    for index in graph.outputs:
        last[storage[index]] = len(graph.nodes)
    return {index: (first[index], last[index]) for index in first}


def place_blocks(blocks: Sequence[tuple[int, int, int]]) -> tuple[list[int], int, int]:
    """Offsets for blocks (size, first, last) such that no two that live at the same time overlap.

    Greedy best fit, largest first, then orders with the blocks at the peak moved forward or two blocks exchanged, as long
    as SEARCH_WORK lasts and the lower bound is not reached.

    Returns:
        The offsets, the total size, and the lower bound.
    """
    sized = [_Block(*block) for block in blocks]
    bound = _most_live(sized)
    neighbours = _neighbours(sized)
    best: list[int] = []
    best_size = -1
    for order in _orders(sized):
        offsets = _place(sized, neighbours, order)
        size = max((offset + block.size for offset, block in zip(offsets, sized, strict=True)), default=0)
        if best_size < 0 or size < best_size:
            best, best_size = offsets, size
        if best_size == bound:
            break
    if best_size > bound:
        best, best_size = _search(sized, neighbours, best, best_size, bound)
    return best, best_size, bound


def _most_live(blocks: Sequence[_Block]) -> int:
    changes: dict[int, int] = {}
    for block in blocks:
        changes[block.first] = changes.get(block.first, 0) + block.size
        changes[block.last + 1] = changes.get(block.last + 1, 0) - block.size
    live = most = 0
    for time in sorted(changes):
        live += changes[time]
        most = max(most, live)
    return most


def _neighbours(blocks: Sequence[_Block]) -> list[list[int]]:
    """For each block the blocks that live at the same time as it, at some moment."""
    neighbours: list[list[int]] = [[] for _ in blocks]
    active: list[int] = []
    for index in sorted(range(len(blocks)), key=lambda i: blocks[i].first):
        active = [other for other in active if blocks[other].last >= blocks[index].first]
        for other in active:
            neighbours[index].append(other)
            neighbours[other].append(index)
        active.append(index)
    return neighbours


def _orders(blocks: Sequence[_Block]) -> Iterator[list[int]]:
    """Orders to place in: largest first; largest area (size x life) first; longest life first; by time."""
    indexes = range(len(blocks))
    yield sorted(indexes, key=lambda i: (-blocks[i].size, blocks[i].first, i))
    yield sorted(indexes, key=lambda i: (-blocks[i].size * (blocks[i].last - blocks[i].first + 1), i))
    yield sorted(indexes, key=lambda i: (blocks[i].first - blocks[i].last, -blocks[i].size, i))
    yield sorted(indexes, key=lambda i: (blocks[i].first, -blocks[i].size, i))


def _place(blocks: Sequence[_Block], neighbours: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Places block after block into the smallest gap that holds it, or else behind everything that lives with it."""
    offsets = [-1] * len(blocks)
    for index in order:
        taken = sorted((offsets[n], offsets[n] + blocks[n].size) for n in neighbours[index] if offsets[n] >= 0)
        offsets[index] = _best_gap(taken, blocks[index].size)
    return offsets


def _best_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    best, best_room, end = -1, -1, 0
    for start, stop in taken:
        room = start - end
        if room >= size and (best < 0 or room < best_room):
            best, best_room = end, room
        end = max(end, stop)
    return best if best >= 0 else end


def _search(
    blocks: Sequence[_Block], neighbours: Sequence[Sequence[int]], offsets: list[int], size: int, bound: int
) -> tuple[list[int], int]:
    """Keeps every change of the order that does not make the plan larger."""
    rng = random.Random(0)
    order = sorted(range(len(blocks)), key=lambda i: (offsets[i], i))
    work = sum(map(len, neighbours)) + len(blocks)
    for _ in range(SEARCH_WORK // work):
        candidate = _changed(blocks, offsets, order, size, rng)
        placed = _place(blocks, neighbours, candidate)
        total = max(offset + block.size for offset, block in zip(placed, blocks, strict=True))
        if total <= size:
            order, offsets, size = candidate, placed, total
        if size == bound:
            break
    return offsets, size


def _changed(
    blocks: Sequence[_Block], offsets: Sequence[int], order: Sequence[int], size: int, rng: random.Random
) -> list[int]:
    """The order with a block that reaches the peak placed first, or with two blocks exchanged."""
    changed = list(order)
    if rng.random() < 0.5:
        at_peak = [i for i in order if offsets[i] + blocks[i].size == size]
        chosen = rng.choice(at_peak)
        changed.remove(chosen)
        changed.insert(rng.randrange(len(order)), chosen)
    else:
        one, other = rng.randrange(len(order)), rng.randrange(len(order))
        changed[one], changed[other] = changed[other], changed[one]
    return changed
