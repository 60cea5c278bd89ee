"""Products of matrices that are both int8 with any zero point (BATCH_MATMUL, MatMul of computed tensors)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._broadcast import broadcast_shape, collapsed_axes
from firmware_export.operators._checks import check_counts, int8_operand, int8_output, shape_text

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

Shape = tuple[int, ...]
MIN_RANK, MAX_RANK = 2, 5
"""Dimensions that TFLite's kernel takes."""
ONNX_FROM_NHWC, NHWC_FROM_ONNX = (0, 3, 1, 2), (0, 2, 3, 1)


class BatchMatmul(Operator):
    """y[..., m, n] = requantize(sum over k of (a[..., m, k] - zero point of a) * (b[..., k, n] - zero point of b)).

    Inputs: a, b int8 of 2 to 5 dimensions, one scale each, at most one of them a constant. The dimensions before the last
        two broadcast as in numpy.
    Attributes: adj_x, adj_y: 1 where a is stored [..., k, m], b [..., n, k]; clamp: (-128, 127), TFLite has no other here.
    Output: int8 [..., m, n].
    In float32: the arithmetic's rule where b has the zero point 0, which XNNPACK, LiteRT's default, needs; else that of double.
    """

    name = "batch_matmul"
    tflite = ("BATCH_MATMUL",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (2,))
        if node.attributes.get("clamp") != make.NO_CLAMP:
            raise GraphError(f"clamp is {node.attributes.get('clamp')}; supported: {make.NO_CLAMP}")
        layout = _layout(graph, node)
        int8_output(graph, node)
        _stage(graph, node)
        return [OutputSpec((*layout.batches, layout.rows, layout.columns), "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        factors = []
        for place, key in enumerate(("adj_x", "adj_y")):
            values = inputs[place]
            assert values is not None
            # float64 holds every sum exactly
            centred = values.astype(np.float64) - int8_operand(graph, node, place).zero_point
            factors.append(centred.swapaxes(-1, -2) if node.integer(key) else centred)
        sums = np.matmul(*factors).astype(np.int64)
        return [_stage(graph, node).apply(sums[..., np.newaxis])[..., 0]]

    def macs(self, graph: Graph, node: Node) -> int:
        layout = _layout(graph, node)
        return math.prod(layout.batches) * layout.rows * layout.columns * layout.depth

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        tensors, stage = [int8_operand(graph, node, place) for place in range(2)], _stage(graph, node)
        fields = _fields(graph, node) | stage.fields("stage")
        constants = stage.constants()
        for place, tensor in enumerate(tensors):
            if tensor.data is not None:
                constants = (Constant("constant", tensor.data), *constants)
                fields |= {"constant": "{constant}", "place": str(place)}
        return LayerCode(
            function="nn_batch_matmul_constant" if "constant" in fields else "nn_batch_matmul",
            params_type="nn_batch_matmul_params",
            fields=fields,
            constants=constants,
            sources=("batch_matmul.c",),
            summary=" times ".join(
                f"{'constant ' * t.is_constant}{shape_text(t)}{' transposed' * node.integer(key)}"
                for t, key in zip(tensors, ("adj_x", "adj_y"), strict=True)
            ),
        )

    def litert_default(self, graph: Graph, node: Node) -> bool:
        return _stage(graph.with_arithmetic("float32"), node).scale is not None

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for label, a, b, constant in SHAPES:
            yield _example(rng, label, a, b, constant=constant)
        for adj in ((1, 0), (0, 1), (1, 1)):
            yield _example(rng, f"adj {adj}", (2, 4, 5), (2, 5, 3), adj)
            yield _example(rng, f"adj {adj}, broadcast", (2, 4, 5), (5, 6), adj)
        for points in ((-128, -128), (127, 127), (-128, 127), (127, -128), (0, 0)):
            yield _example(rng, f"zero points {points}", (1, 4, 9), (1, 9, 5), points=points)
        for spread, text in ((4000.0, "saturation"), (0.3, "all outputs near zero"), (1e-7, "factor below 2^-32")):
            yield _example(rng, text, (1, 4, 9), (1, 9, 5), spread=spread)
        yield _example(rng, "factor above 1", (1, 3, 1), (1, 1, 4), points=(0, 0), spread=2e4)
        for constant in (0, 1):
            for adj in ((0, 0), (1, 1)):
                yield _example(rng, f"input {constant} is a constant, adj {adj}", (2, 3, 7), (7, 4), adj, constant=constant)
        for index in range(30):
            yield _random_example(rng, index)

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.BatchMatMulOptionsT)
        attributes: dict[str, Attribute] = {"adj_x": int(bool(options.adjX)), "adj_y": int(bool(options.adjY))}
        return Node(self.name, op.inputs, op.outputs, attributes | {"clamp": make.NO_CLAMP})

    def read_onnx(self, match: OnnxMatch) -> Node:
        """MatMul that is no fully connected layer; fully_connected passes it on.

        Images stand in our order of axes, matrices in the file's, so images are transposed before and the result back; a
        clamp is a relu of its own.
        """
        if len(match.inputs) != 2:
            raise GraphError(f"{match.op_type} with {len(match.inputs)} inputs and two computed factors; supported: MatMul")
        inputs = tuple(_in_onnx_order(match, place) for place in range(2))
        attributes: dict[str, Attribute] = {"adj_x": 0, "adj_y": 0, "clamp": make.NO_CLAMP}
        product = Node(self.name, inputs, match.outputs, attributes)
        shape = self.infer(match.graph, product)[0].shape
        clamp = match.int8_clamp()
        last: list[tuple[str, dict[str, Attribute]]] = [("relu", {"clamp": clamp})] if clamp != make.NO_CLAMP else []
        if len(shape) == 4:
            last.insert(0, ("transpose", {"perm": NHWC_FROM_ONNX}))
        node = product
        for op, values in last:
            index = _add(match, replace(match.output(), name=f"{match.output().name}/{node.op}", shape=shape))
            match.graph.nodes.append(replace(node, outputs=(index,)))
            shape = tuple(shape[axis] for axis in NHWC_FROM_ONNX) if op == "transpose" else shape
            node = Node(op, (index,), match.outputs, values)
        return node

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.BatchMatMulOptionsT()
        options.adjX, options.adjY = bool(node.integer("adj_x")), bool(node.integer("adj_y"))
        writer.add("BATCH_MATMUL", node.inputs, node.outputs, options, 2)


@dataclass(frozen=True)
class _Layout:
    """Sizes of a product; axes: of the batches, outermost first: (size, matrices from one to the next in a, in b)."""

    batches: Shape
    rows: int
    columns: int
    depth: int
    axes: tuple[tuple[int, int, int], ...]


def _layout(graph: Graph, node: Node) -> _Layout:
    """Raises GraphError for factors that do not fit each other."""
    a, b = (int8_operand(graph, node, place).shape for place in range(2))
    if not all(MIN_RANK <= len(shape) <= MAX_RANK for shape in (a, b)):
        raise GraphError(f"matrices of {a} and {b}; supported: {MIN_RANK} to {MAX_RANK} dimensions")
    if all(int8_operand(graph, node, place).is_constant for place in range(2)):
        raise GraphError("both matrices are constants; supported: one of them computed")
    flags = [node.attributes.get(key) for key in ("adj_x", "adj_y")]
    if any(flag not in (0, 1) for flag in flags):
        raise GraphError(f"adj_x and adj_y are {flags}; supported: 0 and 1")
    rows, depth = a[:-3:-1] if flags[0] else a[-2:]
    deep, columns = b[:-3:-1] if flags[1] else b[-2:]
    if depth != deep:
        raise GraphError(f"matrices of {rows}x{depth} and {deep}x{columns}; supported: as many columns as the other has rows")
    return _Layout(broadcast_shape(a[:-2], b[:-2]), rows, columns, depth, tuple(collapsed_axes(a[:-2], b[:-2])))


def _fields(graph: Graph, node: Node) -> dict[str, str]:
    """Initializers of all parameters in C but the constant and the output stage."""
    layout = _layout(graph, node)
    zero_points = [int8_operand(graph, node, place).zero_point for place in range(2)]
    fields = {"rows": layout.rows, "columns": layout.columns, "depth": layout.depth, "rank": len(layout.axes)}
    fields |= {"a.zero_point": zero_points[0], "b.zero_point": zero_points[1]}
    steps_a = (1, layout.rows) if node.integer("adj_x") else (layout.depth, 1)
    steps_b = (layout.depth, 1) if node.integer("adj_y") else (1, layout.columns)
    for name, (step, depth_step) in (("a", steps_a), ("b", steps_b)):
        fields |= {f"{name}.step": step, f"{name}.depth_step": depth_step}
    texts = {key: str(value) for key, value in fields.items()}
    for place, (size, step_a, step_b) in enumerate(layout.axes):
        steps = step_a * layout.rows * layout.depth, step_b * layout.depth * layout.columns
        texts[f"axes[{place}]"] = f"{{{size}, {steps[0]}, {steps[1]}}}"
    return texts


def _stage(graph: Graph, node: Node) -> OutputStage:
    """Both inputs have one scale, and their product does not ask which comes first: the computed one plays the image."""
    first, second = (int8_operand(graph, node, place) for place in range(2))
    if second.zero_point != 0:
        graph = graph.with_arithmetic("double")
    return OutputStage.of(graph, replace(node, inputs=node.inputs[::-1]) if first.is_constant else node, 1)


def _add(match: OnnxMatch, tensor: Tensor) -> int:
    match.graph.tensors.append(tensor)
    return len(match.graph.tensors) - 1


def _in_onnx_order(match: OnnxMatch, place: int) -> int:
    """An input with its axes as in the file: behind a transpose where it is a computed image."""
    x = match.input(place)
    if x.is_constant or len(x.shape) != 4:
        return match.inputs[place]
    shape = tuple(x.shape[axis] for axis in ONNX_FROM_NHWC)
    index = _add(match, replace(x, name=f"{x.name}/matrix", shape=shape))
    match.graph.nodes.append(Node("transpose", (match.inputs[place],), (index,), {"perm": ONNX_FROM_NHWC}))
    return index


SHAPES: tuple[tuple[str, Shape, Shape, int | None], ...] = (
    ("two matrices", (4, 5), (5, 6), None),
    ("a row and a constant matrix", (1, 5), (5, 6), 1),
    ("a constant matrix and a column", (7, 1), (1, 6), 0),
    ("one row", (1, 9), (9, 5), None),
    ("one column", (6, 9), (9, 1), None),
    ("depth 1", (3, 1), (1, 4), None),
    ("one product", (1, 1), (1, 1), None),
    ("batch of 3", (3, 2, 5), (3, 5, 4), None),
    ("heads", (1, 4, 6, 3), (1, 4, 3, 6), None),
    ("one b for all", (3, 2, 5), (1, 5, 4), None),
    ("one a for all", (1, 2, 5), (3, 5, 4), None),
    ("b without batches", (2, 3, 2, 5), (5, 4), 1),
    ("a without batches", (2, 5), (2, 3, 5, 4), 0),
    ("batches crosswise", (2, 1, 2, 3), (1, 3, 3, 4), None),
    ("five dimensions", (1, 2, 1, 3, 4), (1, 1, 3, 4, 2), None),
)


def _example(
    rng: np.random.Generator,
    label: str,
    a: Shape,
    b: Shape,
    adj: tuple[int, int] = (0, 0),
    points: tuple[int, int] | None = None,
    spread: float = 60.0,
    constant: int | None = None,
) -> Example:
    """a [..., m, k] and b [..., k, n], stored as adj says, a batch of 1 before what is computed. spread: of the outputs."""
    shapes = [(*s[:-2], s[-1], s[-2]) if flag else s for s, flag in zip((a, b), adj, strict=True)]
    shapes = [(1, *s) if s[0] != 1 and place != constant else s for place, s in enumerate(shapes)]
    quantizations = [make.random_quantization(rng) for _ in range(2)]
    if points is not None:
        quantizations = [Quantization(q.scale, np.array([z], np.int64)) for q, z in zip(quantizations, points, strict=True)]
    x = [make.activation(s, q, name) for s, q, name in zip(shapes, quantizations, "ab", strict=True)]
    means = [-0.5 - tensor.zero_point for tensor in x]
    centre = a[-1] * means[0] * means[1]
    deviation = math.sqrt(a[-1]) * math.sqrt((74**2 + means[0] ** 2) * (74**2 + means[1] ** 2))
    scale = float(np.float32(max(abs(centre) / 2, deviation) * x[0].scale * x[1].scale / spread))
    zero_point = make.pick_zero_point(rng) if abs(centre) < deviation / 2 else int(-100 * np.sign(centre))
    if constant is not None:
        x[constant] = replace(x[constant], data=rng.integers(-128, 128, shapes[constant]).astype(np.int8))
    attributes: dict[str, Attribute] = {"adj_x": adj[0], "adj_y": adj[1], "clamp": make.NO_CLAMP}
    graph = make.single_node("batch_matmul", x, Quantization.per_tensor(scale, zero_point), attributes)
    return Example(graph, label, make.extreme_inputs(graph))


def _random_example(rng: np.random.Generator, index: int) -> Example:
    batches = tuple(make.pick(rng, 1, 3) for _ in range(make.pick(rng, 0, 2)))
    kept = [tuple(1 if rng.random() < 0.3 else size for size in batches) for _ in range(2)]
    rows, depth, columns = (make.pick(rng, 1, 9) for _ in range(3))
    adj = (make.pick(rng, 0, 1), make.pick(rng, 0, 1))
    a, b = ((*shape, *matrix) for shape, matrix in zip(kept, ((rows, depth), (depth, columns)), strict=True))
    return _example(rng, f"random {index}", a, b, adj, constant=(None, None, 0, 1)[index % 4])


OPERATOR = BatchMatmul()
