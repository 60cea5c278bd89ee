"""The link over a bad line: every image answered once, right and in order, or one clear error."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from line_faults import KINDS, FaultAt, RandomFaults
from simulated_board import SimulatedBoard, SimulatedLine, connected, fake_outputs, simulated_link

from host_tools.errors import LinkError
from host_tools.frame import FrameReader
from host_tools.link import Link

RATES = (0.0, 1e-5, 1e-4, 1e-3)


def images(count: int, size: int, seed: int = 0) -> Iterator[bytes]:
    rng = random.Random(seed)
    return (rng.randbytes(size) for _ in range(count))


def stream_all(board: SimulatedBoard, link: Link, count: int) -> None:
    """Every answer right and in order; every image run once for each session that saw all of it."""
    before = board.runs
    for image in images(count, board.input_size, seed=count):
        assert link.run(image).outputs == fake_outputs(image, board.output_size)
    again = link.statistics.resets + link.statistics.reconnections
    assert count <= board.runs - before <= count + again


# ---- L3: rates and kinds ---------------------------------------------------------------------------------------------


def faulty(board: SimulatedBoard, kind: str, rate: float, count: int, seed: int) -> tuple[RandomFaults, Link]:
    faults = RandomFaults(kind, rate, seed)
    link = simulated_link(SimulatedLine(board, faults, faults))
    for _ in range(20):  # connecting may fail like anything else on such a line, with an error
        try:
            link.connect()
            break
        except LinkError:
            continue
    stream_all(board, link, count)
    return faults, link


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_answered_once_right_and_in_order(board: SimulatedBoard, kind: str, rate: float) -> None:
    faults, link = faulty(board, kind, rate, 1000, seed=KINDS.index(kind))
    if rate == 0.0:
        assert faults.count == link.statistics.retries == link.statistics.crc_errors == 0
    if rate == 1e-3:
        assert faults.count > 50 and link.statistics.retries > 50


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_images_over_a_bad_line(board: SimulatedBoard, kind: str, rate: float) -> None:
    board.configure(inputs=(784, 0))
    faulty(board, kind, rate, 10_000, seed=100 + KINDS.index(kind))


@pytest.mark.parametrize(("inputs", "outputs"), [(784, 10), (1000, 700)])
def test_images_of_several_frames_over_a_bad_line(board: SimulatedBoard, inputs: int, outputs: int) -> None:
    board.configure(inputs=(inputs, 0), outputs=(outputs, 0))
    faults, link = faulty(board, "mixed", 1e-3, 300, seed=5)
    assert faults.count > 300 and link.statistics.retries > 100 and link.statistics.crc_errors > 10


def test_a_line_too_bad_to_use_ends_with_an_error(board: SimulatedBoard) -> None:
    board.configure(inputs=(784, 0))
    link = connected(SimulatedLine(board))
    faults = RandomFaults("mixed", 0.02, 1)
    bad = SimulatedLine(board, faults, faults)
    link = Link(bad, board.expected(), clock=bad.clock)
    with pytest.raises(LinkError) as caught:
        link.connect()
        stream_all(board, link, 100)
    assert caught.value.exit_code == 5


def test_faults_are_what_they_are_called() -> None:
    data = bytes(range(1, 101))
    for kind in KINDS:
        changed = [RandomFaults(kind, 0.01, seed)(data) for seed in range(300)]
        assert sum(c != data for c in changed) > 100, kind
        lengths = {len(c) - len(data) for c in changed}
        expected = {"flip": {0}, "swap": {0}, "burst": {0}}
        assert lengths == expected.get(kind, lengths)
        if kind in ("drop", "cut"):
            assert min(lengths) < 0 and max(lengths) == 0
        if kind in ("duplicate", "insert"):
            assert max(lengths) > 0 and min(lengths) == 0
    faults = RandomFaults("flip", 1e-3, 1)
    for _ in range(1000):
        faults(data)
    assert 60 < faults.count < 140  # 100,000 bytes at 1e-3


# ---- L5: one fault at every byte of one exchange ---------------------------------------------------------------------


class OneFaultLine(SimulatedLine):
    """A line on which exactly one thing happens."""

    def __init__(self, board: SimulatedBoard, fault: FaultAt) -> None:
        super().__init__(board)
        self._fault = fault

    def feed(self, data: bytes) -> bytes:
        return self._fault.to_host(self._fault.to_board(data, self.board.exchange))


def exchange_bytes(board: SimulatedBoard, image: bytes) -> int:
    """How many bytes connecting and one image take on a good line, both ways."""
    fault = FaultAt(1 << 60, "flip", board.power_on)
    link = simulated_link(OneFaultLine(board, fault))
    link.connect()
    link.run(image)
    return fault.passed


@pytest.mark.parametrize("kind", ["flip", "drop", "duplicate", "cut", "reset"])
def test_one_fault_at_every_byte_of_an_exchange(board: SimulatedBoard, kind: str) -> None:
    every_position(board, kind, 1000)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["flip", "drop", "duplicate", "cut", "reset"])
def test_one_fault_at_every_byte_of_a_long_exchange(board: SimulatedBoard, kind: str) -> None:
    every_position(board, kind, 3072)


def every_position(board: SimulatedBoard, kind: str, size: int) -> None:
    board.configure(inputs=(size, 0))
    image = random.Random(9).randbytes(size)
    total = exchange_bytes(board, image)
    assert total > size + 200
    for position in range(total):
        board.power_on()
        fault = FaultAt(position, kind, board.power_on)
        link = simulated_link(OneFaultLine(board, fault))
        before = board.runs
        link.connect()
        result = link.run(image)
        assert result.outputs == fake_outputs(image), position
        assert fault.happened
        resets = link.statistics.resets
        assert resets <= (kind == "reset") and link.statistics.reconnections == 0
        assert 1 <= board.runs - before <= 1 + resets
        assert link.statistics.retries <= 1 + resets


def test_a_line_that_dies_at_any_byte_gives_one_clear_error(board: SimulatedBoard) -> None:
    board.configure(inputs=(600, 0))
    image = random.Random(9).randbytes(600)
    answered = 0
    for position in range(exchange_bytes(board, image) - 1):
        board.power_on()
        line = OneFaultLine(board, FaultAt(position, "silence", board.power_on))
        link = simulated_link(line)
        try:
            link.connect()
            answered += link.run(image).outputs == fake_outputs(image)
        except LinkError as caught:
            assert "no answer at 115200" in str(caught) or "does not answer any more" in str(caught)
            assert line.now < 60
    assert answered == 0  # all but the last delimiter are needed for the last answer


# ---- L6: resets and brown-outs -----------------------------------------------------------------------------------------


class ResettingLine(SimulatedLine):
    """A board that restarts after every n-th frame it receives, before or after its answer."""

    def __init__(self, board: SimulatedBoard, every: int, answers_first: bool) -> None:
        super().__init__(board)
        self._every, self._answers_first, self._frames = every, answers_first, 0
        self.resets = 0

    def feed(self, data: bytes) -> bytes:
        self._frames += 1
        if self._frames % self._every:
            return self.board.exchange(data)
        answer = self.board.exchange(data) if self._answers_first else b""
        self.board.power_on()
        self.resets += 1
        return answer


@pytest.mark.parametrize("answers_first", [False, True])
@pytest.mark.parametrize("every", [5, 6, 7, 50])
def test_resets_every_few_frames_are_counted_and_survived(board: SimulatedBoard, every: int, answers_first: bool) -> None:
    board.configure(inputs=(784, 0))
    line = ResettingLine(board, every, answers_first)
    link = simulated_link(line)
    link.connect()
    stream_all(board, link, 100)
    assert 1 <= link.statistics.resets <= line.resets


def test_fifty_resets_at_random_bytes(board: SimulatedBoard) -> None:
    resets_at_random(board, 50, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_resets_at_random_bytes(board: SimulatedBoard) -> None:
    resets_at_random(board, 1000, seed=2)


def resets_at_random(board: SimulatedBoard, count: int, seed: int) -> None:
    board.configure(inputs=(784, 0))
    rng = random.Random(seed)
    line = SimulatedLine(board)
    link = connected(line)
    for n in range(count):
        fault = FaultAt(rng.randrange(880), "reset", board.power_on)
        line.feed = lambda data, fault=fault: fault.to_host(fault.to_board(data, board.exchange))  # type: ignore[method-assign]
        for image in images(3, 784, seed=n):
            assert link.run(image).outputs == fake_outputs(image)
        assert fault.happened
    assert count * 0.9 < link.statistics.resets <= count


def test_a_board_that_resets_in_every_run_is_given_up(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)

    def brown_out(data: bytes) -> bytes:
        """The supply breaks down whenever the board computes."""
        before = board.runs
        answer = board.exchange(data)
        if board.runs == before:
            return answer
        board.power_on()
        return b""

    line.feed = brown_out  # type: ignore[method-assign]
    with pytest.raises(LinkError, match="the board was reset 5 times over one image; look at its power supply"):
        link.run(bytes(64))
    assert link.statistics.resets == 5 and line.now < 60


def test_a_board_that_falls_silent_in_every_run_is_given_up(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    line.to_board = lambda data: b"" if any(f.type == 3 for f in FrameReader().feed(data)) else data
    with pytest.raises(LinkError, match="the board fell silent 5 times over one image"):
        link.run(bytes(64))
    assert link.statistics.reconnections == 5
