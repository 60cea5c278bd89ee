"""Streams images through a board and keeps every answer on disk as it comes, so that a killed run goes on where it was.

The results file is text: a header that binds it to model, images, board and firmware, then one line for each image,
`index cycles attempts outputs-in-hex CRC-32`. A torn or damaged line and everything after it is dropped and measured
again; a file with another header is started anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from host_tools.errors import LinkError
from host_tools.link import Link, RunResult
from host_tools.messages import Hello
from recipes.artifacts import ArtifactError, storage_error

RESULTS_VERSION = 1


@dataclass(frozen=True)
class StreamResult:
    """The answers to all images, in order.

    Attributes:
        outputs: int8 [n, ...output shape without its batch axis] ([n, bytes] for a network with several outputs).
        cycles: of each inference in `unit`, None where the board cannot count.
        attempts: how often each image's requests were sent, 1 when none was repeated.
        resumed: how many answers came from an earlier, interrupted run.
        seconds: spent on the others.
    """

    outputs: npt.NDArray[np.int8]
    cycles: list[int | None]
    unit: str
    attempts: list[int]
    resumed: int
    seconds: float


@dataclass(frozen=True)
class _Record:
    cycles: int | None
    attempts: int
    outputs: bytes


def stream(
    link: Link, images: npt.NDArray[np.int8], results_path: Path, progress: Callable[[int], None] | None = None
) -> StreamResult:
    """The board's outputs for every image; each image is asked for once, repeated runs included.

    Args:
        link: connected.
        images: int8 [n, ...], each of the size of the network's inputs.
        results_path: the results file, made or gone on with.
        progress: called with the number of images that have become ready.
    Raises:
        LinkError: the line or the board failed; what was measured stays in the file.
        ArtifactError: the file cannot be read or written.
    """
    _check_type(images, link.hello)
    started = time.monotonic()
    try:
        with _open(results_path) as file:
            records = _resume(file, _header(link.hello, images), len(images), link.hello.output_size)
            resumed = len(records)
            if progress is not None and resumed:
                progress(resumed)
            for index in range(resumed, len(images)):
                record = _record(link.run(images[index].tobytes()))
                _append(file, index, record)
                records.append(record)
                if progress is not None:
                    progress(1)
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(results_path, error) from error
    return _result(records, link.hello, resumed, time.monotonic() - started)


def _check_type(images: npt.NDArray[np.int8], hello: Hello) -> None:
    found, expected = str(images.dtype), {tensor.dtype for tensor in hello.inputs}
    if {found} != expected:
        raise LinkError(f"the images are {found}, the model on the board takes {'/'.join(sorted(expected))}")


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder; expected a results file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def _header(hello: Hello, images: npt.NDArray[np.int8]) -> bytes:
    digest = hashlib.sha256(repr(images.shape).encode() + np.ascontiguousarray(images).tobytes()).hexdigest()
    parts = (
        f"results {RESULTS_VERSION} model={hello.model_hash} arithmetic={hello.arithmetic} data={digest} images={len(images)}",
        f"outputs={hello.output_size} unit={hello.cycle_unit} board={hello.board} build={hello.build_id}",
    )
    return " ".join(parts).encode()


def _sealed(content: bytes) -> bytes:
    return b"%s %08x\n" % (content, zlib.crc32(content))


def _unsealed(line: bytes) -> bytes | None:
    """A whole line's content, or None when it was torn or damaged."""
    content, _, _ = line.rpartition(b" ")
    return content if line == _sealed(content) else None


def _resume(file: BinaryIO, header: bytes, images: int, output_size: int) -> list[_Record]:
    """Reads the answers of an earlier run with the same header and cuts the file behind the last good one."""
    records: list[_Record] = []
    if _unsealed(file.readline(4096)) != header:
        file.seek(0)
        file.truncate()
        file.write(_sealed(header))
        file.flush()
        return records
    end = file.tell()
    limit = 2 * output_size + 64
    while len(records) < images and (record := _parse(file.readline(limit), len(records), output_size)) is not None:
        records.append(record)
        end = file.tell()
    file.seek(end)
    file.truncate()
    return records


_LINE = re.compile(rb"(\d{1,10}) (-|\d{1,10}) (\d{1,10}) ([0-9a-f]*)")


def _parse(line: bytes, index: int, output_size: int) -> _Record | None:
    fields = _LINE.fullmatch(_unsealed(line) or b"")
    if fields is None or int(fields[1]) != index or len(fields[4]) != 2 * output_size:
        return None
    cycles = None if fields[2] == b"-" else int(fields[2])
    return _Record(cycles, int(fields[3]), bytes.fromhex(fields[4].decode()))


def _append(file: BinaryIO, index: int, record: _Record) -> None:
    cycles = "-" if record.cycles is None else str(record.cycles)
    file.write(_sealed(f"{index} {cycles} {record.attempts} {record.outputs.hex()}".encode()))
    file.flush()


def _record(result: RunResult) -> _Record:
    return _Record(result.cycles, result.attempts, result.outputs)


def _result(records: list[_Record], hello: Hello, resumed: int, seconds: float) -> StreamResult:
    shape = hello.outputs[0].shape[1:] if len(hello.outputs) == 1 else (hello.output_size,)
    outputs = np.frombuffer(b"".join(record.outputs for record in records), np.int8).reshape(len(records), *shape)
    cycles, attempts = [record.cycles for record in records], [record.attempts for record in records]
    return StreamResult(outputs, cycles, hello.cycle_unit, attempts, resumed, seconds)
