"""Kinds of models that are not int8: each is refused with its own sentence that names the tensor or operator and a way out.

One table for both formats; every row goes through a file and the program too, and nothing is built.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build
from onnx import TensorProto, helper, numpy_helper
from qdq_builder import Qdq

from firmware_export.__main__ import main
from firmware_export.graph import GraphError
from firmware_export.model_file import read_model
from firmware_export.tflite_refusals import FLOAT_EDGES, PACKED
from firmware_export.write_tflite import write_tflite

ROOT = Path(__file__).resolve().parents[2]
Maker = Callable[[], bytes]

# TFLite


def tflite(change: Callable[[Any], None]) -> Maker:
    """A file of one convolution with names of our own, something in it changed."""

    def make() -> bytes:
        build = Build()
        x = build.activation((1, 4, 4, 2), name="picture")
        graph = build.graph(x, build.conv(x, 3))
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(write_tflite(graph), 0))
        change(model)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    return make


def constants(model: Any) -> list[Any]:
    return [t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None]


def activations(model: Any) -> list[Any]:
    return [t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is None]


def weights(model: Any) -> Any:
    (found,) = [t for t in constants(model) if len(t.shape) == 4]
    found.name = b"kernel"
    return found


def as_float(model: Any, tensors: list[Any], dtype: int = schema.TensorType.FLOAT32, size: int = 4) -> None:
    for tensor in tensors:
        tensor.type, tensor.quantization = dtype, None
        if model.buffers[tensor.buffer].data is not None:
            model.buffers[tensor.buffer].data = np.zeros(size * int(np.prod(tensor.shape)), np.uint8)


def float_model(model: Any) -> None:
    as_float(model, model.subgraphs[0].tensors)


def hybrid(model: Any) -> None:
    as_float(model, activations(model))
    as_float(model, [t for t in constants(model) if len(t.shape) == 1])


def half_precision(model: Any) -> None:
    as_float(model, [weights(model)], schema.TensorType.FLOAT16, 2)
    as_float(model, activations(model))


def int16x8(model: Any) -> None:
    for tensor in activations(model):
        tensor.type = schema.TensorType.INT16


def old_uint8(model: Any) -> None:
    for tensor in (*activations(model), weights(model)):
        tensor.type = schema.TensorType.UINT8
        tensor.quantization.zeroPoint = np.full(len(tensor.quantization.scale), 128, np.int64)


def custom(model: Any) -> None:
    model.operatorCodes[0] = schema.OperatorCodeT(
        deprecatedBuiltinCode=32, builtinCode=schema.BuiltinOperator.CUSTOM, customCode="TheirOp", version=1
    )


def flex(model: Any) -> None:
    custom(model)
    model.operatorCodes[0].customCode = "FlexErf"


def unknown(model: Any) -> None:
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.COS


def dynamic(model: Any) -> None:
    activations(model)[0].shapeSignature = [1, -1, -1, 2]


def several_graphs(model: Any) -> None:
    body = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[], name="while_body")
    model.subgraphs.append(body)


def no_graph(model: Any) -> None:
    model.subgraphs = []


def sparse(model: Any) -> None:
    weights(model).sparsity = schema.SparsityParametersT(traversalOrder=[0, 1, 2, 3])


def packed(kind: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        weights(model).type = kind

    return change


def state(model: Any) -> None:
    activations(model)[0].isVariable = True


# ONNX


def quantized(change: Callable[[onnx.ModelProto], None]) -> Maker:
    """An int8 QDQ file of one convolution, something in it changed."""

    def make() -> bytes:
        net = Qdq((1, 2, 4, 4))
        model = net.model(net.conv(net.input(), 3))
        change(model)
        return bytes(model.SerializeToString())

    return make


def plain(*nodes: Any, initializers: tuple[Any, ...] = ()) -> Maker:
    """A file x -> y of these nodes."""

    def make() -> bytes:
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in "xy"]
        graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], list(initializers))
        return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())

    return make


def array(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


MATRIX = (array("w", np.ones((4, 4), np.int8)), array("s", np.float32(0.1)), array("z", np.int8(0)))
WEIGHTS = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["weights"])


def onnx_sparse(model: onnx.ModelProto) -> None:
    values, places = array("their_sparse", np.ones(1, np.float32)), array("p", np.array([[0, 0]], np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 4]))


def onnx_packed(kind: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.startswith("w_"))
        tensor.data_type = kind

    return change


def onnx_dynamic(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"


def onnx_functions(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("their", "TheirBlock", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))


def onnx_foreign(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("TheirOp", ["input"], ["other"], domain="their.domain"))


def onnx_branch(model: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["input"], ["b"])], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["input"], ["other"], then_branch=body, else_branch=body))


def onnx_unknown(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Einsum", ["input"], ["other"]))


def onnx_int16(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name.startswith("zp_"):
            tensor.CopyFrom(array(tensor.name, np.int16(0)))


def onnx_external(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.startswith("w_"))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.bin")


DYNAMIC_NODES = (
    helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
    helper.make_node("MatMulInteger", ["q", "w", "qz"], ["m"]),
    helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
)

KINDS: dict[str, tuple[Maker, str, str]] = {
    # what is refused: the file, the words that name what was found, the words of the way out
    "tflite float": (tflite(float_model), "float model: CONV_2D computes the float32 tensor 'picture'", "quantize it to int8"),
    "tflite hybrid": (
        tflite(hybrid),
        "hybrid model: CONV_2D has int8 weights but the float activation 'picture'",
        "activations",
    ),
    "tflite float16": (tflite(half_precision), "tensor 'kernel' is float16: a float model", "quantize it to int8"),
    "tflite int16x8": (tflite(int16x8), "int16x8 model: the activation 'picture' of CONV_2D is int16", "TFLITE_BUILTINS_INT8"),
    "tflite uint8": (tflite(old_uint8), "uint8 model: CONV_2D has the uint8 activation 'picture'", "convert it again to int8"),
    "tflite custom": (tflite(custom), "operator 0 is the custom operator 'TheirOp'", "replace the layer"),
    "tflite flex": (tflite(flex), "operator 0 is the custom operator 'FlexErf'", "without allow_custom_ops"),
    "tflite unknown": (tflite(unknown), "operator 0 is COS", "supported: ADD, "),
    "tflite dynamic": (tflite(dynamic), "'picture' has the dynamic shape (1, -1, -1, 2)", "export with a fixed input shape"),
    "tflite subgraphs": (tflite(several_graphs), "2 subgraphs (one is 'while_body')", "export without control flow"),
    "tflite no subgraph": (tflite(no_graph), "0 subgraphs", "supported: 1"),
    "tflite sparse": (tflite(sparse), "tensor 'kernel' is stored sparse", "export without sparsity"),
    "tflite int4": (tflite(packed(schema.TensorType.INT4)), "tensor 'kernel' is packed int4", "export with 8-bit weights"),
    "tflite state": (tflite(state), "tensor 'picture' keeps its value between inferences", "supported: the states of an LSTM"),
    "onnx float": (
        plain(helper.make_node("Relu", ["x"], ["y"])),
        "float model: node 0 (Relu) computes in float32",
        "quantize_static",
    ),
    "onnx hybrid": (
        plain(WEIGHTS, helper.make_node("MatMul", ["x", "weights"], ["y"]), initializers=MATRIX),
        "hybrid model: node 1 (MatMul) has integer weights and float activations",
        "quantize the activations too",
    ),
    "onnx dynamic quantization": (
        plain(*DYNAMIC_NODES, initializers=MATRIX),
        "node 0 (DynamicQuantizeLinear) is quantized dynamically",
        "quantize_static",
    ),
    "onnx few bits": (
        plain(helper.make_node("MatMulNBits", ["x", "w"], ["y"], domain="com.microsoft"), initializers=MATRIX),
        "node 0 (MatMulNBits) has weights of few bits and float activations",
        "expected int8 for both",
    ),
    "onnx int16": (quantized(onnx_int16), "'input' is int16 (16 bits)", "activation_type=QuantType.QInt8"),
    "onnx custom": (quantized(onnx_foreign), "(TheirOp) is of the domain 'their.domain'", "without custom and fused operators"),
    "onnx unknown": (quantized(onnx_unknown), "(Einsum) is not supported", "supported: "),
    "onnx dynamic": (quantized(onnx_dynamic), "model input 'input' has the dynamic shape", "export with a fixed input shape"),
    "onnx graphs": (quantized(onnx_branch), "(If) holds another graph", "export without control flow"),
    "onnx functions": (quantized(onnx_functions), "functions of its own ('TheirBlock')", "onnx.inliner"),
    "onnx sparse": (quantized(onnx_sparse), "sparse initializers ('their_sparse')", "export without sparsity"),
    "onnx int4": (quantized(onnx_packed(TensorProto.INT4)), "is packed INT4", "weight_type=QuantType.QInt8"),
    "onnx uint4": (quantized(onnx_packed(TensorProto.UINT4)), "is packed UINT4", "weight_type=QuantType.QInt8"),
    "onnx float4": (quantized(onnx_packed(TensorProto.FLOAT4E2M1)), "is packed FLOAT4E2M1", "weight_type=QuantType.QInt8"),
    "onnx half": (quantized(onnx_packed(TensorProto.FLOAT16)), "is FLOAT16", "supported: float32"),
    "onnx outside": (quantized(onnx_external), "external data '../outside.bin' of tensor 'w_", "external_data=False"),
}


def written(folder: Path, kind: str) -> Path:
    path = folder / f"their model.{kind.split()[0]}"
    path.write_bytes(KINDS[kind][0]())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_own_sentence(tmp_path: Path, kind: str) -> None:
    _, found, way_out = KINDS[kind]
    with pytest.raises(GraphError) as caught:
        read_model(written(tmp_path, kind))
    text = str(caught.value)
    assert text.startswith("their model.") and text.isprintable() and len(text) < 800
    assert found in text and way_out in text, text
    assert text.index(found) < text.index(way_out), "what was found comes before what to do"


def test_no_two_kinds_share_a_sentence(tmp_path: Path) -> None:
    sentences = {}
    for kind in KINDS:
        with pytest.raises(GraphError) as caught:
            read_model(written(tmp_path, kind))
        sentences[kind] = str(caught.value)
    assert len(set(sentences.values())) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_built_of_it(tmp_path: Path, kind: str) -> None:
    """Neither by the export nor by the analysis; exit code 6."""
    model = written(tmp_path, kind)
    for more in (["--analyze"], ["--board", "nucleo_f446re"]):
        with pytest.raises(GraphError) as caught:
            main([str(model), "--build", str(tmp_path / "b"), *more])
        assert caught.value.exit_code == 6
    made = [path for path in (tmp_path / "b").rglob("*") if path.is_file() and path.name not in (".lock", ".key")]
    assert made == []


@pytest.mark.parametrize("kind", ["tflite hybrid", "onnx float"])
def test_as_a_person_meets_it(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-m", "firmware_export", str(written(tmp_path, kind)), "--build", str(tmp_path / "b")]
    result = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60)
    assert result.returncode == 6 and result.stdout == ""
    assert result.stderr.startswith("error: their model.") and result.stderr.count("\n") == 1


def test_every_packed_type_of_the_schema_is_known() -> None:
    """A new version of the schema with more of them would show here."""
    names = {name.lower() for name in vars(schema.TensorType) if not name.startswith("_")}
    assert {name for name in names if name.endswith(("int4", "int2"))} <= set(PACKED)
    assert set(FLOAT_EDGES) <= set(vars(schema.BuiltinOperator))


def test_the_unchanged_files_are_read(tmp_path: Path) -> None:
    """The makers themselves make good models."""
    for name, make in (("m.tflite", tflite(lambda model: None)), ("m.onnx", quantized(lambda model: None))):
        (tmp_path / name).write_bytes(make())
        assert [node.op for node in read_model(tmp_path / name).nodes] == ["conv2d"]
