"""Frames: the Python and the C codec against the published definition and against each other, whole and damaged."""

from __future__ import annotations

import ctypes
import random
import re
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import pytest
from simulated_board import DEVICE, LINK_SOURCES, RUNTIME, TRAP, compile_c, sanitizers

from host_tools.frame import (
    ANSWER,
    FRAME_MAX,
    FRAME_MIN,
    PROTOCOL_VERSION,
    ErrorCode,
    Frame,
    FrameReader,
    FrameType,
    cobs_decode,
    cobs_encode,
    decode,
    encode,
    wire_size,
)

LONGEST = 4096
RANDOM_FRAMES = 100_000


def cobs_reference(data: bytes) -> bytes:
    """COBS by its definition, one byte at a time: each code counts the bytes up to the next zero, 254 at most."""
    out, block = b"", b""
    for byte in data:
        if len(block) == 254:
            out, block = out + b"\xff" + block, b""
        if byte == 0:
            out, block = out + bytes([len(block) + 1]) + block, b""
        else:
            block += bytes([byte])
    return out + bytes([len(block) + 1]) + block


@pytest.mark.parametrize(
    ("plain", "stuffed"),
    [  # Cheshire and Baker's rules; the same table stands in every description of COBS
        (b"", b"\x01"),
        (b"\x00", b"\x01\x01"),
        (b"\x00\x00", b"\x01\x01\x01"),
        (b"\x00\x11\x00", b"\x01\x02\x11\x01"),
        (b"\x11\x22\x00\x33", b"\x03\x11\x22\x02\x33"),
        (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
        (b"\x11\x00\x00\x00", b"\x02\x11\x01\x01\x01"),
        (bytes(range(1, 255)), b"\xff" + bytes(range(1, 255))),
        (bytes(range(255)), b"\x01\xff" + bytes(range(1, 255))),
        (bytes(range(1, 256)), b"\xff" + bytes(range(1, 255)) + b"\x02\xff"),
        (bytes(range(2, 256)) + b"\x00", b"\xff" + bytes(range(2, 256)) + b"\x01\x01"),
        (bytes(range(3, 256)) + b"\x00\x01", b"\xfe" + bytes(range(3, 256)) + b"\x02\x01"),
    ],
)
def test_cobs_gives_the_published_answers(plain: bytes, stuffed: bytes) -> None:
    assert cobs_encode(plain) == stuffed == cobs_reference(plain)
    assert cobs_decode(stuffed) == plain


def test_crc_is_the_published_one() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926


class Codec:
    """The C codec; its reader holds frames a little over LONGEST."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.codec_encode.restype = self._library.codec_decode.restype = ctypes.c_size_t
        number, data = ctypes.c_uint32, ctypes.c_char_p
        self._library.codec_encode.argtypes = [number, number, number, data, ctypes.c_size_t, data, ctypes.c_size_t]
        self._library.codec_decode.argtypes = [data, ctypes.c_size_t, data]
        self._library.nn_crc32.restype = number
        self._library.nn_crc32.argtypes = [number, data, ctypes.c_size_t]
        self._out = ctypes.create_string_buffer(2 * LONGEST)

    def encode(self, frame: Frame, room: int = 2 * LONGEST) -> bytes:
        numbers = frame.type, frame.sequence, frame.session
        size = self._library.codec_encode(*numbers, frame.payload, len(frame.payload), self._out, room)
        return self._out[:size]

    def mark(self, position: int) -> None:
        """Remembers that nothing from here on may be written."""
        self._out[position : 2 * LONGEST] = b"\xee" * (2 * LONGEST - position)

    def marked(self, position: int) -> bool:
        return self._out[position : 2 * LONGEST] == b"\xee" * (2 * LONGEST - position)

    def decode(self, wire: bytes) -> bytes:
        size = self._library.codec_decode(wire, len(wire), self._out)
        assert size <= 2 * LONGEST, "several frames"
        return self._out[:size]

    def crc32(self, data: bytes, start: int = 0) -> int:
        return int(self._library.nn_crc32(start, data, len(data)))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    folder = tmp_path_factory.mktemp("codec")
    flags = ["-O2", "-shared", "-fPIC", "-DNN_FRAME_MAX=4200", *TRAP]
    compile_c(folder / "codec.so", [RUNTIME / "frame.c", DEVICE / "codec.c"], *flags)
    return Codec(folder / "codec.so")


def body_of(frame: Frame) -> bytes:
    """The frame before COBS, put together by hand."""
    numbers = frame.sequence.to_bytes(4, "little") + frame.session.to_bytes(4, "little")
    content = bytes([frame.type]) + numbers + frame.payload
    return content + zlib.crc32(content).to_bytes(4, "little")


def check_both(codec: Codec, frame: Frame) -> None:
    body = body_of(frame)
    wire = encode(frame)
    assert codec.encode(frame) == wire
    assert wire[0] == wire[-1] == 0 and 0 not in wire[1:-1]
    assert len(wire) <= wire_size(len(body))
    assert codec.decode(wire) == body
    if len(body) <= FRAME_MAX:
        assert decode(wire[1:-1]) == frame
    else:
        assert cobs_decode(wire[1:-1]) == body and decode(wire[1:-1]) is None


PATTERNS = {
    "zeros": lambda n: bytes(n),
    "no zero": lambda n: bytes(1 + i % 255 for i in range(n)),
    "zeros now and then": lambda n: bytes(0 if i % 97 == 41 else 0xA5 for i in range(n)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_length_python_equals_c(codec: Codec, pattern: str) -> None:
    longest = PATTERNS[pattern](LONGEST)
    for size in range(LONGEST + 1):
        check_both(codec, Frame(size % 256, size * 7919, 2**32 - 1 - size, longest[:size]))


def test_random_frames_python_equals_c(codec: Codec) -> None:
    random_frames(codec, RANDOM_FRAMES, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_frames_python_equals_c(codec: Codec) -> None:
    random_frames(codec, 1_000_000, seed=2)


def random_frames(codec: Codec, count: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        payload = rng.randbytes(rng.randrange(40) if rng.random() < 0.95 else rng.randrange(900))
        if rng.random() < 0.3:
            payload = payload.replace(bytes([payload[0]]), b"\0") if payload else payload
        check_both(codec, Frame(rng.randrange(256), rng.getrandbits(32), rng.getrandbits(32), payload))


def test_cobs_equals_its_definition_around_block_ends() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        runs = [rng.choice((0, 1, 2, 252, 253, 254, 255, 508, 509)) for _ in range(rng.randrange(4))]
        data = b"\0".join(b"\x07" * run for run in runs)
        assert cobs_encode(data) == cobs_reference(data), runs
        assert cobs_decode(cobs_encode(data)) == data


def test_c_crc_table_on_all_bytes_and_in_pieces(codec: Codec) -> None:
    rng = random.Random(4)
    data = rng.randbytes(256)
    assert codec.crc32(b"123456789") == 0xCBF43926
    assert codec.crc32(data) == zlib.crc32(data)
    for byte in range(256):  # every entry of the table, low and high nibble, alone
        assert codec.crc32(bytes([byte])) == zlib.crc32(bytes([byte]))
    for cut in range(257):
        assert codec.crc32(data[cut:], codec.crc32(data[:cut])) == zlib.crc32(data)


def test_c_writer_never_overruns_its_buffer(codec: Codec) -> None:
    frame = Frame(3, 1, 2, bytes(100) + b"\x01" * 300)
    wire = encode(frame)
    for room in range(len(wire)):
        codec.mark(room)
        assert codec.encode(frame, room) == b"" and codec.marked(room)
    assert codec.encode(frame, len(wire)) == wire


# ---- What is refused -----------------------------------------------------------------------------------------------


def test_a_run_of_zeros_is_no_frame(codec: Codec) -> None:
    assert zlib.crc32(b"") == 0  # so four zeros would be an empty frame with a right check sum
    for size in range(FRAME_MIN):
        content = bytes(size)
        block = (
            cobs_encode(content + zlib.crc32(content).to_bytes(4, "little")) if size < FRAME_MIN - 4 else cobs_encode(content)
        )
        assert decode(block) is None
        assert codec.decode(b"\0" + block + b"\0") == b""
    reader = FrameReader()
    assert reader.feed(bytes(100_000)) == [] and reader.damaged == 0


def test_why_no_type_is_zero(codec: Codec) -> None:
    """A frame's CRC-32 leaves the register as four zeros at the start do: a frame that began with four zeros and lost
    them together with its delimiter would join the frame before it into one that is accepted."""
    first, second = body_of(Frame(3, 1, 2, b"first")), body_of(Frame(0, 0, 7, b"second"))
    joined = cobs_encode(first + second[4:])
    assert decode(joined) is not None and codec.decode(b"\0" + joined + b"\0")
    second = body_of(Frame(1, 0, 7, b"second"))
    for lost in range(len(second)):
        joined = cobs_encode(first + second[lost:])
        assert decode(joined) is None and codec.decode(b"\0" + joined + b"\0") == b""


def test_every_single_bit_of_a_frame_is_guarded(codec: Codec) -> None:
    frame = Frame(3, 5, 0x01020304, b"\x00\x10\x20\x00" * 8)
    wire = encode(frame)
    for position in range(1, len(wire) - 1):
        for bit in range(8):
            broken = bytearray(wire)
            broken[position] ^= 1 << bit
            assert FrameReader().feed(bytes(broken)) == []
            assert codec.decode(bytes(broken)) == b""


def test_truncated_blocks_are_refused(codec: Codec) -> None:
    wire = encode(Frame(1, 2, 3, bytes(range(64))))
    for end in range(1, len(wire) - 1):
        assert FrameReader().feed(wire[:end] + b"\0") == []
        assert codec.decode(wire[:end] + b"\0") == b""
    assert cobs_decode(b"\x05\x01") is None
    assert cobs_decode(b"") == b""


def test_longest_frame_and_one_byte_more() -> None:
    longest = Frame(2, 1, 1, bytes(FRAME_MAX - FRAME_MIN))
    assert FrameReader().feed(encode(longest)) == [longest]
    reader = FrameReader()
    assert reader.feed(encode(Frame(2, 1, 1, longest.payload + b"\0"))) == []
    assert reader.damaged == 1


def test_a_whole_frame_with_bytes_behind_it_is_refused(codec: Codec) -> None:
    """Its first bytes, as many as the reader can hold, are a frame with a right CRC-32; the rest must not be ignored."""
    for room, size in ((4200, 4200), (4200, 300), (FRAME_MAX, FRAME_MAX), (FRAME_MAX, 300)):
        body = body_of(Frame(3, 1, 2, b"\x05" * (size - FRAME_MIN)))
        whole, longer = (b"\0" + cobs_encode(body + extra) + b"\0" for extra in (b"", b"x"))
        if room == FRAME_MAX:
            assert len(FrameReader().feed(whole)) == 1 and FrameReader().feed(longer) == []
        else:
            assert codec.decode(whole) == body and codec.decode(longer) == b""


# ---- The receiver ----------------------------------------------------------------------------------------------------


def test_reader_takes_bytes_in_any_pieces() -> None:
    rng = random.Random(5)
    frames = [Frame(rng.randrange(256), n, 9, rng.randbytes(rng.randrange(600))) for n in range(40)]
    wire = b"".join(map(encode, frames))
    for step in (1, 2, 3, 7, 64, 1000, len(wire)):
        reader = FrameReader()
        found = [f for i in range(0, len(wire), step) for f in reader.feed(wire[i : i + step])]
        assert found == frames and reader.damaged == 0 and reader.received == len(wire)


def test_reader_finds_frames_in_garbage_and_keeps_a_sample() -> None:
    frame = Frame(1, 2, 3, b"payload")
    reader = FrameReader()
    assert reader.feed(b"boot: v1.2\r\n" + encode(frame) + b"more text" + encode(frame)) == [frame, frame]
    assert reader.damaged == 2
    assert reader.junk.startswith(b"boot: v1.2\r\nmore text")
    reader.feed(b"unfinished")
    assert reader.unfinished() == b"unfinished"


def test_frames_may_share_a_delimiter() -> None:
    frame = Frame(1, 2, 3, b"x")
    wire = encode(frame)
    assert FrameReader().feed(wire + wire[1:] + wire[1:]) == [frame] * 3


@pytest.mark.parametrize("chunk", [1, 100, 4096, 1 << 20])
@pytest.mark.parametrize("junk", [b"\xff", b"A", b"\x01\x00", b"\x00", b"printf noise\r\n"])
def test_reader_memory_is_bounded(chunk: int, junk: bytes) -> None:
    total = 1 << (20 if chunk > 1 and junk[-1:] != b"\0" else 17)
    piece = (junk * (chunk // len(junk) + 1))[:chunk]
    reader = FrameReader()
    reader.feed(piece)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(max(total // chunk, 1)):
        assert reader.feed(piece) == []
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert growth < 50_000
    assert len(reader.junk) <= 32 and len(reader.unfinished()) <= 32
    frame = Frame(1, 2, 3, b"after all that")
    assert reader.feed(encode(frame)) == [frame]


# ---- Fuzzing under the sanitizers --------------------------------------------------------------------------------------


def run_program(program: Path, *arguments: str) -> dict[str, int]:
    """Runs a fuzz program; its figures by name."""
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", done.stdout)}


@pytest.fixture(scope="module")
def fuzz_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(
        tmp_path_factory.mktemp("fuzz") / "fuzz_reader", [RUNTIME / "frame.c", DEVICE / "fuzz_reader.c"], *sanitizers()
    )


@pytest.fixture(scope="module")
def fuzz_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(
        tmp_path_factory.mktemp("fuzz") / "fuzz_server",
        [*LINK_SOURCES, DEVICE / "fuzz_server.c", DEVICE / "fake_network.c"],
        *sanitizers(),
    )


def test_a_million_damaged_frames(fuzz_reader: Path) -> None:
    figures = run_program(fuzz_reader, "1000000", "12345")
    assert figures["wrong"] == 0
    assert figures["accepted"] > 300_000 and figures["damaged"] > 300_000  # both happened, or nothing was shown


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_million_damaged_frames(fuzz_reader: Path, seed: int) -> None:
    assert run_program(fuzz_reader, "10000000", str(seed))["wrong"] == 0


def test_hostile_requests(fuzz_server: Path) -> None:
    figures = run_program(fuzz_server, "200000", "99")
    assert figures["broken"] == figures["overwritten"] == 0
    assert figures["answered"] > 100_000 and figures["runs"] > 1000 and figures["refused"] > 10_000
    assert figures["checked"] > 500


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_hostile_requests(fuzz_server: Path, seed: int) -> None:
    run_program(fuzz_server, "10000000", str(seed))


# ---- Both ends name things alike -----------------------------------------------------------------------------------------


def c_enum(header: str, name: str) -> dict[str, int]:
    text = re.sub(r"/\*.*?\*/", "", (RUNTIME / header).read_text(), flags=re.DOTALL)
    members = re.search(r"typedef enum \{([^}]*)\} " + name + ";", text)
    assert members, name
    return {key: int(value, 0) for key, value in re.findall(r"(\w+) = (\w+)", members[1])}


def test_types_and_error_codes_are_those_of_the_header() -> None:
    types = {f"NN_{kind.name}": int(kind) for kind in FrameType} | {"NN_ANSWER": ANSWER}
    assert c_enum("server.h", "nn_frame_type") == types and 0 not in types.values()
    assert c_enum("server.h", "nn_link_error") == {f"NN_LINK_{code.name}": int(code) for code in ErrorCode}
    assert f"#define NN_PROTOCOL_VERSION {PROTOCOL_VERSION}u" in (RUNTIME / "server.h").read_text()
