"""Which kernels can run a node on a target: the fast ones that can take it, else the operator's own C.

The tables say what a core class has; planning/choice.py weighs instructions against memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from firmware_export.graph import ABSENT, Graph, Node
from firmware_export.operators import LayerCode, operator_of
from firmware_export.packing import Unpackable, add_mve, conv2d_mve, depthwise_mve, fully_connected_mve
from firmware_export.packing.add_linear import add_layer
from firmware_export.packing.conv2d_r256 import BORDER_LIMIT, conv2d_layer
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_planes import SCRATCH_LIMIT, depthwise_layer
from firmware_export.packing.fully_connected_r256 import fully_connected_layer
from firmware_export.packing.instructions import estimate
from firmware_export.packing.plain_cores import PACKERS as PLAIN_CORES
from firmware_export.packing.pools import fast_pool
from firmware_export.planning.reach import with_reach
from firmware_export.target import GOALS, PORTABLE, Target

Packer = Callable[[Graph, Node], LayerCode]
"""Raises Unpackable for a node that its kernel cannot take."""

WINOGRAD_SCRATCHES = (26_000, 16_000, 12_000, 9000, 6000, 4000)
"""Bytes; beyond the first larger blocks hardly save instructions."""
DEPTHWISE_SCRATCHES = (SCRATCH_LIMIT, 6144, 4608, 3584, 2560, 1536, 1024, 512, 0)
PORTABLE_INSTRUCTIONS = {"mac": 8, "element": 20, "moved": 2}
"""About how many the operators' own C executes for a product, for an output, and for one that is only moved."""
MOVING = ("reshape", "strided_slice", "split", "unpack", "concatenation", "pack")

_DSP: Mapping[str, tuple[Packer, ...]] = {
    "conv2d": tuple(partial(conv2d_layer, border_limit=limit) for limit in (BORDER_LIMIT, 0)),
    "depthwise_conv2d": tuple(
        partial(depthwise_layer, scratch_limit=limit, in_place=in_place)
        for limit in DEPTHWISE_SCRATCHES
        for in_place in (True, False)
    ),
    "fully_connected": (fully_connected_layer, partial(fully_connected_layer, direct=True)),
    "add": (add_layer,),
}
_DSP_WINOGRAD: Mapping[str, tuple[Packer, ...]] = {
    **_DSP,
    "conv2d": (*(partial(winograd_layer, scratch_limit=limit) for limit in WINOGRAD_SCRATCHES), *_DSP["conv2d"]),
}
_MVE: Mapping[str, tuple[Packer, ...]] = {
    "add": (add_mve.add_layer,),
    "conv2d": (conv2d_mve.conv2d_layer,),
    "depthwise_conv2d": tuple(partial(depthwise_mve.depthwise_layer, small=small) for small in (False, True)),
    "fully_connected": (fully_connected_mve.fully_connected_layer,),
}
_PACKERS: Mapping[tuple[str, str], Mapping[str, tuple[Packer, ...]]] = {
    ("dsp", "balanced"): _DSP_WINOGRAD,
    ("dsp", "time"): _DSP_WINOGRAD,
    ("dsp", "ram"): _DSP_WINOGRAD,
    ("dsp", "flash"): _DSP,
    **{("mve", goal): _MVE for goal in GOALS},
    **{(core_class, goal): packers for core_class, packers in PLAIN_CORES.items() for goal in GOALS},
}
"""(core class, goal) -> operator -> packers."""


def node_options(graph: Graph, node: Node, target: Target) -> list[LayerCode]:
    """The calls of all kernels that can run a checked node, at least one; unless they say it the first is the fastest."""
    own = operator_of(node).emit(graph, node)
    if target.core_class == PORTABLE:
        return [_rated(graph, node, with_reach(graph, node, own))]
    packers = _PACKERS.get((target.core_class, target.optimize), {}).get(node.op, ())
    packed = list(_packed(graph, node, packers))
    if not packed:
        packed = [fast_pool(own) if target.core_class in ("dsp", "mve") else own]
    return [_rated(graph, node, with_reach(graph, node, code), place) for place, code in enumerate(packed)]


Known = dict[tuple[object, ...], list[LayerCode]]
"""The options of nodes by everything they depend on; for graphs that share their constants, under one target."""


def kernel_options(graph: Graph, target: Target, known: Known | None = None) -> list[list[LayerCode]]:
    """node_options of every node, in order. known: of graphs before, which must still exist; new ones are added."""
    known = {} if known is None else known
    found = []
    for node in graph.nodes:
        key = _key(graph, node)
        if key not in known:
            known[key] = node_options(graph, node, target)
        found.append(known[key])
    return found


def _key(graph: Graph, node: Node) -> tuple[object, ...]:
    tensors = [graph.tensors[index] for index in (*node.inputs, *node.outputs) if index != ABSENT]
    values = ((t.shape, t.dtype, t.quantization, None if t.data is None else id(t.data)) for t in tensors)
    repeats = tuple((*node.inputs, *node.outputs).index(index) for index in node.inputs)
    absent = tuple(index == ABSENT for index in node.inputs)
    return (node.op, tuple(sorted(node.attributes.items())), tuple(values), repeats, absent)


def _packed(graph: Graph, node: Node, packers: Iterable[Packer]) -> Iterator[LayerCode]:
    for packer in packers:
        try:
            yield packer(graph, node)
        except Unpackable:
            continue


def _rated(graph: Graph, node: Node, code: LayerCode, rank: int = 0) -> LayerCode:
    """With an estimate of its instructions where the packer gave none: a twentieth more for each kernel before it."""
    known = code.instructions or estimate(code)
    if known > 0:
        return replace(code, instructions=known)
    elements = sum(graph.tensors[index].elements for index in node.outputs)
    macs = operator_of(node).macs(graph, node)
    kind = "moved" if node.op in MOVING else "element"
    count = PORTABLE_INSTRUCTIONS["mac"] * macs + PORTABLE_INSTRUCTIONS[kind] * elements
    return replace(code, instructions=max(count, 20) * (20 + rank) // 20)
