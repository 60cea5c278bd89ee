"""Mutations that know the formats: fields of the parsed messages get telling values, so that the files stay readable and the
damage reaches the operators."""

from __future__ import annotations

import random
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

NUMBERS = (0, 1, 2, 3, -1, -2, 5, 7, 64, 255, 1000, 65535, 65536, 2**20, 2**31 - 1, -(2**31))
FLOATS = (0.0, -1.0, 1e-45, 1e-30, 1e30, float("inf"), float("nan"), 1.0, 0.003)


def mutated_onnx(data: bytes, seed: int) -> bytes:
    """One to four fields of an ONNX model changed."""
    rng = random.Random(seed)
    model = onnx.ModelProto()
    model.ParseFromString(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(ONNX_CHANGES)(model.graph, rng)
    return model.SerializeToString()


def _onnx_dimension(graph: Any, rng: random.Random) -> None:
    tensor = rng.choice(graph.initializer)
    if tensor.dims and rng.random() < 0.8:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    else:
        tensor.dims.append(rng.choice(NUMBERS))


def _onnx_same_size(graph: Any, rng: random.Random) -> None:
    """Another shape of the same number of elements, which the data still fills."""
    tensor = rng.choice(graph.initializer)
    dims = list(tensor.dims)
    rng.shuffle(dims)
    del tensor.dims[:]
    tensor.dims.extend(dims if rng.random() < 0.5 else [int(np.prod(dims)) if dims else 1])


def _onnx_data(graph: Any, rng: random.Random) -> None:
    tensor = rng.choice(graph.initializer)
    raw = bytearray(tensor.raw_data)
    if tensor.data_type == onnx.TensorProto.FLOAT:
        raw[:4] = np.float32(rng.choice(FLOATS)).tobytes()
    elif raw:
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    tensor.raw_data = bytes(raw)


def _onnx_type(graph: Any, rng: random.Random) -> None:
    rng.choice(graph.initializer).data_type = rng.randrange(0, 24)


def _onnx_attribute(graph: Any, rng: random.Random) -> None:
    attributes = [a for node in graph.node for a in node.attribute]
    attribute = rng.choice(attributes)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif rng.random() < 0.3:
        attribute.type = rng.randrange(0, 15)
    else:
        attribute.i = rng.choice(NUMBERS)


def _onnx_attribute_count(graph: Any, rng: random.Random) -> None:
    lists = [a.ints for node in graph.node for a in node.attribute if a.ints]
    chosen = rng.choice(lists)
    if rng.random() < 0.5:
        chosen.append(rng.choice(NUMBERS))
    else:
        del chosen[-1]


def _onnx_input(graph: Any, rng: random.Random) -> None:
    node, other = rng.choice(graph.node), rng.choice(graph.node)
    names = [*other.input, *other.output, graph.input[0].name, graph.output[0].name, "", "missing"]
    node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _onnx_input_count(graph: Any, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    if rng.random() < 0.5:
        del node.input[-1]
    else:
        node.input.append(rng.choice(rng.choice(graph.node).input or [""]))


def _onnx_output(graph: Any, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    node.output.append(rng.choice(("more", "", *rng.choice(graph.node).output)))


def _onnx_node(graph: Any, rng: random.Random) -> None:
    place, choice = rng.randrange(len(graph.node)), rng.random()
    if choice < 0.4:
        del graph.node[place]
    elif choice < 0.7:
        graph.node.add().CopyFrom(graph.node[place])
    else:
        types = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "Flatten", "Reshape", "Softmax", "ReduceMean")
        types += ("QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearConcat", "Div", "HardSigmoid", "Shape")
        types += ("Gather", "ConstantOfShape", "Expand", "Range", "Transpose", "Pad", "Slice", "Split", "Max", "PRelu")
        graph.node[place].op_type = rng.choice((*types, "AveragePool", "Squeeze", "Identity", "QuantizeLinear", "If"))


def _onnx_edge(graph: Any, rng: random.Random) -> None:
    dims = rng.choice((graph.input[0], graph.output[0])).type.tensor_type.shape.dim
    if dims:
        dims[rng.randrange(len(dims))].dim_value = rng.choice(NUMBERS)


ONNX_CHANGES = (
    _onnx_dimension,
    _onnx_same_size,
    _onnx_data,
    _onnx_type,
    _onnx_attribute,
    _onnx_attribute,
    _onnx_attribute_count,
    _onnx_input,
    _onnx_input,
    _onnx_input_count,
    _onnx_output,
    _onnx_node,
    _onnx_edge,
)


def mutated_tflite(data: bytes, seed: int) -> bytes:
    """One to four fields of a TFLite model changed."""
    rng = random.Random(seed)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(TFLITE_CHANGES)(model, rng)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _changed(vector: Any, rng: random.Random, values: tuple[int, ...] = NUMBERS) -> Any:
    """A vector of integers with one value changed, added or left out."""
    numbers = [] if vector is None else [int(v) for v in vector]
    choice = rng.random()
    if choice < 0.7 and numbers:
        numbers[rng.randrange(len(numbers))] = rng.choice(values)
    elif choice < 0.85:
        numbers.append(rng.choice(values))
    else:
        numbers = numbers[:-1]
    return numbers


def _tflite_shape(model: Any, rng: random.Random) -> None:
    tensor = rng.choice(model.subgraphs[0].tensors)
    tensor.shape = np.array(_changed(tensor.shape, rng), np.int32)


def _tflite_shuffle(model: Any, rng: random.Random) -> None:
    tensor = rng.choice(model.subgraphs[0].tensors)
    tensor.shape = rng.sample([int(v) for v in tensor.shape], len(tensor.shape))


def _tflite_type(model: Any, rng: random.Random) -> None:
    rng.choice(model.subgraphs[0].tensors).type = rng.randrange(0, 23)


def _tflite_buffer(model: Any, rng: random.Random) -> None:
    rng.choice(model.subgraphs[0].tensors).buffer = rng.choice((0, 1, 2, 5, len(model.buffers), 2**31))


def _tflite_quantization(model: Any, rng: random.Random) -> None:
    quantization = rng.choice([t for t in model.subgraphs[0].tensors if t.quantization is not None]).quantization
    choice = rng.random()
    if choice < 0.35:
        quantization.scale = np.array([*list(quantization.scale)[:-1], rng.choice(FLOATS)], np.float32)
    elif choice < 0.7:
        quantization.zeroPoint = np.array(_changed(quantization.zeroPoint, rng), np.int64)
    elif choice < 0.85:
        quantization.quantizedDimension = rng.choice((0, 1, 2, 3, 4, -1, 2**30))
    else:
        quantization.scale = np.array([*list(quantization.scale), 0.5], np.float32)


def _tflite_wire(model: Any, rng: random.Random) -> None:
    graph = model.subgraphs[0]
    owner, key = rng.choice(
        [(o, k) for o in graph.operators for k in ("inputs", "outputs")] + [(graph, "inputs"), (graph, "outputs")]
    )
    setattr(owner, key, _changed(getattr(owner, key), rng, (-1, -2, 0, 1, 2, 3, 5, 8, len(graph.tensors), 2**31 - 1)))


def _tflite_option(model: Any, rng: random.Random) -> None:
    operators = [o for o in model.subgraphs[0].operators if o.builtinOptions is not None and vars(o.builtinOptions)]
    options = rng.choice(operators).builtinOptions
    key = rng.choice(sorted(vars(options)))
    value = getattr(options, key)
    if isinstance(value, bool):
        setattr(options, key, not value)
    elif isinstance(value, int):
        setattr(
            options,
            key,
            rng.choice([v for v in NUMBERS if -128 <= v <= 127] if "ctivation" in key or key == "padding" else NUMBERS),
        )


def _tflite_options_of_another(model: Any, rng: random.Random) -> None:
    one, other = rng.choice(model.subgraphs[0].operators), rng.choice(model.subgraphs[0].operators)
    one.builtinOptions, one.builtinOptionsType = other.builtinOptions, other.builtinOptionsType


def _tflite_operator(model: Any, rng: random.Random) -> None:
    operators, choice = model.subgraphs[0].operators, rng.random()
    if choice < 0.3:
        del operators[rng.randrange(len(operators))]
    elif choice < 0.5:
        operators.append(rng.choice(operators))
    else:
        rng.choice(operators).opcodeIndex = rng.choice((0, 1, 2, 3, len(model.operatorCodes), 2**31))


def _tflite_code(model: Any, rng: random.Random) -> None:
    code = rng.choice(model.operatorCodes)
    code.builtinCode = rng.choice((0, 1, 2, 3, 4, 9, 17, 19, 21, 22, 25, 32, 40, 114, 200, 2**20))
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)


TFLITE_CHANGES = (
    _tflite_shape,
    _tflite_shuffle,
    _tflite_type,
    _tflite_buffer,
    _tflite_quantization,
    _tflite_quantization,
    _tflite_wire,
    _tflite_wire,
    _tflite_option,
    _tflite_option,
    _tflite_options_of_another,
    _tflite_operator,
    _tflite_code,
)
