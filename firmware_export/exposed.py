"""A .tflite file whose inner tensors are outputs too, so that another runtime shows where it begins to differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph, Tensor
from firmware_export.model_file import shown

Key = tuple[str, tuple[int, ...], tuple[float, ...], tuple[int, ...]]
"""Name, shape, scales and zero points of a tensor."""


def exposed(graph: Graph, model: bytes) -> tuple[Graph, bytes]:
    """The graph and its .tflite file, both with what every operator makes as outputs, in the graph's order.

    Tensors are matched by name, shape and quantization, so that what a pass has changed is not taken for a difference: those
    that are not unique by that, or that only one of the two has, are left out.

    Args:
        model: the file that the graph was read from (and the reader has accepted), or that was written from it.
    """
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    subgraph = parsed.subgraphs[0]
    places = _unique({int(i): _file_key(subgraph.tensors[i]) for operator in subgraph.operators for i in operator.outputs})
    made = _unique({index: _graph_key(graph.tensors[index]) for node in graph.nodes for index in node.outputs})
    common = [key for key in made if key in places]
    subgraph.outputs = [places[key] for key in common]
    parsed.signatureDefs = None  # they name the former outputs
    builder = flatbuffers.Builder(len(model))
    builder.Finish(parsed.Pack(builder), file_identifier=b"TFL3")
    return replace(graph, outputs=tuple(made[key] for key in common)), bytes(builder.Output())


def _file_key(tensor: Any) -> Key:
    quantization = tensor.quantization
    stored = quantization is not None and quantization.scale is not None and len(quantization.scale) > 0
    points = () if not stored or quantization.zeroPoint is None else tuple(map(int, quantization.zeroPoint))
    scales = tuple(map(float, quantization.scale)) if stored else ()
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    return shown(tensor.name or b""), shape, scales, points or (0,) * len(scales)


def _graph_key(tensor: Tensor) -> Key:
    quantization = tensor.quantization
    if quantization is None:
        return tensor.name, tensor.shape, (), ()
    return tensor.name, tensor.shape, tuple(map(float, quantization.scale)), tuple(map(int, quantization.zero_point))


def _unique(keys: dict[int, Key]) -> dict[Key, int]:
    """Key -> index, in the order of the indexes given, without keys that occur twice."""
    counts = Counter(keys.values())
    return {key: index for index, key in keys.items() if counts[key] == 1}
