"""Inputs of an .npz file: found by name, place or `x`, fitted to the model, refused in one line where they do not fit."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_builder import Build
from oracles import tflite_micro

import firmware_export.inputs
from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.inputs import RANDOM_COUNT, random_model_inputs, read_inputs
from firmware_export.write_tflite import write_tflite
from recipes.artifacts import DataError


def image_net(shape: tuple[int, ...] = (1, 4, 6, 3), scale: float = 0.5, zero_point: int = -3) -> Graph:
    """One relu on an int8 image."""
    build = Build()
    x = build.activation(shape, scale, zero_point, "image")
    return build.graph(x, build.relu(x, (0, 127)))


def sum_net() -> Graph:
    """left + right, each int8 [1, 2, 3]."""
    build = Build()
    left, right = build.activation((1, 2, 3), name="left"), build.activation((1, 2, 3), name="right")
    total = build.node("add", (left, right), build.activation((1, 2, 3), 0.1, name="sum"), clamp=(-128, 127))
    return build.graph((left, right), total)


def images(count: int = 5, shape: tuple[int, ...] = (4, 6, 3), dtype: Any = np.int8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal((count, *shape)).astype(dtype)
    return rng.integers(-100, 100, (count, *shape)).astype(dtype)


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "x.npz"
    np.savez(path, **arrays)
    return path


def refusal(path: Path, graph: Graph, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_inputs(path, graph, **options)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 400, "one line that can be shown"
    assert caught.value.exit_code == 3
    return text


@pytest.mark.parametrize("key", ["x", "image", "arr_0", "anything"])
def test_a_single_array_is_the_single_input_whatever_its_name(tmp_path: Path, key: str) -> None:
    given = images()
    found = read_inputs(saved(tmp_path, **{key: given}), image_net())
    assert len(found) == 5 and found.labels is None
    assert found.arrays[0].shape == (5, 1, 4, 6, 3)
    assert np.array_equal(found.arrays[0][:, 0], given)


def test_the_inputs_name_goes_before_x_and_other_arrays_are_left_alone(tmp_path: Path) -> None:
    given, other = images(seed=1), images(seed=2)
    path = saved(tmp_path, x=other, image=given, more=np.zeros(3))
    assert np.array_equal(read_inputs(path, image_net()).arrays[0][:, 0], given)
    path = saved(tmp_path, x=other, more=np.zeros(3))
    assert np.array_equal(read_inputs(path, image_net()).arrays[0][:, 0], other)


def test_two_inputs_by_name_in_any_order(tmp_path: Path) -> None:
    left, right = images(3, (2, 3), seed=1), images(3, (2, 3), seed=2)
    found = read_inputs(saved(tmp_path, right=right, left=left), sum_net())
    assert np.array_equal(found.arrays[0][:, 0], left) and np.array_equal(found.arrays[1][:, 0], right)


def test_two_inputs_by_place_labels_not_counted(tmp_path: Path) -> None:
    left, right = images(3, (2, 3), seed=1), images(3, (2, 3), seed=2)
    found = read_inputs(saved(tmp_path, a=left, y=np.arange(3), b=right), sum_net())
    assert np.array_equal(found.arrays[0][:, 0], left) and np.array_equal(found.arrays[1][:, 0], right)
    assert found.labels is not None and found.labels.tolist() == [0, 1, 2]


def test_the_names_that_tensorflow_gives_need_not_be_written_out(tmp_path: Path) -> None:
    graph = sum_net()
    tensors = [replace(t, name=f"serving_default_{t.name}:0") for t in graph.tensors]
    left, right = images(3, (2, 3), seed=1), images(3, (2, 3), seed=2)
    found = read_inputs(saved(tmp_path, right=right, left=left), replace(graph, tensors=tensors))
    assert np.array_equal(found.arrays[0][:, 0], left)


def test_a_vector_is_one_input_of_the_graphs_shape(tmp_path: Path) -> None:
    given = images()
    (vector,) = read_inputs(saved(tmp_path, x=given), image_net()).vector(2)
    assert vector.shape == (1, 4, 6, 3) and np.array_equal(vector[0], given[2])


def test_an_npy_file_is_x(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, images())
    assert len(read_inputs(path, image_net())) == 5


def test_dimensions_of_one_may_be_left_out_or_added(tmp_path: Path) -> None:
    net = image_net((1, 4, 6, 1))
    given = images(shape=(4, 6))
    for array in (given, given[..., None], given[:, None], given[:, None, :, :, None]):
        found = read_inputs(saved(tmp_path, x=array), net)
        assert found.arrays[0].shape == (5, 1, 4, 6, 1) and np.array_equal(found.arrays[0].reshape(5, 4, 6), given)


def test_an_input_without_a_batch_dimension(tmp_path: Path) -> None:
    given = images(shape=(4, 6))
    found = read_inputs(saved(tmp_path, x=given), image_net((4, 6)))
    assert found.arrays[0].shape == (5, 4, 6) and np.array_equal(found.arrays[0], given)


def test_only_the_first_inputs_and_their_labels(tmp_path: Path) -> None:
    found = read_inputs(saved(tmp_path, x=images(), labels=np.arange(5)), image_net(), 2)
    assert len(found) == 2 and found.labels is not None and found.labels.tolist() == [0, 1]
    assert len(read_inputs(saved(tmp_path, x=images()), image_net(), 100)) == 5


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_type_and_as_a_column(tmp_path: Path, dtype: Any) -> None:
    labels = np.array([[4], [3], [2], [1], [0]], dtype)
    found = read_inputs(saved(tmp_path, x=images(), y=labels), image_net())
    assert found.labels is not None and found.labels.dtype == np.int64 and found.labels.tolist() == [4, 3, 2, 1, 0]


def test_foreign_byte_order_is_turned_round(tmp_path: Path) -> None:
    graph = image_net()
    tensors = [replace(t, dtype="float32", quantization=None) for t in graph.tensors]
    given = images(dtype=np.float32)
    found = read_inputs(saved(tmp_path, x=given.astype(">f4")), replace(graph, tensors=tensors))
    assert found.arrays[0].dtype == np.dtype("<f4") and np.array_equal(found.arrays[0][:, 0], given)


# .onnx files: layout and real numbers


def test_an_onnx_image_is_laid_out_as_the_file_declares_it(tmp_path: Path) -> None:
    given = images(shape=(3, 4, 6))
    found = read_inputs(saved(tmp_path, x=given), image_net(), onnx=True)
    assert found.arrays[0].shape == (5, 1, 4, 6, 3)
    for channel in range(3):
        assert np.array_equal(found.arrays[0][:, 0, :, :, channel], given[:, channel])


def test_real_numbers_are_stored_as_onnxs_quantize_linear_stores_them(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    real = np.concatenate([images(4, (3, 4, 6), np.float32).reshape(-1) * 30, np.array([0.25, 0.75, -0.25, 1e9, -1e9])])
    real = np.resize(real, (4, 3, 4, 6)).astype(np.float32)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, real.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT8, real.shape)],
    )
    constants = [onnx.numpy_helper.from_array(np.float32(0.5), "s"), onnx.numpy_helper.from_array(np.int8(-3), "z")]
    model = helper.make_model(
        helper.make_graph([node], "g", *ends, constants), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    (expected,) = ReferenceEvaluator(model).run(None, {"x": real})
    found = read_inputs(saved(tmp_path, x=real), image_net(), onnx=True)
    assert np.array_equal(found.arrays[0][:, 0], expected.transpose(0, 2, 3, 1))
    assert {-128, 127} <= set(found.arrays[0].reshape(-1).tolist()), "saturation was part of it"


def test_real_numbers_are_stored_as_tflites_quantize_stores_them(tmp_path: Path) -> None:
    """A .tflite file whose input is float32 has that operator in front; the same numbers must give the same bytes."""
    real = np.concatenate([images(4, (4, 6, 3), np.float32).reshape(-1) * 30, np.array([0.25, 0.75, -0.25, -0.75, 1e9, -1e9])])
    real = np.resize(real, (4, 4, 6, 3)).astype(np.float32)
    build = Build()
    x = build.activation((1, 4, 6, 3), name="x")
    build.tensors[x] = Tensor("x", (1, 4, 6, 3), "float32")
    y = build.node("quantize", (x,), build.activation((1, 4, 6, 3), 0.5, -3, "y"))
    model = write_tflite(build.graph(x, y))
    expected = np.stack([tflite_micro(model, [image[None]])[0] for image in real])
    found = read_inputs(saved(tmp_path, x=real), image_net())
    assert np.array_equal(found.arrays[0], expected.reshape(4, 1, 4, 6, 3))
    assert {-128, 127} <= set(expected.reshape(-1).tolist()), "saturation was part of it"


def float_net() -> Graph:
    """image_net whose input is float32."""
    graph = image_net()
    return replace(graph, tensors=[replace(tensor, dtype="float32", quantization=None) for tensor in graph.tensors])


def test_a_float_input_takes_every_precision(tmp_path: Path) -> None:
    given = images(dtype=np.float64)
    for dtype in (np.float64, np.float32, np.float16):
        found = read_inputs(saved(tmp_path, x=given.astype(dtype)), float_net()).arrays[0]
        assert found.dtype == np.float32 and np.array_equal(found[:, 0], given.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("graph", [image_net(), float_net()])
def test_numbers_that_no_rule_stores_are_refused(tmp_path: Path, value: float, graph: Graph) -> None:
    given = images(dtype=np.float64)
    given[2, 1, 1, 1] = value
    assert "holds NaN or infinity, as float32" in refusal(saved(tmp_path, x=given), graph)


def test_half_and_double_precision_are_real_numbers_too(tmp_path: Path) -> None:
    given = images(shape=(3, 4, 6), dtype=np.float64)
    one = read_inputs(saved(tmp_path, x=given), image_net(), onnx=True)
    two = read_inputs(saved(tmp_path, x=given.astype(np.float32)), image_net(), onnx=True)
    assert np.array_equal(one.arrays[0], two.arrays[0])


# Refusals


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (images(shape=(6, 4, 3)), "'x' is int8 (5, 6, 4, 3); the model takes float32 or int8 (n, 4, 6, 3)"),
        (images(shape=(4, 6)), "(5, 4, 6); the model takes float32 or int8 (n, 4, 6, 3)"),
        (images(1)[0], "(4, 6, 3); the model takes float32 or int8 (n, 4, 6, 3)"),
        (np.int8(3), "is int8 (); the model takes"),
        (images().astype(np.uint8), "is uint8 (5, 4, 6, 3); the model takes float32 or int8, real = 0.5 * (stored - -3)"),
        (images().astype(np.int64), "is int64"),
        (images(0), "holds 0 'x' inputs; expected the same number of each, 1 or more"),
        (np.full((5, 4, 6, 3), "a"), "is <U1 (5, 4, 6, 3)"),
        (np.zeros((5, 4, 6, 3), complex), "is complex128"),
    ],
)
def test_arrays_that_do_not_fit_are_named_with_what_does(tmp_path: Path, array: Any, words: str) -> None:
    assert words in refusal(saved(tmp_path, x=array), image_net())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_real_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    given = images(shape=(3, 4, 6), dtype=np.float32)
    given[1, 2, 0, 0] = value
    assert "NaN or infinity" in refusal(saved(tmp_path, x=given), image_net(), onnx=True)


def test_an_onnx_image_of_another_shape_is_told_the_files_own_layout(tmp_path: Path) -> None:
    words = refusal(saved(tmp_path, x=images(shape=(5, 5, 5))), image_net(), onnx=True)
    assert "takes float32 or int8 (n, 3, 4, 6)" in words


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(4), "labels are int64 (4,); expected 5 integers"),
        (np.zeros((5, 2), int), "labels are int64 (5, 2); expected 5 integers"),
        (np.zeros(5), "labels are float64 (5,); expected 5 integers"),
        (np.array(["a"] * 5), "labels are <U1 (5,)"),
        (np.array([0, 71, 72, 1, 2]), "labels go from 0 to 72; expected 0 to 71, the places in the model's first output"),
        (np.array([0, -1, 3, 1, 2]), "labels go from -1 to 3; expected 0 to 71"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: Any, words: str) -> None:
    assert words in refusal(saved(tmp_path, x=images(), y=labels), image_net())


def test_labels_of_a_model_with_one_output_are_not_places(tmp_path: Path) -> None:
    """There is no largest output to compare with: a regression's targets may be anything."""
    graph = image_net((1, 1, 1, 1))
    found = read_inputs(saved(tmp_path, x=images(3, (1,)), y=np.array([7, 900, -3])), graph)
    assert found.labels is not None and found.labels.tolist() == [7, 900, -3]


def test_another_number_of_each_input(tmp_path: Path) -> None:
    words = refusal(saved(tmp_path, left=images(3, (2, 3)), right=images(4, (2, 3))), sum_net())
    assert "holds 3 'left', 4 'right' inputs; expected the same number of each" in words


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a",), ()])
def test_another_number_of_arrays(tmp_path: Path, names: tuple[str, ...]) -> None:
    words = refusal(saved(tmp_path, **{name: images(3, (2, 3)) for name in names}), sum_net())
    assert f"holds the arrays {', '.join(names) or 'none'}; expected left, right, or 2 in the model's order" in words


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "x.npz not found; expected an .npz file" in refusal(tmp_path / "x.npz", image_net())
    assert "is a folder; expected an .npz file" in refusal(tmp_path, image_net())


def test_no_advice_to_load_code(tmp_path: Path) -> None:
    """numpy's own sentence about pickled data recommends to unpickle it."""
    (tmp_path / "x.npz").write_bytes(b"text, not arrays")
    words = refusal(tmp_path / "x.npz", image_net())
    assert "allow_pickle" not in words and "trust" not in words


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\x03\x04" + b"\xff" * 60,
        b"hello, world",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': 1/0}  ",
    ],
)
def test_bytes_that_are_no_npz_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    assert "is no .npz file of plain arrays" in refusal(path, image_net())


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([Trap()], object))
    assert "plain arrays" in refusal(path, image_net())
    assert not (tmp_path / "touched").exists()


def test_every_cut_of_a_file_is_refused_or_whole(tmp_path: Path) -> None:
    whole = saved(tmp_path, x=images(2)).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        assert refusal(path, image_net())


def test_flipped_bytes_give_inputs_or_the_one_error(tmp_path: Path) -> None:
    whole = bytearray(saved(tmp_path, x=images(2)).read_bytes())
    path, rng = tmp_path / "flipped.npz", np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(data))
        try:
            read_inputs(path, image_net())
        except DataError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused > 100


def test_a_file_that_unpacks_to_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware_export.inputs, "MAX_BYTES", 1000)
    assert "unpacks to" in refusal(saved(tmp_path, x=images(100)), image_net())


def test_an_array_that_claims_more_than_there_is(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|i1", "fortran_order": False, "shape": (2**50, 4, 6, 3)})
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    assert refusal(path, image_net())


# Random inputs


def test_random_inputs_are_the_same_every_time_and_use_every_byte() -> None:
    one, two = random_model_inputs(image_net()), random_model_inputs(image_net())
    assert len(one) == RANDOM_COUNT and one.labels is None
    assert np.array_equal(one.arrays[0], two.arrays[0])
    assert one.arrays[0].shape == (RANDOM_COUNT, 1, 4, 6, 3) and one.arrays[0].min() < -100 and one.arrays[0].max() > 100
    assert len(random_model_inputs(image_net(), 3)) == 3


def test_random_inputs_of_every_type() -> None:
    for dtype in ("int8", "uint8", "float32"):
        build = Build()
        quantization = None if dtype == "float32" else Quantization.per_tensor(0.5, 3)
        x = build.tensor(Tensor("x", (1, 5), dtype, quantization))
        graph = build.graph(x, build.node("quantize", (x,), build.activation((1, 5))))
        (array,) = random_model_inputs(graph).arrays
        assert str(array.dtype) == dtype and len(np.unique(array)) > 10
