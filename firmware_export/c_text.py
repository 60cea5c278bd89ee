"""Pieces of C text: number arrays, float literals, comments that nothing from a model file can break out of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from firmware_export.graph import Array

LINE_WIDTH = 118
C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t"}
C_TYPES |= {"int32": "int32_t", "uint32": "uint32_t", "float32": "float"}
COMMENT_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/-")
COMMENT_LENGTH = 60


def comment_text(name: str) -> str:
    """A name from a model, fit for a comment: other characters than COMMENT_LETTERS become "_", at most 60 of them.

    Without "*" it cannot end the comment or open another, without "?" there is no trigraph, without a backslash or line
    end no continued line.
    """
    return "".join(letter if letter in COMMENT_LETTERS else "_" for letter in name[:COMMENT_LENGTH])


def c_float(value: float) -> str:
    """A float literal that reads back as the same float32."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def packed_lines(fields: Iterable[str]) -> Iterator[str]:
    """Comma-separated items packed into indented lines."""
    line = ""
    for field in fields:
        if line and len(line) + len(field) + 2 > LINE_WIDTH:
            yield f"    {line}"
            line = ""
        line += f"{' ' if line else ''}{field},"
    if line:
        yield f"    {line}"


def array_definition(data: Array, identifier: str, attribute: str = "", *, declare: bool = False) -> str:
    """A const array, flattened in C order; with `declare` only its declaration."""
    head = f"const {C_TYPES[str(data.dtype)]} {identifier}[{data.size}]"
    if declare:
        return f"{head};"
    values = data.reshape(-1).tolist()
    texts = [c_float(value) for value in values] if data.dtype == np.float32 else map(str, values)
    body = "\n".join(packed_lines(texts))
    return f"{head}{' ' + attribute if attribute else ''} = {{\n{body}\n}};"
