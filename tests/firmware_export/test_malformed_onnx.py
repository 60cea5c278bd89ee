"""Damaged ONNX files by name: each is refused in one line that says what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from qdq_builder import Qdq

from firmware_export.graph import GraphError
from firmware_export.read_onnx import read_onnx, read_onnx_bytes

Change = Callable[[Any], None]


def sound() -> onnx.ModelProto:
    net = Qdq((1, 2, 4, 4))
    x = net.conv(net.input(), 3)
    return net.model(net.gemm(net.global_pool(x), 4))


def refused(data: bytes) -> str:
    with pytest.raises(GraphError) as caught:
        read_onnx_bytes(data)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 600, "one line that can be shown"
    return text


def initializer(graph: Any, word: str) -> Any:
    return next(tensor for tensor in graph.initializer if tensor.name.startswith(word))


def node(graph: Any, op_type: str) -> Any:
    return next(n for n in graph.node if n.op_type == op_type)


def attribute(graph: Any, op_type: str, name: str) -> Any:
    return next(a for a in node(graph, op_type).attribute if a.name == name)


def float_value(word: str, value: float) -> Change:
    def change(graph: Any) -> None:
        tensor = initializer(graph, word)
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[:1] = value
        tensor.raw_data = array.tobytes()

    return change


def dims(word: str, *sizes: int) -> Change:
    def change(graph: Any) -> None:
        tensor = initializer(graph, word)
        del tensor.dims[:]
        tensor.dims.extend(sizes)

    return change


def ints(op_type: str, name: str, *values: int) -> Change:
    def change(graph: Any) -> None:
        found = attribute(graph, op_type, name)
        del found.ints[:]
        found.ints.extend(values)

    return change


def cycle(graph: Any) -> None:
    node(graph, "Conv").input[0] = node(graph, "Gemm").output[0]


def dangling(graph: Any) -> None:
    node(graph, "Conv").input[0] = "nowhere"


def written_twice(graph: Any) -> None:
    node(graph, "Gemm").output[0] = node(graph, "Conv").output[0]


def initializer_twice(graph: Any) -> None:
    graph.initializer.add().CopyFrom(graph.initializer[0])


def input_is_also_computed(graph: Any) -> None:
    node(graph, "Conv").output[0] = "input"


def node_without_output(graph: Any) -> None:
    del node(graph, "Relu").output[:]


def node_without_input(graph: Any) -> None:
    del node(graph, "QuantizeLinear").input[:]


def no_nodes(graph: Any) -> None:
    del graph.node[:]


def no_outputs(graph: Any) -> None:
    del graph.output[:]


def no_inputs(graph: Any) -> None:
    del graph.input[:]


def output_unknown(graph: Any) -> None:
    graph.output[0].name = "nothing"


def nodes_backwards(graph: Any) -> None:
    nodes = list(graph.node)[::-1]
    del graph.node[:]
    graph.node.extend(nodes)


def sparse(graph: Any) -> None:
    graph.sparse_initializer.add()


def scale_computed(graph: Any) -> None:
    node(graph, "QuantizeLinear").input[1] = node(graph, "Conv").output[0]


def zero_point_of_another_type(graph: Any) -> None:
    name = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0].startswith("w_")).input[2]
    tensor = next(t for t in graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int32), name))


def blocks(graph: Any) -> None:
    node(graph, "DequantizeLinear").attribute.append(helper.make_attribute("block_size", 16))


def double_scale(graph: Any) -> None:
    tensor = initializer(graph, "scale")
    tensor.CopyFrom(numpy_helper.from_array(np.float64(0.1), tensor.name))


def name_that_is_no_text(graph: Any) -> None:
    graph.initializer[0].name = "N" * 40


def external_outside(graph: Any) -> None:
    tensor = initializer(graph, "w_")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")


def gigabyte_input(graph: Any) -> None:
    for dim, size in zip(graph.input[0].type.tensor_type.shape.dim, (1, 1024, 1024, 1024), strict=True):
        dim.dim_value = size


def bias_too_long(graph: Any) -> None:
    tensor = initializer(graph, "b_")
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(9, np.int32), tensor.name))


def graph_attribute(graph: Any) -> None:
    node(graph, "Conv").attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], [])))


def one_pad_missing(graph: Any) -> None:
    ints("Conv", "pads", 1, 1, 1)(graph)


def two_outputs(graph: Any) -> None:
    node(graph, "Conv").output.append("more")


CASES: dict[str, tuple[Change, str]] = {
    "short data": (lambda g: setattr(initializer(g, "w_"), "raw_data", b"\0" * 7), "has 7 bytes of data, expected 54"),
    "negative size": (dims("w_", -3, 2, 3, 3), "has the shape (-3, 2, 3, 3)"),
    "two negative sizes": (dims("w_", -3, -2, 3, 3), "has the shape (-3, -2, 3, 3)"),
    "zero size": (dims("w_", 0, 2, 3, 3), "has the shape (0, 2, 3, 3)"),
    "huge size": (dims("w_", 2**40, 2, 3, 3), "supported: 1 to 67,108,864 elements"),
    "overflowing product": (dims("w_", 2**32, 2**32), "supported: 1 to 67,108,864 elements"),
    "scale 0": (float_value("scale", 0.0), "the scale 'scale_1' is 0.0; supported: finite scales above 0"),
    "scale NaN": (float_value("scale", float("nan")), "is nan; supported: finite scales"),
    "scale infinite": (float_value("scale", float("inf")), "is inf; supported: finite scales"),
    "scale negative": (float_value("scale", -0.5), "supported: finite"),
    "weight scale 0": (float_value("ws", 0.0), "finite"),
    "weight scale NaN": (float_value("ws", float("nan")), "finite"),
    "stride 0": (ints("Conv", "strides", 0, 1), "strides is (0, 1); supported: two values (2-D) of 1 to 32767"),
    "stride missing": (ints("Conv", "strides"), "strides is ()"),
    "dilation negative": (ints("Conv", "dilations", -1, 1), "dilations is (-1, 1)"),
    "dilation too large": (ints("Conv", "dilations", 40000, 1), "dilations is (40000, 1); supported"),
    "pad negative": (ints("Conv", "pads", -1, 0, 0, 0), "pads (-1, 0, 0, 0)"),
    "pads of another count": (one_pad_missing, "pads (1, 1, 1)"),
    "kernel larger than the image": (ints("Conv", "dilations", 9, 9), "do not fit the image"),
    "kernel of another size": (ints("Conv", "kernel_shape", 5, 5), "kernel_shape"),
    "cycle": (cycle, "which nothing before it computes"),
    "dangling": (dangling, "reads 'nowhere', which nothing before it computes"),
    "written twice": (written_twice, "is made twice"),
    "initializer twice": (initializer_twice, "is made twice"),
    "input computed": (input_is_also_computed, "'input' is made twice"),
    "no output": (node_without_output, "has no output"),
    "no input": (node_without_input, "not a constant of the model"),
    "no nodes": (no_nodes, "float model"),
    "no graph output": (no_outputs, "has 0 outputs"),
    "no graph input": (no_inputs, "quantizes 'input', which no supported operator before it computes"),
    "unknown output": (output_unknown, "model output 'nothing' is never made"),
    "nodes backwards": (nodes_backwards, "which nothing before it"),
    "sparse": (sparse, "sparse initializers"),
    "computed scale": (scale_computed, "is not a constant of the model"),
    "zero point type": (zero_point_of_another_type, "is int8, its zero point int32"),
    "blocks": (blocks, "one or one per channel"),
    "double scale": (double_scale, "DOUBLE"),
    "external data": (external_outside, "external data"),
    "1 GB claim": (gigabyte_input, "supported: up to 67,108,864 elements"),
    "bias too long": (bias_too_long, "(9,); supported: constant int32 (3,)"),
    "graph as attribute": (graph_attribute, "attribute 'body' is of type GRAPH"),
    "two outputs": (two_outputs, "Conv has 2 outputs; supported: 1"),
    "missing initializer": (name_that_is_no_text, "not a constant of the model"),
}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_named(name: str) -> None:
    change, words = CASES[name]
    model = sound()
    change(model.graph)
    assert words in refused(model.SerializeToString())


@pytest.mark.parametrize(
    ("value", "scales", "axis", "zero_point", "words"),
    [
        (float("nan"), (0.1,), None, np.int8, "holds NaN"),
        (1.0, (0.1, 0.1), 0, np.int8, "2 scales along axis 0"),
        (1.0, (0.1, 0.1, 0.1), 7, np.int8, "3 scales along axis 7"),
        (1.0, (0.1,), None, np.int16, "float32 constant 'floats' to int16; supported: float32 to int8"),
        (float("inf"), (1e-30,), None, np.int8, "which no supported operator"),
    ],
)
def test_float_constants_that_cannot_be_quantized(
    value: float, scales: tuple[float, ...], axis: int | None, zero_point: type, words: str
) -> None:
    net = Qdq((1, 2, 4, 4))
    net.initializers.append(numpy_helper.from_array(np.full((3, 2, 1, 1), value, np.float32), "floats"))
    shape = () if axis is None else (len(scales),)
    scale, zeros = net.constant(np.float32(scales).reshape(shape)), net.constant(np.zeros(shape, zero_point))
    attributes = {} if axis is None else {"axis": axis}
    net.node("QuantizeLinear", ["floats", scale, zeros], **attributes)
    net.quantized("nowhere", 0.1, 0, (1, 2))
    assert words in refused(net.model(net.conv(net.input(), 3)).SerializeToString())


def test_the_unchanged_model_is_sound() -> None:
    assert len(read_onnx_bytes(sound().SerializeToString()).nodes) == 4


@pytest.mark.parametrize("data", [b"", b"\0", b"hello world", b"\x08\x09" * 50, b"\xff" * 1000, bytes(range(256)) * 8])
def test_bytes_that_are_no_model(data: bytes) -> None:
    assert "not an ONNX file" in refused(data) or "damaged" in refused(data)


@pytest.mark.parametrize("cut", [1, 10, 100, 500])
def test_files_cut_short(cut: int) -> None:
    data = sound().SerializeToString()
    assert refused(data[:-cut])
    assert refused(data[:cut])


def test_names_that_are_no_utf8_are_refused() -> None:
    data = sound().SerializeToString().replace(b"logits", b"lo\xff\xfets")
    assert "damaged" in refused(data) or "never made" in refused(data)


def test_a_message_nested_too_deep_is_refused() -> None:
    inner = b""
    for _ in range(3000):
        inner = b"\x2a" + _varint(len(inner)) + inner
    assert refused(b"\x3a" + _varint(len(inner)) + inner)


def _varint(value: int) -> bytes:
    groups = []
    while True:
        groups.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(groups)


def chain(op_type: str, count: int) -> bytes:
    net = Qdq((1, 8))
    x = net.input()
    for _ in range(count):
        x = net.node(op_type, [x])
    y = net.quantized(x, 1 / 255, -128, (1, 8))
    return net.model(y).SerializeToString()


def test_a_chain_of_a_hundred_thousand_nodes_is_refused() -> None:
    assert "nodes; supported: up to 100,000" in refused(chain("Relu", 100_001))


@pytest.mark.parametrize("op_type", ["Relu", "Softmax"])
def test_a_long_chain_between_quantizers_is_refused_soon(op_type: str) -> None:
    assert refused(chain(op_type, 20_000))


def test_a_long_chain_of_renames_is_only_names() -> None:
    """Identity moves nothing, so ten thousand of them leave nothing: the model's input is its output."""
    assert "supported: 1 to" in refused(chain("Identity", 10_000))


def test_weights_shared_by_many_operators_run_out_of_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reader of a weight needs a copy in our layout: a small file must not become gigabytes."""
    import firmware_export.onnx_graph as onnx_graph

    monkeypatch.setattr(onnx_graph, "MAX_COPIED", 400)
    net = Qdq((1, 2, 4, 4))
    x = net.conv(net.input(), 4)
    for _ in range(3):
        x = net.conv(x, 4)
    with pytest.raises(GraphError, match="need more than 400 bytes of constants"):
        read_onnx_bytes(net.model(x).SerializeToString())


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    model = sound()
    tensor = initializer(model.graph, "w_")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    plain = read_onnx_bytes(model.SerializeToString()).hash()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert read_onnx(tmp_path / "m.onnx").hash() == plain
    with pytest.raises(GraphError, match="external data"):
        read_onnx_bytes(model.SerializeToString())
