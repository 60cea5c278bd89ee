"""Model files: found, limited in size, told apart by content, and every low-level error in one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from graph_builder import small_net
from qdq_builder import dscnn

from firmware_export.graph import GraphError
from firmware_export.model_file import MAX_FILE_BYTES, damage, printable, read_model, read_model_bytes, shown
from firmware_export.write_tflite import write_tflite


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(write_tflite(small_net()))
    (tmp_path / "b.tflite").write_bytes(dscnn().SerializeToString())
    assert read_model(tmp_path / "a.onnx").nodes[0].op == "conv2d"
    assert read_model(tmp_path / "b.tflite").nodes[1].op == "depthwise_conv2d"


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(GraphError, match=r"^bad\.onnx: not an ONNX file"):
        read_model(tmp_path / "bad.onnx")


@pytest.mark.parametrize("name", ["missing.tflite", "folder", "x" * 300])
def test_what_is_no_file_is_not_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(GraphError, match=r"(not found|is a folder); expected a \.tflite or \.onnx file|cannot read"):
        read_model_bytes(tmp_path / name)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    with pytest.raises(GraphError, match="is empty"):
        read_model_bytes(tmp_path / "m")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.tflite"
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(GraphError, match=r"has 67,108,865 bytes; supported: models up to 67,108,864"):
        read_model_bytes(path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (struct.error("unpack"), "operator 3 is damaged: an offset, length or number in it makes no sense"),
        (ValueError("x"), "makes no sense"),
        (TypeError("bad number"), "makes no sense"),
        (IndexError(), "makes no sense"),
        (OverflowError(), "makes no sense"),
        (ZeroDivisionError(), "makes no sense"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "makes no sense"),
        (KeyError("x"), "a part of it is missing or of another kind"),
        (AttributeError("x"), "a part of it is missing"),
        (AssertionError(), "a part of it is missing"),
        (MemoryError(), "operator 3 claims more memory than there is"),
    ],
)
def test_low_level_errors_become_one_sentence(error: Exception, words: str) -> None:
    with pytest.raises(GraphError, match=words), damage("operator 3"):
        raise error


def test_a_sentence_is_kept_made_printable_and_named_where_asked() -> None:
    with pytest.raises(GraphError) as caught, damage("node 3"):
        raise GraphError("bad\n\x1bname")
    assert str(caught.value) == "bad??name"
    with pytest.raises(GraphError) as caught, damage("node 3", named=True):
        raise GraphError("too large")
    assert str(caught.value) == "node 3: too large"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_other_errors_pass(error: type[BaseException]) -> None:
    with pytest.raises(error), damage("the file"):
        raise error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1/weights", "conv1/weights"),
        ("a\nb\tc\x1b[0m", "a?b?c?[0m"),
        ("é ☃ 層", "é ☃ 層"),
        ("\u202eright to left\u2028", "?right to left?"),
        (b"bytes\xff", "bytes�"),
        ("", ""),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 57 + "..."),
        ("x" * 10_000, "x" * 57 + "..."),
        (b"y" * 10_000, "y" * 57 + "..."),
    ],
)
def test_names_fit_one_line(name: str | bytes, expected: str) -> None:
    assert shown(name) == expected
    assert printable(shown(name)) == expected
