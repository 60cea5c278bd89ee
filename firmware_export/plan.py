"""Kernels and memory of a whole graph: which kernel runs every node and where everything lies in the one activation buffer.

Times are node indexes: a graph input lives from before node 0 to its last reader and may then be overwritten, a graph
output lives to the end, a node's scratch lives during the node. What a reshape makes is the same bytes as its input and
gets the same place. What nobody reads after a node may be overwritten by that node's output as far as its kernel reads ahead
of what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from firmware_export.graph import Graph
from firmware_export.kernels import Known, kernel_options
from firmware_export.operators import LayerCode
from firmware_export.planning.blocks import GRANULE, build_problem
from firmware_export.planning.choice import choose
from firmware_export.planning.lives import Lives
from firmware_export.target import Target

ALIGNMENT = GRANULE


@dataclass(frozen=True)
class Place:
    """Bytes of the buffer that belong to a tensor (owner: its index) or are the scratch of a node, from node to node.

    Two places may overlap in bytes and time where a kernel writes behind what it reads.
    """

    owner: int | None
    node: int | None
    offset: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes from the start of the activation buffer, all multiples of ALIGNMENT; the buffer is NN_ALIGNMENT aligned.

    offsets: activation tensor index -> offset. scratch: node index -> offset, for nodes that need scratch.
    size: bytes of the buffer. lower_bound: most bytes that one node needs with these kernels; no plan can be smaller.
    proven: no plan with these kernels is smaller. instructions: about how many one inference executes.
    codes: the call of every node, on which scratch depends. places: what lies where and when, the tensors first.
    """

    offsets: dict[int, int]
    scratch: dict[int, int]
    size: int
    lower_bound: int
    proven: bool
    instructions: int
    codes: tuple[LayerCode, ...] = field(compare=False)
    places: tuple[Place, ...] = ()


def plan(graph: Graph, target: Target = Target(), known: Known | None = None) -> Plan:  # noqa: B008 (frozen)
    """Kernels and a memory plan for a graph that `check` has passed. The same graph and target give the same plan.

    known: see kernels.kernel_options.
    """
    lives = Lives.of(graph)
    options = list(kernel_options(graph, target, known))
    for place in lives.views:
        options[place] = [moved_nothing(options[place][0])]
    chosen = choose(graph, lives, options, target.optimize)
    selection, offsets = chosen.selection, chosen.placement.offsets
    _, owners, scratched = build_problem(graph, lives, selection.codes)
    by_owner = dict(zip(owners, offsets, strict=False))
    return Plan(
        offsets={index: by_owner[owner] + begin for index, (owner, begin) in lives.storage.items()},
        scratch=dict(zip(scratched, offsets[len(owners) :], strict=True)),
        size=chosen.placement.size,
        lower_bound=selection.bound,
        proven=chosen.proven,
        instructions=selection.instructions,
        codes=selection.codes,
        places=(*_tensor_places(graph, lives, owners, offsets), *_scratch_places(selection.codes, scratched, offsets)),
    )


def moved_nothing(code: LayerCode) -> LayerCode:
    """The code of a node whose outputs lie where its inputs do: no call."""
    return LayerCode("", "", {}, summary=code.summary)


def _tensor_places(graph: Graph, lives: Lives, owners: Sequence[int], offsets: Sequence[int]) -> Iterator[Place]:
    for index, offset in zip(owners, offsets, strict=False):
        first, last = max(0, lives.owners[index].first), min(len(graph.nodes) - 1, lives.owners[index].last)
        yield Place(index, None, offset, graph.tensors[index].nbytes, first, max(first, last))


def _scratch_places(codes: Sequence[LayerCode], scratched: Sequence[int], offsets: Sequence[int]) -> Iterator[Place]:
    for node, offset in zip(scratched, offsets[len(offsets) - len(scratched) :], strict=True):
        yield Place(None, node, offset, codes[node].scratch_bytes, node, node)
