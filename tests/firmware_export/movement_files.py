"""TFLite files of one operator with any options, made without the operators' own writing; LiteRT runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
from oracles import litert

from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter

Shape = tuple[int, ...]
STORED = Quantization.per_tensor(0.05, -7)


def activation(shape: Shape, dtype: str = "int8") -> Tensor:
    """A computed tensor of the one quantization of these files."""
    return Tensor("t", shape, dtype, None if dtype == "float32" else STORED)


def one_operator(
    builtin: str, inputs: list[Tensor | np.ndarray | int], outputs: list[Shape], options: Any = None, version: int = 1
) -> bytes:
    """A file with one operator. Tensors are activations; arrays become constants, int8 ones with the same quantization."""
    tensors = [activation(shape) for shape in outputs]
    indexes = []
    for value in inputs:
        if isinstance(value, int):
            indexes.append(value)
            continue
        if isinstance(value, np.ndarray):
            value = Tensor("c", value.shape, str(value.dtype), STORED if value.dtype == np.int8 else None, value)
        indexes.append(len(tensors))
        tensors.append(value)
    edges = tuple(index for index in indexes if index >= 0 and not tensors[index].is_constant)
    writer = TfliteWriter(Graph(tensors, [], edges, tuple(range(len(outputs)))))
    writer.add(builtin, indexes, range(len(outputs)), options, version)
    return writer.finish()


def equals_litert(model: bytes, vectors: int = 2, seed: int = 0) -> Graph:
    """The graph of a file, after its answers were found to be LiteRT's, byte for byte."""
    graph, rng = read_tflite_bytes(model), np.random.default_rng(seed)
    for _ in range(vectors):
        inputs = [rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs]
        for found, wanted in zip(simulate(graph, *inputs), litert(model, inputs), strict=True):
            assert found.shape == wanted.shape and found.dtype == wanted.dtype
            assert found.tobytes() == wanted.tobytes()
    return graph


def numbers(*values: int) -> np.ndarray:
    """An int32 constant."""
    return np.array(values, np.int32)
