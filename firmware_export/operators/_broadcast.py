"""Two int8 inputs elementwise, with numpy's broadcasting, either of them a constant; runtime/broadcast.c walks them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, int8_operand, shape_text
from firmware_export.requantize import Int64

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch

Shape = tuple[int, ...]
Axis = tuple[int, int, int]
"""The output's size along it, and the step of each input, 0 where it is repeated."""
NHWC_FROM_NCHW = (0, 2, 3, 1)


class Elementwise(Operator):
    """y[i] = f(a[i], b[i]) of two inputs that numpy can broadcast to one shape; at most one of them is a constant."""

    @abstractmethod
    def combine(self, graph: Graph, node: Node, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        """The results of broadcast stored values; checks scales and attributes, whatever the values.

        Raises:
            GraphError: scales or attributes are not what the operator takes.
        """

    @abstractmethod
    def fields(self, graph: Graph, node: Node) -> dict[str, str]:
        """Initializers of the parameters in C besides the shape."""

    def constants(self, graph: Graph, node: Node) -> tuple[Constant, ...]:
        """Tables that `fields` names; none unless the operator has some."""
        return ()

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (2,))
        a, b = (int8_operand(graph, node, place) for place in range(2))
        if a.is_constant and b.is_constant:
            raise GraphError(f"both inputs '{a.name}' and '{b.name}' are constants; supported: one of them computed")
        shape = broadcast_shape(a.shape, b.shape)
        nothing: Int64 = np.zeros(0, np.int64)
        self.combine(graph, node, nothing, nothing)
        return [OutputSpec(shape, "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        a, b = inputs
        assert a is not None and b is not None
        return [self.combine(graph, node, *np.broadcast_arrays(a.astype(np.int64), b.astype(np.int64)))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        return self.broadcast_code(graph, node, self.name)

    def broadcast_code(self, graph: Graph, node: Node, name: str) -> LayerCode:
        """The call of nn_<name> or nn_<name>_constant in runtime/<name>.c."""
        tensors = [int8_operand(graph, node, place) for place in range(2)]
        axes = np.array(collapsed_axes(tensors[0].shape, tensors[1].shape), np.uint32)
        constants = [Constant("axes", axes)]
        fields = {"shape.axes": "{axes}", "shape.rank": str(len(axes))}
        places = [place for place, tensor in enumerate(tensors) if tensor.is_constant]
        for place in places:
            data = tensors[place].data
            assert data is not None
            constants.append(Constant("constant", data))
            fields |= {"shape.constant": "{constant}", "shape.place": str(place)}
        return LayerCode(
            function=f"nn_{name}_constant" if places else f"nn_{name}",
            params_type=f"nn_{name}_params",
            fields=fields | self.fields(graph, node),
            constants=(*constants, *self.constants(graph, node)),
            sources=(f"{name}.c", "broadcast.c"),
            summary=" and ".join(f"{'constant ' * t.is_constant}{shape_text(t)}" for t in tensors),
        )

    def read_onnx(self, match: OnnxMatch) -> Node:
        return Node(self.name, onnx_operands(match), match.outputs, self.onnx_attributes(match))

    def onnx_attributes(self, match: OnnxMatch) -> dict[str, Attribute]:
        """The node's attributes: a clamp, unless the operator has none."""
        return {"clamp": match.int8_clamp()}


def broadcast_shape(a: Shape, b: Shape) -> Shape:
    """The common shape. Raises GraphError if there is none."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise GraphError(
            f"inputs of {a} and {b}; supported: shapes that broadcast, sizes equal or 1 from the last on"
        ) from None


def collapsed_axes(a: Shape, b: Shape) -> list[Axis]:
    """The axes to walk, outermost first: those of size 1 are left out, and neighbours that step alike are one."""
    axes: list[Axis] = []
    for size, step_a, step_b in reversed(list(zip(broadcast_shape(a, b), _steps(a, b), _steps(b, a), strict=True))):
        if size == 1:
            continue
        if axes and (step_a, step_b) == (axes[0][0] * axes[0][1], axes[0][0] * axes[0][2]):
            axes[0] = (size * axes[0][0], axes[0][1], axes[0][2])
        else:
            axes.insert(0, (size, step_a, step_b))
    return axes or [(1, 0, 0)]


def _steps(shape: Shape, other: Shape) -> list[int]:
    """Elements between neighbours along each axis of the common shape; 0 along axes of size 1."""
    full = (1,) * (len(other) - len(shape)) + shape
    return [0 if size == 1 else int(np.prod(full[axis + 1 :], dtype=np.int64)) for axis, size in enumerate(full)]


def onnx_operands(match: OnnxMatch) -> tuple[int, ...]:
    """The inputs, constants brought into our layout where the result is an image.

    Raises:
        GraphError: activations of different rank where one is an image: what broadcasts in NCHW does not in NHWC.
    """
    tensors = [match.input(place) for place in range(len(match.inputs))]
    rank = max(len(tensor.shape) for tensor in tensors)
    for tensor in tensors:
        if not tensor.is_constant and len(tensor.shape) != rank and 4 in (rank, len(tensor.shape)) and tensor.elements > 1:
            raise GraphError(
                f"{match.op_type} of activations with {rank} and {len(tensor.shape)} dimensions; supported: the same number"
            )
    return tuple(
        _image_constant(match, tensor) if rank == 4 and tensor.is_constant and tensor.elements > 1 else index
        for index, tensor in zip(match.inputs, tensors, strict=True)
    )


def _image_constant(match: OnnxMatch, tensor: Tensor) -> int:
    """A constant that meets an image, from [..., c, h, w] to [1, h, w, c]."""
    assert tensor.data is not None
    image = tensor.data.reshape((1,) * (4 - tensor.data.ndim) + tensor.data.shape).transpose(NHWC_FROM_NCHW)
    return match.add_constant(tensor.name, np.ascontiguousarray(image), tensor.quantization)


# Examples

BROADCASTS: tuple[tuple[Shape, Shape, str], ...] = (
    ((1, 3, 4, 5), (1, 3, 4, 5), "same shape"),
    ((1, 3, 4, 5), (1, 1, 1, 5), "channels"),
    ((1, 1, 1, 5), (1, 3, 4, 5), "channels first"),
    ((1, 3, 4, 5), (1, 3, 4, 1), "pixels"),
    ((1, 3, 4, 5), (1, 3, 1, 5), "columns"),
    ((1, 3, 4, 5), (1, 1, 4, 1), "rows"),
    ((1, 3, 1, 5), (1, 1, 4, 1), "outer product"),
    ((1, 3, 4, 5), (1,), "one value"),
    ((1,), (1,), "one element"),
    ((1, 6), (6,), "fewer dimensions"),
    ((5,), (1, 4, 5), "fewer dimensions first"),
)
Make = Callable[[Tensor, Tensor, str], Example]


def broadcast_examples(
    rng: np.random.Generator,
    quantizations: Callable[[], tuple[Quantization, Quantization]],
    build: Make,
    one_way: bool = False,
) -> Iterator[Example]:
    """Each of BROADCASTS with and without constants, and 30 random ones of up to 4 dimensions.

    Args:
        quantizations: of the two inputs, new ones each time.
        build: the example of two tensors under a label.
        one_way: only the second input is repeated.
    """
    for a, b, label in BROADCASTS:
        if one_way and broadcast_shape(a, b) != a:
            continue
        for constant in (None, 0, 1) if len(a) == 4 else (None,):
            yield build(*_tensors(rng, (a, b), quantizations(), constant), f"{label}, constant {constant}")
    for index in range(30):
        shape = (1, *(make.pick(rng, 1, 4) for _ in range(make.pick(rng, 0, 3))))
        pair = [tuple(1 if rng.random() < repeated else size for size in shape) for repeated in (0.0 if one_way else 0.3, 0.3)]
        constant = (None, None, 0, 1)[index % 4]
        yield build(*_tensors(rng, (pair[0], pair[1]), quantizations(), constant), f"random {index}")


def _tensors(
    rng: np.random.Generator,
    shapes: tuple[Shape, Shape],
    quantizations: tuple[Quantization, Quantization],
    constant: int | None,
) -> tuple[Tensor, Tensor]:
    a, b = (make.activation(shape, q, name) for shape, q, name in zip(shapes, quantizations, "ab", strict=True))
    if constant is None:
        return a, b
    data = rng.integers(-128, 128, shapes[constant]).astype(np.int8)
    return (replace(a, data=data), b) if constant == 0 else (a, replace(b, data=data))


def elementwise_example(
    op: str, a: Tensor, b: Tensor, y: Quantization, label: str, attributes: dict[str, Attribute] | None = None
) -> Example:
    """One node with extreme inputs."""
    graph = make.single_node(op, (a, b), y, attributes or {})
    return Example(graph, label, make.extreme_inputs(graph))
