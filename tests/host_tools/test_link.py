"""The link over a good line: what is asked, answered, checked, refused and told to a person."""

from __future__ import annotations

import dataclasses
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_board import (
    HASH,
    SimulatedBoard,
    SimulatedLine,
    build_simulated_board,
    clean,
    connected,
    fake_layers,
    fake_outputs,
    rewriting,
    simulated_link,
)

from host_tools.errors import LinkError
from host_tools.frame import ANSWER, ErrorCode, Frame, FrameReader, FrameType, encode
from host_tools.link import ExpectedModel
from host_tools.messages import Payload, parse_hello, parse_run, parse_stats

HELLO, RUN = FrameType.HELLO | ANSWER, FrameType.RUN | ANSWER


def image_of(board: SimulatedBoard, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(board.input_size)


def ask(board: SimulatedBoard, kind: int, sequence: int, session: int, payload: bytes = b"") -> Frame | None:
    """One frame to the board, by hand; its answer."""
    frames = FrameReader().feed(board.exchange(encode(Frame(kind, sequence, session, payload))))
    assert len(frames) <= 1
    return frames[0] if frames else None


def error(code: ErrorCode, detail: int, sequence: int, session: int) -> Frame:
    return Frame(FrameType.ERROR, sequence, session, struct.pack("<BI", code, detail))


# ---- What the board says and answers -------------------------------------------------------------------------------


def test_hello_says_everything_about_the_board(board: SimulatedBoard) -> None:
    board.configure(inputs=(60, 4), outputs=(10, 5), layers=7)
    hello = connected(SimulatedLine(board)).hello
    assert (hello.protocol, hello.frame_max, hello.model_hash, hello.arithmetic) == (1, 512, HASH, "double")
    assert (hello.board, hello.core, hello.build_id) == ("simulated", "a core with a name longer than ", "0123456789abcdef")
    assert (hello.clock_hz, hello.stack_reserved, hello.layer_count, hello.cycle_unit) == (72_000_000, 2048, 7, "cycles")
    assert [t.shape for t in hello.inputs] == [(1, 60), (1, 4)] and [t.size for t in hello.outputs] == [10, 5]
    assert (hello.input_size, hello.output_size) == (64, 15)
    tensor = hello.inputs[0]
    assert (tensor.dtype, tensor.scale, tensor.zero_point) == ("int8", 0.25, 3)


@pytest.mark.parametrize("size", [1, 2, 64, 494, 495, 496, 784, 990, 991, 3072, 20_000])
def test_inputs_of_every_size_arrive_whole(board: SimulatedBoard, size: int) -> None:
    board.configure(inputs=(size, 0))
    link = connected(SimulatedLine(board))
    for seed in range(3):
        image = image_of(board, seed)
        result = link.run(image)
        assert result.outputs == fake_outputs(image)
        assert (result.cycles, result.unit, result.attempts, result.stack_used) == (1234, "cycles", 1, 600)
    assert link.statistics.retries == link.statistics.crc_errors == link.statistics.resets == 0


@pytest.mark.parametrize("outputs", [(1, 0), (479, 0), (480, 0), (978, 0), (5000, 0), (10, 1), (479, 1), (300, 700)])
def test_outputs_of_every_size_come_back_whole(board: SimulatedBoard, outputs: tuple[int, int]) -> None:
    board.configure(inputs=(33, 31), outputs=outputs)
    link = connected(SimulatedLine(board))
    for seed in range(3):
        image = image_of(board, seed)
        assert link.run(image).outputs == fake_outputs(image, sum(outputs))


def test_images_of_one_frame_cost_one_exchange(board: SimulatedBoard) -> None:
    link = connected(SimulatedLine(board))
    before = link.statistics.frames
    link.run(image_of(board))
    assert link.statistics.frames == before + 1


def test_a_board_that_cannot_count_gives_no_cycles(simulated_library: Path) -> None:
    board = SimulatedBoard(simulated_library, cycles=False)
    result = connected(SimulatedLine(board)).run(image_of(board))
    assert result.cycles is None and result.unit == "none"


@pytest.mark.parametrize("layers", [1, 2, 3, 123, 124, 125, 300])
def test_layers_of_any_number(board: SimulatedBoard, layers: int) -> None:
    board.configure(inputs=(700, 0), layers=layers)
    link = connected(SimulatedLine(board))
    image = image_of(board)
    expected = [zlib.crc32(b"".join(outputs)) for outputs in fake_layers(image, layers)]
    assert link.layers(image) == expected
    assert link.run(image).outputs == fake_outputs(image)


def test_no_answer_is_longer_than_a_frame(board: SimulatedBoard) -> None:
    """FRAME_MAX is what the board promises to send as well."""
    board.configure(outputs=(1700, 0), layers=300)
    longest: dict[int, int] = {}

    def measure(data: bytes) -> bytes:
        for frame in FrameReader().feed(data):
            longest[frame.type] = max(longest.get(frame.type, 0), 13 + len(frame.payload))
        return data

    link = connected(SimulatedLine(board, to_host=measure))
    image = image_of(board)
    link.run(image)
    link.layers(image)
    link.tensor(image, 299)
    full = {RUN: 512, FrameType.READ_OUTPUT | ANSWER: 512, FrameType.LAYERS | ANSWER: 509, FrameType.TENSOR | ANSWER: 512}
    assert {kind: longest[kind] for kind in full} == full and max(longest.values()) == 512


def test_every_tensor_can_be_read(board: SimulatedBoard) -> None:
    board.configure(outputs=(1700, 0), layers=4)
    link = connected(SimulatedLine(board))
    image = image_of(board)
    for layer, outputs in enumerate(fake_layers(image, 4, 1700)):
        for number, expected in enumerate(outputs):
            assert link.tensor(image, layer, number) == expected
    for layer, number in ((4, 0), (0, 2), (65535, 0), (0, 65535)):
        with pytest.raises(LinkError, match=f"refused tensor: no_such_tensor .detail {layer}"):
            link.tensor(image, layer, number)


def test_selftest_and_stats(board: SimulatedBoard) -> None:
    link = connected(SimulatedLine(board))
    assert link.selftest() is True
    board.fail(selftest=3)
    assert link.selftest() is False
    board.fail(selftest=2)
    with pytest.raises(LinkError, match=r"could not run .status 2"):
        link.selftest()
    link.run(image_of(board))
    board.exchange(b"\0noise that is no frame\0")
    stats = link.stats()
    assert (stats.frames, stats.crc_errors, stats.overruns, stats.runs, stats.stack_used) == (6, 1, 7, 1, 600)


def test_a_run_that_fails_is_an_error_and_the_next_one_works(board: SimulatedBoard) -> None:
    link = connected(SimulatedLine(board))
    image = image_of(board)
    board.fail(run=2)
    for ask_again in (link.run, link.layers):
        with pytest.raises(LinkError, match=r"run_failed .detail 2"):
            ask_again(image)
    board.fail()
    assert link.run(image).outputs == fake_outputs(image)


def test_server_state_fits_small_parts(board: SimulatedBoard) -> None:
    assert board.server_bytes <= 1200


# ---- Never twice, never half ---------------------------------------------------------------------------------------


def test_a_repeated_request_is_answered_from_memory(board: SimulatedBoard) -> None:
    image, before = image_of(board), board.runs
    assert ask(board, FrameType.HELLO, 0, 77)
    request = encode(Frame(FrameType.RUN, 1, 77, bytes(4) + image))
    first = board.exchange(request)
    assert parse_run(FrameReader().feed(first)[0].payload).outputs == fake_outputs(image)
    for _ in range(3):
        assert board.exchange(request) == first
    assert board.runs == before + 1


def test_a_second_run_needs_a_new_input(board: SimulatedBoard) -> None:
    image = image_of(board)
    ask(board, FrameType.HELLO, 0, 77)
    assert ask(board, FrameType.RUN, 1, 77, bytes(4) + image)
    before = board.runs
    assert ask(board, FrameType.RUN, 2, 77, bytes(4)) == error(ErrorCode.INPUT_INCOMPLETE, 0, 2, 77)
    assert ask(board, FrameType.LAYERS, 3, 77, bytes(2)) == error(ErrorCode.INPUT_INCOMPLETE, 0, 3, 77)
    assert ask(board, FrameType.TENSOR, 4, 77, bytes(8)) == error(ErrorCode.INPUT_INCOMPLETE, 0, 4, 77)
    assert board.runs == before


@pytest.mark.parametrize("sent", [0, 1, 63])
def test_an_incomplete_input_never_runs(board: SimulatedBoard, sent: int) -> None:
    before = board.runs
    ask(board, FrameType.HELLO, 0, 77)
    if sent:
        ask(board, FrameType.WRITE_INPUT, 1, 77, bytes(4) + bytes(sent))
    sequence = 2 if sent else 1
    answer = ask(board, FrameType.RUN, sequence, 77, struct.pack("<I", sent))
    assert answer == error(ErrorCode.INPUT_INCOMPLETE, sent, sequence, 77)
    assert board.runs == before


@pytest.mark.parametrize(
    ("offset", "size"), [(10, 5), (30, 1), (20, 45), (64, 1), (2**32 - 1, 1), (0, 65), (2**31, 4), (0, 499 - 4)]
)
def test_chunks_out_of_place_are_refused(board: SimulatedBoard, offset: int, size: int) -> None:
    ask(board, FrameType.HELLO, 0, 77)
    assert ask(board, FrameType.WRITE_INPUT, 1, 77, bytes(4) + bytes(20)) == Frame(0x82, 1, 77, struct.pack("<I", 20))
    so_far = 0 if offset == 0 else 20
    for sequence, kind in enumerate((FrameType.WRITE_INPUT, FrameType.RUN), 2):
        answer = ask(board, kind, sequence, 77, struct.pack("<I", offset) + bytes(size))
        assert answer == error(ErrorCode.INPUT_ORDER, so_far, sequence, 77)


def test_a_new_image_may_start_before_the_last_was_complete(board: SimulatedBoard) -> None:
    image = image_of(board)
    ask(board, FrameType.HELLO, 0, 77)
    ask(board, FrameType.WRITE_INPUT, 1, 77, bytes(4) + bytes(20))
    answer = ask(board, FrameType.RUN, 2, 77, bytes(4) + image)
    assert answer and parse_run(answer.payload).outputs == fake_outputs(image)


@pytest.mark.parametrize(
    ("kind", "payload", "code", "detail"),
    [
        (0, b"", ErrorCode.UNKNOWN_REQUEST, 0),
        (9, b"", ErrorCode.UNKNOWN_REQUEST, 9),
        (0x81, b"", ErrorCode.UNKNOWN_REQUEST, 0x81),
        (0xFF, b"abc", ErrorCode.UNKNOWN_REQUEST, 0xFF),
        (FrameType.WRITE_INPUT, b"1234", ErrorCode.BAD_LENGTH, 4),
        (FrameType.RUN, b"123", ErrorCode.BAD_LENGTH, 3),
        (FrameType.READ_OUTPUT, b"", ErrorCode.BAD_LENGTH, 0),
        (FrameType.READ_OUTPUT, bytes(5), ErrorCode.BAD_LENGTH, 5),
        (FrameType.LAYERS, bytes(3), ErrorCode.BAD_LENGTH, 3),
        (FrameType.TENSOR, bytes(7), ErrorCode.BAD_LENGTH, 7),
        (FrameType.STATS, bytes(1), ErrorCode.BAD_LENGTH, 1),
        (FrameType.SELFTEST, bytes(1), ErrorCode.BAD_LENGTH, 1),
        (FrameType.READ_OUTPUT, bytes(4), ErrorCode.NO_OUTPUT, 0),
        (FrameType.LAYERS, struct.pack("<H", 3), ErrorCode.NO_SUCH_TENSOR, 3),
    ],
)
def test_requests_that_cannot_be_are_refused(
    board: SimulatedBoard, kind: int, payload: bytes, code: ErrorCode, detail: int
) -> None:
    ask(board, FrameType.HELLO, 0, 77)
    assert ask(board, kind, 1, 77, payload) == error(code, detail, 1, 77)
    image = image_of(board)
    answer = ask(board, FrameType.RUN, 2, 77, bytes(4) + image)
    assert answer and parse_run(answer.payload).outputs == fake_outputs(image)


def test_outputs_are_gone_when_the_next_input_comes(board: SimulatedBoard) -> None:
    ask(board, FrameType.HELLO, 0, 77)
    image = image_of(board)
    ask(board, FrameType.RUN, 1, 77, bytes(4) + image)
    answer = ask(board, FrameType.READ_OUTPUT, 2, 77, bytes(4))
    assert answer and answer.payload == fake_outputs(image)
    assert ask(board, FrameType.READ_OUTPUT, 3, 77, struct.pack("<I", 10)) == error(ErrorCode.NO_OUTPUT, 10, 3, 77)
    ask(board, FrameType.WRITE_INPUT, 4, 77, bytes(4) + b"\1")
    assert ask(board, FrameType.READ_OUTPUT, 5, 77, bytes(4)) == error(ErrorCode.NO_OUTPUT, 0, 5, 77)


def test_a_self_test_destroys_input_and_outputs(board: SimulatedBoard) -> None:
    ask(board, FrameType.HELLO, 0, 77)
    ask(board, FrameType.RUN, 1, 77, bytes(4) + image_of(board))
    ask(board, FrameType.SELFTEST, 2, 77)
    assert ask(board, FrameType.READ_OUTPUT, 3, 77, bytes(4)) == error(ErrorCode.NO_OUTPUT, 0, 3, 77)
    ask(board, FrameType.WRITE_INPUT, 4, 77, bytes(4) + bytes(20))
    ask(board, FrameType.SELFTEST, 5, 77)
    assert ask(board, FrameType.RUN, 6, 77, struct.pack("<I", 20) + bytes(44)) == error(ErrorCode.INPUT_ORDER, 0, 6, 77)


def test_a_new_session_has_no_outputs(board: SimulatedBoard) -> None:
    ask(board, FrameType.HELLO, 0, 77)
    ask(board, FrameType.RUN, 1, 77, bytes(4) + image_of(board))
    ask(board, FrameType.HELLO, 0, 78)
    assert ask(board, FrameType.READ_OUTPUT, 1, 78, bytes(4)) == error(ErrorCode.NO_OUTPUT, 0, 1, 78)


def test_a_hello_too_long_for_a_frame_is_an_error(board: SimulatedBoard) -> None:
    board.configure(inputs=(60, 4), extra=16)
    assert ask(board, FrameType.HELLO, 0, 77) == error(ErrorCode.TOO_LONG, 512, 0, 77)
    with pytest.raises(LinkError, match="refused hello: too_long"):
        connected(SimulatedLine(board))


# ---- Sessions and sequences ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in FrameType if k not in (FrameType.HELLO, FrameType.ERROR)])
def test_a_board_that_was_reset_knows_no_session(board: SimulatedBoard, kind: FrameType) -> None:
    payload = {FrameType.WRITE_INPUT: bytes(5), FrameType.RUN: bytes(68)}.get(kind, b"")
    before = board.runs
    for session in (0, 1, 0xA5A5A5A5):
        assert ask(board, kind, 5, session, payload) == error(ErrorCode.NO_SESSION, 0, 5, session)
    ask(board, FrameType.HELLO, 0, 77)
    board.power_on()
    assert ask(board, kind, 1, 77, payload) == error(ErrorCode.NO_SESSION, 0, 1, 77)
    assert board.runs == before


def test_session_zero_is_no_session(board: SimulatedBoard) -> None:
    assert ask(board, FrameType.HELLO, 0, 0) == error(ErrorCode.NO_SESSION, 0, 0, 0)


def test_a_new_hello_ends_the_old_session(board: SimulatedBoard) -> None:
    ask(board, FrameType.HELLO, 0, 77)
    ask(board, FrameType.WRITE_INPUT, 1, 77, bytes(4) + bytes(20))
    assert ask(board, FrameType.HELLO, 0, 78)
    assert ask(board, FrameType.STATS, 2, 77) == error(ErrorCode.NO_SESSION, 0, 2, 77)
    assert ask(board, FrameType.RUN, 1, 78, struct.pack("<I", 20) + bytes(44)) == error(ErrorCode.INPUT_ORDER, 0, 1, 78)


def test_old_requests_are_dropped_and_gaps_refused(board: SimulatedBoard) -> None:
    start = 2**32 - 2  # the sequence wraps on the way
    ask(board, FrameType.HELLO, start, 77)
    for step in range(1, 5):
        assert ask(board, FrameType.STATS, (start + step) % 2**32, 77)
    for step in range(4):
        assert ask(board, FrameType.STATS, (start + step) % 2**32, 77) is None
    assert ask(board, FrameType.HELLO, start, 77) is None  # a late copy of the first hello opens nothing
    assert ask(board, FrameType.STATS, 5, 77) == error(ErrorCode.SEQUENCE, 2, 5, 77)
    answer = ask(board, FrameType.STATS, 3, 77)
    assert answer and parse_stats(answer.payload).stale == 5


def test_a_foreign_frame_does_not_cost_the_cached_answer(board: SimulatedBoard) -> None:
    image = image_of(board)
    ask(board, FrameType.HELLO, 0, 77)
    request = encode(Frame(FrameType.RUN, 1, 77, bytes(4) + image))
    first = board.exchange(request)
    ask(board, FrameType.STATS, 9, 12345)
    ask(board, FrameType.STATS, 9, 77)
    board.exchange(b"\0garbage\0" + bytes(100) + b"\xff" * 2000 + b"\0")
    assert board.exchange(request) == first


def test_every_hello_starts_a_session_at_sequence_zero(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    for _ in range(3):
        link.run(image_of(board))
        board.power_on()
    link.run(image_of(board))
    frames = [FrameReader().feed(data)[0] for data in line.sent]
    hellos = [frame for frame in frames if frame.type == FrameType.HELLO]
    assert len(hellos) == 4 and {frame.sequence for frame in hellos} == {0}
    assert len({frame.session for frame in hellos}) == 4 and 0 not in {frame.session for frame in hellos}


def test_the_link_finds_back_after_losing_count(board: SimulatedBoard) -> None:
    """Another program's hello between two images looks like a reset: the link says hello again and goes on."""
    link = connected(SimulatedLine(board))
    image = image_of(board)
    link.run(image)
    ask(board, FrameType.HELLO, 0, 424242)
    assert link.run(image).outputs == fake_outputs(image)
    assert link.statistics.resets == 1


# ---- Another model, another program: L10 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hash": "ab" * 32}, "is of another model .5a0102030000, expected abababababab"),
        ({"arithmetic": "float32"}, "arithmetic 'double', expected 'float32'"),
        ({"input_size": 65}, "takes inputs of 64 bytes int8, expected 65 bytes int8"),
        ({"output_size": 11}, "gives outputs of 10 bytes int8, expected 11 bytes int8"),
        ({"input_type": "uint8"}, "takes inputs of 64 bytes int8, expected 64 bytes uint8"),
        ({"output_type": "float32"}, "gives outputs of 10 bytes int8, expected 10 bytes float32"),
    ],
)
def test_another_model_is_refused(board: SimulatedBoard, change: dict[str, object], message: str) -> None:
    line = SimulatedLine(board)
    expected = dataclasses.replace(board.expected(), **change)  # type: ignore[arg-type]
    with pytest.raises(LinkError, match=message) as caught:
        simulated_link(line, expected=expected).connect()
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    assert line.closed == 1


def test_every_byte_of_the_model_hash_counts(board: SimulatedBoard) -> None:
    for position in range(32):
        other = bytearray.fromhex(HASH)
        other[position] ^= 1
        with pytest.raises(LinkError, match="another model"):
            simulated_link(SimulatedLine(board), expected=ExpectedModel(other.hex(), "double", 64, 10)).connect()


def test_a_board_with_another_model_after_a_reset_is_noticed(board: SimulatedBoard) -> None:
    link = connected(SimulatedLine(board))
    link.run(image_of(board))
    board.power_on()
    board.identify(hash_byte=0x5B)
    with pytest.raises(LinkError, match="another model"):
        link.run(image_of(board))


def test_another_firmware_of_the_same_model_after_a_reset_is_noticed(board: SimulatedBoard) -> None:
    """Its answers are right, but its cycles belong into another result."""
    line = SimulatedLine(board)
    link = connected(line)
    line.to_host = rewriting(HELLO, lambda payload: payload.replace(b"0123456789abcdef", b"fedcba9876543210"))
    link.run(image_of(board))
    board.power_on()
    with pytest.raises(
        LinkError, match=r"another firmware answers now .simulated fedcba9876543210, was simulated 0123456789ab"
    ):
        link.run(image_of(board))
    assert connected(line).hello.build_id == "fedcba9876543210"


def test_an_interruption_between_two_requests_is_no_reset(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)

    def interrupted(data: bytes) -> bytes:
        line.to_board = clean
        raise KeyboardInterrupt

    line.to_board = interrupted
    with pytest.raises(KeyboardInterrupt):
        link.run(image_of(board))
    assert link.run(image_of(board)).outputs == fake_outputs(image_of(board))
    assert (link.statistics.resets, link.statistics.reconnections) == (0, 1)


def test_a_link_can_be_closed_and_connected_again(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    link.run(image_of(board))
    link.close()
    board.power_on()
    line.to_host = rewriting(HELLO, lambda payload: payload.replace(b"0123456789abcdef", b"fedcba9876543210"))
    link.connect()
    assert link.run(image_of(board)).outputs == fake_outputs(image_of(board))


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, struct.pack("<H", 2), "version 2 of the link's protocol, this program 1"),
        (0, struct.pack("<H", 0), "version 0"),
        (2, struct.pack("<H", 255), "frames of 255 bytes"),
        (2, struct.pack("<H", 4097), "frames of 4097 bytes"),
        (36, b"\x01", "arithmetic 'float32', expected 'double'"),
        (36, b"\x09", "arithmetic 'number 9'"),
    ],
)
def test_a_hello_of_another_kind_is_refused(board: SimulatedBoard, position: int, value: bytes, message: str) -> None:
    change = lambda payload: payload[:position] + value + payload[position + len(value) :]  # noqa: E731
    with pytest.raises(LinkError, match=message):
        connected(SimulatedLine(board, to_host=rewriting(HELLO, change)))


@pytest.mark.parametrize("size", [0, 63, 65, 640])
def test_an_image_of_another_size_is_refused(board: SimulatedBoard, size: int) -> None:
    link = connected(SimulatedLine(board))
    for ask_board in (link.run, link.layers, lambda image: link.tensor(image, 0)):
        with pytest.raises(LinkError, match=f"the image has {size} bytes, the model on the board takes 64"):
            ask_board(bytes(size))


def test_another_frame_size_is_obeyed(tmp_path: Path) -> None:
    board = SimulatedBoard(build_simulated_board(tmp_path, "-DNN_FRAME_MAX=300"))
    board.configure(inputs=(1000, 0), outputs=(600, 0), layers=100)
    line = SimulatedLine(board)
    link = connected(line)
    image = image_of(board)
    assert link.run(image).outputs == fake_outputs(image, 600)
    assert link.layers(image) == [zlib.crc32(b"".join(outputs)) for outputs in fake_layers(image, 100, 600)]
    assert max(map(len, line.sent)) <= 304


# ---- A board that lies: nothing it says is used unchecked ----------------------------------------------------------


def test_every_hello_that_ends_early_or_late_is_refused(board: SimulatedBoard) -> None:
    link = connected(SimulatedLine(board))
    whole = len(FrameReader().feed(board.exchange(encode(Frame(1, 0, 5))))[0].payload)
    assert link.hello
    for size in range(whole):
        with pytest.raises(LinkError, match="hello ends early"):
            connected(SimulatedLine(board, to_host=rewriting(HELLO, lambda payload, size=size: payload[:size])))
    with pytest.raises(LinkError, match="hello is too long"):
        connected(SimulatedLine(board, to_host=rewriting(HELLO, lambda payload: payload + b"\0")))


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (RUN, lambda p: p[:19], "run ends early"),
        (RUN, lambda p: p[:4] + bytes(4) + p[8:], "computed on another input"),
        (RUN, lambda p: p[:8] + bytes(4) + p[12:], "do not match their CRC-32"),
        (RUN, lambda p: p[:-1] + bytes([p[-1] ^ 1]), "do not match their CRC-32"),
        (RUN, lambda p: p[:16] + struct.pack("<I", 9) + p[20:], "answered 9 bytes, its hello promised 10"),
        (RUN, lambda p: p + b"x", "answered 10 bytes, its hello promised 10"),
        (RUN, lambda p: p[:16] + struct.pack("<I", 2**32 - 1) + p[20:], "answered 4294967295 bytes"),
        (FrameType.STATS | ANSWER, lambda p: p[:27], "stats ends early"),
        (FrameType.STATS | ANSWER, lambda p: p + b"x", "stats is too long"),
        (FrameType.SELFTEST | ANSWER, lambda p: b"", "selftest ends early"),
        (FrameType.LAYERS | ANSWER, lambda p: p[:4], "told 0 layers from 0 on"),
        (FrameType.LAYERS | ANSWER, lambda p: p + bytes(4), "told 4 layers from 0 on; it has 3"),
        (FrameType.LAYERS | ANSWER, lambda p: p[:-1], "told 2.75 layers from 0 on"),
        (FrameType.LAYERS | ANSWER, lambda p: bytes(4) + p[4:], "computed on another input"),
        (FrameType.TENSOR | ANSWER, lambda p: p[:12], "sent nothing of layer 0"),
        (FrameType.TENSOR | ANSWER, lambda p: p + b"x", "differently when asked again"),
        (FrameType.TENSOR | ANSWER, lambda p: p[:8] + bytes(4) + p[12:], "differently when asked again"),
    ],
)
def test_answers_that_cannot_be_are_refused(
    board: SimulatedBoard, kind: int, change: Callable[[bytes], bytes], message: str
) -> None:
    link = connected(SimulatedLine(board, to_host=rewriting(kind, change)))
    image = image_of(board)
    calls = {
        RUN: lambda: link.run(image),
        FrameType.STATS | ANSWER: link.stats,
        FrameType.SELFTEST | ANSWER: link.selftest,
        FrameType.LAYERS | ANSWER: lambda: link.layers(image),
        FrameType.TENSOR | ANSWER: lambda: link.tensor(image, 0),
    }
    with pytest.raises(LinkError, match=message):
        calls[kind]()


def test_parts_of_an_output_that_cannot_be_are_refused(board: SimulatedBoard) -> None:
    board.configure(outputs=(1000, 0))
    for change in (lambda p: b"", lambda p: p + bytes(600)):
        link = connected(SimulatedLine(board, to_host=rewriting(FrameType.READ_OUTPUT | ANSWER, change)))
        with pytest.raises(LinkError, match="bytes of output where 1 to"):
            link.run(image_of(board))


def test_answers_of_another_type_are_refused(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    for kind in (FrameType.STATS | ANSWER, 0xC3):
        line.to_host = lambda data, kind=kind: b"".join(
            encode(dataclasses.replace(frame, type=kind)) for frame in FrameReader().feed(data)
        )
        with pytest.raises(LinkError, match=f"answered type {kind} to request 3"):
            link.run(image_of(board))


def test_random_lies_give_the_right_answer_or_an_error(board: SimulatedBoard) -> None:
    rng = random.Random(8)
    errors = 0

    def lie(data: bytes) -> bytes:
        out = b""
        for frame in FrameReader().feed(data):
            payload = bytearray(frame.payload)
            if payload and rng.random() < 0.5:
                payload[rng.randrange(len(payload))] = rng.randrange(256)
            if rng.random() < 0.1:
                del payload[rng.randrange(len(payload) + 1) :]
            out += encode(dataclasses.replace(frame, payload=bytes(payload)))
        return out

    image = image_of(board)
    link = connected(SimulatedLine(board))
    for _ in range(3000):
        line = SimulatedLine(board, to_host=lie)
        try:
            link = simulated_link(line)
            link.connect()
            assert link.run(image).outputs == fake_outputs(image)
        except LinkError as caught:
            errors += 1
            assert "\n" not in str(caught) and str(caught).isprintable()
    assert errors > 500


def test_text_from_the_board_cannot_upset_a_terminal() -> None:
    payload = Payload(b"\x09\x1b[31mred\n\x07rest", "hello")
    assert payload.text() == "?[31mred?" and payload.rest() == b"\x07rest"


def test_hello_with_unknown_types_is_still_read(board: SimulatedBoard) -> None:
    board.identify(dtype=77)
    answer = ask(board, FrameType.HELLO, 0, 5)
    assert answer and parse_hello(answer.payload, 5).inputs[0].dtype == "type 77"
    with pytest.raises(LinkError, match="64 bytes type 77, expected 64 bytes int8"):
        connected(SimulatedLine(board))


# ---- Time ----------------------------------------------------------------------------------------------------------


def test_the_time_out_is_three_times_wire_and_inference_and_a_margin(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    line.delay = 2.0
    image = image_of(board)
    link.run(image)
    line.waits.clear()
    link.run(image)
    wire = (len(line.sent[-1]) + 13 + 20 + 10 + 3) * 10 / 115200
    assert line.waits == [pytest.approx(3 * wire + 3 * 2.0 + 0.2)]


def test_a_first_inference_of_any_length_is_waited_for_and_run_once(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    before = board.runs
    line.delay = 30.0
    result = link.run(image_of(board))
    assert result.outputs == fake_outputs(image_of(board)) and result.attempts > 1
    assert board.runs == before + 1
    assert link.run(image_of(board, 1)).attempts == 1  # now it is known how long one takes
    assert link.statistics.reconnections == link.statistics.resets == 0


def test_retries_do_not_inflate_the_measured_time(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    for seed in range(20):
        image = image_of(board, seed)
        lost = iter((True, False))
        line.to_board = lambda data, lost=lost: b"" if next(lost, False) else data
        assert link.run(image).attempts == 2
    assert line.now < 20 * 3.5


def test_a_silent_board_is_told_within_ten_seconds(board: SimulatedBoard) -> None:
    line = SimulatedLine(board, to_board=lambda data: b"")
    with pytest.raises(LinkError, match=r"simulated line: no answer at 115200; other baud.") as caught:
        simulated_link(line).connect()
    assert 0.5 < line.now < 10 and len(line.sent) == 5 and len(set(line.sent)) == 1
    assert caught.value.exit_code == 5 and line.closed == 1


def test_a_board_that_falls_silent_is_told(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    link = connected(line)
    link.run(image_of(board))
    line.to_board = lambda data: b""
    with pytest.raises(LinkError, match="the board does not answer any more"):
        link.run(image_of(board))
    assert len(line.sent) == 2 + 5 + 5 and line.now < 20


def test_a_line_without_a_baud_rate_is_not_told_one(board: SimulatedBoard) -> None:
    with pytest.raises(LinkError) as caught:
        connected(SimulatedLine(board, to_board=lambda data: b"", baud=None))
    assert "no answer; other baud?" in str(caught.value)


def test_context_manager_opens_and_closes(board: SimulatedBoard) -> None:
    line = SimulatedLine(board)
    with simulated_link(line) as link:
        assert link.run(image_of(board)).attempts == 1
        assert (line.opened, line.closed) == (1, 0)
    assert line.closed == 1


def test_statistics_as_json(board: SimulatedBoard) -> None:
    link = connected(SimulatedLine(board))
    link.run(image_of(board))
    assert link.statistics.to_json() == {"frames": 2, "crc_errors": 0, "retries": 0, "resets": 0, "reconnections": 0}
