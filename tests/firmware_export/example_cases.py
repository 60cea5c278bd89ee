"""Every operator's examples with inputs and the simulator's answers, made once for all tests that compare them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from firmware_export.graph import Graph, Tensor
from firmware_export.operators import registry
from firmware_export.simulate import simulate

RANDOM_VECTORS = 2


@dataclass(frozen=True)
class Case:
    """One example: each vector holds one array per graph input, each answer one per graph output."""

    label: str
    graph: Graph
    vectors: tuple[tuple[np.ndarray, ...], ...]
    answers: tuple[tuple[np.ndarray, ...], ...]


@cache
def cases_of(operator: str, seed: int = 0) -> tuple[Case, ...]:
    """The examples of one operator under a seed, with their own inputs and random ones."""
    rng = np.random.default_rng([zlib.crc32(operator.encode()), seed])
    return tuple(
        _case(f"{operator} {example.label}", example.graph, example.inputs, rng)
        for example in registry()[operator].examples(rng)
    )


@cache
def all_cases() -> tuple[Case, ...]:
    """The examples of every operator."""
    return tuple(case for operator in registry() for case in cases_of(operator))


def _case(label: str, graph: Graph, given: tuple[np.ndarray, ...], rng: np.random.Generator) -> Case:
    tensors = [graph.tensors[index] for index in graph.inputs]
    vectors = [tuple(random_values(tensor, rng) for tensor in tensors) for _ in range(RANDOM_VECTORS)]
    if given:
        vectors.insert(0, given)
    return Case(label, graph, tuple(vectors), tuple(tuple(simulate(graph, *vector)) for vector in vectors))


def random_values(tensor: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Every byte alike; float32 around 0, a few of them far away."""
    if tensor.dtype == "float32":
        return (rng.normal(0, 3, tensor.shape) * 10.0 ** rng.integers(-1, 2, tensor.shape)).astype(np.float32)
    limits = np.iinfo(tensor.dtype)
    return rng.integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype)


def differences(case: Case, found: list[tuple[np.ndarray, ...]]) -> str:
    """What differs between found outputs and the simulator's, for an assertion's message; "" if nothing."""
    assert len(found) == len(case.answers)
    for vector, (outputs, expected) in enumerate(zip(found, case.answers, strict=True)):
        for place, (ours, theirs) in enumerate(zip(expected, outputs, strict=True)):
            count = int(np.count_nonzero(ours.reshape(-1) != theirs.reshape(-1)))
            if count:
                return f"{case.label}: vector {vector}, output {place}: {count} of {ours.size} values differ"
    return ""
