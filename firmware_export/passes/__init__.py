"""Passes: one file each, every one a function Graph -> Graph that leaves the model's answers bit-identical.

A pass returns the very graph it was given when it finds nothing to do. `simplify` runs them all and checks the graph
after each.
"""

from __future__ import annotations

from collections.abc import Callable

from firmware_export.check import check
from firmware_export.graph import Graph
from firmware_export.passes.fold_constants import fold_constants
from firmware_export.passes.fuse_pad import fuse_pad
from firmware_export.passes.fuse_relu import fuse_relu
from firmware_export.passes.merge_reshapes import merge_reshapes
from firmware_export.passes.remove_dead_channels import remove_dead_channels
from firmware_export.passes.remove_unused import remove_unused

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    fold_constants, fuse_pad, fuse_relu, merge_reshapes, remove_dead_channels, remove_unused,
)  # fmt: skip


def simplify(graph: Graph) -> Graph:
    """The graph after every pass, again and again until none changes it: one can make room for another."""
    while True:
        before = graph
        for run in PASSES:
            result = run(graph)
            if result is not graph:
                check(result)
            graph = result
        if graph is before:
            return graph
