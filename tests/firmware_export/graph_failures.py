"""Ways in which a graph can fail, as the shrinker asks for them, and the folders in which shrunk failures are kept.

A folder of tests/regression holds model.tflite, inputs.npz (input_0, input_1, ...) and README.md, one line: what failed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bundle import Bundle, Emulator
from example_cases import Case, differences, random_values
from oracles import tflite_micro
from shrink import Fails, Shrinker, Vectors

from firmware_export.graph import Graph
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.toolchain import arm_toolchain, host_toolchain
from firmware_export.write_tflite import write_tflite

RANDOM_VECTORS = 3
ATTEMPTS = {"tflite-micro": 3000, "host": 150, "cortex-m4": 150}
"""How many graphs the shrinker may try; a compilation takes a second."""
Answer = Callable[[Graph, list[Vectors]], list[Vectors]]


def inputs_to_try(graph: Graph) -> Iterator[Vectors]:
    """Random inputs, the same ones every time, and the smallest and largest values."""
    tensors = [graph.tensors[index] for index in graph.inputs]
    rng = np.random.default_rng(1)
    for _ in range(RANDOM_VECTORS):
        yield tuple(random_values(tensor, rng) for tensor in tensors)
    for value in (-128, 127):
        yield tuple(np.full(tensor.shape, value if tensor.dtype == "int8" else abs(value), tensor.dtype) for tensor in tensors)


def by_tflite_micro(graph: Graph, vectors: list[Vectors]) -> list[Vectors]:
    """The answers of the tflite-micro wheel to the twin."""
    twin = write_tflite(graph)
    return [tuple(tflite_micro(twin, list(vector), len(graph.outputs))) for vector in vectors]


def by_host(graph: Graph, vectors: list[Vectors]) -> list[Vectors]:
    """The answers of the generated C on this computer."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle(Path(folder), [_case(graph, vectors)])
        return bundle.run_host(bundle.host_program(host_toolchain()))[0]


def by_cortex_m4(graph: Graph, vectors: list[Vectors]) -> list[Vectors]:
    """The answers of the generated C on the emulated Cortex-M4."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle(Path(folder), [_case(graph, vectors)])
        emulator = Emulator(bundle.arm_program(arm_toolchain(), "cortex-m4"), "cortex-m4")
        return [emulator.run(0, graph, bundle.plans[0], vector) for vector in vectors]


WAYS: dict[str, Answer] = {"tflite-micro": by_tflite_micro, "host": by_host, "cortex-m4": by_cortex_m4}
"""What the simulator is compared with."""


def _case(graph: Graph, vectors: list[Vectors]) -> Case:
    return Case("graph", graph, tuple(vectors), tuple(tuple(simulate(graph, *vector)) for vector in vectors))


def differing(way: str) -> Fails:
    """Fails where the simulator's answers are not those of one of WAYS."""

    def fails(graph: Graph, vectors: Vectors | None) -> Vectors | None:
        tried = list(inputs_to_try(graph)) if vectors is None else [vectors]
        for vector, answers in zip(tried, WAYS[way](graph, tried), strict=True):
            if differences(_case(graph, [vector]), [answers]):
                return vector
        return None

    return fails


def keep(graph: Graph, vectors: Vectors, line: str, folder: Path) -> Path:
    """Writes a failing graph as a folder that `replay` reads."""
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(write_tflite(graph))
    np.savez(folder / "inputs.npz", **{f"input_{place}": value for place, value in enumerate(vectors)})
    (folder / "README.md").write_text(f"{line}\n")
    return folder


def shrink_and_keep(graph: Graph, failing: Vectors, way: str, name: str, regression: Path) -> Path:
    """Shrinks a graph that fails on inputs in one of WAYS and keeps it in regression/<name>.

    One that does not fail when it is run alone is kept as it is.
    """
    try:
        small, vectors = Shrinker(differing(way), ATTEMPTS[way]).shrink(graph, failing)
    except ValueError:
        return keep(
            graph, failing, f"{name}: the simulator and {way} differed, but not when it was run alone.", regression / name
        )
    kinds = ", ".join(node.op for node in small.nodes)
    return keep(small, vectors, f"{name}: the simulator and {way} differed on {kinds}.", regression / name)


def kept(folder: Path) -> tuple[Graph, Vectors]:
    """The graph and inputs of a folder."""
    graph = read_tflite_bytes((folder / "model.tflite").read_bytes())
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        return graph, tuple(arrays[f"input_{place}"] for place in range(len(graph.inputs)))


def replay(folder: Path, ways: tuple[str, ...] = tuple(WAYS)) -> str:
    """What differs today on a kept failure; "" if nothing."""
    graph, vectors = kept(folder)
    case = _case(graph, [vectors])
    for way in ways:
        if found := differences(case, WAYS[way](graph, [vectors])):
            return f"{folder.name}, {way}: {found}"
    return ""
