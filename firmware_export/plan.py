"""Kernels and memory of a whole graph: which kernel runs every node and where everything lies in the one activation buffer.

Times are node indexes: a graph input lives from before node 0 to its last reader and may then be overwritten, a graph
output lives to the end, a node's scratch lives during the node. What a reshape makes is the same bytes as its input and
gets the same place. What nobody reads after a node may be overwritten by that node's output as far as its kernel reads ahead
of what it writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from firmware_export.graph import Graph
from firmware_export.kernels import kernel_options
from firmware_export.operators import LayerCode
from firmware_export.planning.blocks import GRANULE, Lives, build_problem
from firmware_export.planning.choice import choose
from firmware_export.target import Target

ALIGNMENT = GRANULE


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes from the start of the activation buffer, all multiples of ALIGNMENT; the buffer is NN_ALIGNMENT aligned.

    offsets: activation tensor index -> offset. scratch: node index -> offset, for nodes that need scratch.
    size: bytes of the buffer. lower_bound: most bytes that one node needs with these kernels; no plan can be smaller.
    proven: no plan with these kernels is smaller. instructions: about how many one inference executes.
    codes: the call of every node, on which scratch depends.
    """

    offsets: dict[int, int]
    scratch: dict[int, int]
    size: int
    lower_bound: int
    proven: bool
    instructions: int
    codes: tuple[LayerCode, ...] = field(compare=False)


def plan(graph: Graph, target: Target = Target()) -> Plan:  # noqa: B008 (frozen)
    """Kernels and a memory plan for a graph that `check` has passed. The same graph and target give the same plan."""
    lives = Lives.of(graph)
    chosen = choose(graph, lives, kernel_options(graph, target), target.optimize)
    selection, offsets = chosen.selection, chosen.placement.offsets
    _, owners, scratched = build_problem(graph, lives, selection.codes)
    by_owner = dict(zip(owners, offsets, strict=False))
    return Plan(
        offsets={index: by_owner[owner] for index, owner in lives.storage.items()},
        scratch=dict(zip(scratched, offsets[len(owners) :], strict=True)),
        size=chosen.placement.size,
        lower_bound=selection.bound,
        proven=chosen.proven,
        instructions=selection.instructions,
        codes=selection.codes,
    )
