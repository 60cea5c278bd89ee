"""The same model in other people's runtimes: image in, output bytes out.

Exact in the arithmetic `double`: the tflite-micro wheel and LiteRT's reference kernels; in `float32`: LiteRT's default.
Agreeing within a tolerance only: onnxruntime, which requantizes sums of floats. Each takes int8 images [n, h, w, c] and gives
int8 [n, outputs].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.oracle import Vector, run_oracle, run_tflite_micro
from firmware_export.write_tflite import write_tflite

Int8 = npt.NDArray[np.int8]
Advance = Callable[[int], None]

INPUT_ZERO_POINT = -128
BATCH = 100
"""Images between two reports of progress."""


def tflite_micro_outputs(graph: Graph, twin: bytes, images: Int8, advance: Advance = lambda amount: None) -> Int8:
    """Answers of TensorFlow Lite Micro (the tflite-micro wheel), the oracle of the arithmetic `double` for every operator.

    Raises:
        GraphError: the wheel refuses the twin.
    """
    return _batched(lambda batch: run_tflite_micro(graph, twin, batch), images, advance)


def litert_outputs(graph: Graph, twin: bytes, images: Int8, advance: Advance = lambda amount: None) -> Int8:
    """Answers of the oracle of the arithmetic `float32`: LiteRT's default kernels, and see firmware_export/oracle.py.

    Raises:
        GraphError: LiteRT refuses the twin, or a piece of it.
    """
    return _batched(lambda batch: run_oracle(graph, twin, batch), images, advance)


def _batched(run: Callable[[tuple[Vector, ...]], list[Vector]], images: Int8, advance: Advance) -> Int8:
    outputs: list[Int8] = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        answers = run(tuple((image[None],) for image in batch))
        outputs += [np.asarray(answer[0], np.int8).reshape(-1) for answer in answers]
        advance(len(batch))
    return np.stack(outputs)


def litert_reference_outputs(graph: Graph, images: Int8, advance: Advance = lambda amount: None) -> Int8:
    """Answers of LiteRT's reference kernels (BUILTIN_REF), where they define the arithmetic `double`: all but one.

    Its FULLY_CONNECTED rounds once, half away from zero, so every such layer is given to it as the 1x1 convolution
    that computes the same sums.

    Raises:
        GraphError: LiteRT refuses the model.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = write_tflite(fully_connected_as_conv2d(graph))
    try:
        interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1)
        interpreter.allocate_tensors()
        return _each(images, lambda image: _run_litert(interpreter, image), advance)
    except (RuntimeError, ValueError) as error:
        raise GraphError(f"LiteRT refuses the model: {_first_line(error)}") from None


def _run_litert(interpreter: Any, image: Int8) -> Int8:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), np.int8)


def _each(images: Int8, run: Callable[[Int8], Int8], advance: Advance) -> Int8:
    outputs = []
    for image in images:
        outputs.append(run(image[None]).reshape(-1).copy())
        advance(1)
    return np.stack(outputs)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def fully_connected_as_conv2d(graph: Graph) -> Graph:
    """The same graph with every fully connected layer written as reshape, 1x1 convolution, reshape."""
    tensors, nodes = list(graph.tensors), []
    for node in graph.nodes:
        nodes += _as_conv2d(tensors, node) if node.op == "fully_connected" else [node]
    return replace(graph, tensors=tensors, nodes=nodes)


def _as_conv2d(tensors: list[Tensor], node: Node) -> list[Node]:
    x, weights, bias = node.inputs
    rows, depth = tensors[weights].shape
    batch = tensors[x].elements // depth
    spread = _with_shape(tensors, x, (batch, 1, 1, depth))
    kernel = _as_kernel(tensors, weights, (rows, 1, 1, depth))
    mapped = _with_shape(tensors, node.outputs[0], (batch, 1, 1, rows))
    clamp = node.attributes["clamp"]
    convolution = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "clamp": clamp}
    return [
        Node("reshape", (x,), (spread,), {"shape": (batch, 1, 1, depth)}),
        Node("conv2d", (spread, kernel, bias), (mapped,), convolution),
        Node("reshape", (mapped,), node.outputs, {"shape": tensors[node.outputs[0]].shape}),
    ]


def _with_shape(tensors: list[Tensor], index: int, shape: tuple[int, ...]) -> int:
    tensors.append(replace(tensors[index], name=f"{tensors[index].name} as {shape}", shape=shape))
    return len(tensors) - 1


def _as_kernel(tensors: list[Tensor], index: int, shape: tuple[int, ...]) -> int:
    """The weights [out, in] as [out, 1, 1, in], always with one scale per channel (TFLite wants it so)."""
    weights = tensors[index]
    assert weights.data is not None and weights.quantization is not None
    scale = np.broadcast_to(weights.quantization.scale, shape[:1]).astype(np.float32)
    quantization = Quantization(scale, np.zeros(shape[0], np.int64), 0)
    tensors.append(Tensor(f"{weights.name} as kernel", shape, weights.dtype, quantization, weights.data.reshape(shape)))
    return len(tensors) - 1


def onnxruntime_outputs(model: bytes, images: Int8, output: Tensor, advance: Advance = lambda amount: None) -> Int8:
    """Answers of onnxruntime (graph optimizations off) for the int8 QDQ file, as bytes of the output tensor.

    Args:
        model: an int8 QDQ ONNX file with NCHW float input and logits.
        images: int8 [n, h, w, c] as the board takes them; real = (stored + 128) / 255.
        output: tells scale and zero point of the logits.
    Raises:
        GraphError: onnxruntime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return _each(images, lambda image: stored(session.run(None, {name: real_nchw(image)})[0], output), advance)
    except Exception as error:  # onnxruntime raises types of its own binary module
        raise GraphError(f"onnxruntime refuses the file: {_first_line(error)}") from None


def real_nchw(images: Int8) -> npt.NDArray[np.float32]:
    """int8 [n, h, w, c] as float32 [n, c, h, w] in 0..1: the numbers the network was trained on."""
    unsigned = images.astype(np.float32) - np.float32(INPUT_ZERO_POINT)
    return np.ascontiguousarray((unsigned / np.float32(255)).transpose(0, 3, 1, 2))


def stored(real: npt.NDArray[np.floating[Any]], tensor: Tensor) -> Int8:
    """Real numbers as the int8 bytes of a tensor: round half to even, plus zero point, saturated."""
    steps = np.rint(real.astype(np.float64) / tensor.scale) + tensor.zero_point
    return np.asarray(np.clip(steps, -128, 127), np.int8)
