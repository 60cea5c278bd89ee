"""The .tflite reader: what it takes, and every reason to refuse with its own sentence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build, small_net

from firmware_export.graph import Graph, GraphError
from firmware_export.read_tflite import read_tflite, read_tflite_bytes
from firmware_export.write_tflite import write_tflite

Change = Callable[[Any], None]


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def changed(change: Change, graph: Graph | None = None) -> bytes:
    """The small net's file with something changed in its parsed form."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(write_tflite(graph or small_net()), 0))
    change(model)
    return packed(model)


def named(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.subgraphs[0].tensors if tensor.name == name.encode() or tensor.name == name)


def first_weights(model: Any) -> Any:
    return next(tensor for tensor in model.subgraphs[0].tensors if tensor.name.startswith(b"w"))


def refused(data: bytes) -> str:
    with pytest.raises(GraphError) as caught:
        read_tflite_bytes(data)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 700, "one line that can be shown"
    return text


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(write_tflite(small_net()))
    assert read_tflite(path).hash() == read_tflite_bytes(path.read_bytes()).hash()


def test_tensors_keep_the_order_of_the_file_and_unused_ones_are_left_out() -> None:
    def change(model: Any) -> None:
        model.subgraphs[0].tensors.append(schema.TensorT(shape=[3], type=schema.TensorType.STRING, buffer=0, name="spare"))

    plain, extended = read_tflite_bytes(write_tflite(small_net())), read_tflite_bytes(changed(change))
    assert extended.hash() == plain.hash()


def test_a_signature_whose_batch_alone_is_open_is_taken() -> None:
    def change(model: Any) -> None:
        named(model, "image").shapeSignature = [-1, 8, 6, 3]

    assert read_tflite_bytes(changed(change)).tensors[0].shape == (1, 8, 6, 3)


def test_a_missing_zero_point_is_zero_and_missing_options_are_the_defaults() -> None:
    def change(model: Any) -> None:
        first_weights(model).quantization.zeroPoint = None

    assert read_tflite_bytes(changed(change)).hash() == read_tflite_bytes(write_tflite(small_net())).hash()


def test_an_old_file_has_the_operator_in_the_byte_only() -> None:
    def change(model: Any) -> None:
        for code in model.operatorCodes:
            code.builtinCode = 0

    assert read_tflite_bytes(changed(change)).hash() == read_tflite_bytes(write_tflite(small_net())).hash()


def test_names_are_made_printable() -> None:
    def change(model: Any) -> None:
        named(model, "image").name = "a\x1b[31m\nb" + "x" * 100

    (name,) = [tensor.name for tensor in read_tflite_bytes(changed(change)).tensors if tensor.name.startswith("a")]
    assert name.startswith("a?[31m?b") and len(name) == 60


# Refusals of what is not supported


def set_type(name: str, dtype: int) -> Change:
    def change(model: Any) -> None:
        named(model, name).type = dtype

    return change


def float_model() -> bytes:
    def change(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.type in (schema.TensorType.INT8, schema.TensorType.INT32):
                elements = int(np.prod(tensor.shape))
                if model.buffers[tensor.buffer].data is not None:
                    model.buffers[tensor.buffer].data = np.zeros(4 * elements, np.uint8)
                tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None

    return changed(change, one_conv())


def hybrid_model() -> bytes:
    def change(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if model.buffers[tensor.buffer].data is None:
                tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None

    return changed(change, one_conv())


def int16x8_model() -> bytes:
    def change(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if model.buffers[tensor.buffer].data is None:
                tensor.type = schema.TensorType.INT16

    return changed(change, one_conv())


def one_conv() -> Graph:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="image")
    return build.graph(x, build.conv(x, 3))


def custom(model: Any) -> None:
    model.operatorCodes[0] = schema.OperatorCodeT(
        deprecatedBuiltinCode=32, builtinCode=schema.BuiltinOperator.CUSTOM, customCode="My\x1bOp", version=1
    )


def two_subgraphs(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


def dynamic(model: Any) -> None:
    named(model, "image").shapeSignature = [1, -1, -1, 3]


def sparse(model: Any) -> None:
    first_weights(model).sparsity = schema.SparsityParametersT(traversalOrder=[0, 1, 2, 3])


def packed_four_bits(model: Any) -> None:
    first_weights(model).type = schema.TensorType.INT4


def variable(model: Any) -> None:
    named(model, "image").isVariable = True


def custom_quantization(model: Any) -> None:
    quantization = named(model, "image").quantization
    quantization.detailsType = schema.QuantizationDetails.CustomQuantization
    quantization.details = schema.CustomQuantizationT(custom=[1])


def external_buffer(model: Any) -> None:
    first_weights(model).externalBuffer = 1


def outside_the_flatbuffer(model: Any) -> None:
    buffer = model.buffers[first_weights(model).buffer]
    buffer.data, buffer.offset, buffer.size = None, 4096, 108


def unknown_builtin(model: Any) -> None:
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.COS


def tanh_activation(model: Any) -> None:
    model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.TANH


def batch_of_two(model: Any) -> None:
    named(model, "image").shape = [2, 8, 6, 3]


def older_schema(model: Any) -> None:
    model.version = 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (float_model, "float model: CONV_2D computes the float32 tensor 'image'; quantize it to int8 first"),
        (hybrid_model, "hybrid model: CONV_2D has int8 weights but the float activation 'image'"),
        (int16x8_model, "int16x8 model: the activation 'image' of CONV_2D is int16; supported: int8"),
    ],
)
def test_models_of_another_kind(make: Callable[[], bytes], words: str) -> None:
    assert words in refused(make())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (custom, "operator 0 is the custom operator 'My?Op'; supported: TFLite's built-in operators"),
        (two_subgraphs, "2 subgraphs (one is 'main'); supported: 1"),
        (dynamic, "'image' has the dynamic shape (1, -1, -1, 3); export with a fixed input shape"),
        (sparse, "is stored sparse; supported: dense"),
        (packed_four_bits, "is packed int4; supported: int8"),
        (variable, "keeps its value between inferences"),
        (custom_quantization, "custom quantization; supported: scale and zero point"),
        (external_buffer, "names buffer"),
        (outside_the_flatbuffer, "lies outside the flatbuffer"),
        (unknown_builtin, "operator 0 is COS, which is not supported; supported: ADD"),
        (unknown_builtin, "; replace it in the model, or add it: firmware_export/README.md"),
        (tanh_activation, "operator 0 (CONV_2D): fused activation TANH; supported: NONE, RELU, RELU6, RELU_N1_TO_1"),
        (batch_of_two, "(2, 8, 6, 3)"),
        (older_schema, "TFLite schema version 2; supported: 3"),
        (set_type("image", schema.TensorType.FLOAT64), "'image' is float64; supported: int8"),
        (set_type("image", 77), "'image' is 77; supported"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_supported_is_named_with_the_tensor_or_operator(change: Change, words: str) -> None:
    assert words in refused(changed(change))


# Damage


def index_beyond(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, 1, 999]


def negative_index(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [-5, 1, 2]


def opcode_beyond(model: Any) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 12


def buffer_beyond(model: Any) -> None:
    first_weights(model).buffer = 1000


def short_data(model: Any) -> None:
    buffer = model.buffers[first_weights(model).buffer]
    buffer.data = buffer.data[:-1]


def zero_size(model: Any) -> None:
    first_weights(model).shape = [4, 0, 3, 3]


def negative_size(model: Any) -> None:
    first_weights(model).shape = [4, -3, 3, 3]


def overflowing_product(model: Any) -> None:
    named(model, "image").shape = [1, 2**31 - 1, 2**31 - 1, 4]


def gigabyte(model: Any) -> None:
    named(model, "image").shape = [1, 1024, 1024, 1024]


def many_dimensions(model: Any) -> None:
    named(model, "image").shape = [1] * 5000


def scale_of(value: float) -> Change:
    def change(model: Any) -> None:
        named(model, "image").quantization.scale = np.array([value], np.float32)

    return change


def zero_point_beyond(model: Any) -> None:
    named(model, "image").quantization.zeroPoint = np.array([128], np.int64)


def scales_too_few(model: Any) -> None:
    quantization = first_weights(model).quantization
    quantization.scale, quantization.zeroPoint = quantization.scale[:2], quantization.zeroPoint[:2]


def more_zero_points(model: Any) -> None:
    named(model, "image").quantization.zeroPoint = np.zeros(3, np.int64)


def axis_beyond(model: Any) -> None:
    first_weights(model).quantization.quantizedDimension = 9


def cycle(model: Any) -> None:
    operators = model.subgraphs[0].operators
    operators[0].inputs = [operators[2].outputs[0], *list(operators[0].inputs)[1:]]


def dangling(model: Any) -> None:
    model.subgraphs[0].inputs = []


def written_twice(model: Any) -> None:
    operators = model.subgraphs[0].operators
    operators[1].outputs = operators[0].outputs


def output_not_written(model: Any) -> None:
    del model.subgraphs[0].operators[-1]


def no_operators(model: Any) -> None:
    model.subgraphs[0].operators = []


def no_tensors(model: Any) -> None:
    model.subgraphs[0].tensors = []


def no_codes(model: Any) -> None:
    model.operatorCodes = []


def no_buffers(model: Any) -> None:
    model.buffers = []


def stride_zero(model: Any) -> None:
    model.subgraphs[0].operators[0].builtinOptions.strideH = 0


def kernel_larger_than_the_image(model: Any) -> None:
    named(model, "image").shape = [1, 1, 1, 3]
    model.subgraphs[0].operators[0].builtinOptions.padding = schema.Padding.VALID


def options_of_another_operator(model: Any) -> None:
    operator = model.subgraphs[0].operators[0]
    operator.builtinOptions, operator.builtinOptionsType = schema.SoftmaxOptionsT(), schema.BuiltinOptions.SoftmaxOptions


def wrong_output_shape(model: Any) -> None:
    tensors = model.subgraphs[0].tensors
    tensors[model.subgraphs[0].operators[0].outputs[0]].shape = [1, 8, 6, 5]


def input_is_constant(model: Any) -> None:
    model.subgraphs[0].inputs = [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (index_beyond, "tensor index 999 is out of range"),
        (negative_index, "tensor index -5 is out of range"),
        (opcode_beyond, "names operator code 12, which the file does not have"),
        (buffer_beyond, "names buffer 1000, which the file does not have"),
        (short_data, "bytes of data, expected"),
        (zero_size, "(4, 0, 3, 3); supported: 1 to"),
        (negative_size, "dynamic shape (4, -3, 3, 3)"),
        (overflowing_product, "supported: 1 to 67,108,864 elements"),
        (gigabyte, "supported: 1 to 67,108,864 elements"),
        (many_dimensions, "has 5,000 dimensions; supported: up to 6"),
        (scale_of(0.0), "scale 0.0; supported: finite scales above 0"),
        (scale_of(-1.0), "scale -1.0; supported: finite"),
        (scale_of(float("nan")), "scale nan; supported: finite"),
        (scale_of(float("inf")), "scale inf; supported: finite"),
        (zero_point_beyond, "zero points outside -128..127 of its type int8"),
        (scales_too_few, "has 2 scales along axis 0; expected one for each"),
        (more_zero_points, "has 1 scales and 3 zero points"),
        (axis_beyond, "along axis 9"),
        (cycle, "before anything has written it"),
        (dangling, "has 0 inputs; supported: 1 to"),
        (written_twice, "which already has a value"),
        (output_not_written, "is written by no operator"),
        (no_operators, "has 0 operators"),
        (no_tensors, "out of range"),
        (no_codes, "names operator code 0, which the file does not have"),
        (no_buffers, "which the file does not have"),
        (stride_zero, "stride (0, 1)"),
        (kernel_larger_than_the_image, "do not fit the image 1x1"),
        (options_of_another_operator, "the options are SoftmaxOptions, expected Conv2DOptions"),
        (wrong_output_shape, "its inputs make int8 (1, 8, 6, 4)"),
        (input_is_constant, "is a constant; expected a tensor that is input"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_files_are_refused_with_what_was_found(change: Change, words: str) -> None:
    assert words in refused(changed(change))


@pytest.mark.parametrize("length", [0, 4, 7, 8, 12, 40, 200, 1000])
def test_files_cut_short(length: int) -> None:
    assert refused(write_tflite(small_net())[:length])


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"TFL3TFL3", b"\x08\0\0\0TFL3" + b"\xff" * 64, b"PK\x03\x04" * 20])
def test_bytes_that_are_no_model(data: bytes) -> None:
    assert refused(data)


def vector_lengths(data: bytes) -> list[int]:
    """Places of every 4-byte value that could be a length: small and aligned."""
    return [place for place in range(8, len(data) - 4, 4) if 0 < struct.unpack_from("<I", data, place)[0] < 64]


def test_every_small_number_made_huge() -> None:
    """Each place that may be the length of a vector claims 2^31 entries: refused or harmless, never a long loop."""
    data = write_tflite(one_conv())
    for place in vector_lengths(data):
        for value in (0x7FFFFFFF, 0xFFFFFFFF, len(data)):
            hostile = bytearray(data)
            struct.pack_into("<I", hostile, place, value)
            try:
                read_tflite_bytes(bytes(hostile))
            except GraphError as error:
                assert str(error).isprintable()


def test_a_chain_of_a_hundred_thousand_operators_is_refused_at_once() -> None:
    builder = flatbuffers.Builder(1 << 20)
    operator = schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[1]).Pack(builder)
    schema.SubGraphStartOperatorsVector(builder, 100_000)
    for _ in range(100_000):
        builder.PrependUOffsetTRelative(operator)
    operators = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    assert "100,000 operators; supported: up to 10,000" in refused(bytes(builder.Output()))


def test_one_tensor_read_again_and_again_runs_out_of_budget() -> None:
    builder = flatbuffers.Builder(1 << 20)
    name = builder.CreateString("n" * 50_000)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, name)
    schema.TensorAddType(builder, schema.TensorType.INT8)
    tensor = schema.TensorEnd(builder)
    count = 5000
    inputs = builder.CreateNumpyVector(np.arange(count, dtype=np.int32))
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, inputs)
    operator = schema.OperatorEnd(builder)
    subgraph = finished_subgraph(builder, [tensor] * count, [operator])
    code = schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.CONV_2D, deprecatedBuiltinCode=3, version=1).Pack(builder)
    schema.ModelStartOperatorCodesVector(builder, 1)
    builder.PrependUOffsetTRelative(code)
    codes = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, subgraph)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    assert "its tables overlap" in refused(bytes(builder.Output()))


def finished_subgraph(builder: Any, tensors: list[int], operators: list[int]) -> int:
    vectors = []
    for start, entries in ((schema.SubGraphStartTensorsVector, tensors), (schema.SubGraphStartOperatorsVector, operators)):
        start(builder, len(entries))
        for entry in reversed(entries):
            builder.PrependUOffsetTRelative(entry)
        vectors.append(builder.EndVector())
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, vectors[0])
    schema.SubGraphAddOperators(builder, vectors[1])
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(subgraph)
    return int(builder.EndVector())
