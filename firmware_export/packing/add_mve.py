"""Elementwise sum for runtime/add_mve.c: add_linear's form, sixteen elements at a time."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.graph import Graph, Node
from firmware_export.operators import LayerCode
from firmware_export.packing import add_linear

FUNCTIONS = {"nn_add_linear": "nn_add_mve_linear", "nn_add_linear_signed": "nn_add_mve_signed"}

ELEMENT_INSTRUCTIONS = {"nn_add_linear": 2.5, "nn_add_linear_signed": 3.25}
"""About how many the kernel executes for an element."""


def add_layer(graph: Graph, node: Node) -> LayerCode:
    """The call of a kernel of add_mve.c for a checked add node.

    Raises:
        Unpackable: see add_linear.add_layer; the fallback is the operator's own call.
    """
    code = add_linear.add_layer(graph, node)
    each = ELEMENT_INSTRUCTIONS[code.function] * graph.tensors[node.outputs[0]].elements
    summary = code.summary.replace("linear", "mve linear")
    return replace(
        code,
        function=FUNCTIONS[code.function],
        sources=("add_mve.c", "step_mve.c"),
        instructions=round(each) + 30,
        summary=summary,
    )
