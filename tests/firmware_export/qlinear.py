"""Convolutions and matrix products as onnxruntime's QLinearConv: the second oracle of the arithmetic float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from firmware_export.graph import Graph, Node, Tensor


def qlinear_conv(graph: Graph) -> bytes:
    """An ONNX file of a graph of one conv2d, depthwise_conv2d or fully_connected node; int8 NCHW in and out."""
    node = graph.nodes[0]
    x, w, y = (graph.tensors[index] for index in (*node.inputs[:2], node.outputs[0]))
    kernel, attributes = _kernel(node, x, w)
    assert w.quantization is not None
    constants = {"xs": np.float32(x.scale), "xz": np.int8(x.zero_point), "ys": np.float32(y.scale), "yz": np.int8(y.zero_point)}
    scale = w.quantization.scale
    constants |= {"w": kernel, "ws": scale if scale.size > 1 else scale[0], "wz": np.zeros(scale.size, np.int8)}
    if scale.size == 1:
        constants["wz"] = np.int8(0)
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    bias = graph.tensors[node.inputs[2]].data if len(node.inputs) == 3 and node.inputs[2] >= 0 else None
    if bias is not None:
        constants["b"] = bias.reshape(-1)
        names.append("b")
    body = helper.make_graph(
        [helper.make_node("QLinearConv", names, ["y"], **attributes)],
        "qlinear",
        [helper.make_tensor_value_info("x", TensorProto.INT8, ["n", "c", "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, ["n", "o", "oh", "ow"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _kernel(node: Node, x: Tensor, w: Tensor) -> tuple[np.ndarray, dict[str, object]]:
    """Weights in ONNX's order, and the attributes."""
    assert w.data is not None
    if node.op == "fully_connected":
        return w.data.reshape(*w.shape, 1, 1), {}
    top, bottom, left, right = node.integers("padding")
    attributes: dict[str, object] = {"pads": [top, left, bottom, right]}
    attributes |= {"strides": node.integers("stride"), "dilations": node.integers("dilation")}
    if node.op == "conv2d":
        return np.ascontiguousarray(w.data.transpose(0, 3, 1, 2)), attributes
    return np.ascontiguousarray(w.data.transpose(3, 0, 1, 2)), attributes | {"group": x.shape[3]}


def run_qlinear(graph: Graph, vectors: tuple[tuple[np.ndarray, ...], ...]) -> list[np.ndarray]:
    """Stored outputs in our layout, within the node's clamp: QLinearConv has none of its own besides int8's ends."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(qlinear_conv(graph), options, providers=["CPUExecutionProvider"])
    node = graph.nodes[0]
    shape, clamp = graph.tensors[node.outputs[0]].shape, node.integers("clamp")
    results = []
    for (value,) in vectors:
        if node.op == "fully_connected":
            depth = graph.tensors[node.inputs[1]].shape[1]
            image = value.reshape(-1, depth, 1, 1)
            found = session.run(None, {"x": image})[0].reshape(shape)
        else:
            found = session.run(None, {"x": np.ascontiguousarray(value.transpose(0, 3, 1, 2))})[0].transpose(0, 2, 3, 1)
        results.append(np.clip(found, *clamp))
    return results
