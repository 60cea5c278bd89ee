"""Model files from outside: read with a size limit, format told by content. Nothing in them is trusted."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firmware_export.graph import Graph, GraphError

MAX_FILE_BYTES = 64 * 1024 * 1024
"""No microcontroller holds a model of this size; a file above it is refused before it is read."""
MAX_ELEMENTS = 2**26
"""Elements of one tensor."""
MAX_OPERATORS = 10_000
MAX_RANK = 6
"""NN_MAX_RANK of runtime/nn.h."""

DAMAGE = (struct.error, ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, AssertionError)
"""What Python's own readers raise on bytes that make no sense; `damage` turns it into a GraphError."""


@contextmanager
def damage(what: str, named: bool = False) -> Iterator[None]:
    """The one place where a reader's low-level errors become a GraphError that says what they mean.

    named: put `what` before the sentence of a GraphError too.
    """
    try:
        yield
    except GraphError as error:
        if not named:
            raise
        raise GraphError(f"{what}: {error}") from None
    except DAMAGE as error:
        raise GraphError(f"{what} is damaged ({type(error).__name__}: {shown(str(error))}); export the model again") from None
    except MemoryError:
        raise GraphError(f"{what} claims more memory than there is; export the model again") from None


def read_model_bytes(path: Path) -> bytes:
    """A model file's bytes.

    Raises:
        GraphError: there is no such file, it cannot be read, is empty, or is larger than MAX_FILE_BYTES.
    """
    try:
        if not path.is_file():
            raise GraphError(f"model file {path} not found; expected a .tflite or .onnx file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise GraphError(f"{path} has {size:,} bytes; supported: models up to {MAX_FILE_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise GraphError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if not data:
        raise GraphError(f"{path} is empty; expected a .tflite or .onnx file")
    return data


def read_model(path: Path) -> Graph:
    """Reads an int8 .tflite or .onnx model; the content decides which it is, not the name.

    Raises:
        GraphError: damaged or not supported, in one line with the file's name.
    """
    data = read_model_bytes(path)
    try:
        if data[4:8] == b"TFL3":
            from firmware_export.read_tflite import read_tflite_bytes

            return read_tflite_bytes(data)
        from firmware_export.read_onnx import read_onnx_bytes

        return read_onnx_bytes(data, path.parent)
    except GraphError as error:
        raise GraphError(f"{path.name}: {error}") from None


def shown(name: str) -> str:
    """A name from a file, fit for one line of text: printable characters only, at most 60 of them."""
    text = "".join(character if character.isprintable() else "?" for character in name[:61])
    return text if len(text) <= 60 else text[:57] + "..."
