"""What stands in the payloads of the board's answers, as typed values. Every length is checked before it is used."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from host_tools.errors import LinkError
from host_tools.frame import FRAME_MAX, FRAME_MIN, PROTOCOL_VERSION

ARITHMETICS = {0: "double", 1: "float32"}
"""nn_arithmetic in runtime/nn.h."""
TYPES = {0: "int8", 1: "uint8", 2: "int16", 3: "int32", 4: "float32", 5: "bool", 6: "int64"}
"""nn_type in runtime/nn.h."""
_SMALLEST_FRAME_MAX = 256


class Payload:
    """Takes little-endian fields off the front of an answer.

    Raises:
        LinkError: the answer is shorter than its fields, or longer (`end`).
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what, self._position = data, what, 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        taken = self._data[self._position : self._position + size]
        if len(taken) != size:
            raise LinkError(f"the board's answer to {self._what} ends early ({len(self._data)} bytes); {_BUILD_AGAIN}")
        self._position += size
        return taken

    def u8(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """The next two bytes."""
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        """The next four bytes."""
        return int.from_bytes(self.take(4), "little")

    def text(self) -> str:
        """A length byte and that much ASCII; anything that could upset a terminal becomes "?"."""
        raw = self.take(self.u8())
        return "".join(chr(b) if 32 <= b < 127 else "?" for b in raw)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._position)

    def end(self) -> None:
        """Nothing may be left."""
        if self._position != len(self._data):
            raise LinkError(f"the board's answer to {self._what} is too long ({len(self._data)} bytes); {_BUILD_AGAIN}")


_BUILD_AGAIN = "build and flash its firmware again (python -m firmware_export)"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the board's network. real = scale * (stored - zero_point); scale 0: not quantized."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Hello:
    """Who is at the other end.

    Attributes:
        frame_max: bytes of the longest frame the board can take, before COBS.
        model_hash: Graph.hash() of its network, 64 hexadecimal digits.
        arithmetic: "double" or "float32".
        clock_hz: core clock that really runs; 0 where there is none.
        cycle_unit: what `RunResult.cycles` counts, "none" when nothing does.
        stack_reserved: bytes; 0 where the board cannot know.
    """

    protocol: int
    frame_max: int
    session: int
    model_hash: str
    arithmetic: str
    layer_count: int
    clock_hz: int
    stack_reserved: int
    board: str
    core: str
    build_id: str
    cycle_unit: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @property
    def input_size(self) -> int:
        """Bytes of all inputs."""
        return sum(tensor.size for tensor in self.inputs)

    @property
    def output_size(self) -> int:
        """Bytes of all outputs."""
        return sum(tensor.size for tensor in self.outputs)


def parse_hello(data: bytes, session: int) -> Hello:
    """Reads the answer to hello.

    Raises:
        LinkError: another protocol version (its first field, for ever), or fields that cannot be.
    """
    payload = Payload(data, "hello")
    protocol = payload.u16()
    if protocol != PROTOCOL_VERSION:
        raise LinkError(
            f"the board speaks version {protocol} of the link's protocol, this program {PROTOCOL_VERSION}; {_BUILD_AGAIN}"
        )
    frame_max = payload.u16()
    if not _SMALLEST_FRAME_MAX <= frame_max <= FRAME_MAX:
        raise LinkError(
            f"the board takes frames of {frame_max} bytes, not {_SMALLEST_FRAME_MAX} to {FRAME_MAX}; {_BUILD_AGAIN}"
        )
    model_hash = payload.take(32).hex()
    arithmetic = payload.u8()
    numbers = payload.u16(), payload.u32(), payload.u32()
    texts = payload.text(), payload.text(), payload.text(), payload.text()
    counts = payload.u8(), payload.u8()
    inputs, outputs = (tuple(_parse_tensor(payload) for _ in range(count)) for count in counts)
    payload.end()
    name = ARITHMETICS.get(arithmetic, f"number {arithmetic}")
    return Hello(protocol, frame_max, session, model_hash, name, *numbers, *texts, inputs, outputs)


def _parse_tensor(payload: Payload) -> TensorInfo:
    dtype, rank = payload.u8(), payload.u8()
    shape = tuple(payload.u16() for _ in range(rank))
    size = payload.u32()
    scale, zero_point = struct.unpack("<fi", payload.take(8))
    return TensorInfo(TYPES.get(dtype, f"type {dtype}"), shape, size, scale, zero_point)


@dataclass(frozen=True)
class RunAnswer:
    """The answer to run. `outputs` holds as many of `output_size` bytes as one frame can; the CRCs cover all bytes."""

    cycles: int
    input_crc: int
    output_crc: int
    stack_used: int
    output_size: int
    outputs: bytes


def parse_run(data: bytes) -> RunAnswer:
    """Reads the answer to run. Raises LinkError when it is too short."""
    payload = Payload(data, "run")
    return RunAnswer(payload.u32(), payload.u32(), payload.u32(), payload.u32(), payload.u32(), payload.rest())


@dataclass(frozen=True)
class BoardStats:
    """What the board counted since its last reset.

    Attributes:
        frames: intact frames received.
        crc_errors: damaged ones.
        overruns: bytes lost because its UART or ring was full.
        runs: inferences asked for by run.
        replays: answers sent again because the request came again.
        stale: requests that came again after a newer one.
        stack_used: bytes at most; 0 where the board cannot know.
    """

    frames: int
    crc_errors: int
    overruns: int
    runs: int
    replays: int
    stale: int
    stack_used: int


def parse_stats(data: bytes) -> BoardStats:
    """Reads the answer to stats. Raises LinkError when its length is wrong."""
    payload = Payload(data, "stats")
    stats = BoardStats(*(payload.u32() for _ in range(7)))
    payload.end()
    return stats


assert FRAME_MIN < _SMALLEST_FRAME_MAX
