"""Outside answers for a model in its arithmetic: TFLite Micro for `double`, LiteRT's default kernels for `float32`.

LiteRT's default (XNNPACK) does not define every operator in the same way on every machine; the operators' files say so. Where a
float32 model has such a node, the model is run in pieces: TFLite Micro computes those nodes, LiteRT the others, each from what
the piece before it made. The simulator has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from firmware_export.graph import ABSENT, Array, Graph, GraphError, Node
from firmware_export.operators import operator_of
from firmware_export.write_tflite import write_tflite

ORACLES = {"double": "TFLite Micro", "float32": "LiteRT"}
"""Arithmetic -> who gives its known answers, in short."""
ARENA_BYTES = 1 << 20
"""TFLite Micro's own needs beside the activations, with a wide margin."""
Vector = tuple[Array, ...]


def oracle_name(graph: Graph) -> str:
    """For sentences: "TFLite Micro", "LiteRT", or "LiteRT (mean, softmax: TFLite Micro)"."""
    if graph.arithmetic == "double":
        return "TFLite Micro"
    others = sorted({node.op for node in graph.nodes if not operator_of(node).litert_default(graph, node)})
    return f"LiteRT ({', '.join(others)}: TFLite Micro)" if others else "LiteRT"


def run_oracle(graph: Graph, model: bytes, inputs: tuple[Vector, ...]) -> list[Vector]:
    """The outputs for vectors of inputs.

    Args:
        model: the graph as a .tflite file, its twin or the one it was read from; not used where the model is run in pieces.
    Raises:
        GraphError: the oracle refuses the model.
    """
    if graph.arithmetic == "double":
        return run_tflite_micro(graph, model, inputs)
    pieces = list(_pieces(graph))
    if len(pieces) == 1 and pieces[0].litert:
        return run_litert(model, inputs)
    return _run_pieces(graph, pieces, inputs)


def run_tflite_micro(graph: Graph, model: bytes, inputs: tuple[Vector, ...]) -> list[Vector]:
    """The outputs of the tflite-micro wheel for vectors of inputs. Raises GraphError if it refuses the model."""
    from tflite_micro import runtime

    activations = sum(tensor.nbytes for tensor in graph.tensors if not tensor.is_constant)
    try:
        interpreter = runtime.Interpreter.from_bytes(model, arena_size=2 * activations + ARENA_BYTES)
        answers = []
        for vector in inputs:
            interpreter.reset()  # every inference begins without the state of an LSTM
            for place, value in enumerate(vector):
                interpreter.set_input(value, place)
            interpreter.invoke()
            answers.append(tuple(np.array(interpreter.get_output(place)) for place in range(len(graph.outputs))))
    except (RuntimeError, ValueError) as error:
        raise GraphError(f"TFLite Micro refuses the .tflite twin: {error}; please report the model") from None
    return answers


def run_litert(model: bytes, inputs: tuple[Vector, ...]) -> list[Vector]:
    """The outputs of LiteRT's default kernels on one thread. Raises GraphError if it refuses the model."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
        answers = []
        for vector in inputs:
            interpreter.reset_all_variables()
            for detail, value in zip(interpreter.get_input_details(), vector, strict=True):
                interpreter.set_tensor(detail["index"], value)
            interpreter.invoke()
            answers.append(tuple(np.array(interpreter.get_tensor(d["index"])) for d in interpreter.get_output_details()))
    except (RuntimeError, ValueError) as error:
        words = (str(error).splitlines() or ["no reason given"])[0]
        raise GraphError(f"LiteRT refuses the .tflite twin: {words}; please report the model") from None
    return answers


@dataclass(frozen=True)
class _Piece:
    """Neighbouring nodes for one runtime: a graph of its own. reads, writes: what its inputs and outputs are in the whole."""

    graph: Graph
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    litert: bool


def _pieces(graph: Graph) -> Iterator[_Piece]:
    """The model cut where the runtime changes, in order."""
    for litert, group in groupby(graph.nodes, lambda node: operator_of(node).litert_default(graph, node)):
        nodes = list(group)
        made = [index for node in nodes for index in node.outputs]
        reads = tuple(dict.fromkeys(i for node in nodes for i in graph.activation_inputs(node) if i not in made))
        rest = [node for node in graph.nodes if not any(node is own for own in nodes)]
        wanted = {*graph.outputs, *(index for node in rest for index in node.inputs)}
        writes = tuple(index for index in made if index in wanted)
        yield _Piece(_cut(graph, nodes, reads, writes), reads, writes, litert)


def _cut(graph: Graph, nodes: list[Node], reads: tuple[int, ...], writes: tuple[int, ...]) -> Graph:
    """A graph of these nodes and the tensors that they name alone."""
    used = sorted({index for node in nodes for index in (*node.inputs, *node.outputs) if index != ABSENT})
    places = {index: place for place, index in enumerate(used)} | {ABSENT: ABSENT}

    def _moved(indexes: Iterable[int]) -> tuple[int, ...]:
        return tuple(places[index] for index in indexes)

    renamed = [replace(node, inputs=_moved(node.inputs), outputs=_moved(node.outputs)) for node in nodes]
    tensors = [graph.tensors[index] for index in used]
    return replace(graph, tensors=tensors, nodes=renamed, inputs=_moved(reads), outputs=_moved(writes))


def _run_pieces(graph: Graph, pieces: list[_Piece], inputs: tuple[Vector, ...]) -> list[Vector]:
    values = [dict(zip(graph.inputs, vector, strict=True)) for vector in inputs]
    for piece in pieces:
        twin = write_tflite(piece.graph)
        given = tuple(tuple(known[index] for index in piece.reads) for known in values)
        found = run_litert(twin, given) if piece.litert else run_tflite_micro(piece.graph, twin, given)
        for known, outputs in zip(values, found, strict=True):
            known.update(zip(piece.writes, outputs, strict=True))
    return [tuple(known[index] for index in graph.outputs) for known in values]
