"""Which kernel runs a node on a target: the first that can take it, else the operator's own C."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from firmware_export.graph import Graph, Node
from firmware_export.operators import LayerCode, operator_of
from firmware_export.packing import Unpackable
from firmware_export.packing.add_linear import add_layer
from firmware_export.packing.conv2d_r256 import conv2d_layer
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_planes import depthwise_layer
from firmware_export.packing.fully_connected_r256 import fully_connected_layer
from firmware_export.packing.pools import fast_pool
from firmware_export.target import PORTABLE, Target

Packer = Callable[[Graph, Node], LayerCode]
"""Raises Unpackable for a node that its kernel cannot take."""

WINOGRAD_SCRATCH = 26_000
"""Bytes; beyond them larger blocks hardly save instructions."""
SMALL_SCRATCH = 1024

_DSP: Mapping[str, tuple[Packer, ...]] = {
    "conv2d": (conv2d_layer,),
    "depthwise_conv2d": (depthwise_layer,),
    "fully_connected": (fully_connected_layer,),
    "add": (add_layer,),
}
_DSP_TIME: Mapping[str, tuple[Packer, ...]] = {
    **_DSP,
    "conv2d": (partial(winograd_layer, scratch_limit=WINOGRAD_SCRATCH), conv2d_layer),
}
_DSP_RAM: Mapping[str, tuple[Packer, ...]] = {
    **_DSP,
    "conv2d": (partial(conv2d_layer, border_limit=0),),
    "depthwise_conv2d": (partial(depthwise_layer, scratch_limit=SMALL_SCRATCH),),
    "fully_connected": (partial(fully_connected_layer, direct=True), fully_connected_layer),
}
_PACKERS: Mapping[tuple[str, str], Mapping[str, tuple[Packer, ...]]] = {
    ("dsp", "balanced"): _DSP,
    ("dsp", "time"): _DSP_TIME,
    ("dsp", "ram"): _DSP_RAM,
    ("dsp", "flash"): _DSP,
}
"""(core class, goal) -> operator -> packers in the order in which they are tried."""


def layer_code(graph: Graph, node: Node, target: Target) -> LayerCode:
    """The call of the fastest kernel for a checked node, as the target's goal counts fast."""
    if target.core_class == PORTABLE:
        return operator_of(node).emit(graph, node)
    for packer in _PACKERS.get((target.core_class, target.optimize), {}).get(node.op, ()):
        try:
            return packer(graph, node)
        except Unpackable:
            continue
    code = operator_of(node).emit(graph, node)
    return fast_pool(code) if target.core_class == "dsp" else code


def layer_codes(graph: Graph, target: Target) -> tuple[LayerCode, ...]:
    """The call of every node, in order."""
    return tuple(layer_code(graph, node, target) for node in graph.nodes)
