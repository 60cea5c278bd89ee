"""Outside runtimes for the tests: the tflite-micro wheel, LiteRT's reference kernels, onnxruntime without optimisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from firmware_export.graph import Graph, Node, Tensor

Arrays = list[np.ndarray]


def tflite_micro(model: bytes, inputs: Arrays, outputs: int = 1) -> Arrays:
    """The outputs of the tflite-micro wheel."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model, arena_size=2**22)
    for place, value in enumerate(inputs):
        interpreter.set_input(value, place)
    interpreter.invoke()
    return [np.array(interpreter.get_output(place)) for place in range(outputs)]


def tflite_micro_each(model: bytes, vectors: list[Arrays], outputs: int = 1) -> list[Arrays]:
    """The outputs of the tflite-micro wheel for one input after another, each as the first that the model ever gets."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model, arena_size=2**22)
    found = []
    for vector in vectors:
        interpreter.reset()
        for place, value in enumerate(vector):
            interpreter.set_input(value, place)
        interpreter.invoke()
        found.append([np.array(interpreter.get_output(place)) for place in range(outputs)])
    return found


def litert(model: bytes, inputs: Arrays) -> Arrays:
    """The outputs of LiteRT's reference kernels (BUILTIN_REF)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [np.array(interpreter.get_tensor(detail["index"])) for detail in interpreter.get_output_details()]


def onnxruntime_session(model: bytes) -> Any:
    """A session that runs the file as it is written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_stored(session: Any, graph: Graph, stored: Arrays) -> Arrays:
    """onnxruntime's outputs as stored integers in our layout, for inputs given as stored integers in our layout."""
    feeds = {}
    for node_input, index, value in zip(session.get_inputs(), graph.inputs, stored, strict=True):
        feeds[node_input.name] = to_onnx(real(graph.tensors[index], value))
    results = session.run(None, feeds)
    answers = []
    for index, result in zip(graph.outputs, results, strict=True):
        tensor = graph.tensors[index]
        values = np.rint(from_onnx(result) / tensor.scale) + tensor.zero_point
        answers.append(np.clip(values, -128, 127).astype(np.int64))
    return answers


def real(tensor: Tensor, stored: np.ndarray) -> np.ndarray:
    """The float values of stored integers."""
    return ((stored.astype(np.float64) - tensor.zero_point) * tensor.scale).astype(np.float32)


def to_onnx(array: np.ndarray) -> np.ndarray:
    """NHWC -> NCHW."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def from_onnx(array: np.ndarray) -> np.ndarray:
    """NCHW -> NHWC."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def without_fully_connected(graph: Graph) -> Graph:
    """Every fully connected layer as a 1x1 convolution between reshapes: LiteRT's reference kernel rounds FULLY_CONNECTED in
    another way than every other operator, and than TFLite Micro."""
    tensors, nodes = list(graph.tensors), []
    for node in graph.nodes:
        if node.op != "fully_connected":
            nodes.append(node)
            continue
        x, y, w = tensors[node.inputs[0]], tensors[node.outputs[0]], tensors[node.inputs[1]]
        assert w.data is not None
        count = w.shape[1]
        data = w.data.reshape(w.shape[0], 1, 1, count)
        added = [
            replace(x, shape=(1, 1, 1, count)),
            replace(w, shape=data.shape, data=data),
            replace(y, shape=(1, 1, 1, w.shape[0])),
        ]
        image, weights, result = range(len(tensors), len(tensors) + 3)
        tensors += added
        attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "clamp": node.attributes["clamp"]}
        nodes.append(Node("reshape", (node.inputs[0],), (image,), {"shape": (1, 1, 1, count)}))
        nodes.append(Node("conv2d", (image, weights, *node.inputs[2:]), (result,), attributes))
        nodes.append(Node("reshape", (result,), node.outputs, {"shape": y.shape}))
    return replace(graph, tensors=tensors, nodes=nodes)
