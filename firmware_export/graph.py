"""The one graph: tensors, nodes, quantization. NHWC, batch 1, tensors named by index.

Readers make it, passes change it, check.py holds it to its rules, the simulator and the C emitter use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from recipes.artifacts import PipelineError, canonical_json

Array: TypeAlias = npt.NDArray[np.generic]
Attribute: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...]

DTYPES: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(name) for name in ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")
}
ABSENT = -1
"""The index of an optional input that is not there (a convolution without bias)."""


class GraphError(PipelineError):
    """A model is damaged or holds something that is not supported: what was found, what is supported."""

    exit_code = 6


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point).

    scale: float32 [1], or [n] along `axis` of the tensor (per channel). zero_point: int64, of the same length.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None

    @staticmethod
    def per_tensor(scale: float, zero_point: int) -> Quantization:
        """One scale for the whole tensor."""
        return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Quantization)
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def __hash__(self) -> int:
        return hash((self.scale.tobytes(), self.zero_point.tobytes(), self.axis))


@dataclass(frozen=True)
class Tensor:
    """A value: an activation (data is None) or a constant.

    name: as the file gave it; untrusted, only ever shown, never used as an identifier.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None
    data: Array | None = None

    @property
    def is_constant(self) -> bool:
        """Whether the bytes are part of the model."""
        return self.data is not None

    @property
    def elements(self) -> int:
        """Product of the dimensions."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.elements * DTYPES[self.dtype].itemsize

    @property
    def scale(self) -> float:
        """The per-tensor scale, a float32 value held in a Python float. Raises GraphError if there is none."""
        return float(self._per_tensor().scale[0])

    @property
    def zero_point(self) -> int:
        """The per-tensor zero point. Raises GraphError if there is none."""
        return int(self._per_tensor().zero_point[0])

    def _per_tensor(self) -> Quantization:
        if self.quantization is None:
            raise GraphError(f"tensor '{self.name}' has no quantization; expected one scale and zero point")
        if self.quantization.scale.size != 1:
            raise GraphError(f"tensor '{self.name}' is quantized per channel; expected one scale for the whole tensor")
        return self.quantization


@dataclass(frozen=True)
class Node:
    """One operator. `op` is the name of its file in operators/; `attributes` are described there."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def integers(self, key: str) -> tuple[int, ...]:
        """An attribute that is a tuple of integers."""
        value = self.attributes[key]
        assert isinstance(value, tuple), key
        return tuple(int(v) for v in value)

    def integer(self, key: str) -> int:
        """An attribute that is one integer."""
        value = self.attributes[key]
        assert isinstance(value, int), key
        return value

    def number(self, key: str) -> float:
        """An attribute that is one number."""
        value = self.attributes[key]
        assert isinstance(value, int | float), key
        return float(value)


@dataclass(frozen=True)
class Change:
    """What a pass has made smaller: operators, multiply-accumulates of one inference, int8 weights, each before and after."""

    name: str
    operators: tuple[int, int]
    macs: tuple[int, int]
    weights: tuple[int, int]


@dataclass
class Graph:
    """A whole model. Nodes stand in an order in which they can be run.

    changes: what passes have done to it since it was read; nothing that runs depends on it.
    """

    tensors: list[Tensor]
    nodes: list[Node]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arithmetic: str = "double"
    name: str = "network"
    changes: tuple[Change, ...] = ()

    def input_tensors(self, node: Node) -> list[Tensor | None]:
        """A node's inputs in order; None where an optional one is absent."""
        return [None if index == ABSENT else self.tensors[index] for index in node.inputs]

    def activation_inputs(self, node: Node) -> list[int]:
        """Indexes of a node's inputs that are computed or fed, not constants."""
        return [index for index in node.inputs if index != ABSENT and not self.tensors[index].is_constant]

    def constants(self) -> Iterator[tuple[int, Tensor]]:
        """Every constant that some node reads, with its index."""
        used = {index for node in self.nodes for index in node.inputs if index != ABSENT}
        return ((index, self.tensors[index]) for index in sorted(used) if self.tensors[index].is_constant)

    def weights_bytes(self) -> int:
        """Bytes of every constant that some node reads."""
        return sum(tensor.nbytes for _, tensor in self.constants())

    def with_arithmetic(self, arithmetic: str) -> Graph:
        """The same model under another named arithmetic."""
        return replace(self, arithmetic=arithmetic)

    def hash(self) -> str:
        """SHA-256 over everything that decides the model's answers; names do not count. 64 hexadecimal digits."""
        digest = hashlib.sha256(canonical_json(["graph", 1, self.arithmetic, self.inputs, self.outputs]).encode())
        for tensor in self.tensors:
            digest.update(canonical_json([tensor.shape, tensor.dtype]).encode())
            if tensor.quantization is not None:
                quantization = tensor.quantization
                digest.update(canonical_json(["q", quantization.axis, len(quantization.scale)]).encode())
                digest.update(quantization.scale.astype("<f4").tobytes() + quantization.zero_point.astype("<i8").tobytes())
            if tensor.data is not None:
                digest.update(b"data" + tensor.data.astype(tensor.data.dtype.newbyteorder("<")).tobytes())
        for node in self.nodes:
            digest.update(canonical_json([node.op, node.inputs, node.outputs, node.attributes]).encode())
        return digest.hexdigest()
