"""How a float32 model is cut between its two outside runtimes, and what passes from piece to piece; no runtime runs here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_builder import Build

import firmware_export.oracle
from firmware_export.graph import ABSENT, Array, Graph, GraphError, Node
from firmware_export.oracle import Vector, _pieces, oracle_name, run_litert, run_oracle, run_tflite_micro
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite


def branches() -> Graph:
    """conv - mean - fully connected (without bias) - softmax; the conv's image goes to a second mean too."""
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    image = build.conv(x, 4)
    stored = build.tensors[image]
    means = [
        build.node("mean", (image,), build.activation((1, 4), stored.scale, stored.zero_point), axes=(1, 2), keep_dims=False)
        for _ in range(2)
    ]
    dense = build.fully_connected(means[0], 3)
    build.nodes[-1] = replace(build.nodes[-1], inputs=(*build.nodes[-1].inputs[:2], ABSENT))
    share = build.node("softmax", (dense,), build.activation((1, 3), 1 / 256, -128), beta=1.0)
    return build.graph(x, (share, means[1])).with_arithmetic("float32")


def test_neighbours_of_one_runtime_are_one_piece() -> None:
    pieces = list(_pieces(branches()))
    assert [[node.op for node in piece.graph.nodes] for piece in pieces] == [
        ["conv2d"], ["mean", "mean"], ["fully_connected"], ["softmax"],
    ]  # fmt: skip
    assert [piece.litert for piece in pieces] == [True, False, True, False]


def test_pieces_hand_over_what_others_read_and_nothing_else() -> None:
    graph = branches()
    conv, first, second, dense, share = (node.outputs[0] for node in graph.nodes)
    pieces = list(_pieces(graph))
    assert [piece.reads for piece in pieces] == [graph.inputs, (conv,), (first,), (dense,)]
    assert [piece.writes for piece in pieces] == [(conv,), (first, second), (dense,), (share,)]


def test_a_piece_has_its_own_tensors_alone_in_the_models_order() -> None:
    graph = branches()
    for piece, reads in zip(_pieces(graph), (1, 1, 1, 1), strict=True):
        names = [tensor.name for tensor in piece.graph.tensors]
        used = {i for node in piece.graph.nodes for i in (*node.inputs, *node.outputs) if i != ABSENT}
        assert used == set(range(len(names))) and len(piece.graph.inputs) == reads
        assert names == [tensor.name for tensor in graph.tensors if tensor.name in names]
        assert [graph.tensors[i].name for i in piece.reads] == [names[i] for i in piece.graph.inputs]
        assert [graph.tensors[i].name for i in piece.writes] == [names[i] for i in piece.graph.outputs]
        assert piece.graph.arithmetic == "float32"
    (dense,) = list(_pieces(graph))[2].graph.nodes
    assert dense.inputs[2] == ABSENT, "a bias that is not there stays away"


def test_values_pass_from_piece_to_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the simulator in the place of both runtimes the pieces together are the whole, for every vector of inputs."""
    graph, seen = branches(), []

    def runtime(name: str, piece: Graph, vectors: tuple[Vector, ...]) -> list[Vector]:
        seen.append((name, len(vectors)))
        return [tuple(simulate(piece, *vector)) for vector in vectors]

    waiting = [piece.graph for piece in _pieces(graph)]
    monkeypatch.setattr(firmware_export.oracle, "run_litert", lambda model, given: runtime("LiteRT", waiting.pop(0), given))
    monkeypatch.setattr(firmware_export.oracle, "run_tflite_micro", lambda g, _, given: runtime("Micro", waiting.pop(0), given))
    rng = np.random.default_rng(2)
    vectors = tuple((rng.integers(-128, 128, (1, 4, 4, 2)).astype(np.int8),) for _ in range(3))
    found = run_oracle(graph, b"not read", vectors)
    assert seen == [("LiteRT", 3), ("Micro", 3), ("LiteRT", 3), ("Micro", 3)]
    for vector, outputs in zip(vectors, found, strict=True):
        assert [output.tobytes() for output in outputs] == [array.tobytes() for array in simulate(graph, *vector)]
    assert len({outputs[1].tobytes() for outputs in found}) == 3, "each vector has its own answers"


def test_names_for_sentences() -> None:
    graph = branches()
    assert oracle_name(graph) == "LiteRT (mean, softmax: TFLite Micro)"
    assert oracle_name(graph.with_arithmetic("double")) == "TFLite Micro"
    conv = replace(graph, nodes=graph.nodes[:1], outputs=graph.nodes[0].outputs)
    assert oracle_name(conv) == "LiteRT" and len(list(_pieces(conv))) == 1


def large() -> Graph:
    """Two megabytes of activations: the arena of TFLite Micro must follow the model."""
    build = Build()
    x = build.activation((1, 1024, 1024), name="x")
    return build.graph(x, build.relu(x, (0, 127)))


def test_the_arena_follows_the_activations() -> None:
    graph = large()
    image: Array = np.full((1, 1024, 1024), -5, np.int8)
    image[0, 1023, 1023] = 9
    ((found,),) = run_tflite_micro(graph, write_tflite(graph), ((image,),))
    assert found[0, 1023, 1023] == 9 and np.count_nonzero(found) == 1


@pytest.mark.parametrize("model", [b"", b"no model at all", b"\0" * 64])
def test_bytes_that_are_no_model_are_refused_in_one_line(model: bytes) -> None:
    with pytest.raises(GraphError, match=r"LiteRT refuses the \.tflite twin: .+; please report the model") as caught:
        run_litert(model, ())
    assert "\n" not in str(caught.value) and caught.value.exit_code == 6


def test_nodes_of_the_pieces_are_the_models() -> None:
    """Attributes are kept, and the model itself is left as it was."""
    graph = branches()
    before = [(node.op, node.inputs, node.outputs) for node in graph.nodes]
    kept = [node for piece in _pieces(graph) for node in piece.graph.nodes]
    assert [node.attributes for node in kept] == [node.attributes for node in graph.nodes]
    assert [(node.op, node.inputs, node.outputs) for node in graph.nodes] == before
    assert all(isinstance(node, Node) for node in kept)


def test_what_a_piece_makes_for_itself_alone_stays_inside() -> None:
    """Two convolutions in a row: the image between them is neither read from outside nor handed on."""
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    inner = build.conv(x, 4)
    image = build.conv(inner, 4)
    stored = build.tensors[image]
    small = build.activation((1, 4), stored.scale, stored.zero_point)
    mean = build.node("mean", (image,), small, axes=(1, 2), keep_dims=False)
    first, second = _pieces(build.graph(x, mean).with_arithmetic("float32"))
    assert (first.reads, first.writes) == ((x,), (image,)) and (second.reads, second.writes) == ((image,), (mean,))
    assert inner not in (*first.reads, *first.writes)
