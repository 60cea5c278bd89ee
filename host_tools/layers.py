"""Layer by layer: the CRC-32 of every layer's output on the device against the simulator's, and the first wrong element."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from firmware_export.graph import Array, Graph
from host_tools.compare import Element, MismatchError, first_difference
from host_tools.results import LayerVerdict

Trace = Sequence[Sequence[Array]]
"""The outputs of every layer, as simulate_trace gives them."""


class Device(Protocol):
    """The part of link.Link that is needed here."""

    def layers(self, image: bytes) -> list[int]:
        """CRC-32 of the outputs of every layer."""

    def tensor(self, image: bytes, layer: int, output: int = 0) -> bytes:
        """The bytes of one output of one layer."""


@dataclass(frozen=True)
class LayerDifference:
    """The first layer that differs, the output of it that does, and the first wrong element (None: only seen in the CRC)."""

    layer: int
    operator: str
    output: int
    shape: tuple[int, ...]
    element: Element | None
    elements_different: int

    def sentence(self) -> str:
        """For a person: which layer, where, what."""
        where = f"layer {self.layer} ({self.operator}) is the first that differs"
        if self.element is None:
            return f"{where}, but its bytes read one by one are right: the device answers differently each time"
        at = ", ".join(map(str, self.element.index))
        total = int(np.prod(self.shape))
        return (
            f"{where}: output {self.output} at [{at}] of {self.shape} is {self.element.got}, expected {self.element.expected}; "
            f"{self.elements_different:,} of {total:,} elements differ"
        )


def layer_crc(outputs: Sequence[Array]) -> int:
    """CRC-32 over the bytes of a layer's outputs, one after the other, little-endian."""
    crc = 0
    for output in outputs:
        crc = zlib.crc32(output.astype(output.dtype.newbyteorder("<")).tobytes(), crc)
    return crc


def layer_verdicts(device: Device, graph: Graph, trace: Trace, image: bytes) -> list[LayerVerdict]:
    """Every layer's checksum on the device and in the simulator's trace of the same image.

    Raises:
        MismatchError: the device has another number of layers.
        LinkError: the line or the board failed.
    """
    told = device.layers(image)
    if len(told) != len(graph.nodes):
        raise MismatchError(f"the device has {len(told)} layers, the model {len(graph.nodes)}; build and flash it again")
    return [
        LayerVerdict(index=index, operator=node.op, expected=layer_crc(outputs), device=crc)
        for index, (node, outputs, crc) in enumerate(zip(graph.nodes, trace, told, strict=True))
    ]


def find_difference(device: Device, verdicts: Sequence[LayerVerdict], trace: Trace, image: bytes) -> LayerDifference | None:
    """Reads the first layer whose checksum differs from the device and finds the first wrong element in it."""
    wrong = next((verdict for verdict in verdicts if not verdict.identical), None)
    if wrong is None:
        return None
    for number, expected in enumerate(trace[wrong.index]):
        got = _as_array(device.tensor(image, wrong.index, number), expected)
        element = first_difference(expected, got)
        if element is not None:
            count = int((expected != got).sum())
            return LayerDifference(wrong.index, wrong.operator, number, expected.shape, element, count)
    return LayerDifference(wrong.index, wrong.operator, 0, trace[wrong.index][0].shape, None, 0)


def _as_array(data: bytes, like: Array) -> Array:
    if len(data) != like.nbytes:
        raise MismatchError(
            f"the device's tensor has {len(data):,} bytes, the model's {like.nbytes:,}; build and flash it again"
        )
    return np.frombuffer(data, like.dtype.newbyteorder("<")).reshape(like.shape)


def layers_table(verdicts: Sequence[LayerVerdict]) -> str:
    """One line per layer: index, operator, both checksums, verdict."""
    rows = [f"{'layer':>5}  {'operator':<18}  {'simulator':<9}  {'device':<8}"]
    for v in verdicts:
        verdict = "same" if v.identical else "DIFFERS"
        rows.append(f"{v.index:>5}  {v.operator:<18}  {v.expected:08x}   {v.device:08x}  {verdict}")
    return "\n".join(rows)
