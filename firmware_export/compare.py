"""The same inputs through everything that must answer with the same bytes: the generated C, compiled for this computer, the
simulator, and an outside oracle, TensorFlow Lite Micro, on the model as it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from firmware_export.exposed import exposed
from firmware_export.graph import Array, Graph, GraphError
from firmware_export.hostlib import HostNetwork
from firmware_export.inputs import ModelInputs
from firmware_export.model_file import shown
from firmware_export.oracle import oracle_name, run_oracle
from firmware_export.selftest import MismatchError
from firmware_export.simulate import simulate, simulate_trace

BATCH = 20
"""Inputs between two reports of progress; the oracle is started anew for each."""
COMPILED, SIMULATOR = "the compiled C", "the simulator"


@dataclass(frozen=True)
class Oracle:
    """Whom the simulator is compared with. name: for sentences. model: the .tflite file that it runs."""

    name: str
    model: bytes


@dataclass(frozen=True)
class Comparison:
    """What was compared: every output byte of `inputs` inputs, between three.

    correct: how often the largest value of the first output is the label's; None without labels, or where there is only one.
    """

    inputs: int
    bytes_compared: int
    oracle: str
    correct: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def accuracy_text(self) -> str:
        """For people: ", accuracy 90.1 % (901 of 1,000)", or nothing."""
        if self.correct is None:
            return ""
        return f", accuracy {100 * self.correct / self.inputs:.1f} % ({self.correct:,} of {self.inputs:,})"


def choose_oracle(graph: Graph, original: bytes | None, twin: bytes, inputs: ModelInputs) -> tuple[Oracle, str]:
    """TFLite Micro on the file as it was given, where there is one that it runs; else on the .tflite twin.

    Args:
        original: the .tflite file; None for an .onnx file.
    Returns:
        The oracle, and why it is not the original, or "".
    """
    name = oracle_name(graph)
    if original is None:
        return Oracle(f"{name} on the .tflite twin", twin), ""
    try:
        run_oracle(graph, original, (inputs.vector(0),))
    except GraphError:
        return Oracle(f"{name} on the .tflite twin", twin), f"{name} does not run the file as it is"
    return Oracle(f"{name} on the original file", original), ""


@dataclass(frozen=True)
class Sides:
    """The three that must agree. graph: what the simulator runs and `network` was generated from."""

    graph: Graph
    network: HostNetwork
    oracle: Oracle


def compare(sides: Sides, inputs: ModelInputs, advance: Callable[[int], None] = lambda done: None) -> Comparison:
    """Runs every input through all three and compares every output byte.

    Args:
        advance: called with the number of inputs that have become ready.
    Raises:
        MismatchError: some byte differs; names the input, both sides and the first layer that differs.
        GraphError: the oracle refuses the model.
    """
    compared, answers = 0, []
    for batch in _batches(len(inputs)):
        vectors = tuple(inputs.vector(place) for place in batch)
        compiled = _compiled(sides.network, inputs, batch)
        expected = run_oracle(sides.graph, sides.oracle.model, vectors)
        for row, vector in enumerate(vectors):
            simulated = simulate(sides.graph, *vector)
            _check(sides, batch[row], vector, simulated, ([output[row] for output in compiled], expected[row]))
            compared += sum(output.nbytes for output in simulated)
            answers.append(np.argmax(simulated[0].reshape(-1)))
        advance(len(batch))
    classes = sides.graph.tensors[sides.graph.outputs[0]].elements
    known = inputs.labels is not None and classes > 1
    correct = int(np.count_nonzero(np.array(answers) == inputs.labels)) if known else None
    return Comparison(len(inputs), compared, sides.oracle.name, correct)


def _batches(count: int) -> Iterator[range]:
    return (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _compiled(network: HostNetwork, inputs: ModelInputs, batch: range) -> list[Array]:
    chosen = [array[batch.start : batch.stop] for array in inputs.arrays]
    return network.run(*(a.reshape(len(a), *edge.batch_shape) for a, edge in zip(chosen, network.inputs, strict=True)))


def _check(
    sides: Sides,
    place: int,
    vector: tuple[Array, ...],
    simulated: Sequence[Array],
    others: tuple[Sequence[Array], Sequence[Array]],
) -> None:
    """Raises MismatchError unless the simulator, the compiled C and the oracle answer input `place` with the same bytes."""
    for output, (one, two, three) in enumerate(zip(simulated, *others, strict=True)):
        if one.tobytes() != two.tobytes():
            where = _layer_of_compiled(sides, vector)
            raise MismatchError(_sentence(place, output, (one, two), (COMPILED, SIMULATOR), where))
        if one.tobytes() != three.tobytes():
            where = _layer_of_oracle(sides, vector)
            raise MismatchError(_sentence(place, output, (three, one), (SIMULATOR, sides.oracle.name), where))


def _sentence(place: int, output: int, answers: tuple[Array, Array], names: tuple[str, str], where: str) -> str:
    one, other = (np.frombuffer(answer.tobytes(), np.uint8) for answer in answers)
    return (
        f"input {place}: {np.count_nonzero(one != other):,} of {one.size:,} bytes of output {output} differ between "
        f"{names[0]} and {names[1]}; {where}; please report the model"
    )


def _layer_of_compiled(sides: Sides, vector: tuple[Array, ...]) -> str:
    """Names the first layer in which the compiled C leaves the simulator."""
    graph = sides.graph
    traces = zip(simulate_trace(graph, *vector), sides.network.trace(*vector), strict=True)
    for place, (wanted, found) in enumerate(traces):
        for one, two in zip(wanted, found, strict=True):
            if one.tobytes() != two.tobytes():
                return _layer_text(graph, place, one, np.frombuffer(two.tobytes(), one.dtype))
    return "no layer differs when it is traced"


def _layer_of_oracle(sides: Sides, vector: tuple[Array, ...]) -> str:
    """Names the first layer in which the simulator leaves the oracle."""
    graph = sides.graph
    shown_graph, shown_model = exposed(graph, sides.oracle.model)
    try:
        (expected,) = run_oracle(shown_graph, shown_model, (vector,))
    except GraphError:
        return "the oracle does not show its layers"
    found = simulate(shown_graph, *vector)
    for index, one, two in zip(shown_graph.outputs, expected, found, strict=True):
        if one.tobytes() != two.tobytes():
            place = next(place for place, node in enumerate(graph.nodes) if index in node.outputs)
            hidden = sum(len(node.outputs) for node in graph.nodes[:place]) - shown_graph.outputs.index(index)
            before = f" (of those before it {hidden} are not shown)" if hidden else ""
            return _layer_text(graph, place, one, two) + before
    return "no layer differs when all are shown"


def _layer_text(graph: Graph, place: int, expected: Array, found: Array) -> str:
    node = graph.nodes[place]
    flat = np.flatnonzero(expected.reshape(-1) != found.reshape(-1))
    name = shown(graph.tensors[node.outputs[0]].name)
    element = "" if flat.size == 0 else _element_text(expected, found, int(flat[0]))
    return f"the first layer that differs is {place} ({node.op} '{name}'){element}"


def _element_text(expected: Array, found: Array, first: int) -> str:
    at = ", ".join(str(int(i)) for i in np.unravel_index(first, expected.shape))
    return f", element [{at}] of {expected.shape} is {found.reshape(-1)[first]}, expected {expected.reshape(-1)[first]}"
