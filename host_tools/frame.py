"""Frames of the serial link: 00 | COBS(type u8, sequence u32, session u32, payload, CRC-32) | 00, little-endian.

The other end is firmware_export/runtime/frame.c; PROTOCOL.md beside this file has the whole story.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

PROTOCOL_VERSION = 1
FRAME_MIN = 13
"""Shorter frames are refused: the CRC-32 of nothing is 0, so a run of zeros would be a frame."""
FRAME_MAX = 4096
"""The longest frame (before COBS) that any board may announce; more is never kept in memory."""

_HEADER = struct.Struct("<BII")


class FrameType(IntEnum):
    """Requests. An answer has its request's type with ANSWER set."""

    HELLO = 1
    WRITE_INPUT = 2
    RUN = 3
    READ_OUTPUT = 4
    LAYERS = 5
    TENSOR = 6
    STATS = 7
    SELFTEST = 8
    ERROR = 0xFF


ANSWER = 0x80


class ErrorCode(IntEnum):
    """The first byte of an error frame; a u32 detail follows."""

    NO_SESSION = 1
    SEQUENCE = 2
    UNKNOWN_REQUEST = 3
    BAD_LENGTH = 4
    INPUT_ORDER = 5
    INPUT_INCOMPLETE = 6
    RUN_FAILED = 7
    NO_OUTPUT = 8
    NO_SUCH_TENSOR = 9
    TOO_LONG = 10


@dataclass(frozen=True)
class Frame:
    """One frame without its check sum. type: u8, sequence and session: u32."""

    type: int
    sequence: int
    session: int
    payload: bytes = b""


def wire_size(body: int) -> int:
    """Bytes on the wire, at most, for a frame of `body` bytes before COBS."""
    return body + body // 254 + 3


def cobs_encode(data: bytes) -> bytes:
    """Consistent Overhead Byte Stuffing (Cheshire and Baker 1999): the same content without a zero byte."""
    out = bytearray()
    group = b""
    for group in data.split(b"\0"):
        full, rest = divmod(len(group), 254)
        for i in range(full):
            out += b"\xff" + group[254 * i : 254 * i + 254]
        out.append(rest + 1)
        out += group[254 * full :]
    if group and len(group) % 254 == 0:
        del out[-1]  # a full block at the very end needs no code behind it
    return bytes(out)


def cobs_decode(data: bytes) -> bytes | None:
    """The content of a stuffed block (no zero bytes in `data`); None when a block is longer than what is there."""
    out = bytearray()
    position, size = 0, len(data)
    while position < size:
        code = data[position]
        end = position + code
        if end > size:
            return None
        out += data[position + 1 : end]
        position = end
        if code != 0xFF and position < size:
            out.append(0)
    return bytes(out)


def encode(frame: Frame) -> bytes:
    """The frame's bytes on the wire. The leading 00 ends whatever garbage came before."""
    body = _HEADER.pack(frame.type, frame.sequence, frame.session) + frame.payload
    return b"\0" + cobs_encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0"


def decode(block: bytes) -> Frame | None:
    """The frame between two delimiters, or None when it is damaged in any way."""
    body = cobs_decode(block)
    if body is None or not FRAME_MIN <= len(body) <= FRAME_MAX:
        return None
    if zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
        return None
    kind, sequence, session = _HEADER.unpack_from(body)
    return Frame(kind, sequence, session, body[_HEADER.size : -4])


class FrameReader:
    """Finds frames in whatever arrives. Keeps at most one frame's bytes, however long the line chatters.

    Attributes:
        damaged: blocks between delimiters that were not a frame.
        received: bytes fed so far.
        junk: the first bytes that did not belong to a frame, 32 at most, to show a person.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self.received = 0
        self.junk = b""
        self._rest = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[Frame]:
        """Takes bytes from the line; returns the frames that they complete."""
        self.received += len(data)
        frames: list[Frame] = []
        first, *others = data.split(b"\0")
        self._append(first)
        for block in others:
            self._finish(frames)
            self._append(block)
        return frames

    def _append(self, block: bytes) -> None:
        if len(self._rest) + len(block) > wire_size(FRAME_MAX):
            self._overlong = True
            self._reject(bytes(self._rest[:32]) + block[:32])
            self._rest.clear()
        elif not self._overlong:
            self._rest += block

    def _finish(self, frames: list[Frame]) -> None:
        block = bytes(self._rest)
        self._rest.clear()
        if self._overlong:
            self._overlong = False
            self.damaged += 1
        elif block:
            frame = decode(block)
            if frame is None:
                self.damaged += 1
                self._reject(block)
            else:
                frames.append(frame)

    def _reject(self, block: bytes) -> None:
        self.junk = (self.junk + block[:32])[:32]

    def unfinished(self) -> bytes:
        """The beginning, 32 bytes at most, of what is waiting for a delimiter."""
        return bytes(self._rest[:32])
