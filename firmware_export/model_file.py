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

POINTS_OUTSIDE = (struct.error, ValueError, TypeError, IndexError, ArithmeticError)
WRONG_KIND = (KeyError, AttributeError, AssertionError)
"""What Python's own readers raise on bytes that make no sense."""


@contextmanager
def damage(what: str, named: bool = False) -> Iterator[None]:
    """The one place where a reader's low-level errors become a GraphError that says what they mean.

    named: put `what` before the sentence of a GraphError too.
    """
    try:
        yield
    except GraphError as error:
        raise GraphError(printable(f"{what}: {error}" if named else str(error))) from None
    except POINTS_OUTSIDE as error:
        raise GraphError(
            f"{what} is damaged: an offset, length or number in it makes no sense; export the model again"
        ) from error
    except WRONG_KIND as error:
        raise GraphError(f"{what} is damaged: a part of it is missing or of another kind; export the model again") from error
    except MemoryError:
        raise GraphError(f"{what} claims more memory than there is; export the model again") from None


def read_model_bytes(path: Path) -> bytes:
    """A model file's bytes.

    Raises:
        GraphError: there is no such file, it cannot be read, is empty, or is larger than MAX_FILE_BYTES.
    """
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "not found"
            raise GraphError(f"model file {path} {found}; expected a .tflite or .onnx file")
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


def printable(text: str) -> str:
    """The text without what could act on a terminal or end a line: every other character becomes a question mark."""
    return "".join(character if character.isprintable() else "?" for character in text)


def shown(name: str | bytes) -> str:
    """A name from a file, fit for one line of text: printable, at most 60 characters."""
    text = printable(name[:240].decode(errors="replace") if isinstance(name, bytes) else name[:61])
    return text if len(text) <= 60 else text[:57] + "..."
