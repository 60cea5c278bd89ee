"""ONNX tensors, attributes and external data of untrusted files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from firmware_export.graph import GraphError
from firmware_export.onnx_tensors import array_of, attributes_of, dtype_of

TYPES = ("float32", "int8", "uint8", "int16", "int32", "int64", "bool")


def example(dtype: str) -> np.ndarray:
    values = np.array([[0, 1, 100], [3, 2, 1]])
    return values.astype(dtype) if dtype in ("uint8", "bool") else (values - 50).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_raw_data(dtype: str) -> None:
    array = example(dtype)
    found = array_of(numpy_helper.from_array(array, "t"), None)
    assert found.dtype == array.dtype and np.array_equal(found, array)
    found[0] = 0


@pytest.mark.parametrize("dtype", TYPES)
def test_typed_data(dtype: str) -> None:
    array = example(dtype)
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = helper.make_tensor("t", code, array.shape, array.reshape(-1).tolist())
    assert not tensor.HasField("raw_data")
    found = array_of(tensor, None)
    assert found.dtype == array.dtype and np.array_equal(found, array)


def test_rank_zero() -> None:
    found = array_of(numpy_helper.from_array(np.float32(2.5), "t"), None)
    assert found.shape == () and float(found) == 2.5


@pytest.mark.parametrize("code", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.STRING, TensorProto.UNDEFINED, 200])
def test_other_types_are_refused_by_name(code: int) -> None:
    with pytest.raises(GraphError, match=r"tensor 'w' is .*; supported: float32"):
        dtype_of(code, "w")


@pytest.mark.parametrize("dims", [(0,), (2, 0), (-1,), (-2, -3), (2**40,), (2**31, 2**31, 2**31), (1,) * 7])
def test_shapes_that_are_none_are_refused(dims: tuple[int, ...]) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.INT8, dims=dims, raw_data=b"\0" * 6)
    with pytest.raises(GraphError, match=r"has the shape .*; supported: 1 to 67,108,864 elements"):
        array_of(tensor, None)


@pytest.mark.parametrize("size", [0, 5, 7, 600])
def test_data_of_the_wrong_length_is_refused(size: int) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.INT8, dims=(2, 3), raw_data=b"\0" * size)
    with pytest.raises(GraphError, match=rf"has {size} bytes of data, expected 6"):
        array_of(tensor, None)


def test_typed_data_of_the_wrong_length_or_range_is_refused() -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.INT8, dims=(3,), int32_data=(1, 2))
    with pytest.raises(GraphError, match="has 2 values, expected 3"):
        array_of(tensor, None)
    tensor = TensorProto(name="t", data_type=TensorProto.INT8, dims=(3,), int32_data=(1, 2, 300))
    with pytest.raises(GraphError, match="outside its type int8"):
        array_of(tensor, None)
    assert array_of(TensorProto(name="t", data_type=TensorProto.FLOAT, dims=(1,), float_data=(0.1,)), None)[0] == np.float32(
        0.1
    )


def external(location: str, offset: str | None = None, length: str | None = None, dims: tuple[int, ...] = (4,)) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.INT8, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with data in it, and a secret beside it."""
    inside = tmp_path / "model"
    (inside / "deep").mkdir(parents=True)
    (inside / "data.bin").write_bytes(bytes(range(16)))
    (inside / "deep" / "more.bin").write_bytes(bytes(range(100, 116)))
    (tmp_path / "secret.bin").write_bytes(b"secret__")
    return inside


def test_external_data_inside_the_folder(folder: Path) -> None:
    assert array_of(external("data.bin"), folder).tolist() == [0, 1, 2, 3]
    assert array_of(external("data.bin", "8", "4"), folder).tolist() == [8, 9, 10, 11]
    assert array_of(external("deep/more.bin"), folder).tolist() == [100, 101, 102, 103]
    assert array_of(external("./deep/more.bin"), folder).tolist() == [100, 101, 102, 103]


def test_a_link_that_stays_inside_is_followed(folder: Path) -> None:
    (folder / "link.bin").symlink_to(folder / "data.bin")
    assert array_of(external("link.bin"), folder).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "deep/../../secret.bin",
        "",
        "missing.bin",
        "deep",
        "data.bin\0",
        "link.bin",
        "out/secret.bin",
        ".",
    ],
)
def test_external_data_outside_the_folder_is_refused(folder: Path, location: str) -> None:
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "out").symlink_to(folder.parent)
    with pytest.raises(GraphError, match="is not a file inside the model's folder; export the model in one file"):
        array_of(external(location), folder)


@pytest.mark.parametrize(
    ("offset", "length"),
    [("-1", "4"), ("0", "5"), ("0", "-4"), ("x", "4"), ("1e3", "4"), ("²", "4"), ("0", "99999999999999999999")],
)
def test_wrong_offsets_and_lengths_are_refused(folder: Path, offset: str, length: str) -> None:
    with pytest.raises(GraphError, match="wrong offset or length"):
        array_of(external("data.bin", offset, length), folder)


def test_data_behind_the_end_of_the_file_is_refused(folder: Path) -> None:
    with pytest.raises(GraphError, match="has 2 bytes of data, expected 4"):
        array_of(external("data.bin", "14"), folder)
    with pytest.raises(GraphError, match="has 0 bytes of data, expected 4"):
        array_of(external("data.bin", "9" * 12), folder)
    with pytest.raises(GraphError, match="wrong offset"):
        array_of(external("data.bin", "9" * 5000), folder)


def test_external_data_needs_a_folder() -> None:
    with pytest.raises(GraphError, match="models in one file"):
        array_of(external("data.bin"), None)


def test_attributes_become_plain_values() -> None:
    node = helper.make_node("X", [], ["y"], i=3, f=0.5, s="text", ints=[1, 2], floats=[0.5, 1.5])
    assert attributes_of(node) == {"i": 3, "f": 0.5, "s": "text", "ints": (1, 2), "floats": (0.5, 1.5)}
    tensor = numpy_helper.from_array(np.arange(3), "t")
    assert attributes_of(helper.make_node("X", [], ["y"], value=tensor))["value"].name == "t"


@pytest.mark.parametrize(
    "kind", [AttributeProto.GRAPH, AttributeProto.STRINGS, AttributeProto.TENSORS, AttributeProto.UNDEFINED]
)
def test_other_attributes_are_refused(kind: Any) -> None:
    node = helper.make_node("X", [], ["y"])
    node.attribute.add(name="body", type=kind)
    with pytest.raises(GraphError, match="attribute 'body' is of type"):
        attributes_of(node)
