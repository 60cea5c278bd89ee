"""Runs generated C under its memory plan and spoils every byte that nobody may need any more: the judge of memory plans.

Nothing here knows planning/: which tensors are still needed is worked out from the graph alone, and what the kernels read and
write too late shows in the answers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from firmware_export.emit import emit, runtime_sources
from firmware_export.graph import Graph, Node
from firmware_export.hostlib import compile_host
from firmware_export.operators import operator_of
from firmware_export.plan import Plan
from firmware_export.simulate import simulate_trace

RUNTIME = Path(__file__).resolve().parents[2] / "firmware_export" / "runtime"
GUARD = 64
OBSERVER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)


def needed_after(graph: Graph, place: int) -> dict[int, np.ndarray]:
    """Tensors that exist when node `place` is done (-1: before all) and that a later node reads or the caller takes.

    Returns:
        Tensor -> bool [elements]: which elements; all of them, but where only slices of a tensor are read.
    """
    made = {*graph.inputs, *(index for node in graph.nodes[: place + 1] for index in node.outputs)}
    needed: dict[int, np.ndarray] = {}
    for index in made:
        mask = np.full(graph.tensors[index].elements, index in graph.outputs)
        for node in graph.nodes[place + 1 :]:
            if index in node.inputs:
                mask[elements_read(graph, node, index)] = True
        if mask.any():
            needed[index] = mask
    return needed


def elements_read(graph: Graph, node: Node, index: int) -> np.ndarray:
    """Which elements of an input a node reads."""
    tensor = graph.tensors[index]
    places = np.arange(tensor.elements)
    if node.op != "strided_slice":
        return places
    return operator_of(node).simulate(graph, node, [places.reshape(tensor.shape)])[0].reshape(-1)


def needed_bytes(graph: Graph, layout: Plan, index: int, mask: np.ndarray) -> np.ndarray:
    """Where in the buffer the needed elements of a tensor lie, one number for each byte."""
    size = graph.tensors[index].nbytes // graph.tensors[index].elements
    return layout.offsets[index] + (np.flatnonzero(mask)[:, None] * size + np.arange(size)).reshape(-1)


def check_places(graph: Graph, layout: Plan) -> None:
    """Everything lies in the buffer, at multiples of what its type and the kernels need; what is needed together lies apart."""
    for index, offset in layout.offsets.items():
        assert offset >= 0 and offset + graph.tensors[index].nbytes <= layout.size and offset % 4 == 0
    for place, offset in layout.scratch.items():
        assert offset >= 0 and offset + layout.codes[place].scratch_bytes <= layout.size and offset % 8 == 0
    assert {place for place, code in enumerate(layout.codes) if code.scratch_bytes} == set(layout.scratch)
    for place in range(-1, len(graph.nodes)):
        holder = np.full(layout.size, -1)
        for index, mask in needed_after(graph, place).items():
            where = needed_bytes(graph, layout, index, mask)
            for other in set(holder[where].tolist()) - {-1}:
                assert shares(graph, index, other), f"after node {place}: tensors {index} and {other} overlap"
            holder[where] = index


MOVING = ("reshape", "strided_slice", "split", "unpack", "concatenation", "pack")
"""Operators whose outputs hold bytes of their inputs; where they lie on each other, the runs tell whether it is right."""


def shares(graph: Graph, one: int, other: int) -> bool:
    """Whether bytes of one tensor may be bytes of the other, moved any number of times."""
    related, size = {one}, 0
    while len(related) > size:
        size = len(related)
        for node in graph.nodes:
            if node.op in MOVING and related & {*node.inputs, *node.outputs}:
                related |= {*node.inputs, *node.outputs}
    return other in related


class PoisonedRuns:
    """Many networks in one shared library."""

    def __init__(self, folder: Path, graphs: Sequence[Graph], plans: Sequence[Plan], flags: Sequence[str] = ()) -> None:
        self.graphs, self.plans = list(graphs), list(plans)
        texts = []
        for number, (graph, layout) in enumerate(zip(graphs, plans, strict=True)):
            for name, text in emit(graph, layout, f"p{number}", selftest=False).items():
                (folder / name).write_text(text)
            texts.append(f'#include "p{number}_data.c"\n#include "p{number}.c"\n')
        table = ", ".join(f"&p{number}_network" for number in range(len(self.graphs)))
        main = folder / "poisoned.c"
        main.write_text(
            f"{''.join(texts)}\nstatic const nn_network *const networks[] = {{{table}}};\n"
            "nn_status poisoned_trace(uint32_t index, void *activations, nn_observer observer);\n"
            "nn_status poisoned_trace(uint32_t index, void *activations, nn_observer observer) {\n"
            "    return networks[index]->trace(activations, observer, 0);\n}\n"
        )
        needed = sorted({source for layout in plans for source in runtime_sources(layout)})
        library = folder / "poisoned.so"
        sources = [main, *(RUNTIME / name for name in needed)]
        compile_host(sources, [RUNTIME, folder], library, ["-shared", "-fPIC", *flags], optimize="1")
        self._library = ctypes.CDLL(str(library))
        self._trace = self._library.poisoned_trace

    def faults(self, number: int, inputs: Sequence[np.ndarray], seed: int = 0) -> list[str]:
        """What is wrong in one inference: layers whose outputs differ from the simulator's, bytes written beside the buffer."""
        graph, layout, rng = self.graphs[number], self.plans[number], np.random.default_rng(seed)
        whole = rng.integers(0, 256, layout.size + 2 * GUARD + 16).astype(np.uint8)
        start = GUARD + -(whole.ctypes.data + GUARD) % 16
        buffer, before = whole[start : start + layout.size], whole.copy()
        for index, value in zip(graph.inputs, inputs, strict=True):
            raw = np.frombuffer(value.tobytes(), np.uint8)
            buffer[layout.offsets[index] : layout.offsets[index] + raw.size] = raw
        expected, found = simulate_trace(graph, *inputs), list[str]()

        def observe(_: int, layer: int, output: int, data: int, size: int) -> None:
            if ctypes.string_at(data, size) != expected[layer][output].tobytes():
                found.append(f"node {layer} ({layout.codes[layer].function}) output {output}")
            if output == len(graph.nodes[layer].outputs) - 1:
                spoil(graph, layout, layer, buffer, rng)

        assert self._trace(ctypes.c_uint32(number), ctypes.c_void_p(buffer.ctypes.data), OBSERVER(observe)) == 0
        for index, value in zip(graph.outputs, last_values(graph, expected), strict=True):
            if buffer[layout.offsets[index] :][: value.nbytes].tobytes() != value.tobytes():
                found.append(f"the network's output {index}")
        outside = np.ones(whole.size, bool)
        outside[start : start + layout.size] = False
        if not np.array_equal(whole[outside], before[outside]):
            found.append("bytes beside the buffer")
        return found


def spoil(graph: Graph, layout: Plan, place: int, buffer: np.ndarray, rng: np.random.Generator) -> None:
    """New random bytes wherever nothing is needed any more."""
    dead = np.ones(buffer.size, bool)
    for index, mask in needed_after(graph, place).items():
        dead[needed_bytes(graph, layout, index, mask)] = False
    buffer[dead] = rng.integers(0, 256, int(dead.sum()))


def last_values(graph: Graph, trace: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The network's outputs among the outputs of its nodes."""
    values = {
        index: value
        for node, outputs in zip(graph.nodes, trace, strict=True)
        for index, value in zip(node.outputs, outputs, strict=True)
    }
    return [values[index] for index in graph.outputs]
