"""Layer by layer: a device that is right, one with a wrong element, one with other layers, one that changes its mind."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from firmware_export.graph import Graph, Node, Tensor
from host_tools.compare import Element, MismatchError
from host_tools.layers import LayerDifference, find_difference, layer_crc, layer_verdicts, layers_table

TRACE = [
    [np.arange(12, dtype=np.int8).reshape(1, 2, 3, 2)],
    [np.array([[1, -2, 3]], np.int8), np.array([[70000, -1]], np.int32)],
]
IMAGE = b"image"


def graph() -> Graph:
    tensors = [Tensor("x", (1, 2, 3, 2), "int8"), Tensor("y", (1, 2, 3, 2), "int8"), Tensor("z", (1, 3), "int8")]
    return Graph(tensors, [Node("conv2d", (0,), (1,)), Node("softmax", (1,), (2,))], (0,), (2,))


class Device:
    """Answers from a trace of its own."""

    def __init__(self, trace: list[list[np.ndarray]], tensors: list[list[np.ndarray]] | None = None) -> None:
        self._trace, self._tensors = trace, tensors or trace
        self.asked: list[tuple[int, int]] = []

    def layers(self, image: bytes) -> list[int]:
        assert image == IMAGE
        return [zlib.crc32(b"".join(t.tobytes() for t in outputs)) for outputs in self._trace]

    def tensor(self, image: bytes, layer: int, output: int = 0) -> bytes:
        self.asked.append((layer, output))
        return self._tensors[layer][output].tobytes()


def changed(layer: int, output: int, index: tuple[int, ...], value: int) -> list[list[np.ndarray]]:
    trace = [[t.copy() for t in outputs] for outputs in TRACE]
    trace[layer][output][index] = value
    return trace


def test_a_right_device_has_no_difference() -> None:
    device = Device(TRACE)
    verdicts = layer_verdicts(device, graph(), TRACE, IMAGE)
    assert [(v.index, v.operator, v.identical) for v in verdicts] == [(0, "conv2d", True), (1, "softmax", True)]
    assert find_difference(device, verdicts, TRACE, IMAGE) is None
    assert not device.asked


def test_the_first_wrong_element_is_read_and_named() -> None:
    device = Device(changed(0, 0, (0, 1, 2, 0), -9))
    found = find_difference(device, layer_verdicts(device, graph(), TRACE, IMAGE), TRACE, IMAGE)
    assert found == LayerDifference(0, "conv2d", 0, (1, 2, 3, 2), Element((0, 1, 2, 0), 10, -9), 1)
    assert found.sentence() == (
        "layer 0 (conv2d) is the first that differs: output 0 at [0, 1, 2, 0] of (1, 2, 3, 2) is -9, expected 10; "
        "1 of 12 elements differ"
    )


def test_the_second_output_of_a_later_layer() -> None:
    device = Device(changed(1, 1, (0, 0), 70001))
    verdicts = layer_verdicts(device, graph(), TRACE, IMAGE)
    assert [v.identical for v in verdicts] == [True, False]
    found = find_difference(device, verdicts, TRACE, IMAGE)
    assert found is not None and (found.layer, found.output, found.element) == (1, 1, Element((0, 0), 70000, 70001))
    assert device.asked == [(1, 0), (1, 1)]


def test_a_device_that_changes_its_mind_is_said_to_do_so() -> None:
    device = Device(changed(0, 0, (0, 0, 0, 0), 5), tensors=TRACE)
    found = find_difference(device, layer_verdicts(device, graph(), TRACE, IMAGE), TRACE, IMAGE)
    assert found is not None and found.element is None
    assert "answers differently each time" in found.sentence()


def test_another_number_of_layers_or_bytes_is_refused() -> None:
    with pytest.raises(MismatchError, match="has 1 layers, the model 2"):
        layer_verdicts(Device(TRACE[:1]), graph(), TRACE, IMAGE)
    short = Device(changed(0, 0, (0, 0, 0, 0), 5), tensors=[[TRACE[0][0][:, :1]], TRACE[1]])
    with pytest.raises(MismatchError, match="6 bytes, the model's 12"):
        find_difference(short, layer_verdicts(short, graph(), TRACE, IMAGE), TRACE, IMAGE)


def test_the_checksum_is_over_little_endian_bytes_of_all_outputs() -> None:
    big = [np.array([1], ">i4"), np.array([2], np.int8)]
    assert layer_crc(big) == zlib.crc32(b"\x01\0\0\0\x02")


def test_the_table_says_which_layer_differs() -> None:
    device = Device(changed(1, 0, (0, 0), 9))
    lines = layers_table(layer_verdicts(device, graph(), TRACE, IMAGE)).split("\n")
    assert lines[0].split() == ["layer", "operator", "simulator", "device"]
    crc = f"{zlib.crc32(TRACE[0][0].tobytes()):08x}"
    assert lines[1].split() == ["0", "conv2d", crc, crc, "same"]
    assert lines[2].split()[-1] == "DIFFERS"


shapes = array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
layer_outputs = st.lists(arrays(st.sampled_from([np.int8, np.int16, np.int32]), shapes), min_size=1, max_size=2)


@settings(deadline=None)
@given(st.lists(layer_outputs, min_size=1, max_size=6), st.data())
def test_any_wrong_element_of_any_layer_is_found(trace: list[list[np.ndarray]], data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, len(trace) - 1))
    output = data.draw(st.integers(0, len(trace[layer]) - 1))
    place = data.draw(st.integers(0, trace[layer][output].size - 1))
    wrong = [[t.copy() for t in outputs] for outputs in trace]
    wrong[layer][output].reshape(-1)[place] ^= 1
    nodes = [Node("add", (0,), (0,)) for _ in trace]
    device = Device(wrong)
    verdicts = layer_verdicts(device, Graph([], nodes, (), ()), trace, IMAGE)
    assert [v.index for v in verdicts if not v.identical] == [layer]
    found = find_difference(device, verdicts, trace, IMAGE)
    assert found is not None and (found.layer, found.output, found.elements_different) == (layer, output, 1)
    index = tuple(int(i) for i in np.unravel_index(place, trace[layer][output].shape))
    expected = int(trace[layer][output][index])
    assert found.element == Element(index, expected, expected ^ 1)
