"""Lines that carry something else: another baud rate, boot banners, endless junk, an echo."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Callable

import pytest
from line_faults import resampled
from simulated_board import SimulatedBoard, SimulatedLine, connected, fake_outputs, simulated_link

from host_tools.errors import LinkError
from host_tools.frame import FRAME_MAX, Frame, FrameReader, FrameType, encode

MEGABYTE = 1 << 20

# ---- L8: another baud rate -------------------------------------------------------------------------------------------


def at_ratio(board: SimulatedBoard, ratio: float) -> SimulatedLine:
    """A line whose board runs at `ratio` times the host's bit rate."""
    return SimulatedLine(board, lambda data: resampled(data, ratio), lambda data: resampled(data, 1 / ratio))


def test_resampling_is_that_of_a_uart() -> None:
    rng = random.Random(1)
    data = rng.randbytes(500)
    for ratio in (1.0, 1.03, 0.97):  # ten bits drift by less than half a bit up to 5 %
        assert resampled(data, ratio) == data
    for ratio in (0.94, 2.0, 0.5, 8.0, 0.125):
        assert resampled(data, ratio) != data
    assert resampled(b"\x00", 2.0)[0] == 0x00  # nine low bits are eighteen half ones: a break
    assert resampled(b"\x55", 0.5) == b"\xff"  # every second bit of 0101010101, from the second data bit on
    assert resampled(b"", 2.0) == b""


@pytest.mark.parametrize("ratio", [0.5, 2.0, 8.0, 0.125, 1.06, 0.94, 1.5, 115200 / 9600, 115200 / 921600])
def test_another_baud_rate_is_told(board: SimulatedBoard, ratio: float) -> None:
    line = at_ratio(board, ratio)
    with pytest.raises(LinkError, match=r"no answer at 115200; .*other baud") as caught:
        simulated_link(line).connect()
    assert line.now <= 10
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ratio", [1.03, 0.97, 1.01])
def test_clocks_a_little_apart_do_no_harm(board: SimulatedBoard, ratio: float) -> None:
    link = connected(at_ratio(board, ratio))
    rng = random.Random(2)
    for _ in range(10):
        image = rng.randbytes(64)
        assert link.run(image).outputs == fake_outputs(image)
    assert link.statistics.retries == 0


@pytest.mark.parametrize("ratio", [0.949, 0.952, 1.048, 1.052])
def test_clocks_at_the_edge_give_the_right_answer_or_an_error(board: SimulatedBoard, ratio: float) -> None:
    image = random.Random(3).randbytes(64)
    with contextlib.suppress(LinkError):
        assert connected(at_ratio(board, ratio)).run(image).outputs == fake_outputs(image)


# ---- L9: chatter -----------------------------------------------------------------------------------------------------


def random_junk(size: int) -> bytes:
    return random.Random(size).randbytes(size)


CHATTER: dict[str, Callable[[int], bytes]] = {
    "banner": lambda size: (b"\r\n*** boot v1.2, clock 72 MHz, reset cause 3 ***\r\n" * (size // 48 + 1))[:size],
    "printf": lambda size: b"".join(b"[%06d] adc=%d\n" % (n, n % 4096) for n in range(size // 14))[:size],
    "junk": random_junk,
    "zeros": bytes,
    "no zeros": lambda size: b"\xa5" * size,
    "codes": lambda size: b"\x01\x02" * (size // 2),
}


class ChatteringLine(SimulatedLine):
    """A line that never stops talking: chunks of noise, at the speed of the wire, around the board's answers.

    Args:
        noise: one chunk, cut off from the answers by nothing but what the frames bring along.
        deaf: the noise comes from something that is not our board.
    """

    def __init__(self, board: SimulatedBoard, noise: bytes, deaf: bool) -> None:
        super().__init__(board)
        self._noise, self._deaf = noise, deaf
        self.spoken = 0

    def read(self, timeout: float) -> bytes:
        self.now += len(self._noise) * 10 / 115200
        self.spoken += len(self._noise)
        answer = b"" if self._deaf else b"".join(data for _, data in self._pending)
        self._pending.clear()
        return self._noise + answer


def growth(work: Callable[[], None]) -> int:
    """How much more memory is in use at the worst moment of some work, in bytes."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


@pytest.mark.parametrize("kind", CHATTER)
def test_chatter_instead_of_a_board_ends_with_an_error(board: SimulatedBoard, kind: str) -> None:
    noise = CHATTER[kind](4096)
    spoken = 0

    def listen() -> None:
        nonlocal spoken
        while spoken < MEGABYTE:
            line = ChatteringLine(board, noise, deaf=True)
            with pytest.raises(LinkError, match="no answer at 115200") as caught:
                simulated_link(line).connect()
            message = str(caught.value)
            assert line.now < 10 and message.isprintable() and len(message) < 250
            assert ("not this link's" in message) == (kind != "zeros")
            spoken += line.spoken

    assert growth(listen) <= MEGABYTE


@pytest.mark.parametrize("kind", CHATTER)
def test_a_megabyte_of_chatter_between_answers_does_no_harm(board: SimulatedBoard, kind: str) -> None:
    chatter_between_answers(board, CHATTER[kind](1024), MEGABYTE)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", CHATTER)
def test_a_hundred_megabytes_of_chatter(board: SimulatedBoard, kind: str) -> None:
    chatter_between_answers(board, CHATTER[kind](16 * 1024), 100 * MEGABYTE)


def chatter_between_answers(board: SimulatedBoard, noise: bytes, total: int) -> None:
    line = ChatteringLine(board, noise, deaf=False)
    link = connected(line)
    image = random.Random(4).randbytes(64)
    answer = fake_outputs(image)

    def talk() -> None:
        while line.spoken < total:
            assert link.run(image).outputs == answer
            line.sent.clear()

    assert growth(talk) <= MEGABYTE
    assert link.statistics.retries == 0


@pytest.mark.parametrize("kind", CHATTER)
def test_the_board_itself_survives_a_megabyte_of_chatter(board: SimulatedBoard, kind: str) -> None:
    link = connected(SimulatedLine(board))
    board.exchange(CHATTER[kind](MEGABYTE))
    image = random.Random(5).randbytes(64)
    assert link.run(image).outputs == fake_outputs(image)
    assert link.statistics.retries == link.statistics.resets == 0


def test_frames_of_others_are_never_taken_for_answers(board: SimulatedBoard) -> None:
    """Right frames, wrong session or sequence: an answer to somebody else, or to a request of long ago."""
    rng = random.Random(6)
    line = SimulatedLine(board)
    link = connected(line)
    session = link.hello.session

    def answers_of_others(data: bytes) -> bytes:
        lies = [Frame(0x83, rng.randrange(1 << 32), session ^ (1 << rng.randrange(32)), bytes(30)) for _ in range(3)]
        lies += [Frame(0x83, n, session, bytes(30)) for n in (0, 1 << 20)]
        awaited = FrameReader().feed(line.sent[-1])[0].sequence
        lies += [Frame(0x83, awaited, session ^ 1 << bit, bytes(30)) for bit in range(32)]
        return b"".join(map(encode, lies)) + data

    line.to_host = answers_of_others
    for _ in range(50):
        image = rng.randbytes(64)
        assert link.run(image).outputs == fake_outputs(image)


def test_frames_longer_than_any_board_may_send_are_skipped(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    line.to_host = lambda data: encode(Frame(0x83, 1, link.hello.session, bytes(FRAME_MAX))) + data
    assert link.run(bytes(64)).outputs == fake_outputs(bytes(64))
    assert link.statistics.crc_errors == 1


# ---- An echo ---------------------------------------------------------------------------------------------------------


def test_an_echo_is_recognised(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    line.feed = lambda data: data  # type: ignore[method-assign]
    with pytest.raises(LinkError, match="no answer at 115200, the line sends back what it is sent"):
        simulated_link(line).connect()


def test_an_echo_beside_a_board_does_no_harm(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    line.feed = lambda data: data + board.exchange(data)  # type: ignore[method-assign]
    link = connected(line)
    assert link.run(bytes(64)).outputs == fake_outputs(bytes(64))


def test_a_board_that_hears_its_own_answers_does_no_harm(board: SimulatedBoard) -> None:
    """Two wires that touch: what the board sends comes back to it as a request of a type that it does not know."""
    line = SimulatedLine(board)

    def touching(data: bytes) -> bytes:
        answer = board.exchange(data)
        return answer + board.exchange(answer)

    line.feed = touching  # type: ignore[method-assign]
    link = connected(line)
    for _ in range(5):
        assert link.run(bytes(64)).outputs == fake_outputs(bytes(64))


def test_a_hello_that_is_delayed_for_ever_cannot_open_a_session(board: SimulatedBoard) -> None:
    """A copy of an old session's hello that arrives late ends the new session; the link notices and starts another."""
    line = SimulatedLine(board)
    first = connected(line)
    late = encode(Frame(FrameType.HELLO, 0, first.hello.session))
    second = connected(line)
    board.exchange(late)
    assert second.run(bytes(64)).outputs == fake_outputs(bytes(64))
    assert second.statistics.resets == 1
