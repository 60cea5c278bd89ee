"""Known answers: the generator's sequence, TFLite Micro as their source, and the C self-test compiled and made to fail."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build, small_net
from oracles import tflite_micro

from firmware_export.emit import emit, runtime_sources
from firmware_export.graph import Graph, GraphError
from firmware_export.plan import plan
from firmware_export.selftest import (
    DEFAULT_SEED,
    KnownAnswers,
    MismatchError,
    known_answers,
    random_inputs,
    selftest_source,
    verify,
    xorshift32,
)
from firmware_export.toolchain import host_toolchain
from firmware_export.write_tflite import TfliteWriter, write_tflite

RUNTIME = Path(__file__).resolve().parents[2] / "firmware_export" / "runtime"
NN_OK, NN_ERROR_NULL, NN_ERROR_ALIGNMENT, NN_ERROR_SELFTEST = range(4)


def test_the_generator_gives_the_published_sequence() -> None:
    """Marsaglia's paper gives the seed 2463534242 and 723471715 as the first number."""
    states = xorshift32(2463534242)
    assert [next(states) for _ in range(3)] == [723471715, 2497366906, 2064144800]


def test_the_generator_stays_in_32_bits_and_does_not_repeat_soon() -> None:
    states = xorshift32(DEFAULT_SEED)
    seen = [next(states) for _ in range(10_000)]
    assert all(0 < state < 2**32 for state in seen) and len(set(seen)) == 10_000


def two_inputs() -> Graph:
    build = Build(2)
    a, b = build.activation((1, 3, 3, 2), name="a"), build.activation((1, 3, 3, 2), 0.04, 3, name="b")
    y = build.node("add", (a, b), build.activation((1, 3, 3, 2), 0.08, -4), clamp=(-128, 127))
    return build.graph((a, b), (y, build.conv(y, 2)))


def test_inputs_are_the_top_bytes_of_the_sequence_vector_after_vector() -> None:
    graph = two_inputs()
    vectors = random_inputs(graph, 3, seed=99)
    states = xorshift32(99)
    expected = bytes(next(states) >> 24 for _ in range(3 * 2 * 18))
    assert b"".join(value.tobytes() for vector in vectors for value in vector) == expected
    assert all(value.dtype == np.int8 and value.shape == (1, 3, 3, 2) for vector in vectors for value in vector)


def test_answers_come_from_tflite_micro() -> None:
    graph = two_inputs()
    twin = write_tflite(graph)
    answers = known_answers(graph, twin, 4)
    assert len(answers.inputs) == len(answers.outputs) == 4
    for inputs, outputs in zip(answers.inputs, answers.outputs, strict=True):
        wanted = tflite_micro(twin, list(inputs), 2)
        assert [value.tobytes() for value in outputs] == [value.tobytes() for value in wanted]
    assert answers.outputs[0][0].tobytes() != answers.outputs[1][0].tobytes()


def test_the_same_twin_gives_the_same_answers() -> None:
    graph = small_net()
    one, other = (known_answers(graph, write_tflite(graph), 2) for _ in range(2))
    assert [v[0].tobytes() for v in one.outputs] == [v[0].tobytes() for v in other.outputs]
    assert one.seed == other.seed == DEFAULT_SEED


def test_a_twin_that_tflite_micro_refuses() -> None:
    """It has no RELU_N1_TO_1 that stands alone."""
    build = Build()
    x = build.activation((1, 4), 0.05, 0, "x")
    graph = build.graph(x, build.relu(x, (-20, 20)))
    writer = TfliteWriter(graph)
    writer.add("RELU_N1_TO_1", (0,), (1,), None, 1)
    with pytest.raises(GraphError, match=r"TFLite Micro refuses the \.tflite twin"):
        known_answers(graph, writer.finish(), 1)


def changed(answers: KnownAnswers) -> KnownAnswers:
    """One value of the last vector off by one."""
    last = answers.outputs[-1][0].copy()
    last.reshape(-1)[-1] ^= 1
    return replace(answers, outputs=(*answers.outputs[:-1], (last,)))


def test_verify_compares_every_byte() -> None:
    graph = small_net()
    answers = known_answers(graph, write_tflite(graph), 3)
    verify(graph, answers)
    with pytest.raises(MismatchError, match="known answer 2: 1 of 4 values of output 0 differ") as caught:
        verify(graph, changed(answers))
    assert caught.value.exit_code == 10


# The generated C


def compiled(graph: Graph, answers: KnownAnswers, folder: Path, name: str = "net") -> ctypes.CDLL:
    """All generated C of a graph and the runtime, as a shared library, with the firmware's warnings."""
    layout = plan(graph)
    files = emit(graph, layout, name) | {f"{name}_selftest.c": selftest_source(graph, layout, name, answers)}
    for file, text in files.items():
        (folder / file).write_text(text)
    toolchain = host_toolchain()
    sources = [*map(str, folder.glob("*.c")), *(str(RUNTIME / source) for source in runtime_sources(plan(graph)))]
    flags = toolchain.compile_flags("host", "none", "1")
    library = folder / "lib.so"
    command = [*toolchain.command, *flags, "-fPIC", "-shared", f"-I{folder}", f"-I{RUNTIME}", *sources, "-o", str(library)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return ctypes.CDLL(str(library))


def run_selftest(library: ctypes.CDLL, size: int, name: str = "net", shift: int = 0) -> int:
    """Calls the self-test with a buffer that starts `shift` bytes behind a multiple of 16."""
    memory = (ctypes.c_uint8 * (size + 64))()
    start = -(-ctypes.addressof(memory) // 16) * 16 + shift
    function = getattr(library, f"{name}_selftest")
    function.argtypes = [ctypes.c_void_p]
    return int(function(start))


def test_the_compiled_selftest_passes_and_checks_its_pointer(tmp_path: Path) -> None:
    graph = two_inputs()
    library = compiled(graph, known_answers(graph, write_tflite(graph), 3), tmp_path)
    size = plan(graph).size
    assert run_selftest(library, size) == NN_OK
    assert run_selftest(library, size) == NN_OK, "and again on the same buffer"
    assert run_selftest(library, size, shift=1) == NN_ERROR_ALIGNMENT
    library.net_selftest.argtypes = [ctypes.c_void_p]
    assert library.net_selftest(None) == NN_ERROR_NULL


def test_the_compiled_selftest_sees_one_wrong_byte(tmp_path: Path) -> None:
    graph = small_net()
    library = compiled(graph, changed(known_answers(graph, write_tflite(graph), 2)), tmp_path, "other")
    assert run_selftest(library, plan(graph).size, "other") == NN_ERROR_SELFTEST


def test_the_compiled_selftest_sees_a_changed_weight(tmp_path: Path) -> None:
    graph = small_net()
    answers = known_answers(graph, write_tflite(graph), 2)
    index = graph.nodes[-1].inputs[1]
    data = graph.tensors[index].data
    assert data is not None
    graph.tensors[index] = replace(graph.tensors[index], data=np.where(data == data, -data, data).astype(np.int8))
    library = compiled(graph, answers, tmp_path)
    assert run_selftest(library, plan(graph).size) == NN_ERROR_SELFTEST


def test_the_source_is_short_lines_and_always_the_same() -> None:
    graph = small_net()
    answers = known_answers(graph, write_tflite(graph), 2)
    one, other = (selftest_source(graph, plan(graph), "net", answers) for _ in range(2))
    assert one == other and max(map(len, one.splitlines())) <= 128
    assert f"0x{DEFAULT_SEED:08X}u" in one
