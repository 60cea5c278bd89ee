"""LSTM over a sequence, int8 with an int16 cell state (UNIDIRECTIONAL_SEQUENCE_LSTM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import ABSENT, Array, Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators._accumulator import folded_bias
from firmware_export.operators._checks import check_counts, int8_input, int8_output
from firmware_export.operators._lstm_cell import GATES, CellState, gates_of, sigmoid_table
from firmware_export.operators._lstm_examples import lstm_examples

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

INPUTS = 24
"""Of the TFLite operator: x, 4 + 4 weights, 3 peephole weights, 4 biases, 2 of the projection, 2 states, 4 of the norm."""
HIDDEN_STATE, CELL_STATE = 18, 19
PEEPHOLE, PROJECTION, LAYER_NORM = (9, 10, 11), (16, 17), (20, 21, 22, 23)
KEPT = (0, *range(1, 9), *range(12, 16))
"""Places of the TFLite inputs that are the node's inputs."""
VERSION = 3
NO_BYTES = (0,)
"""The shape of intermediate tensors, which only tell a scale."""


class Lstm(Operator):
    """i, f, o = logistic(W x + b + R h), g = tanh(W x + b + R h), c = f c + i g, y = h = o tanh(c), steps start at c = h = 0.

    Inputs: x int8 [1, steps, inputs], or with time_major [steps, 1, inputs]; weights int8 of the gates i, f, g, o [units,
        inputs], then their recurrent weights [units, units], symmetric, one scale each; their biases int32 [units].
    Attributes: time_major 0 or 1; cell_exponent: the cell state is int16 of the scale 2^cell_exponent; cell_clip: the
        largest stored size of the cell state, 0: no bound.
    Output: int8 [1, steps, units], or [steps, 1, units]: h of every step, stored as h is.

    Every inference starts with c = 0 and h = 0: the board keeps no state, as an interpreter after reset(). The sums become
    int16 in steps of 2^-12 (double rounding, in every arithmetic); logistic and tanh are TFLite Micro's table of 256
    entries with linear interpolation. LiteRT's kernel computes the same formula with other roundings.
    """

    name = "lstm"
    tflite = ("UNIDIRECTIONAL_SEQUENCE_LSTM",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (len(KEPT),))
        x, y = int8_input(graph, node), int8_output(graph, node)
        time_major = node.attributes.get("time_major")
        if time_major not in (0, 1) or len(x.shape) != 3 or x.shape[1 if time_major else 0] != 1:
            raise GraphError(f"a sequence of {x.shape}, time_major {time_major}; supported: one sequence, [1, steps, inputs]")
        gates = gates_of(graph, node)
        CellState.of(node, y)
        return [OutputSpec((*x.shape[:2], gates[0].units), "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x, y, gates = int8_input(graph, node), int8_output(graph, node), gates_of(graph, node)
        sequence, state = inputs[0], CellState.of(node, y)
        assert sequence is not None
        steps = sequence.reshape(-1, x.shape[2]).astype(np.int64) - x.zero_point
        cell = hidden = np.zeros(gates[0].units, np.int64)
        outputs = []
        for step in steps:
            cell, stored = state.step(cell, [gate.sums(step, hidden) for gate in gates])
            hidden = stored - y.zero_point
            outputs.append(stored)
        return [np.array(outputs, np.int8).reshape(self.infer(graph, node)[0].shape)]

    def macs(self, graph: Graph, node: Node) -> int:
        x, units = int8_input(graph, node), gates_of(graph, node)[0].units
        return x.shape[0] * x.shape[1] * GATES * units * (x.shape[2] + units)

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, y, gates = int8_input(graph, node), int8_output(graph, node), gates_of(graph, node)
        units, steps = gates[0].units, x.shape[0] * x.shape[1]
        constants = [Constant("sigmoid", sigmoid_table().astype(np.uint16))]
        fields = CellState.of(node, y).fields() | {"sigmoid": "{sigmoid}", "steps": str(steps), "units": str(units)}
        for side, zero_point, depth in (("input", x.zero_point, x.shape[2]), ("recurrent", y.zero_point, units)):
            matrices = [gate.matrix(side) for gate in gates]
            biases = [gate.bias if side == "input" else None for gate in gates]
            folded = [
                folded_bias(bias, matrix.astype(np.int64).sum(1), zero_point)
                for bias, matrix in zip(biases, matrices, strict=True)
            ]
            # unit after unit, the four gates of each side by side
            constants.append(Constant(f"{side}_weights", np.stack(matrices, axis=1)))
            constants.append(Constant(f"{side}_bias", np.stack(folded, axis=1)))
            fields |= {
                f"{side}.weights": f"{{{side}_weights}}",
                f"{side}.bias": f"{{{side}_bias}}",
                f"{side}.depth": str(depth),
            }
            factors = [gate.factor(side) for gate in gates]
            fields[f"{side}.multipliers"] = f"{{{', '.join(str(multiplier) for multiplier, _ in factors)}}}"
            fields[f"{side}.shifts"] = f"{{{', '.join(str(shift) for _, shift in factors)}}}"
        return LayerCode(
            function="nn_lstm",
            params_type="nn_lstm_params",
            fields=fields,
            constants=tuple(constants),
            sources=("lstm.c",),
            scratch_bytes=2 * units,
            summary=f"{steps} steps, {x.shape[2]} -> {units}",
        )

    def litert_default(self, graph: Graph, node: Node) -> bool:
        return False

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        return lstm_examples(rng)

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.UnidirectionalSequenceLSTMOptionsT)
        if len(op.inputs) not in (20, INPUTS):
            raise GraphError(f"{len(op.inputs)} inputs; expected {INPUTS}")
        _refuse_variants(op, options)
        cell, hidden, y = op.input(CELL_STATE), op.input(HIDDEN_STATE), op.output()
        if cell.dtype != "int16" or cell.quantization is None or cell.zero_point != 0:
            raise GraphError(
                f"cell state '{cell.name}' is {cell.dtype}; supported: int16 with one scale and zero point 0 (8x8->16)"
            )
        if cell.is_constant or hidden.is_constant:
            raise GraphError("a state has stored values; supported: states that start at 0")
        if hidden.dtype != "int8" or hidden.quantization != y.quantization:
            raise GraphError(f"hidden state '{hidden.name}' and output '{y.name}' are stored differently; supported: alike")
        attributes: dict[str, Attribute] = {
            "time_major": int(bool(options.timeMajor)),
            "cell_exponent": _exponent(cell),
            "cell_clip": _clip(float(options.cellClip), cell),
        }
        return Node(self.name, tuple(op.inputs[place] for place in KEPT), op.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """The states are variable tensors; the intermediate tensors are there for LiteRT, which asks for them."""
        state, y, units = CellState.of(node, int8_output(graph, node)), int8_output(graph, node), gates_of(graph, node)[0].units
        inputs = [ABSENT] * INPUTS
        for place, index in zip(KEPT, node.inputs, strict=True):
            inputs[place] = index
        cell = Quantization.per_tensor(2.0**state.exponent, 0)
        inputs[HIDDEN_STATE] = writer.add_variable(f"{y.name}/hidden", (1, units), "int8", y.quantization)
        inputs[CELL_STATE] = writer.add_variable(f"{y.name}/cell", (1, units), "int16", cell)
        options = schema.UnidirectionalSequenceLSTMOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.TANH
        options.timeMajor = bool(node.integer("time_major"))
        options.cellClip = state.clip * 2.0**state.exponent
        sums = Quantization.per_tensor(2.0**-12, 0)
        between = [writer.add_activation(f"{y.name}/gate {gate}", NO_BYTES, "int16", sums) for gate in range(GATES)]
        between.append(writer.add_activation(f"{y.name}/hidden sums", NO_BYTES, "int8", y.quantization))
        writer.add("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, node.outputs, options, VERSION, between)


def _refuse_variants(op: TfliteOperator, options: object) -> None:
    """Every variant that the kernel does not have, by its name."""
    there = [place < len(op.inputs) and op.inputs[place] != ABSENT for place in range(INPUTS)]
    if not there[1] or not there[5]:
        raise GraphError("an LSTM with coupled input and forget gates (CIFG); supported: all four gates, as Keras makes it")
    if any(there[place] for place in PEEPHOLE):
        raise GraphError("an LSTM with peephole weights; supported: without, as Keras makes it")
    if any(there[place] for place in PROJECTION):
        raise GraphError("an LSTM with a projection; supported: without (put a dense layer behind it)")
    if any(there[place] for place in LAYER_NORM):
        raise GraphError("an LSTM with layer normalization inside; supported: without")
    if getattr(options, "diagonalRecurrentTensors", False):
        raise GraphError("an LSTM with diagonal recurrent weights; supported: full matrices")
    activation = getattr(options, "fusedActivationFunction", None)
    if activation != schema.ActivationFunctionType.TANH:
        raise GraphError(f"an LSTM with activation {activation}; supported: {schema.ActivationFunctionType.TANH} (TANH)")


def _exponent(cell: Tensor) -> int:
    """log2 of the cell state's scale. Raises GraphError if that is no integer."""
    fraction, exponent = np.frexp(cell.scale)
    if fraction != 0.5:
        raise GraphError(f"cell state '{cell.name}' has the scale {cell.scale:g}; supported: powers of two")
    return int(exponent) - 1


def _clip(real: float, cell: Tensor) -> int:
    """The bound of the cell state as a stored value; 0: none."""
    if not real >= 0 or 0 < real < cell.scale:
        raise GraphError(f"cell clip {real:g} at the scale {cell.scale:g}; supported: 0 (none) and bounds of a step or more")
    return int(min(real / cell.scale, 32767.0))


OPERATOR = Lstm()
