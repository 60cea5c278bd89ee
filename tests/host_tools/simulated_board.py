"""A board for tests: the real C server in this process, its network known, its line as bad as a test wants it."""

from __future__ import annotations

import ctypes
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from firmware_export.toolchain import WARNINGS, host_toolchain
from host_tools.frame import FrameReader, encode
from host_tools.link import ExpectedModel, Link

ROOT = Path(__file__).resolve().parents[2]
DEVICE = Path(__file__).parent / "device"
RUNTIME = ROOT / "firmware_export" / "runtime"
BOARDS = ROOT / "firmware_export" / "boards"
INCLUDES = [f"-I{folder}" for folder in (RUNTIME, BOARDS, DEVICE)]
LINK_SOURCES = [RUNTIME / "frame.c", RUNTIME / "server.c"]
TRAP = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
HASH = (bytes([0x5A, 1, 2, 3]) + bytes(28)).hex()


def has_address_sanitizer() -> bool:
    """zig brings none for C."""
    return host_toolchain().kind != "zig"


def sanitizers() -> tuple[str, ...]:
    """The strictest checks of memory and undefined behaviour that this machine's compiler has, for a program."""
    return ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all") if has_address_sanitizer() else TRAP


def compile_c(output: Path, sources: list[Path], *flags: str) -> Path:
    """Builds a program or library, every warning an error."""
    arguments = ["-std=c99", *WARNINGS, *INCLUDES, *flags, *map(str, sources), "-o", str(output)]
    host_toolchain().run(arguments, f"compiling {output.name}")
    return output


def build_simulated_board(folder: Path, *flags: str) -> Path:
    """The shared library; undefined behaviour in it ends the test process with SIGILL."""
    sources = [*LINK_SOURCES, DEVICE / "fake_network.c", DEVICE / "simulated_board.c"]
    return compile_c(folder / "simulated_board.so", sources, "-O2", "-shared", "-fPIC", *TRAP, *flags)


def fake_digest(image: bytes) -> int:
    """What the fake network makes of its input: a weighted sum modulo 2^32."""
    weights = 2 * np.arange(len(image), dtype=np.uint64) + 1
    return int(np.dot(np.frombuffer(image, np.uint8).astype(np.uint64), weights)) % 2**32


def fake_outputs(image: bytes, size: int = 10) -> bytes:
    """The fake network's right answer, by a formula and not by its C code."""
    digest = fake_digest(image)
    return bytes((digest * (2654435761 * (j + 1) % 2**32) % 2**32) >> 24 for j in range(size))


def fake_layers(image: bytes, layers: int = 3, size: int = 10) -> list[list[bytes]]:
    """The outputs of every layer."""
    digest = fake_digest(image)
    hidden = np.array([(digest >> (8 * (k % 4)) & 255) ^ k for k in range(64)], np.uint8)
    result = []
    for layer in range(layers - 1):
        hidden = hidden + np.uint8(layer % 256)
        result.append([hidden[:40].tobytes(), hidden[40:].tobytes()])
    return [*result, [fake_outputs(image, size)]]


class SimulatedBoard:
    """The C server behind two byte queues.

    Attributes:
        input_size, output_size: bytes of the fake network's tensors together.
    """

    def __init__(self, library: Path, cycles: bool = True) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.sim_exchange.restype = ctypes.c_size_t
        self._library.sim_exchange.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
        self._library.sim_server_size.restype = ctypes.c_size_t
        self._out = ctypes.create_string_buffer(1 << 16)
        self._cycles = cycles
        self.configure()
        self.power_on()

    def configure(
        self, inputs: tuple[int, int] = (64, 0), outputs: tuple[int, int] = (10, 0), layers: int = 3, extra: int = 0
    ) -> None:
        """Sizes of the tensors; a second tensor of size 0 is left out; `extra` adds inputs of one byte."""
        self._library.fake_configure(*inputs, *outputs, layers, extra)
        self.input_size, self.output_size = sum(inputs) + extra, sum(outputs)

    def identify(self, hash_byte: int = 0x5A, arithmetic: int = 0, dtype: int = 0) -> None:
        """What hello says of model hash, arithmetic and input type."""
        self._library.fake_identify(hash_byte, arithmetic, dtype)

    def fail(self, run: int = 0, selftest: int = 0) -> None:
        """The status that the network gives from now on."""
        self._library.fake_fail(run, selftest)

    def power_on(self) -> None:
        """Reset: memory holds garbage, no session."""
        self._library.sim_power_on(int(self._cycles))

    def exchange(self, data: bytes) -> bytes:
        """The board gets bytes; what it sends meanwhile."""
        size = self._library.sim_exchange(data, len(data), self._out, len(self._out))
        return self._out.raw[:size]

    @property
    def runs(self) -> int:
        """Inferences so far, of all boards of this process."""
        return int(self._library.fake_runs())

    @property
    def server_bytes(self) -> int:
        """RAM of the server's state on this machine."""
        return int(self._library.sim_server_size())

    def expected(self) -> ExpectedModel:
        """What a host that knows the fake network expects."""
        return ExpectedModel(HASH, "double", self.input_size, self.output_size)


Fault = Callable[[bytes], bytes]


def clean(data: bytes) -> bytes:
    """A line without faults."""
    return data


class SimulatedLine:
    """A transport to a simulated board. Time passes only while the host waits for bytes.

    Args:
        to_board, to_host: what the line does to the bytes of each direction.
    Attributes:
        delay: seconds that an inference takes.
        now: simulated seconds.
        waits: the time-outs of all reads so far.
    """

    def __init__(
        self, board: SimulatedBoard, to_board: Fault = clean, to_host: Fault = clean, baud: int | None = 115200
    ) -> None:
        self.description, self.baud = "simulated line", baud
        self.board, self.to_board, self.to_host = board, to_board, to_host
        self.now = self.delay = 0.0
        self.waits: list[float] = []
        self.opened = self.closed = 0
        self.sent: list[bytes] = []
        self._pending: deque[tuple[float, bytes]] = deque()

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        runs, free = self.board.runs, max([self.now, *(ready for ready, _ in self._pending)])
        answer = self.feed(data)
        self._pending.append((free + self.delay * (self.board.runs - runs), answer))

    def feed(self, data: bytes) -> bytes:
        """What comes back to the host when it sends these bytes."""
        return self.to_host(self.board.exchange(self.to_board(data)))

    def read(self, timeout: float) -> bytes:
        self.waits.append(timeout)
        data = b""
        while not data:
            if not self._pending or self._pending[0][0] > self.now + timeout:
                self.now += timeout
                break
            ready, data = self._pending.popleft()
            timeout -= max(ready - self.now, 0.0)
            self.now = max(self.now, ready)
        return data

    def clock(self) -> float:
        """Simulated seconds."""
        return self.now


def rewriting(kind: int, change: Callable[[bytes], bytes]) -> Fault:
    """A line that replaces the payloads of one type of answer, with a right check sum: a board that lies."""
    reader = FrameReader()

    def rewrite(data: bytes) -> bytes:
        out = b""
        for frame in reader.feed(data):
            payload = change(frame.payload) if frame.type == kind else frame.payload
            out += encode(replace(frame, payload=payload))
        return out

    return rewrite


_seeds = itertools.count(1)


def connected(line: SimulatedLine) -> Link:
    """A link over a simulated line, connected."""
    link = simulated_link(line)
    link.connect()
    return link


def simulated_link(line: SimulatedLine, expected: ExpectedModel | None = None) -> Link:
    """A link over a simulated line, not connected yet; its sessions are repeatable, but never another link's."""
    sessions = partial(random.Random(next(_seeds)).randrange, 1, 2**32)
    return Link(line, expected or line.board.expected(), clock=line.clock, new_session=sessions)
