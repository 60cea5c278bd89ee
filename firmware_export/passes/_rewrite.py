"""What passes share: who reads a tensor, and reading one tensor in place of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from firmware_export.graph import Node


def readers(nodes: list[Node], outputs: tuple[int, ...]) -> Counter[int]:
    """How often each tensor is read by nodes, or is an output of the graph."""
    return Counter([index for node in nodes for index in node.inputs] + list(outputs))


def reading(node: Node, instead: Mapping[int, int]) -> Node:
    """The node with its inputs replaced where `instead` names another tensor."""
    inputs = tuple(instead.get(index, index) for index in node.inputs)
    return node if inputs == node.inputs else replace(node, inputs=inputs)
