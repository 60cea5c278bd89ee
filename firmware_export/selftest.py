"""Known answers that the firmware checks itself with. They come from the tflite-micro wheel run on the .tflite twin, never
from this project's own arithmetic; the inputs are pseudo-random bytes that the firmware makes again from a seed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from firmware_export.graph import DTYPES, Array, Graph, GraphError, Tensor
from firmware_export.plan import Plan
from firmware_export.simulate import simulate
from recipes.artifacts import PipelineError

DEFAULT_SEED = 0x9E3779B9
ARENA_BYTES = 1 << 20
"""TFLite Micro's own needs beside the activations, with a wide margin."""


class MismatchError(PipelineError):
    """Two runtimes that must answer with the same bytes do not."""

    exit_code = 10


@dataclass(frozen=True)
class KnownAnswers:
    """For each vector the inputs and the expected outputs, one array for each of the graph's."""

    seed: int
    inputs: tuple[tuple[Array, ...], ...]
    outputs: tuple[tuple[Array, ...], ...]


def xorshift32(seed: int) -> Iterator[int]:
    """Marsaglia's xorshift generator with shifts 13, 17, 5 (Journal of Statistical Software 8/14, 2003); seed not 0."""
    state = seed
    while True:
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        yield state


def random_inputs(graph: Graph, count: int, seed: int = DEFAULT_SEED) -> tuple[tuple[Array, ...], ...]:
    """`count` vectors of inputs; every byte is the top byte of the generator's next state, vector after vector."""
    states = xorshift32(seed)
    tensors = [graph.tensors[index] for index in graph.inputs]
    return tuple(tuple(_random_array(tensor, states) for tensor in tensors) for _ in range(count))


def _random_array(tensor: Tensor, states: Iterator[int]) -> Array:
    dtype = DTYPES[tensor.dtype]
    data = bytes(next(states) >> 24 for _ in range(tensor.nbytes))
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(tensor.shape)


def known_answers(graph: Graph, twin: bytes, count: int, seed: int = DEFAULT_SEED) -> KnownAnswers:
    """Runs the twin in the tflite-micro wheel on `count` pseudo-random inputs.

    Raises:
        GraphError: TFLite Micro refuses the twin.
    """
    inputs = random_inputs(graph, count, seed)
    return KnownAnswers(seed, inputs, tuple(run_tflite_micro(graph, twin, inputs)))


def run_tflite_micro(graph: Graph, twin: bytes, inputs: tuple[tuple[Array, ...], ...]) -> list[tuple[Array, ...]]:
    """The outputs of the tflite-micro wheel for vectors of inputs. Raises GraphError if it refuses the twin."""
    from tflite_micro import runtime

    activations = sum(tensor.nbytes for tensor in graph.tensors if not tensor.is_constant)
    try:
        interpreter = runtime.Interpreter.from_bytes(twin, arena_size=2 * activations + ARENA_BYTES)
        answers = []
        for vector in inputs:
            for place, value in enumerate(vector):
                interpreter.set_input(value, place)
            interpreter.invoke()
            answers.append(tuple(np.array(interpreter.get_output(place)) for place in range(len(graph.outputs))))
    except (RuntimeError, ValueError) as error:
        raise GraphError(f"TFLite Micro refuses the .tflite twin: {error}; please report the model") from None
    return answers


def verify(graph: Graph, answers: KnownAnswers) -> None:
    """Raises MismatchError unless the simulator gives the known answers, byte for byte."""
    for place, (inputs, expected) in enumerate(zip(answers.inputs, answers.outputs, strict=True)):
        for output, (found, wanted) in enumerate(zip(simulate(graph, *inputs), expected, strict=True)):
            if found.tobytes() != wanted.tobytes():
                different = int(np.count_nonzero(found.reshape(-1) != wanted.reshape(-1)))
                raise MismatchError(
                    f"known answer {place}: {different} of {found.size} values of output {output} differ between the simulator "
                    "and TFLite Micro; nothing was exported; please report the model"
                )


def selftest_source(graph: Graph, plan: Plan, name: str, answers: KnownAnswers) -> str:
    """The C file <name>_selftest.c, which defines `nn_status <name>_selftest(void *activations)`."""
    tables = "\n".join(_table(f"{name}_answers_{place}", answers, place) for place in range(len(graph.outputs)))
    fills = "\n".join(_fill(plan.offsets[index], graph.tensors[index].nbytes) for index in graph.inputs)
    compares = "\n".join(
        _compare(f"{name}_answers_{place}", plan.offsets[index], graph.tensors[index].nbytes)
        for place, index in enumerate(graph.outputs)
    )
    return TEMPLATE.format(
        name=name, seed=f"0x{answers.seed:08X}", count=len(answers.inputs), tables=tables, fills=fills, compares=compares
    )


TEMPLATE = """\
/* Known answers of {name}: expected bytes from the tflite-micro wheel. Generated by firmware_export; do not edit. */
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

static uint32_t fill(uint8_t *bytes, uint32_t size, uint32_t state) {{
    for (uint32_t i = 0; i < size; i++) {{
        state = next_state(state);
        bytes[i] = (uint8_t)(state >> 24);
    }}
    return state;
}}

static int differs(const uint8_t *found, const uint8_t *expected, uint32_t size) {{
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


def _fill(offset: int, size: int) -> str:
    return f"        state = fill(bytes + {offset}u, {size}u, state);"


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
