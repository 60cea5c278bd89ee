"""Which tensors have bytes of their own, which are parts of others, and when which bytes are written and read.

Times are node indexes, -1 before the first node, the number of nodes behind the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from firmware_export.graph import DTYPES, Graph, Node
from firmware_export.operators import operator_of

VIEW_ALIGNMENT = 4
"""Parts begin at multiples of it: kernels read words."""
DIVIDING = ("strided_slice", "split", "unpack")
JOINING = ("concatenation", "pack")


@dataclass(frozen=True)
class Access:
    """Bytes begin to end - 1 of an owner, at a time."""

    time: int
    begin: int
    end: int


@dataclass
class Owner:
    """What happens to the bytes of a tensor that has its own; asked when all is noted."""

    writes: list[Access] = field(default_factory=list)
    reads: list[Access] = field(default_factory=list)

    @cached_property
    def first(self) -> int:
        """When it is written first."""
        return min(access.time for access in self.writes)

    @cached_property
    def last(self) -> int:
        """When it is needed last."""
        return max(access.time for access in (*self.writes, *self.reads))

    @cached_property
    def complete(self) -> int:
        """When it is written last."""
        return max(access.time for access in self.writes)

    def needed(self, time: int) -> int | None:
        """Where the bytes begin that are read later than `time`; None if none are."""
        return min((access.begin for access in self.reads if access.time > time), default=None)


@dataclass(frozen=True)
class Lives:
    """storage: activation tensor -> the tensor that owns its bytes, and where in it they begin.

    views: nodes that move nothing, because their outputs are parts of their inputs, or their inputs of their outputs.
    """

    storage: dict[int, tuple[int, int]]
    owners: dict[int, Owner]
    views: frozenset[int]

    @staticmethod
    def of(graph: Graph) -> Lives:
        """A graph input may be overwritten after its last reader, an output is read at the end."""
        parents, views = _parents(graph)
        storage = {index: _root(parents, index) for index in _activations(graph)}
        owners = {owner: Owner() for owner, _ in storage.values()}

        def _accesses(time: int, indexes: Iterator[int]) -> Iterator[tuple[Owner, Access]]:
            for index in indexes:
                owner, begin = storage[index]
                yield owners[owner], Access(time, begin, begin + graph.tensors[index].nbytes)

        for owner, access in _accesses(-1, iter(graph.inputs)):
            owner.writes.append(access)
        for place, node in enumerate(graph.nodes):
            outputs = list(_accesses(place, iter(node.outputs)))
            for owner, access in outputs:
                (owner.reads if place in views else owner.writes).append(access)
            if place not in views:
                for owner, access in _accesses(place, iter(graph.activation_inputs(node))):
                    owner.reads.append(access)
        for owner, access in _accesses(len(graph.nodes), iter(graph.outputs)):
            owner.reads.append(access)
        return Lives(storage, owners, views)


def _activations(graph: Graph) -> Iterator[int]:
    yield from graph.inputs
    for node in graph.nodes:
        yield from node.outputs


def _root(parents: dict[int, tuple[int, int]], index: int) -> tuple[int, int]:
    begin = 0
    while index in parents:
        index, more = parents[index]
        begin += more
    return index, begin


def _parents(graph: Graph) -> tuple[dict[int, tuple[int, int]], frozenset[int]]:
    """Tensors that are parts of others, with the byte where they begin there; and the nodes that are done by that."""
    parents: dict[int, tuple[int, int]] = {}
    views = set()
    known = set(_activations(graph))
    for place, node in enumerate(graph.nodes):
        found = None
        if node.op == "reshape" and node.inputs[0] in known:
            found = {node.outputs[0]: (node.inputs[0], 0)}
        elif node.op in DIVIDING and node.inputs[0] in known and not _is_only_joined(graph, node):
            found = _divided(graph, node)
        elif node.op in JOINING:
            found = _joined(graph, node, parents)
        if found is not None:
            parents |= found
            views.add(place)
    return parents, frozenset(views)


def _is_only_joined(graph: Graph, node: Node) -> bool:
    """Whether all outputs are only parts of something joined: copied there, they leave the join nothing to do."""
    readers = [reader for reader in graph.nodes if set(reader.inputs) & set(node.outputs)]
    return len(readers) == 1 and readers[0].op in JOINING and not set(node.outputs) & set(graph.outputs)


def _divided(graph: Graph, node: Node) -> dict[int, tuple[int, int]] | None:
    """The outputs as parts of the input, if each is one piece of it."""
    x = graph.tensors[node.inputs[0]]
    outputs = operator_of(node).simulate(graph, node, [np.arange(x.elements).reshape(x.shape)])
    found = {}
    for index, places in zip(node.outputs, outputs, strict=True):
        begin = _piece(np.asarray(places, np.int64).reshape(-1), DTYPES[x.dtype].itemsize)
        if begin is None:
            return None
        found[index] = (node.inputs[0], begin)
    return found


def _joined(graph: Graph, node: Node, parents: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]] | None:
    """The inputs as parts of the output, if each is computed for it alone, is no part already, and stays in one piece."""
    inputs = graph.activation_inputs(node)
    computed = {index for place in graph.nodes for index in place.outputs} - set(graph.outputs)
    owned = all(index in computed and index not in parents for index in inputs)
    if len(set(inputs)) != len(node.inputs) or not owned:
        return None
    sizes = [graph.tensors[index].elements for index in inputs]
    begins = np.concatenate([[0], np.cumsum(sizes)])
    numbered = [
        np.arange(begin, begin + size).reshape(graph.tensors[index].shape)
        for begin, size, index in zip(begins, sizes, inputs, strict=False)
    ]
    joined = np.asarray(operator_of(node).simulate(graph, node, numbered)[0]).reshape(-1)
    found = {}
    for begin, size, index in zip(begins, sizes, inputs, strict=False):
        places = np.flatnonzero((joined >= begin) & (joined < begin + size))
        at = _piece(places, DTYPES[graph.tensors[index].dtype].itemsize)
        if at is None:
            return None
        found[index] = (node.outputs[0], at)
    return found


def _piece(places: np.typing.NDArray[np.int64], itemsize: int) -> int | None:
    """The byte where elements begin that lie one behind the other; None if they do not, or not at a multiple."""
    begin = int(places[0]) * itemsize
    one_piece = np.array_equal(places, np.arange(places[0], places[0] + places.size))
    return begin if one_piece and begin % VIEW_ALIGNMENT == 0 else None
