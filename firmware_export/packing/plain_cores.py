"""Packers of the cores without DSP extension: "v7m" (Cortex-M3) and "v6m" (Cortex-M0+)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from firmware_export.graph import Graph, Node
from firmware_export.operators import LayerCode, operator_of
from firmware_export.packing import conv2d_trio, depthwise_trio, fully_connected_octet
from firmware_export.packing.add_linear import add_layer
from firmware_export.packing.pools import fast_pool
from firmware_export.packing.trio import CORE_CLASSES

OWN_DEPTHWISE = {"v7m": 10, "v6m": 24}
"""Instructions of a product in depthwise_conv2d.c, with all there is around it."""


def own_depthwise(graph: Graph, node: Node, *, core_class: str) -> LayerCode:
    """The operator's own kernel, which needs hardly any scratch."""
    operator = operator_of(node)
    return replace(operator.emit(graph, node), instructions=OWN_DEPTHWISE[core_class] * operator.macs(graph, node))


def _pool(graph: Graph, node: Node) -> LayerCode:
    """Four channels at a time: faster where words may lie anywhere."""
    return fast_pool(operator_of(node).emit(graph, node))


def _packers(core_class: str) -> dict[str, tuple[Callable[[Graph, Node], LayerCode], ...]]:
    return {
        "conv2d": (partial(conv2d_trio.conv2d_layer, core_class=core_class),),
        "depthwise_conv2d": (
            partial(depthwise_trio.depthwise_layer, core_class=core_class),
            partial(own_depthwise, core_class=core_class),
        ),
        "fully_connected": (partial(fully_connected_octet.fully_connected_layer, core_class=core_class),),
        "add": (add_layer,),
        **(dict.fromkeys(("average_pool2d", "mean"), (_pool,)) if core_class == "v7m" else {}),
    }


PACKERS: Mapping[str, Mapping[str, tuple[Callable[[Graph, Node], LayerCode], ...]]] = {
    core_class: _packers(core_class) for core_class in CORE_CLASSES
}
"""Core class -> operator -> packers, the fastest first."""
