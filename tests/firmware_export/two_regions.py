"""Judges plans for two regions of memory: nothing lies across, and generated C keeps to both buffers, their dead bytes spoilt.

As plan_verifier.py, nothing here knows planning/; what is checked there of one buffer holds for both laid end to end.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence

import numpy as np
from graph_builder import Build
from plan_verifier import OBSERVER, PoisonedRuns, check_places, last_values, spoil

from firmware_export.graph import Graph
from firmware_export.plan import Plan
from firmware_export.simulate import simulate_trace


def wide_middle(seed: int) -> Graph:
    """Small inputs and outputs, wide values between that are read again later."""
    rng = random.Random(seed)
    build = Build(seed)
    x = build.activation((1, 6, 6, rng.randint(1, 3)), name="x")
    values = [build.conv(x, rng.choice((4, 8, 12)), rng.choice((1, 3)))]
    for _ in range(rng.randint(2, 6)):
        values.append(build.conv(rng.choice(values[-3:]), rng.choice((4, 8, 12)), rng.choice((1, 3))))
    total = build.conv(values[0], 8)
    for value in values[1:]:
        branch = build.conv(value, 8, 1, padding=(0, 0, 0, 0))
        total = build.node("add", (total, branch), build.activation((1, 6, 6, 8)), clamp=(-128, 127))
    return build.graph(x, build.conv(total, 1, 1, padding=(0, 0, 0, 0)))


def check_regions(graph: Graph, layout: Plan, rooms: Sequence[int]) -> None:
    """Both regions are within their rooms, tensors and scratches whole in one of them, inputs and outputs in the first."""
    first, second = layout.regions
    assert first <= rooms[0] and 0 < second <= rooms[1] and first + second == layout.size and first % 8 == second % 8 == 0
    blocks = [(offset, graph.tensors[index].nbytes) for index, offset in layout.offsets.items()]
    blocks += [(offset, layout.codes[place].scratch_bytes) for place, offset in layout.scratch.items()]
    for offset, size in blocks:
        assert offset + size <= first or offset >= first, f"{size} bytes at {offset} lie across {first}"
    for index in (*graph.inputs, *graph.outputs):
        assert layout.offsets[index] + graph.tensors[index].nbytes <= first
    check_places(graph, layout)


class TwoRegionRuns(PoisonedRuns):
    """As PoisonedRuns, the second buffer being the one that the generated C defines."""

    def faults(self, number: int, inputs: Sequence[np.ndarray], seed: int = 0) -> list[str]:
        """Layers and outputs that differ from the simulator's, and writes beside the first buffer."""
        graph, layout, rng = self.graphs[number], self.plans[number], np.random.default_rng(seed)
        first, second = layout.regions
        guarded = rng.integers(0, 256, first + 64).astype(np.uint8)
        start = 16 + -guarded.ctypes.data % 16
        buffer, before = guarded[start : start + first], guarded.copy()
        symbol = (ctypes.c_uint8 * second).in_dll(self._library, f"p{number}_region_1")
        other = np.ctypeslib.as_array(symbol)
        other[:] = rng.integers(0, 256, second)
        for index, value in zip(graph.inputs, inputs, strict=True):
            buffer[layout.offsets[index] :][: value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
        expected, found = simulate_trace(graph, *inputs), list[str]()

        def observe(_: int, layer: int, output: int, data: int, size: int) -> None:
            if ctypes.string_at(data, size) != expected[layer][output].tobytes():
                found.append(f"node {layer} ({layout.codes[layer].function}) output {output}")
            if output == len(graph.nodes[layer].outputs) - 1:
                joined = np.concatenate([buffer, other])
                spoil(graph, layout, layer, joined, rng)
                buffer[:], other[:] = joined[:first], joined[first:]

        assert self._trace(ctypes.c_uint32(number), ctypes.c_void_p(buffer.ctypes.data), OBSERVER(observe)) == 0
        for index, value in zip(graph.outputs, last_values(graph, expected), strict=True):
            if buffer[layout.offsets[index] :][: value.nbytes].tobytes() != value.tobytes():
                found.append(f"the network's output {index}")
        outside = np.ones(guarded.size, bool)
        outside[start : start + first] = False
        if not np.array_equal(guarded[outside], before[outside]):
            found.append("bytes beside the first buffer")
        return found
