"""Known answers that the firmware checks itself with. They come from an outside runtime on the .tflite twin (oracle.py), never
from this project's own arithmetic; the inputs are pseudo-random bytes that the firmware makes again from a seed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from firmware_export.c_text import c_float
from firmware_export.graph import DTYPES, Array, Graph
from firmware_export.oracle import oracle_name, run_oracle
from firmware_export.plan import Plan
from firmware_export.simulate import simulate
from recipes.artifacts import PipelineError

DEFAULT_SEED = 0x9E3779B9
FLOAT_RESOLUTION = 64
"""Random float inputs have about so many values for each step of what they are quantized to."""


class MismatchError(PipelineError):
    """Two runtimes that must answer with the same bytes do not."""

    exit_code = 10


@dataclass(frozen=True)
class KnownAnswers:
    """For each vector the inputs and the expected outputs, one array for each of the graph's."""

    seed: int
    inputs: tuple[tuple[Array, ...], ...]
    outputs: tuple[tuple[Array, ...], ...]
    source: str = "TFLite Micro"
    """Who gave them, for sentences."""


def xorshift32(seed: int) -> Iterator[int]:
    """Marsaglia's xorshift generator with shifts 13, 17, 5 (Journal of Statistical Software 8/14, 2003); seed not 0."""
    state = seed
    while True:
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        yield state


def random_inputs(graph: Graph, count: int, seed: int = DEFAULT_SEED) -> tuple[tuple[Array, ...], ...]:
    """`count` vectors of inputs, vector after vector from the generator's next states.

    Every byte of an integer is the top byte of a state; a float32 is the top 16 bits, signed, times `float_step`.
    """
    states = xorshift32(seed)
    return tuple(tuple(_random_array(graph, index, states) for index in graph.inputs) for _ in range(count))


def float_step(graph: Graph, index: int) -> float:
    """A power of two at which signed 16-bit numbers cover what a float32 input is quantized to, and something beyond."""
    readers = [node for node in graph.nodes if index in node.inputs and node.op == "quantize"]
    scale = graph.tensors[readers[0].outputs[0]].scale if readers else 1 / FLOAT_RESOLUTION
    return float(np.float32(2.0) ** max(-100, math.floor(math.log2(scale / FLOAT_RESOLUTION))))


def _random_array(graph: Graph, index: int, states: Iterator[int]) -> Array:
    tensor = graph.tensors[index]
    dtype = DTYPES[tensor.dtype]
    if tensor.dtype == "float32":
        halves = np.array([next(states) >> 16 for _ in range(tensor.elements)], np.uint16).astype(np.int16)
        return (halves.astype(np.float32) * np.float32(float_step(graph, index))).reshape(tensor.shape)
    data = bytes(next(states) >> 24 for _ in range(tensor.nbytes))
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(tensor.shape)


def known_answers(graph: Graph, twin: bytes, count: int, seed: int = DEFAULT_SEED) -> KnownAnswers:
    """Runs the twin in the oracle of the graph's arithmetic on `count` pseudo-random inputs.

    Raises:
        GraphError: the oracle refuses the twin.
    """
    inputs = random_inputs(graph, count, seed)
    return KnownAnswers(seed, inputs, tuple(run_oracle(graph, twin, inputs)), oracle_name(graph))


def verify(graph: Graph, answers: KnownAnswers) -> None:
    """Raises MismatchError unless the simulator gives the known answers, byte for byte."""
    for place, (inputs, expected) in enumerate(zip(answers.inputs, answers.outputs, strict=True)):
        for output, (found, wanted) in enumerate(zip(simulate(graph, *inputs), expected, strict=True)):
            if found.tobytes() != wanted.tobytes():
                different = int(np.count_nonzero(found.reshape(-1) != wanted.reshape(-1)))
                raise MismatchError(
                    f"known answer {place}: {different} of {found.size} values of output {output} differ between the simulator "
                    f"and {answers.source}; nothing was exported; please report the model"
                )


def selftest_source(graph: Graph, plan: Plan, name: str, answers: KnownAnswers) -> str:
    """The C file <name>_selftest.c, which defines `nn_status <name>_selftest(void *activations)`."""
    tables = "\n".join(_table(f"{name}_answers_{place}", answers, place) for place in range(len(graph.outputs)))
    fills = "\n".join(_fill(graph, index, plan.offsets[index]) for index in graph.inputs)
    dtypes = {graph.tensors[index].dtype for index in graph.inputs}
    fillers = (FILL_BYTES if dtypes != {"float32"} else "") + (FILL_FLOATS if "float32" in dtypes else "")
    compares = "\n".join(
        _compare(f"{name}_answers_{place}", plan.offsets[index], graph.tensors[index].nbytes)
        for place, index in enumerate(graph.outputs)
    )
    return TEMPLATE.format(
        name=name, source=answers.source, seed=f"0x{answers.seed:08X}", count=len(answers.inputs), tables=tables,
        fillers=fillers, fills=fills, compares=compares,
    )  # fmt: skip


TEMPLATE = """\
/* Known answers of {name}: expected bytes from {source}. Generated by firmware_export; do not edit. */
#include "{name}.h"

#include <stddef.h>
#include <stdint.h>

#define VECTORS {count}u

{tables}

/* Marsaglia's xorshift32; the expected bytes belong to exactly this sequence. */
static uint32_t next_state(uint32_t state) {{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}}

{fillers}static int differs(const uint8_t *found, const uint8_t *expected, uint32_t size) {{
    for (uint32_t i = 0; i < size; i++) {{
        if (found[i] != expected[i]) {{
            return 1;
        }}
    }}
    return 0;
}}

nn_status {name}_selftest(void *activations) {{
    uint8_t *bytes = (uint8_t *)activations;
    uint32_t state = {seed}u;
    if (activations == NULL) {{
        return NN_ERROR_NULL;
    }}
    if (((uintptr_t)activations & (NN_ALIGNMENT - 1u)) != 0u) {{
        return NN_ERROR_ALIGNMENT;
    }}
    for (uint32_t vector = 0; vector < VECTORS; vector++) {{
        nn_status status;
{fills}
        status = {name}_run(activations);
        if (status != NN_OK) {{
            return status;
        }}
{compares}
    }}
    return NN_OK;
}}
"""


FILL_BYTES = """\
static uint32_t fill(uint8_t *bytes, uint32_t size, uint32_t state) {
    for (uint32_t i = 0; i < size; i++) {
        state = next_state(state);
        bytes[i] = (uint8_t)(state >> 24);
    }
    return state;
}

"""
FILL_FLOATS = """\
static uint32_t fill_floats(void *values, uint32_t count, float step, uint32_t state) {
    float *next = values;
    for (uint32_t i = 0; i < count; i++) {
        state = next_state(state);
        next[i] = (float)(int16_t)(state >> 16) * step;
    }
    return state;
}

"""


def _fill(graph: Graph, index: int, offset: int) -> str:
    tensor = graph.tensors[index]
    if tensor.dtype == "float32":
        return (
            f"        state = fill_floats(bytes + {offset}u, {tensor.elements}u, {c_float(float_step(graph, index))}, state);"
        )
    return f"        state = fill(bytes + {offset}u, {tensor.nbytes}u, state);"


def _compare(table: str, offset: int, size: int) -> str:
    return (
        f"        if (differs(bytes + {offset}u, {table}[vector], {size}u)) {{\n"
        "            return NN_ERROR_SELFTEST;\n"
        "        }"
    )


def _table(identifier: str, answers: KnownAnswers, output: int) -> str:
    rows = [vector[output].astype(vector[output].dtype.newbyteorder("<")).tobytes() for vector in answers.outputs]
    lines = [f"static const uint8_t {identifier}[VECTORS][{len(rows[0])}] = {{"]
    for row in rows:
        lines.append("    {")
        lines += textwrap.wrap(", ".join(map(str, row)), 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
        lines.append("    },")
    return "\n".join([*lines, "};"])
