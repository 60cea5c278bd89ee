"""Kernels and memory of a whole graph: which kernel runs every node and where everything lies in the activation buffer, or,
where that is too large for a board's region of memory, in two buffers.

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
from firmware_export.planning.choice import Selection, choose
from firmware_export.planning.lives import Lives
from firmware_export.planning.regions import split
from firmware_export.target import Target
from recipes.artifacts import PipelineError

ALIGNMENT = GRANULE


class RegionsError(PipelineError):
    """The activations fit neither one region nor two. needed: bytes of one buffer; rooms: bytes that the regions have."""

    exit_code = 7

    def __init__(self, needed: int, rooms: Sequence[int], names: Sequence[str] = ()) -> None:
        self.needed, self.rooms = needed, tuple(rooms)
        labels = names or ("the first region", "the second")
        found = " and ".join(f"{label} has room for {room:,}" for label, room in zip(labels, rooms, strict=True))
        super().__init__(
            f"the activations need {needed:,} bytes in one region; {found}, and no way was found to lay whole tensors into "
            "both, inputs and outputs into the first; take a smaller model or a larger board"
        )


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
    regions: bytes of both buffers if there are two: offsets from regions[0] on lie in the second one, which begins there.
    Nothing lies across; the graph's inputs and outputs lie in the first.
    """

    offsets: dict[int, int]
    scratch: dict[int, int]
    size: int
    lower_bound: int
    proven: bool
    instructions: int
    codes: tuple[LayerCode, ...] = field(compare=False)
    places: tuple[Place, ...] = ()
    regions: tuple[int, ...] = ()

    @property
    def first_size(self) -> int:
        """Bytes of the first buffer; most plans have no other."""
        return self.regions[0] if self.regions else self.size


def plan(
    graph: Graph,
    target: Target = Target(),  # noqa: B008 (frozen)
    known: Known | None = None,
    rooms: tuple[int, ...] = (),
) -> Plan:
    """Kernels and a memory plan for a graph that `check` has passed. The same arguments give the same plan.

    Args:
        known: see kernels.kernel_options.
        rooms: bytes of a board's two regions for activations, if it has two; the second is used if the first is too small.
    Raises:
        RegionsError: two rooms are given, and no plan was found that fits them.
    """
    lives = Lives.of(graph)
    options = list(kernel_options(graph, target, known))
    for place in lives.views:
        options[place] = [moved_nothing(options[place][0])]
    chosen = choose(graph, lives, options, target.optimize)
    if len(rooms) == 2 and chosen.placement.size > rooms[0]:
        found = _split_plan(graph, lives, chosen.selection, (rooms[0], rooms[1]))
        if found is None:
            chosen = choose(graph, lives, options, "ram")
            found = _split_plan(graph, lives, chosen.selection, (rooms[0], rooms[1]))
        if found is None:
            raise RegionsError(chosen.placement.size, rooms)
        return found
    return _plan(graph, lives, chosen.selection, chosen.placement.offsets, chosen.placement.size, proven=chosen.proven)


def _split_plan(graph: Graph, lives: Lives, selection: Selection, rooms: tuple[int, int]) -> Plan | None:
    """A plan for two regions with these kernels; None if none is found. One that fits the first alone is an ordinary plan."""
    problem, owners, _ = build_problem(graph, lives, selection.codes)
    edges = {lives.storage[index][0] for index in (*graph.inputs, *graph.outputs)}
    found = split(problem, {block for block, owner in enumerate(owners) if owner in edges}, rooms)
    if found is None:
        return None
    regions = found.sizes if found.sizes[1] else ()
    return _plan(graph, lives, selection, found.joined, sum(found.sizes), proven=False, regions=regions)


def _plan(
    graph: Graph,
    lives: Lives,
    selection: Selection,
    offsets: Sequence[int],
    size: int,
    *,
    proven: bool,
    regions: tuple[int, ...] = (),
) -> Plan:
    _, owners, scratched = build_problem(graph, lives, selection.codes)
    by_owner = dict(zip(owners, offsets, strict=False))
    return Plan(
        offsets={index: by_owner[owner] + begin for index, (owner, begin) in lives.storage.items()},
        scratch=dict(zip(scratched, offsets[len(owners) :], strict=True)),
        size=size,
        lower_bound=selection.bound,
        proven=proven,
        instructions=selection.instructions,
        codes=selection.codes,
        places=(*_tensor_places(graph, lives, owners, offsets), *_scratch_places(selection.codes, scratched, offsets)),
        regions=regions,
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
