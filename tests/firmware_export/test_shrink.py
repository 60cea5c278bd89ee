"""The shrinker: an injected defect of one operator is found again in a graph of that operator alone, and kept for replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build, small_net
from graph_failures import WAYS, differing, inputs_to_try, keep, kept, replay, shrink_and_keep
from random_graphs import random_graph
from shrink import Shrinker, Vectors, candidates, is_sound, measure, part_of, pruned

from firmware_export.graph import Array, Graph, Node, Quantization, Tensor
from firmware_export.operators import registry
from firmware_export.simulate import simulate

Simulate = Callable[[Graph, Node, Sequence[Array | None]], list[Array]]


def defect(op: str, wrong: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's simulation becomes wrong."""
    right = type(registry()[op]).simulate

    def simulate_wrongly(self: object, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        return [wrong(np.asarray(result)) for result in right(self, graph, node, inputs)]  # type: ignore[arg-type]

    monkeypatch.setattr(type(registry()[op]), "simulate", simulate_wrongly)


def never_saturates(result: np.ndarray) -> np.ndarray:
    """127 becomes 126."""
    return np.minimum(result, 126).astype(result.dtype)


def seeds_with(op: str, count: int) -> list[int]:
    """The first random graphs of several operators, this one among them."""
    return [seed for seed in range(400) if len(kinds := ops(random_graph(seed))) > 3 and op in kinds][:count]


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("op", ["add", "conv2d", "depthwise_conv2d", "fully_connected", "relu", "max_pool2d"])
def test_a_defect_is_shrunk_to_its_operator(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defect(op, never_saturates, monkeypatch)
    found = 0
    for seed in seeds_with(op, 12):
        graph = random_graph(seed)
        if differing("tflite-micro")(graph, None) is None:
            continue
        if (found := found + 1) > 3:
            break
        small, vectors = Shrinker(differing("tflite-micro")).shrink(graph)
        assert ops(small) == [op]
        assert sum(small.tensors[index].elements for index in (*small.inputs, *small.outputs)) <= 8
        assert measure(small) < measure(graph) and is_sound(small)
        assert 127 in right_answers(small, vectors)
    assert found, "the defect shows in one of the graphs at least"


def right_answers(graph: Graph, vectors: Vectors) -> list[int]:
    """What TFLite Micro answers."""
    return [int(value) for output in WAYS["tflite-micro"](graph, [vectors])[0] for value in output.reshape(-1)]


def test_a_defect_of_two_operators_keeps_both() -> None:
    """One convolution behind another: alone none of them fails."""

    def fails(graph: Graph, vectors: Vectors | None) -> Vectors | None:
        pairs = zip(graph.nodes, graph.nodes[1:], strict=False)
        hit = any(a.op == "conv2d" and b.op == "conv2d" and {*a.outputs} & {*b.inputs} for a, b in pairs)
        return (vectors or next(inputs_to_try(graph))) if hit else None

    small, _ = Shrinker(fails).shrink(small_net())
    assert ops(small) == ["conv2d", "conv2d"]
    assert small.tensors[small.inputs[0]].elements <= 4
    assert all(node.integers("stride") == (1, 1) and node.integers("padding") == (0, 0, 0, 0) for node in small.nodes)
    assert not any(t.data.any() for t in small.tensors if t.data is not None), "constants are zeros"


def test_inputs_are_simplified_too() -> None:
    """Only one value of the input matters: all others are at the zero point in the end."""
    build = Build()
    x = build.activation((1, 4, 4, 2), zero_point=9)
    graph = build.graph(x, build.relu(x, (-128, 127)))

    def fails(graph: Graph, vectors: Vectors | None) -> Vectors | None:
        tried = [vectors] if vectors is not None else list(inputs_to_try(graph))
        if graph.tensors[graph.inputs[0]].shape != (1, 4, 4, 2) or graph.tensors[graph.inputs[0]].zero_point != 9:
            return None
        return next((vector for vector in tried if vector[0][0, 2, 1, 1] != 9), None)

    _, vectors = Shrinker(fails).shrink(graph)
    assert np.argwhere(vectors[0] != 9).tolist() == [[0, 2, 1, 1]]


def test_what_does_not_fail_is_not_shrunk() -> None:
    with pytest.raises(ValueError, match="does not fail"):
        Shrinker(lambda graph, vectors: None).shrink(small_net())


def test_rare_inputs_are_kept_while_the_graph_shrinks() -> None:
    """Only the inputs that were given fail, none of those that are tried."""
    build = Build()
    x = build.activation((1, 3, 3, 2))
    graph = build.graph(x, build.relu(build.relu(x, (-128, 127)), (-128, 127)))
    rare = (np.arange(18, dtype=np.int8).reshape(1, 3, 3, 2),)

    def fails(graph: Graph, vectors: Vectors | None) -> Vectors | None:
        return vectors if vectors is not None and vectors[0].reshape(-1)[5:6].tolist() == [5] else None

    small, vectors = Shrinker(fails).shrink(graph, rare)
    assert ops(small) == ["relu"] and np.count_nonzero(vectors[0]) == 1
    with pytest.raises(ValueError, match="does not fail"):
        Shrinker(fails).shrink(graph)


def test_a_failure_that_does_not_come_again_is_kept_as_it_is(tmp_path: Path) -> None:
    graph = small_net()
    folder = shrink_and_keep(graph, next(inputs_to_try(graph)), "tflite-micro", "once", tmp_path)
    assert "not when it was run alone" in (folder / "README.md").read_text() and ops(kept(folder)[0]) == ops(graph)


def test_attempts_are_counted() -> None:
    asked = []

    def fails(graph: Graph, vectors: Vectors | None) -> Vectors | None:
        asked.append(graph)
        return next(inputs_to_try(graph))

    Shrinker(fails, attempts=5).shrink(small_net())
    assert len(asked) <= 6


@pytest.mark.parametrize("seed", range(12))
def test_candidates_are_smaller_graphs_and_most_are_sound(seed: int) -> None:
    graph = random_graph(seed)
    size, before = measure(graph), graph.hash()
    smaller = [candidate for candidate in candidates(graph) if measure(candidate) < size]
    sound = [candidate for candidate in smaller if is_sound(candidate)]
    assert len(sound) > 0.4 * len(smaller) > 0
    for candidate in sound[:40]:
        simulate(candidate, *next(inputs_to_try(candidate)))
    assert graph.hash() == before, "the graph itself is not changed"


def test_pruned_graphs_number_their_tensors_anew() -> None:
    graph = small_net()
    part = pruned(Graph(graph.tensors, graph.nodes, graph.inputs, graph.nodes[0].outputs))
    assert ops(part) == ["conv2d"] and len(part.tensors) == 4 and is_sound(part)
    assert simulate(part, *next(inputs_to_try(part)))[0].shape == part.tensors[part.outputs[0]].shape


def test_a_part_of_a_constant_keeps_its_scales() -> None:
    quantization = Quantization(np.float32([1, 2, 3]), np.zeros(3, np.int64), 0)
    tensor = Tensor("w", (3, 2), "int8", quantization, np.int8([[1, 2], [3, 4], [5, 6]]))
    part = part_of(tensor, 0, 2)
    assert part.shape == (2, 2) and part.quantization is not None and part.quantization.scale.tolist() == [1, 2]
    assert part_of(tensor, 1, 1).quantization == quantization
    rest = part_of(tensor, 0, 1, last=True)
    assert rest.data is not None and rest.data.tolist() == [[5, 6]]
    assert rest.quantization is not None and rest.quantization.scale.tolist() == [3]


def test_kept_failures_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the defect the kept folder fails, without it passes: on the wheel and on the generated C."""
    with monkeypatch.context() as patch:
        defect("add", never_saturates, patch)
        failing = ((s, differing("tflite-micro")(random_graph(s), None)) for s in seeds_with("add", 20))
        seed, vectors = next((s, found) for s, found in failing if found is not None)
        folder = shrink_and_keep(random_graph(seed), vectors, "tflite-micro", f"random_{seed}", tmp_path)
        assert "add" in (text := replay(folder)) or "1 of 1 values differ" in text
        assert replay(folder, ("host",)), "the C is right, the simulator is not"
    assert replay(folder) == ""
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "inputs.npz", "model.tflite"]
    assert (folder / "README.md").read_text() == f"random_{seed}: the simulator and tflite-micro differed on add.\n"


def test_what_is_kept_is_what_was_given(tmp_path: Path) -> None:
    graph = small_net()
    vectors = next(inputs_to_try(graph))
    read, values = kept(keep(graph, vectors, "line", tmp_path / "x"))
    assert ops(read) == ops(graph) and all(np.array_equal(a, b) for a, b in zip(values, vectors, strict=True))
    assert simulate(read, *values)[0].tobytes() == simulate(graph, *vectors)[0].tobytes()
