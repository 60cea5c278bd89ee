"""What a model is fed with: arrays of an .npz file, checked against the model, or random ones.

An array is found by the name of the model's input, by its place among the arrays that are no labels, or, for a model with
one input, under the key `x`. Labels, where there are any, are `y` or `labels`. Floating-point arrays for a stored input are
real numbers and are quantized as the model's format does it. The file is untrusted: nothing is unpickled.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firmware_export.graph import DTYPES, Array, Graph, Tensor
from firmware_export.model_file import printable, shown
from firmware_export.selftest import random_inputs
from recipes.artifacts import DataError

LABEL_KEYS = ("y", "labels")
MAX_BYTES = 4 * 2**30
"""Bytes of all arrays of a file, unpacked."""
DAMAGE = (OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise on bytes that are no .npz file, and on pickled objects."""
SIGNATURE = re.compile(r"^serving_default_(.+):0$")
"""How TensorFlow's converter names an input."""
RANDOM_COUNT = 10
"""Random inputs where none are given."""


@dataclass(frozen=True)
class ModelInputs:
    """Inputs of a model, ready to run.

    arrays: for each of the graph's inputs [n, *its shape], of its type. labels: int64 [n], or None.
    source: what to call them in a sentence: "random inputs" or "inputs of x.npz".
    """

    arrays: tuple[Array, ...]
    labels: npt.NDArray[np.int64] | None
    source: str

    def __len__(self) -> int:
        return len(self.arrays[0])

    def vector(self, place: int) -> tuple[Array, ...]:
        """One array for each of the graph's inputs, of its shape."""
        return tuple(array[place] for array in self.arrays)


def random_model_inputs(graph: Graph, count: int | None = None) -> ModelInputs:
    """Pseudo-random inputs, the same ones every time."""
    vectors = random_inputs(graph, count or RANDOM_COUNT)
    return ModelInputs(tuple(np.stack(column) for column in zip(*vectors, strict=True)), None, "random inputs")


def read_inputs(path: Path, graph: Graph, count: int | None = None, *, onnx: bool = False) -> ModelInputs:
    """The first `count` inputs of an .npz file.

    Args:
        onnx: the model is an .onnx file: arrays of rank 4 are laid out as it declares them, [n, c, h, w], and real numbers
            are rounded as by QuantizeLinear, else as by TFLite's QUANTIZE.
    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit the model.
    """
    content = _load(path)
    labels = next((content[key] for key in LABEL_KEYS if key in content), None)
    arrays = {key: array for key, array in content.items() if key not in LABEL_KEYS}
    chosen = _chosen(arrays, graph, path)
    fitted = tuple(_fitted(key, arrays[key], graph.tensors[i], path, onnx) for key, i in zip(chosen, graph.inputs, strict=True))
    lengths = {key: len(array) for key, array in zip(chosen, fitted, strict=True)}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"{path} holds {_listed(lengths)} inputs; expected the same number of each, 1 or more")
    classes = graph.tensors[graph.outputs[0]].elements
    checked = None if labels is None else _labels(labels, len(fitted[0]), classes, path)
    return ModelInputs(
        tuple(array[:count] for array in fitted), None if checked is None else checked[:count], f"inputs of {path.name}"
    )


def _load(path: Path) -> dict[str, Array]:
    """Every array of the file; a .npy file is an array `x`."""
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "not found"
            raise DataError(f"{path} {found}; expected an .npz file (numpy.savez(path, x=inputs, y=labels))")
        if zipfile.is_zipfile(path):
            _refuse_large(path)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except MemoryError:
        raise DataError(f"{path} claims more memory than there is; save it again with numpy.savez") from None
    except DAMAGE as error:
        reason = printable(" ".join(str(error).split(". ")[0].split()))[:120] or type(error).__name__
        raise DataError(
            f"{path} is no .npz file of plain arrays ({reason}); save it with numpy.savez(path, x=inputs)"
        ) from None


def _refuse_large(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise DataError(f"{path} unpacks to {size:,} bytes; supported: up to {MAX_BYTES:,} (save fewer inputs)")


def _chosen(arrays: dict[str, Array], graph: Graph, path: Path) -> list[str]:
    """The key of each of the graph's inputs."""
    names = [graph.tensors[index].name for index in graph.inputs]
    for known in (names, [SIGNATURE.sub(r"\1", name) for name in names]):
        if all(name in arrays for name in known):
            return known
    if len(names) == 1 and "x" in arrays:
        return ["x"]
    if len(arrays) == len(names):
        return list(arrays)
    found = ", ".join(shown(key) for key in arrays) or "none"
    raise DataError(f"{path} holds the arrays {found}; expected {', '.join(names)}, or {len(names)} in the model's order")


def _fitted(key: str, array: Array, tensor: Tensor, path: Path, onnx: bool) -> Array:
    """The array as [n, *tensor.shape] of the tensor's type."""
    where = f"{path}: '{shown(key)}' is {array.dtype} {array.shape}"
    shape = tensor.shape[1:] if tensor.shape[:1] == (1,) else tensor.shape
    laid_out = (*shape[-1:], *shape[:-1]) if onnx and len(tensor.shape) == 4 else shape
    given = next((known for known in (laid_out, shape) if known == array.shape[1:]), None) or next(
        (known for known in (laid_out, shape) if _without_ones(known) == _without_ones(array.shape[1:])), None
    )
    if given is None:
        raise DataError(f"{where}; the model takes {_wanted(tensor)} (n, {', '.join(map(str, laid_out))})")
    if onnx and len(tensor.shape) == 4 and given == laid_out:
        array = np.moveaxis(array.reshape(-1, *laid_out), 1, -1)
    if array.dtype.kind == "f":
        array = _stored(_finite(array, where), tensor, onnx)
    if array.dtype.newbyteorder("=") != DTYPES[tensor.dtype]:
        raise DataError(f"{where}; the model takes {_wanted(tensor)}, real = {_formula(tensor)}: convert the array")
    return np.ascontiguousarray(array, DTYPES[tensor.dtype]).reshape(len(array), *tensor.shape)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its dimensions of 1: with them or without, it is the same array."""
    return tuple(size for size in shape if size != 1)


def _wanted(tensor: Tensor) -> str:
    return f"float32 or {tensor.dtype}" if tensor.quantization is not None else tensor.dtype


def _formula(tensor: Tensor) -> str:
    if tensor.quantization is None:
        return "stored"
    return f"{tensor.scale:.9g} * (stored - {tensor.zero_point})"


def _finite(array: Array, where: str) -> Array:
    """Floating-point numbers as float32. Raises DataError where one is none: what a model makes of it is not defined."""
    with np.errstate(over="ignore"):
        real: Array = array.astype(np.float32)
    if not np.all(np.isfinite(real)):
        raise DataError(f"{where} and holds NaN or infinity, as float32; expected finite numbers")
    return real


def _stored(real: Array, tensor: Tensor, onnx: bool) -> Array:
    """Real numbers as the model's first operator stores them, saturated; as they are where it takes them so.

    Halves go to even in ONNX's QuantizeLinear, away from zero in TFLite's QUANTIZE.
    """
    if tensor.quantization is None:
        return real
    limits = np.iinfo(tensor.dtype)
    ratio: npt.NDArray[np.float64] = np.divide(real, np.float32(tensor.scale), dtype=np.float32).astype(np.float64)
    steps = np.rint(ratio) if onnx else np.trunc(ratio + np.copysign(0.5, ratio))
    found: Array = np.clip(steps + tensor.zero_point, limits.min, limits.max).astype(DTYPES[tensor.dtype])
    return found


def _labels(labels: Array, count: int, classes: int, path: Path) -> npt.NDArray[np.int64]:
    """The labels, checked. classes: elements of the first output; with one there is no largest to compare with."""
    if labels.dtype.kind not in "iu" or labels.reshape(-1).shape != (count,):
        raise DataError(
            f"{path}: the labels are {labels.dtype} {labels.shape}; expected {count:,} integers, one for each input"
        )
    least, most = int(labels.min()), int(labels.max())
    if classes > 1 and (least < 0 or most >= classes):
        raise DataError(
            f"{path}: the labels go from {least} to {most}; expected 0 to {classes - 1}, the places in the model's first "
            "output (leave them out where they are something else)"
        )
    return labels.reshape(-1).astype(np.int64)


def _listed(lengths: dict[str, int]) -> str:
    return ", ".join(f"{count:,} '{shown(key)}'" for key, count in lengths.items())
