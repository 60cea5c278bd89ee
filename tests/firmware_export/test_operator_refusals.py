"""What operators do not take: each refusal is a GraphError that says what was found and what is supported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from example_cases import cases_of
from graph_changes import Change, all_of, attribute, data, inputs, scales, tensor
from movement_refusals import MOVEMENT_REFUSALS
from product_refusals import PRODUCT_REFUSALS

from firmware_export.graph import Graph, GraphError, Node
from firmware_export.operators import operator_of, registry
from firmware_export.write_tflite import write_tflite


def fresh(name: str, label: str = "") -> Graph:
    """An example of an operator, to be changed."""
    graph = next(case.graph for case in cases_of(name) if label in case.label)
    return replace(graph, tensors=list(graph.tensors), nodes=list(graph.nodes))


IMAGE = [
    (tensor(0, dtype="uint8"), r"input 0 'x' is uint8; supported: int8"),
    (tensor(0, shape=(2, 6, 7, 3)), r"shape \(2, 6, 7, 3\); supported: \[1, h, w, c\]"),
    (tensor(0, shape=(1, 6, 21)), r"shape \(1, 6, 21\); supported: \[1, h, w, c\]"),
    (tensor(0, shape=(1, 70000, 1, 3)), "up to 65535"),
    (tensor(0, quantization=None), "'x' has no quantization"),
    (tensor(-1, quantization=None), "'y' has no quantization"),
    (tensor(-1, dtype="int16"), "output 'y' is int16; supported: int8"),
    (scales(0, 0.1, 0.2, 0.3, axis=3), "'x' is quantized per channel; expected one scale"),
    (scales(0, float("nan")), "'x' has scale nan"),
    (scales(0, 0.1, zero_point=128), "zero point 128; supported"),
    (scales(-1, float("inf")), "'y' has scale inf"),
    (data(0, np.zeros((1, 6, 7, 3), np.int8)), "'x' is a constant; supported: computed"),
    (attribute("clamp", (5, 4)), r"clamp is 5\.\.4; supported"),
    (attribute("clamp", (-129, 4)), r"clamp is -129\.\.4; supported"),
    (attribute("clamp", None), "clamp is None; expected two integers"),
    (attribute("stride", (0, 1)), r"stride is \(0, 1\); supported: 1 to 65535"),
    (attribute("stride", (1,)), r"stride is \(1,\); expected 2 integers"),
    (attribute("stride", None), "stride is None; expected 2 integers"),
    (attribute("padding", (0, -1, 0, 0)), r"padding is \(0, -1, 0, 0\); supported: 0 to"),
    (attribute("padding", 3), "padding is 3; expected 4 integers"),
]
ACCUMULATORS = [
    (inputs(0), "1 inputs and 1 outputs; expected 2 or 3 and 1"),
    (inputs(0, None, 2), r"weights \(input 1\) are missing"),
    (inputs(None, 1, 2), "input 0 is missing"),
    (tensor(1, data=None), "weights 'w' are computed int8"),
    (tensor(1, dtype="int16"), "weights 'w' are constant int16"),
    (tensor(1, quantization=None), "weights 'w' have no scale"),
    (scales(1, 0.1, zero_point=3), r"have zero points \[3\]; supported: 0"),
    (scales(1, 0.1, 0.2), "have 2 scales along axis None; supported: 1, or one"),
    (scales(1, float("inf")), "finite scales above 0"),
    (tensor(2, dtype="int8"), "bias 'b' is int8"),
    (tensor(2, data=None), "bias 'b' is int32"),
    (scales(2, 123.0), "bias 'b' has the scale 123; expected input scale x weight scale"),
    (scales(2, 1e-4, 1e-4), "bias 'b' has 2 scales; expected those of the weights"),
    (scales(-1, 1e-38), r"the scales make a factor of .*; supported: below 2\^30"),
]
TABLE: dict[str, tuple[str, list[tuple[Change, str]]]] = {
    "conv2d": (
        "3x3 same",
        [
            *IMAGE,
            *ACCUMULATORS,
            (attribute("dilation", (1, 0)), r"dilation is \(1, 0\); supported: 1"),
            (data(1, np.ones((4, 3, 3, 5), np.int8)), r"for an image of 3 channels; supported: the same number"),
            (data(1, np.ones((4, 27), np.int8)), "supported: constant int8 with 4 dimensions"),
            (data(1, np.ones((4, 30, 3, 3), np.int8)), "kernel 30x3.* do not fit the image 6x7"),
            (data(2, np.ones(5, np.int32)), r"bias 'b' is int32 \(5,\); supported: constant int32 \(4,\)"),
        ],
    ),
    "depthwise_conv2d": (
        "3x3 same",
        [
            *IMAGE,
            *ACCUMULATORS,
            (data(1, np.ones((2, 3, 3, 12), np.int8)), r"supported: \[1, kernel h, kernel w, channels x multiplier\]"),
            (tensor(0, shape=(1, 6, 7, 5)), r"for an image of 5 channels"),
            (all_of(data(1, np.ones((1, 1, 1, 65538), np.int8)), scales(1, 0.1)), r"channels x multiplier\], up to 65535"),
        ],
    ),
    "fully_connected": (
        "saturation",
        [
            *ACCUMULATORS,
            (tensor(0, shape=(1, 65)), r"input 0 'x' \(1, 65\) does not fit the weights 'w' \(8, 64\)"),
            (attribute("clamp", (1, 2, 3)), "clamp is"),
        ],
    ),
    "add": (
        "same shape, constant None",
        [
            (inputs(0), "1 inputs and 1 outputs; expected 2 and 1"),
            (inputs(0, None), "input 1 is missing"),
            (tensor(1, shape=(1, 99)), r"inputs of .* and \(1, 99\); supported: shapes that broadcast"),
            (data(1, np.zeros((1, 2), np.int16)), "input 1 'b' is int16; supported: int8"),
            (scales(-1, 1e-30), r"output scale 1e-30; supported: at most 2\^19 times larger"),
            (attribute("clamp", None), "clamp is None"),
        ],
    ),
    "average_pool2d": ("2x2 stride 2, same False", []),
    "max_pool2d": ("2x2 stride 2, same False", []),
    "mean": (
        "zero points (0, 0)",
        [
            (attribute("axes", ()), r"axes \(\); expected at least one"),
            (attribute("axes", (1, 1)), r"axes \(1, 1\) of 4 dimensions; supported: ascending, each once"),
            (attribute("axes", (2, 1)), "supported: ascending, each once"),
            (attribute("axes", (3, 4)), r"axes \(3, 4\) of 4 dimensions"),
            (attribute("axes", (-1,)), "supported: ascending, each once"),
            (tensor(0, shape=(1, 4096, 4096, 1)), "a mean of 16,777,216 elements; supported: up to 8,388,608"),
            (scales(-1, 1e-30), r"the scales make a factor of .*; supported: below 2\^30"),
            (attribute("clamp", (3,)), "clamp is"),
        ],
    ),
    "reshape": (
        "",
        [
            (attribute("shape", (7, 7, 7)), r"shape \(7, 7, 7\) for input 'x' .*; supported: the same number of elements"),
            (attribute("shape", None), "shape None"),
            (attribute("shape", (-1, -4)), "supported: the same number"),
            (scales(-1, 77.0), "output scale 77 zero point 0; supported: the same for both"),
        ],
    ),
    "relu": (
        "RELU",
        [
            (attribute("clamp", None), "clamp is None"),
            (scales(-1, 1e-30), r"the scales make a factor of .*; supported: below 2\^30"),
            (inputs(), "0 inputs and 1 outputs; expected 1 and 1"),
        ],
    ),
    "softmax": (
        "seven rows",
        [
            (scales(-1, 1 / 255, zero_point=-128), "softmax to scale 0.00392157, zero point -128; supported: 1/256 and -128"),
            (scales(-1, 1 / 256), "zero point 0; supported: 1/256"),
            (scales(0, 1e-9), r"softmax of scale 1e-09 and beta 1; supported: beta \* scale above 2\^-26"),
            (attribute("beta", 0.0), "softmax with beta 0.0; supported: finite and above 0"),
            (attribute("beta", float("nan")), "softmax with beta nan"),
            (attribute("beta", None), "softmax with beta None"),
            (tensor(0, shape=(1, 5000)), r"softmax over \(5000,\) elements; supported: 1 to 4095"),
            (tensor(0, shape=()), "softmax over"),
        ],
    ),
}
TABLE |= {
    "sub": (
        "same shape, constant None",
        [
            (inputs(0), "1 inputs and 1 outputs; expected 2 and 1"),
            (inputs(None, 1), "input 0 is missing"),
            (tensor(0, shape=(1, 3, 4, 2)), r"inputs of \(1, 3, 4, 2\) and \(1, 3, 4, 5\); supported: shapes that broadcast"),
            (data(1, np.zeros((7, 5), np.int8)), r"inputs of \(1, 3, 4, 5\) and \(7, 5\); supported"),
            (all_of(*(data(place, np.zeros((1, 5), np.int8)) for place in range(2))), "both inputs 'a' and 'b' are constants"),
            (scales(-1, 1e-30), r"output scale 1e-30; supported: at most 2\^19 times larger"),
            (attribute("clamp", (1, 0)), r"clamp is 1\.\.0; supported"),
        ],
    ),
    "mul": (
        "channels, constant 1",
        [
            (scales(1, 0.1, 0.1), "input 1 'b' is quantized per channel|'b' is quantized per channel; expected one scale"),
            (scales(1, 0.1, zero_point=128), "input 1 'b' has scale .* and zero point 128; supported"),
            (tensor(0, dtype="uint8"), "input 0 'a' is uint8; supported: int8"),
            (scales(-1, 1e-30), r"the scales make a factor of .*; supported: below 2\^30"),
            (attribute("clamp", None), "clamp is None"),
            (data(1, np.zeros((2, 5), np.int32)), "input 1 'b' is int32; supported: int8"),
        ],
    ),
    "minimum": (
        "same shape, constant None",
        [
            (scales(-1, 7.0), "output scale 7 zero point 0; supported: the same for both"),
            (scales(0, 7.0), "input scale 7 zero point 0, output scale .*; supported: the same for both"),
            (scales(1, 7.0), "input scale 7 zero point 0, output scale .*; supported: the same for both"),
            (inputs(0), "1 inputs and 1 outputs; expected 2 and 1"),
        ],
    ),
    "maximum": (
        "one value, constant 1",
        [
            (scales(1, 7.0), "input scale 7 zero point 0, output scale .*; supported: the same for both"),
            (tensor(1, quantization=None), "'b' has no quantization"),
            (inputs(0, None), "input 1 is missing"),
        ],
    ),
    "prelu": (
        "channels, constant 1",
        [
            (scales(-1, 1e-30), r"the scales make a factor of .*; supported: below 2\^30"),
            (scales(1, 1e12), r"the scales make a factor of .*; supported: below 2\^30"),
            (inputs(0), "1 inputs and 1 outputs; expected 2 and 1"),
            (tensor(-1, dtype="int16"), "output 'y' is int16; supported: int8"),
        ],
    ),
    "sum": (
        "zero points (0, 0)",
        [
            (attribute("axes", None), "axes None; expected at least one"),
            (attribute("axes", (1.5,)), "expected at least one axis"),
            (attribute("axes", (4,)), r"axes \(4,\) of 4 dimensions; supported: ascending"),
            (tensor(0, shape=(1, 4096, 4096, 1)), "a sum of 16,777,216 elements; supported: up to 8,388,608"),
            (scales(-1, 1e-30), r"the scales make a factor of .*; supported: below 2\^30"),
            (attribute("clamp", (3,)), "clamp is"),
            (inputs(), "0 inputs and 1 outputs; expected 1 and 1"),
        ],
    ),
    "reduce_max": (
        "over the rows",
        [
            (attribute("axes", (0, 9)), r"axes \(0, 9\) of 4 dimensions; supported: ascending"),
            (scales(-1, 77.0), "output scale 77 zero point 0; supported: the same for both"),
            (tensor(0, dtype="uint8"), "input 0 'x' is uint8; supported: int8"),
            (inputs(0, 0), "2 inputs and 1 outputs; expected 1 and 1"),
        ],
    ),
    "logistic": (
        "scale 0.05",
        [
            (inputs(), "0 inputs and 1 outputs; expected 1 and 1"),
            (scales(0, 2.0**-28), r"input scale 3.72529e-09; supported: 2\^-27 to 2\^27"),
            (scales(0, 2.0**27), r"input scale 1.34218e\+08; supported: 2\^-27 to 2\^27"),
            (scales(-1, 1e-30), r"the scales make a factor of .*; supported: below 2\^30"),
            (tensor(0, dtype="uint8"), "input 0 'x' is uint8; supported: int8"),
            (tensor(-1, quantization=None), "'y' has no quantization"),
        ],
    ),
    "tanh": (
        "scale 0.05",
        [
            (inputs(0, 0), "2 inputs and 1 outputs; expected 1 and 1"),
            (scales(0, 2.0**-28), "input scale 3.72529e-09; supported"),
            (scales(-1, 1e-30), "the scales make a factor of"),
            (tensor(-1, dtype="int16"), "output 'y' is int16; supported: int8"),
        ],
    ),
    "hard_swish": (
        "scales 0.05 and 0.05",
        [
            (inputs(), "0 inputs and 1 outputs"),
            (scales(0, 6.5), r"hard swish from scale 6.5 to 0.05; .* 1/512 to 128 times the output's"),
            (scales(0, 5e-5), "hard swish from scale 5e-05 to 0.05; supported"),
            (all_of(scales(0, 1e-7), scales(-1, 1e-7)), "supported: input scales above 2e-07"),
            (all_of(scales(0, 1e-44), scales(-1, 1e-44)), "supported: input scales above 2e-07"),
            (scales(-1, 1e-44), "hard swish from scale 0.05"),
        ],
    ),
    "leaky_relu": (
        "alpha 0.01",
        [
            (inputs(), "0 inputs and 1 outputs"),
            (attribute("alpha", None), "leaky relu with alpha None; supported: finite numbers"),
            (attribute("alpha", float("nan")), "leaky relu with alpha nan"),
            (attribute("alpha", 1e300), r"leaky relu with alpha 1e\+300"),
            (attribute("alpha", 1e12), r"the scales make a factor of 1e\+12; supported: below 2\^30"),
            (scales(-1, 1e-30), "the scales make a factor of"),
            (scales(-1, 1e-44), "leaky relu from scale 0.0625 to .*; supported: ratios below"),
        ],
    ),
}
POOL = [
    *IMAGE[:-9],
    (attribute("kernel", None), "kernel is None; expected 2 integers"),
    (attribute("kernel", (0, 2)), r"kernel is \(0, 2\); supported: 1"),
    (attribute("kernel", (9, 2)), "do not fit the image 6x6"),
    (attribute("padding", (2, 0, 0, 0)), "leaves windows without any pixel of the image's height"),
    (attribute("padding", (0, 0, 0, 3)), "leaves windows without any pixel of the image's width"),
    (scales(-1, 77.0), "output scale 77 zero point 0; supported: the same for both"),
]
TABLE["average_pool2d"][1].extend(POOL)
TABLE["max_pool2d"][1].extend(POOL)
TABLE |= MOVEMENT_REFUSALS | PRODUCT_REFUSALS
REFUSALS = [
    pytest.param(name, label, change, message, id=f"{name}-{place}")
    for name, (label, refusals) in TABLE.items()
    for place, (change, message) in enumerate(refusals)
]


@pytest.mark.parametrize(("name", "label", "change", "message"), REFUSALS)
def test_refusals(name: str, label: str, change: Change, message: str) -> None:
    graph = fresh(name, label)
    operator_of(graph.nodes[0]).infer(graph, graph.nodes[0])
    change(graph)
    with pytest.raises(GraphError, match=message) as caught:
        operator_of(graph.nodes[0]).infer(graph, graph.nodes[0])
    assert "\n" not in str(caught.value)


def test_every_operator_has_refusals() -> None:
    assert TABLE.keys() == registry().keys()


def test_unknown_operator() -> None:
    with pytest.raises(GraphError, match="unknown operator 'nothing'; supported: add, "):
        operator_of(Node("nothing", (), ()))


def test_average_pool_with_other_padding_has_no_twin() -> None:
    graph = fresh("average_pool2d", "3x3 stride 1, same False")
    graph.nodes[0] = replace(graph.nodes[0], attributes={**graph.nodes[0].attributes, "padding": (2, 0, 0, 1)})
    shape = operator_of(graph.nodes[0]).infer(graph, graph.nodes[0])[0].shape
    graph.tensors[-1] = replace(graph.tensors[-1], shape=shape)
    with pytest.raises(
        GraphError, match=r"average pool with padding \(2, 0, 0, 1\); supported: SAME, VALID, or padding that counts"
    ):
        write_tflite(graph)


def test_mean_with_a_clamp_has_no_twin() -> None:
    graph = fresh("mean", "zero points (0, 0)")
    graph.nodes[0] = replace(graph.nodes[0], attributes={**graph.nodes[0].attributes, "clamp": (0, 127)})
    with pytest.raises(GraphError, match=r"mean with clamp \(0, 127\); TFLite's MEAN has none"):
        write_tflite(graph)


@pytest.mark.parametrize("name", sorted(registry()))
def test_output_tensor_needs_no_shape(name: str) -> None:
    """infer is asked before the output's shape is known."""
    case = cases_of(name)[0]
    graph = replace(case.graph, tensors=[*case.graph.tensors])
    index = graph.nodes[0].outputs[0]
    graph.tensors[index] = replace(graph.tensors[index], shape=())
    assert operator_of(graph.nodes[0]).infer(graph, graph.nodes[0])[0].shape == case.graph.tensors[index].shape
