"""Keras models without TensorFlow: what is refused before anything is loaded, calibration files, and the process around it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build, small_net

import firmware_export.keras_convert as child
import firmware_export.keras_model as parent
from firmware_export.__main__ import main
from firmware_export.graph import GraphError, Tensor
from firmware_export.keras_convert import REFUSED, Refused, calibration_samples, refuse_code
from firmware_export.keras_model import convert_in_process, convert_stage
from firmware_export.toolchain import ToolchainError
from firmware_export.write_tflite import write_tflite
from recipes.artifacts import DataError

DENSE: dict[str, Any] = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "dense", "units": 2, "kernel_initializer": {"module": "keras.initializers", "class_name": "Zeros"}},
    "registered_name": None,
}


def model_of(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "net", "layers": list(layers)}}


def layer(name: str, module: str | None = "keras.layers", **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": {"name": f"my_{name.lower()}"}, "registered_name": None, **more}


# Code in a configuration


def test_ordinary_models_pass() -> None:
    refuse_code(model_of(DENSE, layer("Conv2D"), layer("ReLU")))
    refuse_code(model_of({"class_name": "Dense", "config": {"name": "old", "activation": "relu"}}))  # of an .h5 file
    functional = {"module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional"}
    refuse_code({**functional, "config": None})
    refuse_code({**model_of(DENSE), "compile_config": {"loss": layer("Mine", "my_losses")}})  # never read
    refuse_code([])


@pytest.mark.parametrize("kind", child.CODE_LAYERS)
@pytest.mark.parametrize("depth", [0, 3])
def test_layers_that_hold_code_are_refused_at_any_depth(kind: str, depth: int) -> None:
    config = model_of(DENSE, layer(kind))
    for _ in range(depth):
        config = model_of(DENSE, {"class_name": "TimeDistributed", "config": {"name": "t", "layer": config}})
    with pytest.raises(Refused, match=f"the layer 'my_{kind.lower()}' is a {kind}, which holds code; build the model from"):
        refuse_code(config)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (layer("system", "os"), "'my_system' is the custom object os.system; supported: models of Keras's own layers"),
        (layer("Mine", "my_package.layers"), "custom object my_package.layers.Mine"),
        (layer("Mine", "kerasX.layers"), "custom object kerasX.layers.Mine"),
        (layer("Mine", None, registered_name="Mine"), "'my_mine' is a custom function or object"),
        (layer("Mine", registered_name="Package>Mine"), "'my_mine' is a custom function or object"),
        (layer("function", "builtins", registered_name="function"), "custom function"),
        ({"class_name": "function", "config": "my_activation"}, "'function' is a custom function"),
        (layer("Lambda", config={"name": "a\x1b[31m\nb"}), r"a?[31m?b"),
    ],
)
def test_what_is_not_keras_own_is_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as caught:
        refuse_code(model_of(DENSE, entry))
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_a_configuration_nested_without_end_is_walked() -> None:
    config: dict[str, Any] = layer("Lambda")
    for _ in range(20_000):
        config = {"config": [config]}
    with pytest.raises(Refused, match="Lambda"):
        refuse_code(config)


def archive(path: Path, config: Any) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
    return path


def test_the_configuration_is_read_from_the_archive(tmp_path: Path) -> None:
    assert child._keras_config(archive(tmp_path / "m.keras", model_of(DENSE))) == model_of(DENSE)


@pytest.mark.parametrize("config", ["", "{", "[" * 100_000, '{"class_name": "a" "b"}'])
def test_archives_with_a_damaged_configuration(tmp_path: Path, config: str) -> None:
    with pytest.raises(Refused, match="no whole Keras model"):
        child._keras_config(archive(tmp_path / "m.keras", config))


def test_an_archive_without_configuration_or_with_a_huge_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("other.json", "{}")
    with pytest.raises(Refused, match="no whole Keras model"):
        child._keras_config(tmp_path / "m.keras")
    monkeypatch.setattr(child, "MAX_CONFIG_BYTES", 10)
    with pytest.raises(Refused, match="larger than 10 bytes"):
        child._keras_config(archive(tmp_path / "n.keras", model_of(DENSE)))


# SavedModels: operators that do more than compute


class Fake:
    """As much of TensorFlow's graph messages as the check reads."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def node(op: str, calls: str = "") -> Fake:
    return Fake(op=op, name=f"my_{op}", attr={"f": Fake(func=Fake(name=calls))})


def saved_graph(nodes: list[Fake], **functions: list[Fake]) -> Fake:
    made = [Fake(signature=Fake(name=name), node_def=nodes) for name, nodes in functions.items()]
    return Fake(node=nodes, library=Fake(function=made))


def test_a_keras_saved_model_passes() -> None:
    child._refuse_file_operators(
        saved_graph(
            [node("VarHandleOp"), node("StatefulPartitionedCall", "__inference__traced_save_4")],
            __inference__traced_save_4=[node("SaveV2"), node("MergeV2Checkpoints")],
            __inference__traced_restore_5=[node("RestoreV2"), node("AssignVariableOp")],
            __inference_call_3=[node("Conv2D"), node("StatefulPartitionedCall", "__inference_inner_2")],
        )
    )


@pytest.mark.parametrize("op", child.FILE_OPERATORS)
@pytest.mark.parametrize("place", ["graph", "function"])
def test_operators_that_run_code_or_touch_files_are_refused(op: str, place: str) -> None:
    graph = saved_graph([node(op)]) if place == "graph" else saved_graph([], __inference_call_3=[node(op)])
    with pytest.raises(Refused, match=rf"operator 'my_{op}' \({op}\) touches files or runs code"):
        child._refuse_file_operators(graph)


def test_saving_is_only_for_the_function_that_nobody_calls() -> None:
    with pytest.raises(Refused, match="SaveV2"):
        child._refuse_file_operators(saved_graph([], __inference_call_3=[node("SaveV2")]))
    with pytest.raises(Refused, match="PartitionedCall"):
        child._refuse_file_operators(
            saved_graph(
                [],
                __inference__traced_restore_5=[node("PartitionedCall", "__inference__traced_save_4")],
                __inference__traced_save_4=[node("SaveV2")],
            )
        )


# Calibration


def calibration(folder: Path, **arrays: Any) -> Path:
    path = folder / "c.npz"
    np.savez(path, **arrays)
    return path


IMAGE: child.Specs = [("image", (None, 4, 4, 1))]
TWO: child.Specs = [("left", (1, 2)), ("right", (1, 3))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16])
@pytest.mark.parametrize("key", ["x", "image", "anything"])
def test_samples_are_single_float_images(tmp_path: Path, dtype: Any, key: str) -> None:
    given = np.arange(3 * 16).reshape(3, 4, 4, 1).astype(dtype)
    found = list(calibration_samples(calibration(tmp_path, **{key: given, "y": np.arange(3)}), IMAGE))
    assert len(found) == 3 and all(list(sample) == ["image"] for sample in found)
    assert all(sample["image"].dtype == np.float32 and sample["image"].shape == (1, 4, 4, 1) for sample in found)
    assert np.array_equal(np.concatenate([sample["image"] for sample in found]), given.astype(np.float32))


def test_two_inputs_by_name_or_by_place(tmp_path: Path) -> None:
    left, right = np.ones((2, 2)), np.zeros((2, 3))
    for arrays in ({"right": right, "left": left}, {"a": left, "b": right}):
        found = list(calibration_samples(calibration(tmp_path, **arrays), TWO))
        assert [sample["left"].sum() for sample in found] == [2, 2] and found[0]["right"].shape == (1, 3)


@pytest.mark.parametrize(
    ("specs", "arrays", "words"),
    [
        (IMAGE, {"x": np.zeros((3, 4, 4))}, "calibration's 'x' is float64 (3, 4, 4); expected float32 (n, (4, 4, 1))"),
        (IMAGE, {"x": np.zeros((0, 4, 4, 1))}, "holds [0] inputs; expected the same number"),
        (IMAGE, {"x": np.full((3, 4, 4, 1), np.nan)}, "NaN or infinity"),
        (IMAGE, {"x": np.full((3, 4, 4, 1), "a")}, "is <U1"),
        (IMAGE, {"a": np.zeros(3), "b": np.zeros(3)}, "the calibration holds a, b; expected 'image' or 'x'"),
        (IMAGE, {"y": np.zeros(3)}, "the calibration holds nothing"),
        (TWO, {"a": np.zeros((2, 2))}, "the calibration holds a; expected 'left'"),
        (TWO, {"left": np.zeros((2, 2)), "right": np.zeros((3, 3))}, "holds [2, 3] inputs"),
        ([("x", (None, None, 4))], {"x": np.zeros((3, 4, 4))}, "the dynamic shape (None, None, 4)"),
    ],
)
def test_calibrations_that_do_not_fit(tmp_path: Path, specs: child.Specs, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as caught:
        calibration_samples(calibration(tmp_path, **arrays), specs)
    assert words in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + b"\0" * 50, b"\x93NUMPY", b"no arrays"])
def test_calibrations_that_are_no_npz(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(data)
    with pytest.raises(Refused, match=r"c\.npz is no \.npz file of plain arrays"):
        calibration_samples(path, IMAGE)


def test_a_single_npy_is_no_calibration(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.zeros((3, 4, 4, 1)))
    with pytest.raises(Refused, match="plain arrays"):
        calibration_samples(tmp_path / "c.npy", IMAGE)


# The child's own main


def test_the_child_says_ok_and_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(child, "convert", lambda *_: (b"TFL3", 7))
    assert child.main(["m", "c", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes() == b"TFL3" and capsys.readouterr().out == "ok: 7\n"


def test_the_child_says_why_not_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def refuse(*_: object) -> None:
        raise Refused("two\nlines \x1b[31m")

    monkeypatch.setattr(child, "convert", refuse)
    assert child.main(["m", "c", str(tmp_path / "out")]) == REFUSED
    assert capsys.readouterr().out == "error: two?lines ?[31m\n" and not (tmp_path / "out").exists()


def test_the_child_tells_the_calibrations_faults_from_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(child, "convert", lambda _, path: list(calibration_samples(path, IMAGE)))
    path = calibration(tmp_path, x=np.zeros((3, 5, 5, 1)))
    assert child.main(["m", str(path), str(tmp_path / "out")]) == REFUSED
    assert capsys.readouterr().out.startswith("data: the calibration's 'x' is float64 (3, 5, 5, 1); expected float32")


@pytest.mark.parametrize("name", ["text.keras", "text.h5"])
def test_files_that_are_no_models_need_no_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Loading it takes seconds: what is no model is told before."""
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was loaded"))
    (tmp_path / name).write_text("no model")
    with pytest.raises(Refused, match="no whole Keras model"):
        child.convert(tmp_path / name, tmp_path / "c.npz")


def test_what_the_converter_has_left_in_float_is_seen() -> None:
    build = Build()
    x = build.activation((1, 4), name="x")
    assert not child.leaves_float(write_tflite(build.graph(x, build.relu(x, (0, 127)))))
    edge = build.node("dequantize", (x,), build.tensor(Tensor("real", (1, 4), "float32")))
    data = write_tflite(build.graph(x, edge))
    assert not child.leaves_float(data), "a float edge only converts"
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for code in model.operatorCodes:
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    builder = flatbuffers.Builder(1000)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    assert child.leaves_float(bytes(builder.Output()))


def test_every_recurrent_layer_is_unrolled() -> None:
    layers = [
        SimpleNamespace(unroll=False),
        SimpleNamespace(units=3),
        SimpleNamespace(unroll=True),
        SimpleNamespace(unroll=None),
    ]
    child._unroll(SimpleNamespace(_flatten_layers=lambda: layers))
    assert [getattr(layer, "unroll", "no such") for layer in layers] == [True, "no such", True, None]


@pytest.mark.parametrize(
    ("error", "words"), [(ValueError("a\n\nb"), "cannot be read: a"), (OSError(), "cannot be read: OSError")]
)
def test_whatever_tensorflow_raises_is_one_line(error: Exception, words: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(Refused, match=words):
        child._attempt("be read", fail)


def test_a_refusal_inside_is_kept() -> None:
    def fail() -> None:
        raise Refused("my own words")

    with pytest.raises(Refused, match=r"^my own words$"):
        child._attempt("be read", fail)


# The stage around the process


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fake_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A child that writes a small int8 model at once; the commands it was given."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        assert options["env"]["CUDA_VISIBLE_DEVICES"] == "-1" and options["timeout"] > 0
        Path(command[-1]).write_bytes(write_tflite(small_net()))
        return subprocess.CompletedProcess(command, 0, "noise\nok: 12\n", "more noise")

    monkeypatch.setattr("firmware_export.keras_model.subprocess.run", run)
    monkeypatch.setattr("firmware_export.keras_model.importlib.util.find_spec", lambda name: name)
    return commands


@pytest.fixture
def keras(tmp_path: Path) -> tuple[Path, Path]:
    model = tmp_path / "net.keras"
    model.write_bytes(b"a float model")
    return model, calibration(tmp_path, x=np.zeros((2, 8, 6, 3)))


def test_the_converted_model_goes_the_whole_way(
    keras: tuple[Path, Path], fake_process: list[list[str]], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, samples = keras
    monkeypatch.setattr("firmware_export.__main__._source", lambda: "source")
    arguments = [str(model), "--calibration", str(samples), "--build", str(tmp_path / "b")]
    monkeypatch.setattr("firmware_export.__main__._export", lambda root, path, *_, **__: print(f"export of {path}"))
    monkeypatch.setattr("firmware_export.__main__.compare_stage", lambda root, run, _: print(f"compare {run.model}"))
    assert main(arguments) == 0
    converted = tmp_path / "b" / "net" / "keras" / "model.tflite"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("keras: net.keras is ") and "calibrated on 12 inputs; " in lines[0]
    assert lines[1:] == [f"export of {converted}", f"compare {converted}"]
    assert converted.read_bytes() == write_tflite(small_net())
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("keras: unchanged") and len(fake_process) == 1


def test_another_calibration_model_or_code_converts_again(
    keras: tuple[Path, Path], fake_process: list[list[str]], tmp_path: Path
) -> None:
    model, samples = keras
    for _ in range(2):
        convert_stage(tmp_path / "b", model, samples, "source")
    assert len(fake_process) == 1
    convert_stage(tmp_path / "b", model, samples, "other source")
    model.write_bytes(b"another float model")
    convert_stage(tmp_path / "b", model, samples, "other source")
    np.savez(samples, x=np.ones((2, 8, 6, 3)))
    convert_stage(tmp_path / "b", model, samples, "other source")
    assert len(fake_process) == 4
    assert fake_process[0][1:] == ["-m", "firmware_export.keras_convert", str(model), str(samples), fake_process[0][-1]]


def test_every_file_of_a_saved_model_counts(fake_process: list[list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"one")
    samples = calibration(tmp_path, x=np.zeros((2, 8, 6, 3)))
    convert_stage(tmp_path / "b", folder, samples, "source")
    (folder / "variables" / "variables.index").write_bytes(b"two")
    convert_stage(tmp_path / "b", folder, samples, "source")
    assert len(fake_process) == 2


def test_missing_files_are_named(keras: tuple[Path, Path], tmp_path: Path) -> None:
    model, samples = keras
    with pytest.raises(DataError, match=r"none\.npz not found; expected an \.npz file"):
        convert_stage(tmp_path / "b", model, tmp_path / "none.npz", "source")
    with pytest.raises(GraphError, match=r"none\.keras not found; expected \.keras, \.h5 or a SavedModel folder"):
        convert_stage(tmp_path / "b", tmp_path / "none.keras", samples, "source")


def test_without_tensorflow_the_way_to_get_it_is_told(
    keras: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware_export.keras_model.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ToolchainError, match=r"tensorflow is not installed; run pip install -r requirements-tensorflow\.txt"
    ) as e:
        convert_stage(tmp_path / "b", *keras, "source")
    assert e.value.exit_code == 8
    assert (Path(parent.__file__).parents[1] / "requirements-tensorflow.txt").is_file()


@pytest.mark.parametrize(
    ("code", "out", "err", "words"),
    [
        (REFUSED, "error: it holds code\n", "", "net.keras: it holds code"),
        (1, "", "Traceback\nImportError: no DLL\n", "TensorFlow ended with exit code 1: ImportError: no DLL"),
        (-9, "", "", "TensorFlow ended with signal SIGKILL: it said nothing"),
        (-11, "", "warnings.warn(X)", "converter crashed (signal SIGSEGV); it does so on layers that loop, such as an LSTM"),
        (-6, "", "terminate called", "converter crashed (signal SIGABRT); it does so on layers that loop"),
        (0, "no verdict\n", "\x1b[31mred", "exit code 0: ?[31mred"),
    ],
)
def test_every_end_of_the_child_is_one_line(
    keras: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str, words: str
) -> None:
    monkeypatch.setattr("firmware_export.keras_model.importlib.util.find_spec", lambda name: name)
    ended = subprocess.CompletedProcess([], code, out, err)
    monkeypatch.setattr("firmware_export.keras_model.subprocess.run", lambda *_, **__: ended)
    with pytest.raises(GraphError) as caught:
        convert_stage(tmp_path / "b", *keras, "source")
    assert words in str(caught.value) and str(caught.value).isprintable()
    assert not (tmp_path / "b" / "keras").exists(), "nothing half made"


def test_a_calibration_that_does_not_fit_is_an_error_of_the_data(
    keras: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wrong inputs are: exit code 3, and the calibration's name instead of the model's."""
    monkeypatch.setattr("firmware_export.keras_model.importlib.util.find_spec", lambda name: name)
    ended = subprocess.CompletedProcess([], REFUSED, "data: the calibration holds nothing; expected 'x'\n", "")
    monkeypatch.setattr("firmware_export.keras_model.subprocess.run", lambda *_, **__: ended)
    with pytest.raises(DataError, match=rf"^{keras[1]}: the calibration holds nothing; expected 'x'$") as caught:
        convert_stage(tmp_path / "b", *keras, "source")
    assert caught.value.exit_code == 3


def test_a_child_that_takes_too_long_is_ended(
    keras: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real process that sleeps in the place of the converter."""
    monkeypatch.setattr("firmware_export.keras_model.importlib.util.find_spec", lambda name: name)
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 30\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    with pytest.raises(GraphError, match=r"took more than 0\.5 s; give fewer calibration inputs"):
        convert_in_process(*keras, tmp_path / "out", 0.5)


def test_tensorflow_is_not_loaded_by_the_parent_or_by_importing_the_child() -> None:
    program = "import sys, firmware_export.keras_model, firmware_export.keras_convert; print('tensorflow' in sys.modules)"
    root = Path(parent.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "False"
    assert importlib.util.find_spec("firmware_export.keras_convert") is not None
