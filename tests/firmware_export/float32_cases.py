"""Every operator's examples in the arithmetic float32, and LiteRT's default kernels (XNNPACK) as its oracle."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from example_cases import Case, all_cases, cases_of

from firmware_export.simulate import simulate

ACCUMULATING = ("conv2d", "depthwise_conv2d", "fully_connected", "transpose_conv", "batch_matmul")
"""Operators whose sums are requantized by the arithmetic's own rule."""


def in_float32(case: Case) -> Case:
    """The same example under the other arithmetic."""
    graph = case.graph.with_arithmetic("float32")
    return replace(case, graph=graph, answers=tuple(tuple(simulate(graph, *vector)) for vector in case.vectors))


@cache
def float32_cases_of(operator: str) -> tuple[Case, ...]:
    """The examples of one operator."""
    return tuple(in_float32(case) for case in cases_of(operator))


@cache
def changed_cases() -> tuple[Case, ...]:
    """The examples of every operator whose generated C differs between the arithmetics in more than its name."""
    kinds = (*ACCUMULATING, "add", "sub", "mul", "quantize", "relu", "leaky_relu", "logistic", "tanh", "resize_bilinear")
    return tuple(in_float32(case) for case in all_cases() if case.graph.nodes[0].op in kinds)


def litert_default(model: bytes, vectors: tuple[tuple[np.ndarray, ...], ...]) -> list[tuple[np.ndarray, ...]]:
    """The outputs of LiteRT as it is installed, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    results = []
    for vector in vectors:
        for detail, value in zip(interpreter.get_input_details(), vector, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        results.append(tuple(np.array(interpreter.get_tensor(d["index"])) for d in interpreter.get_output_details()))
    return results
