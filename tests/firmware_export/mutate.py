"""Mutated model files, and a process that reads them under a memory and a time limit.

Run as a program it reads file names from standard input and prints one line for each: what came of it.
"""

from __future__ import annotations

import random
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MEMORY_LIMIT = 1 << 30
TIME_LIMIT_S = 5
"""Of CPU time, so that a busy machine does not make a file look slow."""
INTERESTING = (0, 1, -1, 2, 4, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, -0x80000000, -0x7FFFFFFF, 100_000)


def mutated(data: bytes, seed: int) -> bytes:
    """One to eight random changes: bits, bytes, interesting integers, blocks moved, repeated, cut out, or the end cut off."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if changed:
            rng.choice(CHANGES)(changed, rng)
    return bytes(changed)


def _flip_bit(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_integer(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((2, 4, 4, 8))
    place = rng.randrange(len(data)) // size * size
    value = rng.choice((*INTERESTING, rng.randrange(len(data))))
    data[place : place + size] = struct.pack("<q", value)[:size]


def _add_to_integer(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data)) // 4 * 4
    if place + 4 <= len(data):
        value = struct.unpack_from("<I", data, place)[0] + rng.choice((-8, -4, -1, 1, 4, 8, 64))
        struct.pack_into("<I", data, place, value & 0xFFFFFFFF)


def _copy_block(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 4, 8, 16, 64))
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    block = data[source : source + size]
    data[target : target + len(block)] = block


def _repeat_block(data: bytearray, rng: random.Random) -> None:
    place, size = rng.randrange(len(data)), rng.choice((1, 2, 16, 256))
    data[place:place] = data[place : place + size] * rng.choice((1, 2, 30))


def _cut_block(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.choice((1, 2, 4, 64, 1024))]


def _cut_end(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _float_poison(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data)) // 4 * 4
    value = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 1e-45, 3e38))
    data[place : place + 4] = struct.pack("<f", value)


CHANGES = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_integer,
    _set_integer,
    _add_to_integer,
    _copy_block,
    _repeat_block,
    _cut_block,
    _cut_end,
    _float_poison,
)


def verdicts(files: Sequence[Path], timeout: float, exact: bool = False) -> dict[str, str]:
    """Reads every file in a process of its own kind; file name -> "graph", "refused: ...", or what went wrong.

    exact: what is accepted must also answer as TFLite Micro answers the twin.
    """
    command = [sys.executable, __file__, *(["exact"] if exact else [])]
    result = subprocess.run(command, input="\n".join(map(str, files)), capture_output=True, text=True, timeout=timeout)
    lines = dict(line.split("\t", 1) for line in result.stdout.splitlines() if "\t" in line)
    for path in files:
        lines.setdefault(path.name, f"the process ended with {result.returncode}: {result.stderr[-2000:]}")
    return lines


class TooSlow(Exception):
    """The alarm rang."""


def _alarm(*_: object) -> None:
    raise TooSlow


def _read(path: Path, exact: bool) -> str:
    """Reads and prepares a model as the export does, up to the memory plan and the twin, or the known answers."""
    from firmware_export.graph import GraphError
    from firmware_export.model_file import read_model
    from firmware_export.passes import simplify
    from firmware_export.plan import plan
    from firmware_export.write_tflite import write_tflite

    signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT_S)
    try:
        graph = simplify(read_model(path))
        plan(graph)
        twin = write_tflite(graph)
        if exact:
            from firmware_export.selftest import known_answers, verify

            verify(graph, known_answers(graph, twin, 2))
        return "graph"
    except GraphError as error:
        return f"refused: {error}"
    except TooSlow:
        return "too slow"
    except BaseException as error:
        import traceback

        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})".encode("unicode_escape").decode()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _paths() -> Iterator[Path]:
    for line in sys.stdin:
        yield Path(line.rstrip("\n"))


def main() -> None:
    """Reads the files named on standard input."""
    import importlib

    for module in ("onnx_graph", "read_tflite", "passes", "plan", "write_tflite"):
        importlib.import_module(f"firmware_export.{module}")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    signal.signal(signal.SIGPROF, _alarm)
    for path in _paths():
        started = time.process_time()
        verdict = _read(path, "exact" in sys.argv)
        if time.process_time() - started > TIME_LIMIT_S:
            verdict = "too slow"
        print(f"{path.name}\t{verdict}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
