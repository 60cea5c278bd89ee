"""A board in Python for tests of the host program: speaks the link's protocol, answers by a graph's simulator, and lies
where a test wants it to: wrong outputs, a wrong hash, a reset, a failing self-test, silence."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from firmware_export.graph import Array, Graph
from firmware_export.simulate import simulate_trace
from host_tools.errors import LinkError
from host_tools.frame import ANSWER, ErrorCode, Frame, FrameReader, FrameType, encode

FRAME_MAX = 512


def right(layer: int, output: Array) -> Array:
    """No lie."""
    return output


def who(root: Path, board: str = "host") -> dict[str, str]:
    """What a graph board must say of itself to pass for the firmware built in build/<recipe>: name and build_id."""
    image = json.loads((root / "firmware" / board / "image.json").read_text())
    return {"name": image["board"], "build_id": image["build_id"]}


@dataclass
class GraphBoard:
    """A transport whose other end computes `graph`.

    Attributes:
        lie: given each layer's index and output; what it returns is what the layer answers and the next ones see.
        model_hash, arithmetic: what hello says; None for the graph's own hash.
        name, build_id: of the board and its firmware, as hello says them.
        reset_at: numbers of runs at which the board is reset instead of answering.
        dies_at: number of runs after which the line is gone.
        errors: damaged frames and overrun bytes since the board was reset, before this program came.
        error_step: how many of each come with every run.
        silent: whether it never answers.
        line: what happens to the bytes of either direction on their way.
    """

    graph: Graph
    lie: Callable[[int, Array], Array] = right
    model_hash: str | None = None
    arithmetic: int = 0
    cycle_unit: str = "cycles"
    name: str = "graphboard"
    build_id: str = "00ff00ff00ff00ff"
    selftest_status: int = 0
    reset_at: set[int] = field(default_factory=set)
    dies_at: int | None = None
    errors: tuple[int, int] = (0, 0)
    error_step: int = 0
    silent: bool = False
    line: Callable[[bytes], bytes] = bytes
    description: str = "graph board"
    baud: int | None = None

    def __post_init__(self) -> None:
        self.runs = self.hellos = 0
        self.now = 0.0
        self._reader, self._session, self._sequence = FrameReader(), 0, 0
        self._frames = 1000
        self._input, self._cached, self._out = b"", b"", b""

    def open(self) -> None:
        """Nothing to take."""

    def close(self) -> None:
        """Nothing to give back."""

    def write(self, data: bytes) -> None:
        """Serves the requests in the bytes."""
        for frame in self._reader.feed(self.line(data)):
            if not self.silent:
                self._serve(frame)

    def read(self, timeout: float) -> bytes:
        """What the board has sent."""
        data, self._out = self._out, b""
        if not data:
            self.now += timeout
        return data

    def clock(self) -> float:
        """Seconds, which pass only while the host waits in vain."""
        return self.now

    def _serve(self, frame: Frame) -> None:
        if frame.type == FrameType.HELLO and frame.session != self._session:
            self._session, self._sequence = frame.session, frame.sequence - 1
            self._input = b""
        if frame.session != self._session or self._session == 0:
            self._send(frame, FrameType.ERROR, struct.pack("<BI", ErrorCode.NO_SESSION, 0))
        elif frame.sequence == self._sequence:
            self._out += self.line(self._cached)
        else:
            self._sequence = frame.sequence
            self._frames += 1
            answer = self._answer(frame)
            if answer is not None:
                self._send(frame, frame.type | ANSWER, answer)

    def _send(self, request: Frame, kind: int, payload: bytes) -> None:
        self._cached = encode(Frame(kind, request.sequence, request.session, payload))
        self._out += self.line(self._cached)

    def _answer(self, frame: Frame) -> bytes | None:
        handlers = {
            FrameType.HELLO: self._hello,
            FrameType.WRITE_INPUT: self._write_input,
            FrameType.RUN: self._run,
            FrameType.LAYERS: self._layers,
            FrameType.TENSOR: self._tensor,
            FrameType.STATS: self._stats,
            FrameType.SELFTEST: lambda payload: bytes([self.selftest_status]),
        }
        return handlers[FrameType(frame.type)](frame.payload)

    def _hello(self, payload: bytes) -> bytes:
        self.hellos += 1
        digest = bytes.fromhex(self.model_hash or self.graph.hash())
        numbers = struct.pack("<BHII", self.arithmetic, len(self.graph.nodes), 16_000_000, 4096)
        texts = b"".join(bytes([len(t)]) + t.encode() for t in (self.name, "python", self.build_id, self.cycle_unit))
        counts = bytes([len(self.graph.inputs), len(self.graph.outputs)])
        tensors = b"".join(self._describe(index) for index in (*self.graph.inputs, *self.graph.outputs))
        return struct.pack("<HH", 1, FRAME_MAX) + digest + numbers + texts + counts + tensors

    def _describe(self, index: int) -> bytes:
        tensor = self.graph.tensors[index]
        shape = struct.pack(f"<{len(tensor.shape)}H", *tensor.shape)
        return bytes([0, len(tensor.shape)]) + shape + struct.pack("<Ifi", tensor.nbytes, tensor.scale, tensor.zero_point)

    def _stats(self, payload: bytes) -> bytes:
        damaged, overrun = self.errors
        return struct.pack("<7I", self._frames, damaged + self._reader.damaged, overrun, self.runs, 0, 0, 321)

    def _write_input(self, payload: bytes) -> bytes:
        (offset,) = struct.unpack_from("<I", payload)
        self._input = self._input[:offset] + payload[4:]
        return struct.pack("<I", len(self._input))

    def _run(self, payload: bytes) -> bytes | None:
        self._write_input(payload)
        self.runs += 1
        if self.dies_at is not None and self.runs > self.dies_at:
            raise LinkError("graph board: the port has gone")
        self.errors = self.errors[0] + self.error_step, self.errors[1] + self.error_step
        if self.runs in self.reset_at:
            self._session, self._frames, self.errors = 0, 0, (0, 0)
            return None
        outputs = self._trace()[-1][0].tobytes()
        crcs = zlib.crc32(self._input), zlib.crc32(outputs)
        return struct.pack("<5I", 5000 + self.runs, *crcs, 321, len(outputs)) + outputs

    def _trace(self) -> list[list[Array]]:
        """The layers' outputs; a lie told in one layer is carried on only by changing the last layer too."""
        tensor = self.graph.tensors[self.graph.inputs[0]]
        image = np.frombuffer(self._input, np.int8).reshape(tensor.shape)
        trace = simulate_trace(self.graph, image)
        return [[self.lie(layer, output) for output in outputs] for layer, outputs in enumerate(trace)]

    def _layers(self, payload: bytes) -> bytes:
        sums = [zlib.crc32(b"".join(o.tobytes() for o in outputs)) for outputs in self._trace()]
        return struct.pack(f"<I{len(sums)}I", zlib.crc32(self._input), *sums)

    def _tensor(self, payload: bytes) -> bytes:
        layer, output, offset = struct.unpack("<HHI", payload)
        data = self._trace()[layer][output].tobytes()
        part = data[offset : offset + FRAME_MAX - 25]
        return struct.pack("<3I", zlib.crc32(self._input), len(data), zlib.crc32(data)) + part
