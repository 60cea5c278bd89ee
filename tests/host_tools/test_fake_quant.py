"""Torch and onnxruntime on a small QDQ file: answers worked out by hand or by plain numpy, never by each other alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from qdq_file import QdqFile, mixed_file

from firmware_export.graph import GraphError, Quantization, Tensor
from host_tools.fake_quant import fake_quant_outputs
from host_tools.oracles import onnxruntime_outputs, real_nchw, stored

SCALE = np.float32(1 / 255)


def logits(scale: float, zero_point: int, classes: int) -> Tensor:
    return Tensor("logits", (1, classes), "int8", Quantization.per_tensor(scale, zero_point))


def linear_file() -> bytes:
    """Two pixels, two classes: logits = round(weights @ pixels + bias) on a grid of 1/2, zero point -3."""
    file = QdqFile()
    x = file.round_trip("input", float(SCALE), -128, "x")
    flat = file.add("Flatten", [x], "flat")
    scales = np.array([0.5, 0.25], np.float32)
    kernel = file.weights("w", np.array([[2, 4], [-8, 8]], np.int8), scales)
    bias = file.weights("b", np.array([255, -510], np.int32), SCALE * scales)
    file.round_trip(file.add("Gemm", [flat, kernel, bias], "y", transB=1), 0.5, -3, "logits")
    return file.content([1, 1, 1, 2], 2)


LINEAR_IMAGES = np.array([[127, -128], [-128, 127], [127, 127]], np.int8).reshape(3, 1, 2, 1)
# Pixels are (1, 0), (0, 1) and (1, 1); weights ((1, 2), (-2, 2)), biases 255 * 0.5 / 255 = 0.5 and -510 * 0.25 / 255 = -0.5.
# Logits: (1.5, -2.5), (2.5, 1.5), (3.5, -0.5); stored = 2 * logit - 3.
LINEAR_ANSWERS = [[0, -8], [2, 0], [4, -4]]


def test_a_linear_layer_by_hand() -> None:
    output = logits(0.5, -3, 2)
    assert fake_quant_outputs(linear_file(), LINEAR_IMAGES, output).tolist() == LINEAR_ANSWERS
    assert onnxruntime_outputs(linear_file(), LINEAR_IMAGES, output).tolist() == LINEAR_ANSWERS


def one_operator(build: Callable[[QdqFile, str], str], shape: list[int], classes: int, scale: float, zero: int) -> bytes:
    """input on its own grid -> the operator -> flatten -> logits on the grid (scale, zero)."""
    file = QdqFile()
    result = build(file, file.round_trip("input", float(SCALE), -128, "x"))
    file.round_trip(file.add("Flatten", [result], "flat"), scale, zero, "logits")
    return file.content(shape, classes)


def answer(content: bytes, pixels: np.ndarray, scale: float, zero: int, classes: int) -> list[int]:
    """The bytes for one image uint8 [h, w, c]; onnxruntime must give the same."""
    image = (pixels.astype(np.int16) - 128).astype(np.int8)[None]
    ours = fake_quant_outputs(content, image, logits(scale, zero, classes))
    assert np.array_equal(onnxruntime_outputs(content, image, logits(scale, zero, classes)), ours)
    return [int(value) for value in ours[0]]


PIXELS = np.array([[0, 51], [102, 255]], np.uint8).reshape(2, 2, 1)  # 0, 0.2, 0.4 and 1


def test_max_pool_by_hand() -> None:
    content = one_operator(
        lambda f, x: f.add("MaxPool", [x], "m", kernel_shape=[1, 2], strides=[1, 1]), [1, 1, 2, 2], 2, 0.1, 3
    )
    assert answer(content, PIXELS, 0.1, 3, 2) == [2 + 3, 10 + 3]


def test_global_average_by_hand() -> None:
    content = one_operator(lambda f, x: f.add("GlobalAveragePool", [x], "g"), [1, 1, 2, 2], 1, 0.1, 0)
    assert answer(content, PIXELS, 0.1, 0, 1) == [4]  # (0 + 0.2 + 0.4 + 1) / 4 = 0.4


def test_addition_and_clamps_by_hand() -> None:
    def clipped(f: QdqFile, x: str) -> str:
        bounds = [f.constant("low", np.float32(0.3)), f.constant("high", np.float32(0.7))]
        return f.add("Clip", [f.add("Add", [x, x], "twice"), *bounds], "c")

    content = one_operator(clipped, [1, 1, 2, 2], 4, 0.1, 0)
    assert answer(content, PIXELS, 0.1, 0, 4) == [3, 4, 7, 7]  # 0, 0.4, 0.8 and 2 between 0.3 and 0.7


def test_a_padded_strided_convolution_by_hand() -> None:
    # One filter [[1, 2], [3, 4]] * 0.5, zeros on top and left, stride 2: only the last tap of the corner counts, and so on.
    def conv(f: QdqFile, x: str) -> str:
        kernel = f.weights("w", np.array([[[[1, 2], [3, 4]]]], np.int8), np.array([0.5], np.float32))
        bias = f.weights("b", np.array([255], np.int32), np.array([0.5 * SCALE], np.float32))
        return f.add("Conv", [x, kernel, bias], "c", pads=[1, 1, 0, 0], strides=[2, 2])

    content = one_operator(conv, [1, 1, 2, 2], 1, 0.1, -10)
    # 4 * 0.5 * pixel (0, 0), which is 0, plus the bias 0.5: 5 steps of 0.1.
    assert answer(content, PIXELS, 0.1, -10, 1) == [5 - 10]


def test_a_depthwise_convolution_keeps_channels_apart() -> None:
    def conv(f: QdqFile, x: str) -> str:
        kernel = f.weights("w", np.array([2, -4], np.int8).reshape(2, 1, 1, 1), np.array([0.5, 0.25], np.float32))
        return f.add("Conv", [x, kernel], "c", group=2)

    content = one_operator(conv, [1, 2, 1, 1], 2, 0.1, 0)
    pixels = np.array([51, 102], np.uint8).reshape(1, 1, 2)
    assert answer(content, pixels, 0.1, 0, 2) == [2, -4]  # 1.0 * 0.2 and -1.0 * 0.4


def test_values_beyond_the_grid_saturate() -> None:
    content = one_operator(lambda f, x: f.add("Relu", [x], "r"), [1, 1, 2, 2], 4, 0.001, 100)
    assert answer(content, PIXELS, 0.001, 100, 4) == [100, 127, 127, 127]


def test_all_operators_stay_near_onnxruntime() -> None:
    rng = np.random.default_rng(11)
    content = mixed_file(rng, channels=2)
    images = rng.integers(-128, 128, (40, 8, 8, 2)).astype(np.int8)
    output = logits(0.03, 5, 3)
    ours = fake_quant_outputs(content, images, output)
    theirs = onnxruntime_outputs(content, images, output)
    assert ours.shape == theirs.shape == (40, 3) and len(np.unique(theirs)) > 10
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2


def test_batches_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_tools.fake_quant.BATCH", 2)
    assert fake_quant_outputs(linear_file(), LINEAR_IMAGES, logits(0.5, -3, 2)).tolist() == LINEAR_ANSWERS


def test_an_unknown_operator_is_named() -> None:
    file = QdqFile()
    flat = file.add("Flatten", [file.round_trip("input", float(SCALE), -128, "x")], "flat")
    file.round_trip(file.add("Sigmoid", [flat], "y"), 0.5, 0, "logits")
    with pytest.raises(GraphError, match="Sigmoid; known: Add, Clip"):
        fake_quant_outputs(file.content([1, 1, 1, 2], 2), LINEAR_IMAGES, logits(0.5, 0, 2))


def test_a_file_that_onnxruntime_cannot_read_is_one_line() -> None:
    with pytest.raises(GraphError, match="onnxruntime refuses") as caught:
        onnxruntime_outputs(b"no model", LINEAR_IMAGES, logits(0.5, 0, 2))
    assert "\n" not in str(caught.value)


def test_images_become_the_numbers_of_training() -> None:
    image = np.array([-128, 0, 127], np.int8).reshape(1, 1, 1, 3)
    assert real_nchw(image).shape == (1, 3, 1, 1)
    assert real_nchw(image).ravel().tolist() == pytest.approx([0.0, 128 / 255, 1.0])


def test_stored_rounds_half_to_even_and_saturates() -> None:
    tensor = logits(0.5, 1, 6)
    real = np.array([0.25, 0.75, -0.25, 100.0, -100.0, 1.0], np.float32)
    assert stored(real, tensor).tolist() == [1, 3, 1, 127, -128, 3]
