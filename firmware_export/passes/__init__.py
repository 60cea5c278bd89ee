"""Passes: one file each, every one a function Graph -> Graph that leaves the model's answers bit-identical.

A pass returns the very graph it was given when it finds nothing to do. `simplify` runs them all and checks the graph
after each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from firmware_export.check import check
from firmware_export.graph import Change, Graph
from firmware_export.operators import operator_of
from firmware_export.passes.fold_constants import fold_constants
from firmware_export.passes.fuse_pad import fuse_pad
from firmware_export.passes.fuse_relu import fuse_relu
from firmware_export.passes.merge_reshapes import merge_reshapes
from firmware_export.passes.merge_tables import merge_tables
from firmware_export.passes.recognise_clamps import recognise_clamps
from firmware_export.passes.remove_dead_channels import remove_dead_channels
from firmware_export.passes.remove_identities import remove_identities
from firmware_export.passes.remove_unused import remove_unused

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    fold_constants, fuse_pad, recognise_clamps, fuse_relu, merge_reshapes, remove_identities, merge_tables,
    remove_dead_channels, remove_unused,
)  # fmt: skip


def simplify(graph: Graph) -> Graph:
    """The graph after every pass, again and again until none changes it: one can make room for another.

    Its `changes` tell what has become smaller.
    """
    while True:
        before = graph
        for run in PASSES:
            graph = _checked(run, graph)
        if graph is before:
            return graph


def _checked(run: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """The graph after one pass, held to the rules, with a note of what the pass has made smaller."""
    result = run(graph)
    if result is graph:
        return graph
    check(result)
    found = list(zip(_figures(graph), _figures(result), strict=True))
    if all(before == after for before, after in found):
        return result
    return replace(result, changes=(*result.changes, Change(run.__name__, *found)))


def _figures(graph: Graph) -> tuple[int, int, int]:
    """Operators, multiply-accumulates, int8 weights."""
    macs = sum(operator_of(node).macs(graph, node) for node in graph.nodes)
    weights = sum(tensor.elements for _, tensor in graph.constants() if tensor.dtype == "int8")
    return len(graph.nodes), macs, weights
