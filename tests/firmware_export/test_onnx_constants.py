"""Constants of ONNX files as tensors: the real values they stand for stay what the file says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from firmware_export.graph import GraphError, Quantization, Tensor
from firmware_export.onnx_constants import (
    bare_constant,
    dequantized_constant,
    divisor_constant,
    moved_constant,
    real_constant,
    stored_zero,
    unsigned,
)
from firmware_export.onnx_quantization import activation_quantization


def values(tensor: Tensor) -> np.ndarray:
    """The real numbers of a tensor."""
    assert tensor.data is not None and tensor.quantization is not None
    quantization = tensor.quantization
    shape = [-1 if axis == quantization.axis else 1 for axis in range(tensor.data.ndim)]
    scale = quantization.scale.astype(np.float64).reshape(shape if quantization.axis is not None else ())
    zero = quantization.zero_point.reshape(shape if quantization.axis is not None else ())
    return np.asarray((tensor.data.astype(np.int64) - zero) * scale)


def constants(**arrays: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in arrays.items()}


def dequantize(*names: str, **attributes: Any) -> Any:
    return helper.make_node("DequantizeLinear", names, ["y"], **attributes)


EVERY = np.arange(256)


@pytest.mark.parametrize("zero_point", [0, 1, 128, 255])
def test_uint8_constants_become_int8_of_the_same_values(zero_point: int) -> None:
    known = constants(w=EVERY.astype(np.uint8), s=np.float32(0.25), z=np.uint8(zero_point))
    tensor = dequantized_constant(dequantize("w", "s", "z"), known)
    assert tensor.dtype == "int8" and tensor.zero_point == zero_point - 128
    assert np.array_equal(values(tensor), (EVERY - zero_point) * 0.25)
    assert known["w"][255] == 255, "the file's array is as it was"


def test_constants_of_other_types_stay() -> None:
    known = constants(w=np.array([[-5, 7], [1, 2]], np.int8), s=np.array([0.5, 2], np.float32), z=np.array([1, -1], np.int8))
    tensor = dequantized_constant(dequantize("w", "s", "z", axis=0), known)
    assert tensor.dtype == "int8" and values(tensor).tolist() == [[-3, 3], [4, 6]]
    bias = dequantized_constant(dequantize("b", "s"), constants(b=np.array([9, -9], np.int32), s=np.float32(2)))
    assert bias.dtype == "int32" and values(bias).tolist() == [18, -18]


@pytest.mark.parametrize(
    ("array", "zero_point"), [(np.int8([1]), np.uint8(1)), (np.uint8([1]), np.int8(1)), (np.float32([1]), np.int8(0))]
)
def test_constants_and_zero_points_of_different_types_are_refused(array: np.ndarray, zero_point: Any) -> None:
    with pytest.raises(GraphError, match="expected the same integer type"):
        dequantized_constant(dequantize("w", "s", "z"), constants(w=array, s=np.float32(1), z=zero_point))


@pytest.mark.parametrize("zero_point", [0, 3, 128, 255])
def test_uint8_activations_are_int8_less_128(zero_point: int) -> None:
    known = constants(s=np.float32(0.5), z=np.uint8(zero_point))
    quantization, dtype = activation_quantization(dequantize("x", "s", "z"), known)
    assert dtype == "uint8" and quantization == Quantization.per_tensor(0.5, zero_point - 128)
    assert unsigned(quantization) == Quantization.per_tensor(0.5, zero_point)


def test_activations_without_a_zero_point_have_the_type_of_what_is_stored() -> None:
    known = constants(s=np.float32(0.5))
    assert activation_quantization(dequantize("x", "s"), known, "int8") == (Quantization.per_tensor(0.5, 0), "int8")
    assert activation_quantization(dequantize("x", "s"), known) == (Quantization.per_tensor(0.5, -128), "uint8")
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"], output_dtype=3)
    assert activation_quantization(node, known) == (Quantization.per_tensor(0.5, 0), "int8")


def test_what_a_stored_zero_means() -> None:
    assert stored_zero(Quantization.per_tensor(0.5, 3), is_unsigned=False) == -1.5
    assert stored_zero(Quantization.per_tensor(0.5, 3), is_unsigned=True) == -65.5
    assert stored_zero(None, is_unsigned=False) == 0.0


def test_bare_constants() -> None:
    """Bytes have the scale of the values they meet; numbers such as axes have none."""
    stored = Quantization.per_tensor(0.5, 3)
    assert values(bare_constant("c", np.int8([5]), stored)).tolist() == [1.0]
    assert values(bare_constant("c", np.uint8([133]), stored)).tolist() == [1.0]
    assert bare_constant("c", np.int64([5]), stored).quantization is None
    assert bare_constant("c", np.int8([5]), None).quantization is None


# Float constants


@pytest.mark.parametrize("number", [1.0, -1.0, 3.14159, -1e-20, 2e30, 0.0])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_one_number_is_exact(number: float, shape: tuple[int, ...]) -> None:
    tensor = real_constant(helper.make_node("Mul", ["x", "c"], ["y"]), "c", np.full(shape, number, np.float32))
    assert tensor.dtype == "int8" and tensor.shape == shape
    assert values(tensor).reshape(-1).tolist() == [float(np.float32(number))]


@pytest.mark.parametrize("number", [2.0, -3.0, 1e-3])
def test_a_divisor_is_its_reciprocal(number: float) -> None:
    reader = helper.make_node("Div", ["x", "c"], ["y"])
    tensor = real_constant(reader, "c", np.float32([number]))
    assert values(tensor)[0] == pytest.approx(1 / np.float32(number), rel=1e-7)
    stored = Tensor("c", (1,), "int8", Quantization.per_tensor(abs(number), 3), np.int8([3 + int(np.sign(number))]))
    assert values(divisor_constant(reader, stored))[0] == pytest.approx(1 / np.float32(number), rel=1e-6)


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("x", (1,), "int8", Quantization.per_tensor(1, 0)),
        Tensor("x", (2,), "int8", Quantization.per_tensor(1, 0), np.int8([1, 2])),
        Tensor("x", (1,), "int8", None, np.int8([1])),
    ],
)
def test_other_divisors_are_refused(tensor: Tensor) -> None:
    with pytest.raises(GraphError, match="supported: by one constant number"):
        divisor_constant(helper.make_node("Div", ["a", "x"], ["y"]), tensor)


def test_slopes_take_the_largest_as_127() -> None:
    slopes = np.float32([[[0.1]], [[-0.4]], [[0.25]]])
    tensor = real_constant(helper.make_node("PRelu", ["x", "c"], ["y"]), "c", slopes)
    assert tensor.shape == slopes.shape and tensor.zero_point == 0
    assert np.abs(values(tensor) - slopes).max() <= 0.4 / 254 and tensor.data is not None and tensor.data.min() == -127


@pytest.mark.parametrize(
    ("op_type", "array"),
    [
        ("Mul", np.float32([1, 2])),
        ("Conv", np.float32([1])),
        ("Add", np.float32([np.nan])),
        ("PRelu", np.float32([1, np.inf])),
        ("Mul", np.float32([])),
    ],
)
def test_float_constants_that_would_lose_digits_are_refused(op_type: str, array: np.ndarray) -> None:
    with pytest.raises(GraphError, match=r"reads the float32 constant 'c'; store it as integers"):
        real_constant(helper.make_node(op_type, ["x", "c"], ["y"]), "c", array)


def test_floats_of_borders_and_sizes_stay() -> None:
    for op_type in ("Pad", "Resize"):
        tensor = real_constant(helper.make_node(op_type, ["x", "c"], ["y"]), "c", np.float32([1, 2]))
        assert tensor.dtype == "float32" and tensor.quantization is None


# Constants that are moved

PER_CHANNEL = Quantization(np.float32([0.5, 1, 2]), np.array([0, 1, -1], np.int64), 1)


def weights() -> Tensor:
    return Tensor("w", (2, 3, 4), "int8", PER_CHANNEL, np.arange(24, dtype=np.int8).reshape(2, 3, 4))


@pytest.mark.parametrize("perm", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)])
def test_transposed_weights_keep_their_values(perm: tuple[int, ...]) -> None:
    moved = moved_constant(weights(), helper.make_node("Transpose", ["w"], ["y"], perm=list(perm)), [])
    assert np.array_equal(values(moved), values(weights()).transpose(perm))
    assert moved.quantization is not None and moved.quantization.axis == perm.index(1)


@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (1, 2, 3, 4), (2, 3, 4, 1)])
def test_reshaped_weights_keep_their_values(shape: tuple[int, ...]) -> None:
    moved = moved_constant(weights(), helper.make_node("Reshape", ["w", "s"], ["y"]), [np.array(shape, np.int64)])
    assert np.array_equal(values(moved), values(weights()).reshape(shape))


@pytest.mark.parametrize("shape", [(6, 4), (2, 12), (24,), (3, 2, 4)])
def test_reshapes_that_mix_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match="mixes the channels of its 3 scales"):
        moved_constant(weights(), helper.make_node("Reshape", ["w", "s"], ["y"]), [np.array(shape, np.int64)])


def test_one_scale_may_be_moved_anyhow() -> None:
    tensor = Tensor("w", (2, 6), "int8", Quantization.per_tensor(0.5, 1), np.arange(12, dtype=np.int8).reshape(2, 6))
    moved = moved_constant(tensor, helper.make_node("Reshape", ["w", "s"], ["y"]), [np.array([4, 3], np.int64)])
    assert np.array_equal(values(moved), values(tensor).reshape(4, 3))
