"""Streaming: answers in order, every one on disk as it comes, and going on after an end at any byte."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from line_faults import RandomFaults
from simulated_board import DEVICE, SimulatedBoard, SimulatedLine, connected, fake_outputs, simulated_link

from host_tools.errors import LinkError
from host_tools.link import Link
from host_tools.stream import StreamResult, stream
from recipes.artifacts import ArtifactError

Images = npt.NDArray[np.int8]


def digits(count: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(-128, 128, (count, 8, 8, 1), np.int8)


def check(result: StreamResult, images: Images) -> None:
    assert result.outputs.dtype == np.int8 and result.outputs.shape == (len(images), 10)
    for image, outputs in zip(images, result.outputs, strict=True):
        assert outputs.tobytes() == fake_outputs(image.tobytes())
    assert result.cycles == [1234] * len(images) and result.unit == "cycles"
    assert len(result.attempts) == len(images)


class Counting:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def __call__(self, amount: int) -> None:
        self.steps.append(amount)


def test_every_answer_in_order(board: SimulatedBoard, tmp_path: Path) -> None:
    images, progress = digits(50), Counting()
    before = board.runs
    result = stream(connected(SimulatedLine(board)), images, tmp_path / "results.txt", progress)
    check(result, images)
    assert result.resumed == 0 and result.attempts == [1] * 50 and result.seconds >= 0
    assert board.runs == before + 50 and progress.steps == [1] * 50


def test_the_file_is_readable_and_every_line_sealed(board: SimulatedBoard, tmp_path: Path) -> None:
    images, path = digits(3), tmp_path / "new" / "folder" / "results.txt"
    stream(connected(SimulatedLine(board)), images, path)
    header, *lines = path.read_text().splitlines()
    assert header.startswith("results 1 model=5a010203") and "board=simulated build=0123456789abcdef" in header
    assert len(lines) == 3
    for index, line in enumerate([header, *lines]):
        content, _, seal = line.rpartition(" ")
        assert int(seal, 16) == zlib.crc32(content.encode())
        if index:
            number, cycles, attempts, outputs = content.split()
            assert (int(number), int(cycles), int(attempts)) == (index - 1, 1234, 1)
            assert bytes.fromhex(outputs) == fake_outputs(images[index - 1].tobytes())


def test_a_finished_stream_asks_nothing_again(board: SimulatedBoard, tmp_path: Path) -> None:
    images, path = digits(20), tmp_path / "results.txt"
    first = stream(connected(SimulatedLine(board)), images, path)
    content, before, progress = path.read_bytes(), board.runs, Counting()
    second = stream(connected(SimulatedLine(board)), images, path, progress)
    assert board.runs == before and path.read_bytes() == content
    assert second.resumed == 20 and progress.steps == [20]
    check(second, images)
    assert np.array_equal(first.outputs, second.outputs) and first.attempts == second.attempts


def test_going_on_after_an_end_at_any_byte(board: SimulatedBoard, tmp_path: Path) -> None:
    """Power fails: the file ends anywhere. Whole lines are kept, a torn one is measured again."""
    images, path = digits(4), tmp_path / "results.txt"
    link = connected(SimulatedLine(board))
    stream(link, images, path)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        before = board.runs
        result = stream(link, images, path)
        check(result, images)
        kept = max(whole[:size].count(b"\n") - 1, 0)
        assert result.resumed == kept and board.runs - before == 4 - kept
        assert path.read_bytes() == whole


def test_any_damaged_byte_is_noticed(board: SimulatedBoard, tmp_path: Path) -> None:
    images, path = digits(2), tmp_path / "results.txt"
    link = connected(SimulatedLine(board))
    stream(link, images, path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        value = (whole[position] ^ 1, 0x0A, 0xFF)[position % 3]
        if value != whole[position]:
            path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            check(stream(link, images, path), images)
            assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "junk",
    [b"", b"\n", b"\x00" * 5000, b"results 1\n", b"x" * 100_000, b"\n" * 1000, "résumé 7\n".encode("latin-1")],
    ids=["empty", "newline", "zeros", "header", "long line", "newlines", "latin"],
)
def test_a_file_of_anything_else_is_started_anew(board: SimulatedBoard, tmp_path: Path, junk: bytes) -> None:
    images, path = digits(2), tmp_path / "results.txt"
    path.write_bytes(junk)
    result = stream(connected(SimulatedLine(board)), images, path)
    check(result, images)
    assert result.resumed == 0 and path.read_bytes().startswith(b"results 1 model=")


def test_lines_in_the_wrong_order_or_too_many_are_dropped(board: SimulatedBoard, tmp_path: Path) -> None:
    images, path = digits(3), tmp_path / "results.txt"
    link = connected(SimulatedLine(board))
    stream(link, images, path)
    whole = path.read_bytes()
    header, first, second, third = whole.splitlines(keepends=True)
    for lines, kept in (
        ([second, first, third], 0),
        ([first, third], 1),
        ([first, second, third, third], 3),
        ([first, first], 1),
    ):
        path.write_bytes(header + b"".join(lines))
        result = stream(link, images, path)
        check(result, images)
        assert result.resumed == kept and path.read_bytes() == whole


def test_sealed_lines_of_the_wrong_form_are_dropped(board: SimulatedBoard, tmp_path: Path) -> None:
    """Another version of the program, or a hand, wrote lines whose check sums are right."""
    images, path = digits(1), tmp_path / "results.txt"
    link = connected(SimulatedLine(board))
    stream(link, images, path)
    header = path.read_bytes().splitlines(keepends=True)[0]
    for content in (
        b"0 1234 1 " + b"zz" * 10,
        b"0 x 1 " + b"00" * 10,
        b"0 -5 -1 " + b"00" * 10,
        b"0 1234 1 00",
        b"0",
        b"\xff 1 1 1",
    ):
        path.write_bytes(header + b"%s %08x\n" % (content, zlib.crc32(content)))
        check(stream(link, images, path), images)


@pytest.mark.parametrize("what", ["model", "images", "order", "count", "board"])
def test_results_of_something_else_are_never_mixed_in(board: SimulatedBoard, tmp_path: Path, what: str) -> None:
    images, path = digits(5), tmp_path / "results.txt"
    stream(connected(SimulatedLine(board)), images, path)
    other, count = images, 5
    if what == "model":
        board.configure(outputs=(10, 1))
    elif what == "images":
        other = images.copy()
        other[4, 7, 7, 0] ^= 1
    elif what == "order":
        other = images[::-1]
    elif what == "count":
        other, count = images[:4], 4
    elif what == "board":
        board.power_on()
    result = stream(connected(SimulatedLine(board)), other, path)
    assert result.resumed == (5 if what == "board" else 0) and len(result.outputs) == count
    for image, outputs in zip(other, result.outputs, strict=True):
        assert outputs.tobytes()[:10] == fake_outputs(image.tobytes())


def test_a_stream_cut_by_a_dead_line_goes_on(board: SimulatedBoard, tmp_path: Path) -> None:
    images, path = digits(30), tmp_path / "results.txt"
    line = SimulatedLine(board)
    link = connected(line)
    left = iter(range(12))
    line.to_board = lambda data: data if next(left, None) is not None else b""
    with pytest.raises(LinkError, match=r"does not answer any more.*Run the same command again to go on"):
        stream(link, images, path)
    before = board.runs
    result = stream(connected(SimulatedLine(board)), images, path)
    check(result, images)
    assert result.resumed == 12 and board.runs == before + 18


def test_a_thousand_images_over_a_bad_line_with_ends(board: SimulatedBoard, tmp_path: Path) -> None:
    """Faults on the line, resets of the board and kills of the host together."""
    rng = random.Random(7)
    images, path = digits(1000), tmp_path / "results.txt"
    ends = 0
    while True:
        faults = RandomFaults("mixed", 1e-3, rng.randrange(1 << 30))
        line = SimulatedLine(board, faults, faults)
        stop = Counting()

        def progress(amount: int, stop: Counting = stop) -> None:
            if rng.random() < 0.01:
                raise KeyboardInterrupt
            if rng.random() < 0.01:
                board.power_on()

        try:
            link = simulated_link(line)
            link.connect()
            result = stream(link, images, path, progress)
            break
        except (KeyboardInterrupt, LinkError):
            ends += 1
            if rng.random() < 0.5:  # the last write was torn as well
                size = path.stat().st_size if path.exists() else 0
                os.truncate(path, max(size - rng.randrange(40), 0)) if size else None
    check(result, images)
    assert ends >= 3 and result.resumed > 0


def test_a_killed_host_goes_on_where_it_stopped(simulated_library: Path, tmp_path: Path) -> None:
    """SIGKILL, not an exception: nothing may be left in a buffer of the process."""
    program = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[3:]
import numpy as np
from host_tools.stream import stream
from simulated_board import SimulatedBoard, SimulatedLine, connected
images = np.random.default_rng(0).integers(-128, 128, (200, 8, 8, 1), np.int8)
board = SimulatedBoard(Path(sys.argv[1]))
def progress(amount):
    print(amount, flush=True)
    time.sleep(0.002)
stream(connected(SimulatedLine(board)), images, Path(sys.argv[2]), progress)
"""
    path = tmp_path / "results.txt"
    folders = [str(DEVICE.parent), str(DEVICE.parents[2])]
    command = [sys.executable, "-c", program, str(simulated_library), str(path), *folders]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        told = [host.stdout.readline() for _ in range(40)]
        host.send_signal(signal.SIGKILL)
    assert host.returncode == -signal.SIGKILL and len(told) == 40
    images = digits(200)
    result = stream(connected(SimulatedLine(SimulatedBoard(simulated_library))), images, path)
    check(result, images)
    assert 40 <= result.resumed < 200


def test_cycles_that_nobody_counts_are_none(simulated_library: Path, tmp_path: Path) -> None:
    board = SimulatedBoard(simulated_library, cycles=False)
    for _ in range(2):  # written, then read
        result = stream(connected(SimulatedLine(board)), digits(3), tmp_path / "results.txt")
        assert result.cycles == [None] * 3 and result.unit == "none"


def test_repeated_requests_are_told_per_image(board: SimulatedBoard, tmp_path: Path) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    lost = iter([False, True, True, False, False])
    line.to_board = lambda data: b"" if next(lost, False) else data
    assert stream(link, digits(4), tmp_path / "results.txt").attempts == [1, 3, 1, 1]


def test_several_outputs_come_as_one_row_of_bytes(board: SimulatedBoard, tmp_path: Path) -> None:
    board.configure(outputs=(6, 4))
    images = digits(3)
    result = stream(connected(SimulatedLine(board)), images, tmp_path / "results.txt")
    assert result.outputs.shape == (3, 10)
    assert result.outputs[1].tobytes() == fake_outputs(images[1].tobytes())


def test_no_images_give_no_outputs(board: SimulatedBoard, tmp_path: Path) -> None:
    result = stream(connected(SimulatedLine(board)), digits(0), tmp_path / "results.txt")
    assert result.outputs.shape == (0, 10) and result.cycles == []


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int16"])
def test_images_of_another_type_are_refused(board: SimulatedBoard, tmp_path: Path, dtype: str) -> None:
    with pytest.raises(LinkError, match=f"the images are {dtype}, the model on the board takes int8"):
        stream(connected(SimulatedLine(board)), digits(2).astype(dtype), tmp_path / "results.txt")  # type: ignore[arg-type]
    assert not (tmp_path / "results.txt").exists()


def test_images_of_another_size_are_refused(board: SimulatedBoard, tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="the image has 63 bytes, the model on the board takes 64"):
        stream(connected(SimulatedLine(board)), np.zeros((2, 63), np.int8), tmp_path / "results.txt")


def test_images_in_any_memory_layout(board: SimulatedBoard, tmp_path: Path) -> None:
    images = digits(6)
    turned = np.asfortranarray(images)
    check(stream(connected(SimulatedLine(board)), turned, tmp_path / "results.txt"), images)
    assert stream(connected(SimulatedLine(board)), images, tmp_path / "results.txt").resumed == 6


# ---- The disk --------------------------------------------------------------------------------------------------------


class FailingFile:
    """A file on a disk that is full: the real one until its n-th write."""

    def __init__(self, inner: object, writes: int) -> None:
        self._inner, self._left = inner, writes

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._inner.write(data)  # type: ignore[attr-defined, no-any-return]


def test_a_full_disk_is_told_and_nothing_is_lost(
    board: SimulatedBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, path = digits(10), tmp_path / "results.txt"
    link = connected(SimulatedLine(board))
    real = os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", lambda descriptor, mode: FailingFile(real(descriptor, mode), 6))
        with pytest.raises(ArtifactError, match="no space left on the device; free some space and run again") as caught:
            stream(link, images, path)
    assert caught.value.exit_code == 4
    result = stream(link, images, path)
    check(result, images)
    assert result.resumed == 5


def test_a_results_path_that_cannot_be_written(board: SimulatedBoard, tmp_path: Path) -> None:
    link = connected(SimulatedLine(board))
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "results.txt"):
        with pytest.raises(ArtifactError) as caught:
            stream(link, digits(1), path)
        assert "\n" not in str(caught.value)


def test_a_line_that_fails_is_no_disk_error(board: SimulatedBoard, tmp_path: Path) -> None:
    line = SimulatedLine(board)
    link = Link(line, board.expected(), clock=line.clock)
    link.connect()

    def gone(data: bytes) -> bytes:
        raise LinkError("simulated line: the port has gone")

    line.to_board = gone
    with pytest.raises(LinkError, match="the port has gone"):
        stream(link, digits(1), tmp_path / "results.txt")
