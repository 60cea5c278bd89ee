"""A .tflite file whose inner tensors are outputs too, so that another runtime shows where it begins to differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph
from firmware_export.model_file import shown


def exposed(graph: Graph, model: bytes) -> tuple[Graph, bytes]:
    """The graph and its .tflite file, both with what every operator makes as outputs, in the graph's order.

    Tensors are matched by name: those whose name is not unique, or that only one of the two has, are left out.

    Args:
        model: the file that the graph was read from (and the reader has accepted), or that was written from it.
    """
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    subgraph = parsed.subgraphs[0]
    places = _unique({int(i): _name(subgraph.tensors[i]) for operator in subgraph.operators for i in operator.outputs})
    made = _unique({index: graph.tensors[index].name for node in graph.nodes for index in node.outputs})
    common = [name for name in made if name in places]
    subgraph.outputs = [places[name] for name in common]
    parsed.signatureDefs = None  # they name the former outputs
    builder = flatbuffers.Builder(len(model))
    builder.Finish(parsed.Pack(builder), file_identifier=b"TFL3")
    return replace(graph, outputs=tuple(made[name] for name in common)), bytes(builder.Output())


def _name(tensor: Any) -> str:
    return shown(tensor.name or b"")


def _unique(names: dict[int, str]) -> dict[str, int]:
    """Name -> index, in the order of the indexes given, without names that occur twice."""
    counts = Counter(names.values())
    return {name: index for index, name in names.items() if counts[name] == 1}
