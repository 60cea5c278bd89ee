"""Every operator's examples: enough of them, the same every time, and the simulator equal to the outside oracles."""

from __future__ import annotations

import numpy as np
import pytest
from example_cases import Case, cases_of, differences

from firmware_export.check import check
from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import Constant, operator_of, registry
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

ARENA_BYTES = 400_000
NAMES = sorted(registry())
LITERT_REFERENCE = ("conv2d", "depthwise_conv2d", "add", "average_pool2d", "max_pool2d", "mean", "reshape", "relu")
"""Where LiteRT's BUILTIN_REF has the double rounding; fully connected rounds once there, softmax uses a float table."""
LITERT_REFERENCE += ("hard_swish", "leaky_relu", "sub", "mul", "minimum", "maximum", "prelu", "reduce_max")
LITERT_REFERENCE += (
    "transpose_conv",
    "batch_matmul",
    "quantize",
    "dequantize",
    "transpose",
    "strided_slice",
    "concatenation",
    "pack",
    "unpack",
    "split",
    "pad",
    "mirror_pad",
    "resize_nearest_neighbor",
    "resize_bilinear",
    "tile",
)
CONCATENATED = ("tile",)
"""TFLite Micro does not have them; their twins are concatenations."""
C_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32")


@pytest.mark.parametrize("name", NAMES)
def test_at_least_fifty_examples(name: str) -> None:
    examples = list(registry()[name].examples(np.random.default_rng(1)))
    assert len(examples) >= 50
    for example in examples:
        check(example.graph)
        assert example.label and example.graph.nodes[0].op == name


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name: str) -> None:
    def hashes(seed: int) -> list[str]:
        return [example.graph.hash() for example in registry()[name].examples(np.random.default_rng(seed))]

    assert hashes(5) == hashes(5)
    assert hashes(5) != hashes(6)


@pytest.mark.parametrize("name", NAMES)
def test_zero_points_at_both_ends(name: str) -> None:
    tensors = [case.graph.tensors[index] for case in cases_of(name) for index in case.graph.inputs]
    points = {tensor.zero_point for tensor in tensors if tensor.dtype == "int8"}
    assert {-128, 127} <= points


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_not_all_saturated(name: str) -> None:
    """Examples whose answers are one value could not show a mistake."""
    rich = [
        case
        for case in cases_of(name)
        if any(len(np.unique(outputs[0])) > min(3, outputs[0].size // 2) for outputs in case.answers)
    ]
    assert len(rich) > len(cases_of(name)) // 2


@pytest.mark.parametrize("name", NAMES)
def test_equals_tflite_micro(name: str) -> None:
    runtime = pytest.importorskip("tflite_micro", reason="the Python package tflite-micro is not installed").runtime
    for case in cases_of(name):
        interpreter = runtime.Interpreter.from_bytes(write_tflite(case.graph), arena_size=ARENA_BYTES)
        found = []
        for vector in case.vectors:
            interpreter.reset()
            for place, value in enumerate(vector):
                interpreter.set_input(value, place)
            interpreter.invoke()
            found.append(tuple(np.array(interpreter.get_output(place)) for place in range(len(case.graph.outputs))))
        assert differences(case, found) == ""


@pytest.mark.parametrize("name", LITERT_REFERENCE)
def test_equals_litert_reference(name: str) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="the Python package ai-edge-litert is not installed")
    for case in cases_of(name):
        interpreter = litert.Interpreter(
            model_content=write_tflite(case.graph), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
        details = interpreter.get_input_details()
        found = []
        for vector in case.vectors:
            for detail, value in zip(details, vector, strict=True):
                interpreter.set_tensor(detail["index"], value)
            interpreter.invoke()
            found.append(tuple(interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()))
        assert differences(case, found) == ""


def is_alone(case: Case) -> bool:
    """Whether the twin is this one operator, without a PAD or QUANTIZE beside or instead of it."""
    builtins = _builtins(case.graph)
    return len(builtins) == 1 and builtins[0] in operator_of(case.graph.nodes[0]).tflite


def _builtins(graph: Graph) -> list[str]:
    from firmware_export.write_tflite import TfliteWriter

    writer = TfliteWriter(graph)
    for node in graph.nodes:
        operator_of(node).write_tflite(graph, node, writer)
    return [operator.builtin for operator in writer._operators]


@pytest.mark.parametrize("name", sorted({*NAMES} - {*CONCATENATED}))
def test_reads_its_own_twin(name: str) -> None:
    """The file read again is the same model: same node, same answers."""
    read = 0
    for case in cases_of(name):
        if not is_alone(case):
            continue
        again = read_tflite_bytes(write_tflite(case.graph))
        read += 1
        node, other = case.graph.nodes[0], again.nodes[0]
        assert other.op == name
        assert {key: other.attributes[key] for key in node.attributes if key in other.attributes} == node.attributes
        assert differences(case, [tuple(simulate(again, *vector)) for vector in case.vectors]) == ""
    assert read >= 10


@pytest.mark.parametrize("name", NAMES)
def test_emitted_pieces_are_well_formed(name: str) -> None:
    for case in cases_of(name):
        code = operator_of(case.graph.nodes[0]).emit(case.graph, case.graph.nodes[0])
        assert code.function.startswith("nn_") and code.params_type.startswith("nn_")
        suffixes = [constant.suffix for constant in code.constants]
        assert len(set(suffixes)) == len(suffixes)
        for constant in code.constants:
            assert isinstance(constant, Constant) and str(constant.data.dtype) in C_TYPES
            assert f"{{{constant.suffix}}}" in code.fields.values()
        assert code.scratch_bytes >= 0 and code.sources[0].endswith(".c")


def tensor(shape: tuple[int, ...], dtype: str = "int8", data: np.ndarray | None = None, axis: int | None = None) -> Tensor:
    count = 1 if axis is None else shape[axis]
    quantization = Quantization(np.full(count, 0.1, np.float32), np.zeros(count, np.int64), axis)
    return Tensor("t", shape, dtype, quantization, data)


def test_macs_of_a_convolution() -> None:
    """3x3x5 products for each of 4x4x6 outputs, counted by hand."""
    weights = tensor((6, 3, 3, 5), data=np.ones((6, 3, 3, 5), np.int8), axis=0)
    attributes = {"stride": (2, 2), "dilation": (1, 1), "padding": (0, 1, 0, 1), "clamp": (-128, 127)}
    graph = Graph([tensor((1, 8, 8, 5)), weights, tensor((1, 4, 4, 6))], [Node("conv2d", (0, 1), (2,), attributes)], (0,), (2,))
    assert operator_of(graph.nodes[0]).macs(graph, graph.nodes[0]) == 3 * 3 * 5 * 4 * 4 * 6 == 4320


def test_macs_of_a_depthwise_convolution() -> None:
    weights = tensor((1, 3, 3, 10), data=np.ones((1, 3, 3, 10), np.int8), axis=3)
    attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1), "clamp": (-128, 127)}
    node = Node("depthwise_conv2d", (0, 1), (2,), attributes)
    graph = Graph([tensor((1, 8, 8, 5)), weights, tensor((1, 8, 8, 10))], [node], (0,), (2,))
    assert operator_of(node).macs(graph, node) == 3 * 3 * 8 * 8 * 10


def test_macs_of_a_fully_connected_layer() -> None:
    weights = tensor((7, 12), data=np.ones((7, 12), np.int8))
    node = Node("fully_connected", (0, 1), (2,), {"clamp": (-128, 127)})
    graph = Graph([tensor((1, 3, 12)), weights, tensor((3, 7))], [node], (0,), (2,))
    assert operator_of(node).macs(graph, node) == 3 * 12 * 7


def test_only_accumulating_operators_have_macs() -> None:
    for name in set(NAMES) - {"conv2d", "depthwise_conv2d", "fully_connected", "transpose_conv", "batch_matmul", "lstm"}:
        graph = cases_of(name)[0].graph
        assert operator_of(graph.nodes[0]).macs(graph, graph.nodes[0]) == 0


def hand_convolution(x: np.ndarray, w: np.ndarray, zero_point: int) -> np.ndarray:
    """3x3 sums, padding 1, stride 1, written as loops: [h, w, c] and [o, 3, 3, c] -> int [h, w, o]."""
    height, width, _ = x.shape
    sums = np.zeros((height, width, len(w)), np.int64)
    for row, column, o, i, j in np.ndindex(height, width, len(w), 3, 3):
        y, z = row + i - 1, column + j - 1
        if 0 <= y < height and 0 <= z < width:
            sums[row, column, o] += int(np.dot(x[y, z].astype(int) - zero_point, w[o, i, j].astype(int)))
    return sums


def test_convolution_sums_by_hand() -> None:
    """With the factor 1/2 only the first of the two roundings acts: halves go up."""
    rng = np.random.default_rng(4)
    x, w = rng.integers(-8, 8, (4, 5, 2)).astype(np.int8), rng.integers(-3, 4, (3, 3, 3, 2)).astype(np.int8)
    one = Quantization.per_tensor(1.0, 2)
    weights = Tensor("w", w.shape, "int8", Quantization.per_tensor(1.0, 0), w)
    y = Tensor("y", (1, 4, 5, 3), "int8", Quantization.per_tensor(2.0, 0))
    attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1), "clamp": (-128, 127)}
    graph = Graph([Tensor("x", (1, 4, 5, 2), "int8", one), weights, y], [Node("conv2d", (0, 1), (2,), attributes)], (0,), (2,))
    expected = np.floor(hand_convolution(x, w, 2) / 2 + 0.5)
    assert np.array_equal(simulate(graph, x[np.newaxis])[0][0], np.clip(expected, -128, 127).astype(np.int8))


def test_average_rounds_half_away_from_zero() -> None:
    q = Quantization.per_tensor(1.0, 0)
    attributes = {"kernel": (1, 2), "stride": (1, 2), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    graph = Graph(
        [Tensor("x", (1, 1, 6, 1), "int8", q), Tensor("y", (1, 1, 3, 1), "int8", q)],
        [Node("average_pool2d", (0,), (1,), attributes)],
        (0,),
        (1,),
    )
    found = simulate(graph, np.array([1, 2, -1, -2, -3, 4], np.int8).reshape(1, 1, 6, 1))[0]
    assert found.reshape(-1).tolist() == [2, -2, 1]


def test_softmax_sums_to_about_one() -> None:
    for case in cases_of("softmax"):
        for (shares,) in case.answers:
            rows = (shares.reshape(-1, shares.shape[-1]).astype(int) + 128).sum(1)
            assert np.all(np.abs(rows - 256) <= shares.shape[-1] // 2 + 1)
