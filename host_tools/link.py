"""The computer's end of the serial link: one request at a time, repeated until its answer comes back intact.

Nothing that the board says is believed before it is checked: frames by CRC-32, sequence and session, the model by its
hash at every hello, the input by the CRC-32 of what the board saw, the outputs by size and CRC-32.
"""

from __future__ import annotations

import dataclasses
import secrets
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TypeVar

from host_tools.board import Transport
from host_tools.diagnosis import check_same_board, silent_line
from host_tools.errors import LinkError
from host_tools.frame import ANSWER, FRAME_MIN, ErrorCode, Frame, FrameReader, FrameType, encode, wire_size
from host_tools.messages import BoardStats, Hello, Payload, RunAnswer, parse_hello, parse_run, parse_stats

T = TypeVar("T")

ATTEMPTS = 5
"""How often one request is sent before the line counts as silent."""
_PATIENCE = (1, 1, 2, 4, 4)
"""Factors on the time-out of each attempt: a board that has become slower is given time to say so."""
_RENEWALS = 5
"""How many resets, or spells of silence that a hello ended, one image may meet."""
_FIRST_RUN_SECONDS = 1.0
"""What an inference is taken to last while none has been measured; the last of its time-outs ends after 38 times that."""
_UNTIMED_BYTES_PER_SECOND = 20_000
"""For lines without a baud rate (emulators, processes)."""
_HELLO_ANSWER = 256
_RUN_FIELDS = 20
_SELFTEST_VECTORS = 16


@dataclass(frozen=True)
class ExpectedModel:
    """What the board must say it runs, or nothing it answers is used.

    Attributes:
        hash: Graph.hash(), 64 hexadecimal digits.
        arithmetic: its name, "double" or "float32".
        input_size, output_size: bytes of all inputs and of all outputs.
        input_type, output_type: the types of the tensors.
    """

    hash: str
    arithmetic: str
    input_size: int
    output_size: int
    input_type: str = "int8"
    output_type: str = "int8"


@dataclass(frozen=True)
class RunResult:
    """One image's answer.

    Attributes:
        outputs: bytes of all outputs, one after the other.
        cycles: of the inference, modulo 2^32, in `unit`; None where the board cannot count.
        attempts: how often the image's requests had to be sent, 1 when none was repeated.
        stack_used: bytes at most since the board's reset; 0 where it cannot know.
    """

    outputs: bytes
    cycles: int | None
    unit: str
    attempts: int
    stack_used: int = 0


@dataclass
class Statistics:
    """What happened on the line, as seen from this end.

    Attributes:
        frames: requests sent, repeated ones included.
        crc_errors: damaged frames received (the board counts its own: Link.stats).
        retries: requests sent again.
        resets: times the board was found to have been reset.
        reconnections: times a hello ended a silence of ATTEMPTS time-outs, or an interruption.
    """

    frames: int = 0
    crc_errors: int = 0
    retries: int = 0
    resets: int = 0
    reconnections: int = 0

    def to_json(self) -> dict[str, int]:
        """Plain values by name."""
        return dataclasses.asdict(self)


class _SessionLost(Exception):
    """The board answers that it knows no session: it was reset."""


class _OutOfStep(Exception):
    """The board answers that requests are missing: the link was interrupted between two of them."""


class _Silence(Exception):
    """No answer to any attempt."""


class Link:
    """A checked conversation with one board.

    Args:
        transport: the line; opened by `connect`, closed by `close`.
        expected: the model that the board must run.
        margin: seconds added to every time-out.
        clock: seconds that pass; tests give their own.
        new_session: a number from 1 to 2^32 - 1, never the same twice.
    Raises (every method):
        LinkError: the port, the line or the board failed, or the board runs something else.
    """

    def __init__(
        self,
        transport: Transport,
        expected: ExpectedModel,
        *,
        margin: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
        new_session: Callable[[], int] = lambda: secrets.randbelow(2**32 - 1) + 1,
    ) -> None:
        self.statistics = Statistics()
        self._transport, self._expected = transport, expected
        self._margin, self._clock, self._new_session = margin, clock, new_session
        self._reader = FrameReader()
        self._hello: Hello | None = None
        self._session = 0
        self._sequence = -1
        self._attempts = 1
        self._inference_seconds: float | None = None
        self._echoed = False

    def __enter__(self) -> Link:
        self.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def connect(self) -> Hello:
        """Opens the line and makes sure that the expected model answers."""
        self._hello, self._reader, self._echoed = None, FrameReader(), False
        self._transport.open()
        try:
            self._hello = self._handshake()
        except BaseException:
            self._transport.close()
            raise
        return self._hello

    def close(self) -> None:
        """Closes the line."""
        self._transport.close()

    @property
    def hello(self) -> Hello:
        """What the board said of itself last."""
        assert self._hello is not None, "connect first"
        return self._hello

    def run(self, image: bytes) -> RunResult:
        """The network's outputs for one image of `hello.input_size` bytes."""
        self._check_image(image)
        before = self.statistics.retries
        answer, outputs = self._persist(lambda: self._run_once(image))
        unit = self.hello.cycle_unit
        cycles = None if unit == "none" else answer.cycles
        return RunResult(outputs, cycles, unit, 1 + self.statistics.retries - before, answer.stack_used)

    def layers(self, image: bytes) -> list[int]:
        """CRC-32 of the outputs of every layer, in order."""
        self._check_image(image)
        sums: list[int] = []
        while len(sums) < self.hello.layer_count:
            sums += self._persist(partial(self._layers_from, image, len(sums)))
        return sums

    def tensor(self, image: bytes, layer: int, output: int = 0) -> bytes:
        """The bytes of one output of one layer. The board runs the image once per frame: it keeps no copy."""
        self._check_image(image)
        data = b""
        while True:
            size, crc, part = self._persist(partial(self._tensor_from, image, layer, output, len(data)))
            data += part
            if len(data) >= size:
                break
        if len(data) != size or zlib.crc32(data) != crc:
            raise LinkError(f"the board gave layer {layer} differently when asked again; its memory or clock is not sound")
        return data

    def selftest(self) -> bool:
        """Whether the board gets its own known answers right."""
        seconds = _SELFTEST_VECTORS * (self._inference_seconds or _FIRST_RUN_SECONDS)
        payload = Payload(self._persist(lambda: self._request(FrameType.SELFTEST, b"", 1, seconds)), "selftest")
        status = payload.u8()
        payload.end()
        if status not in (0, 3):
            raise LinkError(f"the board's self-test could not run (status {status}); build and flash its firmware again")
        return status == 0

    def stats(self) -> BoardStats:
        """The board's own counts since its last reset."""
        return parse_stats(self._persist(lambda: self._request(FrameType.STATS, b"", 28)))

    # ---- One image ---------------------------------------------------------------------------------------------------

    def _check_image(self, image: bytes) -> None:
        if len(image) != self.hello.input_size:
            raise LinkError(f"the image has {len(image)} bytes, the model on the board takes {self.hello.input_size}")

    def _run_once(self, image: bytes) -> tuple[RunAnswer, bytes]:
        offset = self._write_input(image, keep=self._chunk())
        payload = struct.pack("<I", offset) + image[offset:]
        started = self._clock()
        answer = parse_run(self._request(FrameType.RUN, payload, _RUN_FIELDS + self.hello.output_size, self._run_seconds()))
        self._measure(self._clock() - started)
        self._check_input_crc(answer.input_crc, image)
        return answer, self._collect_outputs(answer)

    def _collect_outputs(self, answer: RunAnswer) -> bytes:
        outputs = answer.outputs
        if answer.output_size != self.hello.output_size or len(outputs) > answer.output_size:
            raise LinkError(f"the board answered {answer.output_size} bytes, its hello promised {self.hello.output_size}")
        while len(outputs) < answer.output_size:
            missing = answer.output_size - len(outputs)
            part = self._request(FrameType.READ_OUTPUT, struct.pack("<I", len(outputs)), missing)
            if not 0 < len(part) <= missing:
                raise LinkError(f"the board answered {len(part)} bytes of output where 1 to {missing} were due")
            outputs += part
        if zlib.crc32(outputs) != answer.output_crc:
            raise LinkError("the outputs do not match their CRC-32: they changed on the board between frames")
        return outputs

    def _write_input(self, image: bytes, keep: int = 0) -> int:
        """Sends the image in chunks until at most `keep` bytes are left; returns how many were sent."""
        offset, chunk = 0, self._chunk()
        while len(image) - offset > keep:
            part = image[offset : offset + chunk]
            self._request(FrameType.WRITE_INPUT, struct.pack("<I", offset) + part, 4)
            offset += len(part)
        return offset

    def _chunk(self) -> int:
        return self.hello.frame_max - FRAME_MIN - 4

    def _layers_from(self, image: bytes, first: int) -> list[int]:
        self._write_input(image)
        data = self._request(FrameType.LAYERS, struct.pack("<H", first), self.hello.frame_max, 2 * self._run_seconds())
        payload = Payload(data, "layers")
        self._check_input_crc(payload.u32(), image)
        sums = payload.rest()
        if len(sums) % 4 or not 0 < len(sums) // 4 <= self.hello.layer_count - first:
            raise LinkError(f"the board told {len(sums) / 4:g} layers from {first} on; it has {self.hello.layer_count}")
        return list(struct.unpack(f"<{len(sums) // 4}I", sums))

    def _tensor_from(self, image: bytes, layer: int, output: int, offset: int) -> tuple[int, int, bytes]:
        self._write_input(image)
        request = struct.pack("<HHI", layer, output, offset)
        payload = Payload(self._request(FrameType.TENSOR, request, self.hello.frame_max, 2 * self._run_seconds()), "tensor")
        self._check_input_crc(payload.u32(), image)
        size, crc, part = payload.u32(), payload.u32(), payload.rest()
        if not part:
            raise LinkError(f"the board sent nothing of layer {layer} from byte {offset} on")
        return size, crc, part

    def _check_input_crc(self, seen: int, image: bytes) -> None:
        if seen != zlib.crc32(image):
            raise LinkError(f"the board computed on another input (CRC-32 {seen:08x}, sent {zlib.crc32(image):08x})")

    # ---- Time --------------------------------------------------------------------------------------------------------

    def _run_seconds(self) -> float:
        return _FIRST_RUN_SECONDS if self._inference_seconds is None else self._inference_seconds

    def _measure(self, elapsed: float) -> None:
        """Keeps how long a run took. Of a repeated one nobody knows which request was answered: it says only how long to
        wait the next time, and that only when nothing better is known."""
        if self._attempts == 1:
            self._inference_seconds = max(elapsed, 0.9 * (self._inference_seconds or 0.0))
        elif self._inference_seconds is None:
            self._inference_seconds = elapsed / 3

    def _wire_seconds(self, size: int) -> float:
        baud = self._transport.baud
        return size / _UNTIMED_BYTES_PER_SECOND if baud is None else 10 * size / baud

    # ---- Requests and sessions ---------------------------------------------------------------------------------------

    def _persist(self, work: Callable[[], T]) -> T:
        """Does some work from its start again each time the board was reset meanwhile."""
        for _ in range(_RENEWALS):
            try:
                return work()
            except _SessionLost:
                self.statistics.resets += 1
                reason = "was reset"
            except (_Silence, _OutOfStep):
                self.statistics.reconnections += 1
                reason = "fell silent"
            self._hello = self._handshake()
        raise LinkError(
            f"{self._transport.description}: the board {reason} {_RENEWALS} times over one image; "
            "look at its power supply, cable and stack size"
        )

    def _handshake(self) -> Hello:
        """A new session, and everything about the board checked again."""
        self._session, self._sequence = self._new_session(), -1
        try:
            answer = self._request(FrameType.HELLO, b"", _HELLO_ANSWER, self._margin / 2)  # it may just be starting
            hello = parse_hello(answer, self._session)
        except _Silence:
            raise silent_line(self._transport, self._reader, self._echoed, connected=self._hello is not None) from None
        except (_SessionLost, _OutOfStep):
            raise LinkError(f"{self._transport.description}: the board refuses every session; flash it again") from None
        self._check_model(hello)
        check_same_board(self._transport, self._hello, hello)
        return hello

    def _request(self, kind: FrameType, payload: bytes, answer_size: int, compute_seconds: float = 0.0) -> bytes:
        """Sends a request until its answer comes. Raises _SessionLost or _Silence (handled by `_persist`), LinkError."""
        self._sequence += 1
        request = Frame(kind, self._sequence, self._session, payload)
        wire = encode(request)
        wire_seconds = self._wire_seconds(len(wire) + wire_size(FRAME_MIN + answer_size))
        timeout = 3 * wire_seconds + 3 * compute_seconds + self._margin
        for attempt in range(ATTEMPTS):
            self._attempts = attempt + 1
            self.statistics.frames += 1
            self.statistics.retries += attempt > 0
            self._transport.write(wire)
            answer = self._await(request, timeout * _PATIENCE[attempt])
            if answer is not None:
                return self._checked(request, answer)
        raise _Silence

    def _await(self, request: Frame, timeout: float) -> Frame | None:
        """The answer to a request, or None at the time-out, however much else arrives."""
        deadline = self._clock() + timeout
        while (remaining := deadline - self._clock()) > 0:
            damaged = self._reader.damaged
            frames = self._reader.feed(self._transport.read(remaining))
            self.statistics.crc_errors += self._reader.damaged - damaged
            for frame in frames:
                if (frame.session, frame.sequence) == (request.session, request.sequence):
                    if frame.type & ANSWER:
                        return frame
                    self._echoed = True
        return None

    def _checked(self, request: Frame, answer: Frame) -> bytes:
        if answer.type == request.type | ANSWER:
            return answer.payload
        if answer.type != FrameType.ERROR or len(answer.payload) != 5:
            raise LinkError(f"the board answered type {answer.type} to request {request.type}; build and flash it again")
        code, detail = struct.unpack("<BI", answer.payload)
        if code == ErrorCode.NO_SESSION:
            raise _SessionLost
        if code == ErrorCode.SEQUENCE:
            raise _OutOfStep
        name = ErrorCode(code).name if code in list(ErrorCode) else f"number {code}"
        raise LinkError(f"the board refused {FrameType(request.type).name.lower()}: {name.lower()} (detail {detail})")

    # ---- What a person is told ---------------------------------------------------------------------------------------

    def _check_model(self, hello: Hello) -> None:
        expected = self._expected
        where = f"{self._transport.description}: the firmware"
        flash = "build and flash the firmware of this recipe (make pipeline), or choose the recipe it was made from"
        if hello.arithmetic != expected.arithmetic:
            raise LinkError(f"{where} computes in arithmetic '{hello.arithmetic}', expected '{expected.arithmetic}'; {flash}")
        if hello.model_hash != expected.hash:
            raise LinkError(f"{where} is of another model ({hello.model_hash[:12]}, expected {expected.hash[:12]}); {flash}")
        pairs = (
            ("takes inputs of", hello.inputs, expected.input_size, expected.input_type),
            ("gives outputs of", hello.outputs, expected.output_size, expected.output_type),
        )
        for verb, tensors, size, dtype in pairs:
            found = sum(tensor.size for tensor in tensors), "/".join(sorted({tensor.dtype for tensor in tensors}))
            if found != (size, dtype):
                raise LinkError(f"{where} {verb} {found[0]} bytes {found[1]}, expected {size} bytes {dtype}; {flash}")
