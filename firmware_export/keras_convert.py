"""`python -m firmware_export.keras_convert MODEL CALIBRATION OUTPUT`: a Keras model to an int8 .tflite file, by TensorFlow.

Runs in a process of its own (keras_model.py starts it), because TensorFlow is large, slow to load and loud. The model is
untrusted: what in it would be code (Lambda layers, custom objects, operators that touch files) is refused before Keras or
TensorFlow loads it. The last line on stdout is `ok: ...`, `error: ...` or, where the calibration is at fault, `data: ...`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from firmware_export.inputs import DAMAGE, LABEL_KEYS
from firmware_export.model_file import printable, shown
from firmware_export.model_source import SAVED_MODEL

REFUSED = 3
"""Exit code of a conversion that was refused; stdout says why."""
CODE_LAYERS = ("Lambda", "TFOpLambda", "SlicingOpLambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")
"""Layers that hold or load code."""
FILE_OPERATORS = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "PrintV2", "Print", "MatchingFiles")
"""TensorFlow operators that run Python or touch files while a graph is evaluated."""
FILE_WORDS = re.compile("File|Dataset|Iterator|Summary|Record|Debug|Reader|Proto|Rpc|Checkpoint|Distributed|Remap")
"""In the names of TensorFlow's other operators that read, write or send; a model that only computes needs none of them."""
FILE_NAMES = ("ShardedFilename", "ShardedFilespec")
"""Operators that only put a name together."""
SAVING_OPERATORS = ("SaveV2", "Save", "SaveSlices", "MergeV2Checkpoints")
SAVING_FUNCTION = "__inference__traced_save"
"""Where Keras keeps the operators that save variables; nothing calls it when a model is read."""
MAX_CONFIG_BYTES = 64 * 2**20
T = TypeVar("T")
Array = npt.NDArray[np.float32]
Specs = list[tuple[str, tuple[int | None, ...]]]
"""Name and shape of each input; the batch is None or a number."""


class Refused(Exception):
    """The model or its calibration cannot be used; the text says why and what to do."""


class RefusedData(Refused):
    """It is the calibration that cannot be used."""


def main(arguments: list[str]) -> int:
    """Converts; returns the exit code."""
    model, calibration, output = map(Path, arguments)
    try:
        data, count = convert(model, calibration)
    except Refused as error:
        print(f"{'data' if isinstance(error, RefusedData) else 'error'}: {printable(str(error))}", flush=True)
        return REFUSED
    output.write_bytes(data)
    print(f"ok: {count}", flush=True)
    return 0


def convert(path: Path, calibration: Path) -> tuple[bytes, int]:
    """The int8 .tflite file, and on how many inputs it was calibrated.

    Args:
        path: .keras, .h5, or a SavedModel folder.
        calibration: .npz with float arrays [n, ...]: `x`, or one for each input, by its name or in the model's order.
    Raises:
        Refused: damaged, holds code, or cannot be converted to int8. RefusedData: the calibration does not fit it.
    """
    if not path.is_dir():
        refuse_code(_keras_config(path))
    tf = importlib.import_module("tensorflow")  # here, so that nothing else loads it, and only for what may be a model
    with tempfile.TemporaryDirectory(prefix="saved-model-") as work:
        folder = path if path.is_dir() else Path(work)
        if not path.is_dir():
            _export_keras(tf, path, folder)
        specs = _signature(folder)
        samples = list(calibration_samples(calibration, specs))
        data = _int8(tf, folder, samples, new_quantizer=True)
        if leaves_float(data):  # it sometimes does so with SPLIT behind a dense layer; the older one then does not
            data = _int8(tf, folder, samples, new_quantizer=False)
        return data, len(samples)


def _int8(tf: Any, folder: Path, samples: list[dict[str, Array]], *, new_quantizer: bool) -> bytes:
    converter = _attempt("be read as a SavedModel", lambda: tf.lite.TFLiteConverter.from_saved_model(str(folder)))
    converter.representative_dataset = lambda: iter(samples)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter.experimental_new_quantizer = new_quantizer
    return bytes(_attempt("be converted to int8 by TensorFlow", converter.convert))


def leaves_float(data: bytes) -> bool:
    """Whether an operator of a .tflite file still computes float32, those beside that only convert."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    converting = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE)
    return any(
        kinds[operator.opcodeIndex] not in converting and subgraph.tensors[index].type == schema.TensorType.FLOAT32
        for subgraph in model.subgraphs
        for operator in subgraph.operators
        for index in operator.outputs
    )


def _attempt(what: str, action: Callable[[], T]) -> T:
    """The action's result; whatever TensorFlow or Keras raises becomes one line."""
    try:
        return action()
    except Refused:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise Refused(f"the model cannot {what}: {lines[0][:200]}") from None


def _export_keras(tf: Any, path: Path, folder: Path) -> None:
    """Writes a .keras or .h5 file as a SavedModel with a batch of 1; its inputs keep the letters and digits of their names.

    The file's configuration has passed refuse_code.
    """
    model = _attempt("be read by Keras", lambda: tf.keras.models.load_model(str(path), compile=False, safe_mode=True))
    _unroll(model)
    names = [re.sub(r"[^A-Za-z0-9_]", "_", str(tensor.name)) for tensor in model.inputs]
    names = names if len(set(names)) == len(names) else [f"input_{place}" for place in range(len(names))]
    shapes = [_fixed(name, tuple(tensor.shape)) for name, tensor in zip(names, model.inputs, strict=True)]
    specs = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in zip(names, shapes, strict=True)]
    signature = specs if len(specs) == 1 else [specs]
    _attempt("be traced", lambda: model.export(str(folder), input_signature=signature, verbose=False))


def _unroll(model: Any) -> None:
    """Recurrent layers run their steps one behind the other: in a loop of TensorFlow they end its calibration in a crash."""
    for layer in model._flatten_layers():
        if getattr(layer, "unroll", None) is False:
            layer.unroll = True


def _fixed(name: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape with a batch of 1."""
    sizes = tuple(size for size in shape[1:] if size is not None)
    if len(sizes) != len(shape) - 1:
        raise Refused(f"the input '{shown(name)}' has the dynamic shape {shape}; build the model with a fixed input shape")
    return (1, *sizes)


def _keras_config(path: Path) -> Any:
    """The model's description, from the .keras archive or the .h5 file's attribute."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
                    raise Refused(f"its config.json is larger than {MAX_CONFIG_BYTES:,} bytes")
                return json.loads(archive.read("config.json"))
        import h5py

        with h5py.File(path, "r") as file:
            return json.loads(file.attrs["model_config"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise Refused(f"the file is no whole Keras model ({reason}); save it with model.save('model.keras')") from None


def refuse_code(config: Any) -> None:
    """Walks a Keras configuration. Raises Refused for layers that hold code and for classes that are not Keras's own."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                _refuse_class(value)
            waiting += [part for key, part in value.items() if key != "compile_config"]
        elif isinstance(value, list):
            waiting += value


def _refuse_class(value: dict[str, Any]) -> None:
    name, module = value["class_name"], value.get("module")
    config = value.get("config")
    layer = shown(str(config.get("name", name) if isinstance(config, dict) else name))
    if name in CODE_LAYERS:
        raise Refused(f"the layer '{layer}' is a {shown(name)}, which holds code; build the model from layers of Keras itself")
    registered = value.get("registered_name")
    if name == "function" or ">" in str(registered or "") or (registered is not None and module is None):
        raise Refused(f"'{layer}' is a custom function or object; supported: models of Keras's own layers")
    if module is not None and str(module).split(".")[0] not in ("keras", "builtins"):
        raise Refused(f"'{layer}' is the custom object {shown(f'{module}.{name}')}; supported: models of Keras's own layers")


def _signature(folder: Path) -> Specs:
    """The inputs of a SavedModel's signature `serving_default`, by name. Raises Refused when it does more than compute."""
    parsed = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    _attempt("be read as a SavedModel", lambda: parsed.ParseFromString((folder / SAVED_MODEL).read_bytes()))
    for meta in parsed.meta_graphs:
        _refuse_file_operators(meta.graph_def)
    signatures = [m.signature_def["serving_default"] for m in parsed.meta_graphs if "serving_default" in m.signature_def]
    if len(signatures) != 1:
        raise Refused("the SavedModel has no signature 'serving_default'; save it with model.export(folder)")
    return [
        (str(name), tuple(None if d.size < 0 else int(d.size) for d in info.tensor_shape.dim))
        for name, info in sorted(signatures[0].inputs.items())
    ]


def _refuse_file_operators(graph: Any) -> None:
    """Raises Refused for operators that run Python or touch files; Keras's own function that saves variables may be there."""
    nodes = [("", node) for node in graph.node]
    nodes += [(function.signature.name, node) for function in graph.library.function for node in function.node_def]
    for function, node in nodes:
        saves = node.op in SAVING_OPERATORS and not (function == "" or function.startswith(SAVING_FUNCTION))
        calls = function != "" and any(a.func.name.startswith(SAVING_FUNCTION) for a in node.attr.values())
        if node.op in FILE_OPERATORS or _has_file_word(node.op) or saves or calls:
            what = f"'{shown(node.name)}' ({shown(node.op)})"
            raise Refused(f"the SavedModel's operator {what} touches files or runs code; supported: models that only compute")


def _has_file_word(op: str) -> bool:
    return FILE_WORDS.search(op) is not None and op not in (*FILE_NAMES, *SAVING_OPERATORS)


def calibration_samples(path: Path, specs: Specs) -> Iterator[dict[str, Array]]:
    """Every input of the .npz file as {input name: float32 [1, ...]}.

    Raises:
        RefusedData: damaged, or not the arrays that the model takes.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key not in LABEL_KEYS}
    except (*DAMAGE, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RefusedData(
            f"{path.name} is no .npz file of plain arrays ({reason}); save it with numpy.savez(path, x=inputs)"
        ) from None
    chosen = {name: _calibration(arrays, place, name, shape, specs) for place, (name, shape) in enumerate(specs)}
    counts = {len(array) for array in chosen.values()}
    if len(counts) != 1 or counts == {0}:
        raise RefusedData(f"{path.name} holds {sorted(counts)} inputs; expected the same number of each, 1 or more")
    return ({name: array[i : i + 1] for name, array in chosen.items()} for i in range(counts.pop()))


def _calibration(arrays: dict[str, Any], place: int, name: str, shape: tuple[int | None, ...], specs: Specs) -> Array:
    keys = list(arrays)
    key = name if name in arrays else "x" if len(specs) == 1 and "x" in arrays else None
    if key is None and len(keys) == len(specs):
        key = keys[place]
    wanted = _fixed(name, shape)[1:]
    if key is None:
        raise RefusedData(f"the calibration holds {', '.join(map(shown, keys)) or 'nothing'}; expected '{shown(name)}' or 'x'")
    array = arrays[key]
    if array.dtype.kind not in "fiu" or array.shape[1:] != wanted:
        raise RefusedData(f"the calibration's '{shown(key)}' is {array.dtype} {array.shape}; expected float32 (n, {wanted})")
    found: Array = array.astype(np.float32)
    if not np.all(np.isfinite(found)):
        raise RefusedData(f"the calibration's '{shown(key)}' holds NaN or infinity; expected finite numbers")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
