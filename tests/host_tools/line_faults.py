"""What a bad serial line does to bytes: random faults at a rate, one fault at a chosen byte, another baud rate."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

KINDS = ("flip", "drop", "duplicate", "insert", "swap", "burst", "cut")
BURST = 16


class RandomFaults:
    """Faults of one kind, each byte with the same probability; both directions of a line share one object.

    Attributes:
        count: faults so far.
    """

    def __init__(self, kind: str, rate: float, seed: int) -> None:
        self._kind, self._rate, self._random = kind, rate, random.Random(seed)
        self.count = 0
        self._wait = self._next()

    def _next(self) -> int:
        """Good bytes before the next fault: a geometric distribution, drawn at once."""
        return int(math.log(1.0 - self._random.random()) / math.log(1.0 - self._rate)) if self._rate > 0 else 1 << 62

    def __call__(self, data: bytes) -> bytes:
        if self._wait >= len(data):
            self._wait -= len(data)
            return data
        out, position = bytearray(), 0
        while position + self._wait < len(data):
            at = position + self._wait
            out += data[position:at]
            position = at + self._damage(data, at, out)
            self.count += 1
            self._wait = self._next()
        out += data[position:]
        self._wait -= max(len(data) - position, 0)
        return bytes(out)

    def _damage(self, data: bytes, at: int, out: bytearray) -> int:
        """Appends what the line makes of data[at]; returns how many bytes it has dealt with."""
        kind = self._random.choice(KINDS) if self._kind == "mixed" else self._kind
        if kind == "flip":
            out.append(data[at] ^ 1 << self._random.randrange(8))
        elif kind == "duplicate":
            out += data[at : at + 1] * 2
        elif kind == "insert":
            out += self._random.randbytes(1) + data[at : at + 1]
        elif kind == "swap":
            out += data[at : at + 2][::-1]
            return 2
        elif kind == "burst":
            out += self._random.randbytes(len(data[at : at + BURST]))
            return BURST
        elif kind == "cut":
            return len(data) - at
        return 1


class FaultAt:
    """One fault at one byte of everything that passes, counted over both directions in the order of time.

    Args:
        position: which byte.
        kind: flip, drop, duplicate, cut (the rest of this transmission), silence (everything from there on) or reset.
        reset: called at a "reset", between the byte and the one after it.
    """

    def __init__(self, position: int, kind: str, reset: Callable[[], None]) -> None:
        self._position, self._kind, self._reset = position, kind, reset
        self.passed = 0
        self.happened = False

    def to_board(self, data: bytes, feed: Callable[[bytes], bytes]) -> bytes:
        """Gives data to the board and returns what it sends."""
        at = self._place(data)
        if at is None or self._kind != "reset":
            return feed(self._damaged(data, at))
        before = feed(data[:at])
        self._reset()
        return before + feed(data[at:])

    def to_host(self, data: bytes) -> bytes:
        """What reaches the host."""
        at = self._place(data)
        if at is not None and self._kind == "reset":
            self._reset()
            return data[:at]
        return self._damaged(data, at)

    def _place(self, data: bytes) -> int | None:
        start, self.passed = self.passed, self.passed + len(data)
        if not start <= self._position < self.passed:
            return None
        self.happened = True
        return self._position - start

    def _damaged(self, data: bytes, at: int | None) -> bytes:
        if at is None:
            return b"" if self.happened and self._kind == "silence" else data
        middle = {"flip": bytes([data[at] ^ 1 << self._position % 8]), "drop": b"", "duplicate": data[at : at + 1] * 2}
        if self._kind in middle:
            return data[:at] + middle[self._kind] + data[at + 1 :]
        return data[:at]


def levels(data: bytes) -> Iterator[int]:
    """The bits of an idle line that carries bytes: 8 data bits, no parity, 1 stop bit, least significant bit first."""
    for byte in data:
        yield 0
        yield from (byte >> bit & 1 for bit in range(8))
        yield 1


def resampled(data: bytes, ratio: float) -> bytes:
    """What a UART receives whose bit rate is `ratio` times the sender's. Every bit is sampled in its middle; a wrong stop
    bit is a framing error, which hardware reports but does not withhold."""
    bits = [1, *levels(data), *[1] * 40]
    received = bytearray()
    time = 0.0
    while True:
        start = int(time)
        while start < len(bits) and bits[start] == 1:
            start += 1
        if start >= len(bits):
            return bytes(received)
        begin = max(time, float(start))
        samples = [begin + (n + 0.5) / ratio for n in range(1, 10)]
        values = [bits[int(t)] if int(t) < len(bits) else 1 for t in samples]
        received.append(sum(bit << n for n, bit in enumerate(values[:8])))
        time = samples[8]
        while values[8] == 0 and int(time) < len(bits) and bits[int(time)] == 0:
            time = float(int(time) + 1)  # after a framing error the next start bit needs an edge
