"""The generated C: golden files, determinism, names that cannot become code, checks at compile time and at run time."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from golden_models import GOLDEN, MODELS, generated
from graph_builder import Build, inputs_of

from firmware_export.c_text import array_definition, c_float, comment_text, packed_lines
from firmware_export.emit import emit, runtime_sources
from firmware_export.graph import Graph, GraphError, Tensor
from firmware_export.hostlib import RUNTIME, HostNetwork, compile_host, runtime_files
from firmware_export.plan import plan
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.toolchain import ToolchainError

HOSTILE = (
    "*/ void injected(void) {} /*",
    "*/\nint injected;\n/*",
    "line\nend\r\n#include <stdio.h>",
    "quote \" and ' and \\",
    "ends in a backslash \\",
    "??/",
    "??/\n*/ int injected; ??<",
    "/*",
    "//",
    "int",
    "while",
    "main",
    "w.1",
    "w_1",
    "Gerät 名前 \u202e\u2028\x00\x1b[31m",
    "%s%n{0}{weights}{name}",
    "y" * 10_000,
    "",
    " ",
    "\t",
    "network_run",
    "#define int float",
    '_Pragma("message")',
    "*" * 50 + "/",
    "/" * 50,
    "-->",
    "<!--",
    "\ufeff",
    "'); DROP TABLE layers; --",
    "\\u002a\\u002f",
)


def relu_chain(names: list[str]) -> Graph:
    """One relu for each name, which its output bears."""
    build = Build()
    x = y = build.activation((1, 3), name=names[0])
    for name in names:
        y = build.node("relu", (y,), build.activation((1, 3), name=name), clamp=(-128, 127))
    return build.graph(x, y)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def export(graph: Graph, folder: Path, name: str = "network") -> Path:
    return write(folder, emit(graph, plan(graph), name, selftest=False))


def global_symbols(folder: Path, source: str, flags: tuple[str, ...] = ()) -> set[str]:
    """What a compiled file defines for others."""
    output = folder / "symbols.o"
    compile_host([folder / source], [RUNTIME, folder], output, ["-c", *flags])
    with output.open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".symtab").iter_symbols()
        return {
            symbol.name for symbol in symbols if symbol["st_info"]["bind"] == "STB_GLOBAL" and symbol["st_shndx"] != "SHN_UNDEF"
        }


@pytest.mark.parametrize("model", MODELS)
def test_golden_files(model: str) -> None:
    """See golden_models.py for the command that writes them again."""
    files = generated(model)
    assert {path.name for path in (GOLDEN / model).iterdir()} == files.keys()
    for name, text in files.items():
        assert text == (GOLDEN / model / name).read_text(), f"{model}/{name} differs from tests/golden"


@pytest.mark.parametrize("model", MODELS)
def test_golden_files_compute(model: str) -> None:
    """The golden C itself, not fresh C, against the simulator, layer by layer."""
    graph = MODELS[model]()
    network = HostNetwork(GOLDEN / model, model)
    for seed in range(3):
        vector = inputs_of(graph, seed)
        expected = simulate_trace(graph, *vector)
        for ours, theirs in zip(expected, network.trace(*vector), strict=True):
            assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]
        found = network.run(*vector)
        assert [array.tobytes() for array in found] == [array.tobytes() for array in simulate(graph, *vector)]


def test_same_bytes_in_another_process() -> None:
    program = "from golden_models import generated; print(generated('separable'))"
    folders = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": folders, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"},
            capture_output=True, check=True, text=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.parametrize("model", MODELS)
def test_text_is_plain(model: str) -> None:
    """ASCII, no tabs, no spaces at line ends, lines short enough to read, one newline at the end."""
    for name, text in generated(model).items():
        assert text.isascii() and "\t" not in text and text.endswith("\n") and not text.endswith("\n\n"), name
        assert not re.search(r" $", text, re.MULTILINE), name
        assert max(map(len, text.splitlines())) <= 128, name
        assert "\n\n\n" not in text, name


def test_hostile_names(tmp_path: Path) -> None:
    names = list(HOSTILE)
    export(relu_chain(names), tmp_path)
    assert global_symbols(tmp_path, "network.c") == {"network_network", "network_run", "network_trace"}
    assert global_symbols(tmp_path, "network_data.c") == set()
    assert "injected(" not in re.sub(r"/\*.*?\*/", "", (tmp_path / "network.c").read_text(), flags=re.DOTALL)


def test_thousand_random_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pieces = [
        "*/",
        "/*",
        "//",
        "\n",
        "\\",
        '"',
        "'",
        "??/",
        "??<",
        "#",
        "int x;",
        "(",
        "{",
        "}",
        "é",
        "\x00",
        "a",
        "_",
        ".",
        " ",
    ]
    names = ["".join(rng.choice(pieces, rng.integers(0, 12))) for _ in range(1000)]
    export(relu_chain(names), tmp_path)
    assert global_symbols(tmp_path, "network.c", ("-O0",)) == {"network_network", "network_run", "network_trace"}


def test_data_symbols(tmp_path: Path) -> None:
    write(tmp_path, generated("perceptron"))
    tables = {f"perceptron_{layer}_{table}" for layer in (0, 1) for table in ("weights", "bias", "multipliers", "shifts")}
    assert global_symbols(tmp_path, "perceptron_data.c") == tables


def test_data_attribute_puts_weights_into_a_section(tmp_path: Path) -> None:
    write(tmp_path, generated("perceptron"))
    attribute = '-DPERCEPTRON_DATA_ATTRIBUTE=__attribute__((section(".weights")))'
    compile_host([tmp_path / "perceptron_data.c"], [RUNTIME, tmp_path], tmp_path / "data.o", ["-c", attribute])
    with (tmp_path / "data.o").open("rb") as stream:
        elf = ELFFile(stream)
        assert elf.get_section_by_name(".weights")["sh_size"] >= 12 * 9 + 9 * 5


@pytest.mark.parametrize("name", ["Network", "1net", "a-b", "net work", "", "nn", "nn_net", "x" * 40, "a\n", "naïve", "a;b"])
def test_network_names_that_are_refused(name: str) -> None:
    graph = MODELS["perceptron"]()
    with pytest.raises(GraphError, match=r"network name .*; supported: "):
        emit(graph, plan(graph), name)


def test_other_arithmetic_is_refused() -> None:
    graph = MODELS["perceptron"]()
    with pytest.raises(GraphError, match="arithmetic 'triple'; supported: double, float32"):
        emit(graph.with_arithmetic("triple"), plan(graph), "network")


def test_layer_comments() -> None:
    text = generated("residual")["residual.c"]
    assert "/* 0: conv2d 3x3 s1 same, 8x8x1 -> 8x8x4, 2,304 MACs; t3 */" in text
    assert "/* 3: add 8x8x4; sum */" in text
    assert "/* 4: mean axes 1,2, 8x8x4 -> 4; pooled */" in text
    assert len(re.findall(r"^    /\* \d+: ", text, re.MULTILINE)) == 6


def test_macros_tell_the_plan() -> None:
    graph = MODELS["two_ends"]()
    layout = plan(graph)
    header = generated("two_ends")["two_ends.h"]
    macros = {key: int(value) for key, value in re.findall(r"#define TWO_ENDS_(\w+) (\d+)u", header)}
    assert macros["ACTIVATIONS_SIZE"] == layout.size and macros["LAYER_COUNT"] == 3
    assert macros["INPUT_COUNT"] == macros["OUTPUT_COUNT"] == 2
    for word, indexes in (("INPUT", graph.inputs), ("OUTPUT", graph.outputs)):
        for place, index in enumerate(indexes):
            assert macros[f"{word}_{place}_OFFSET"] == layout.offsets[index]
            assert macros[f"{word}_{place}_SIZE"] == graph.tensors[index].nbytes


def test_network_config() -> None:
    graph = MODELS["perceptron"]()
    assert "NETWORK_ACTIVATIONS_SIZE" not in emit(graph, plan(graph), "network")["network_config.h"]
    other = emit(graph, plan(graph), "keywords")["network_config.h"]
    assert '#include "keywords.h"' in other and "#define NETWORK keywords_network" in other
    assert "#define NETWORK_ACTIVATIONS_SIZE KEYWORDS_ACTIVATIONS_SIZE" in other


@pytest.mark.parametrize("name", ["network", "keywords"])
def test_config_gives_main_what_it_needs(tmp_path: Path, name: str) -> None:
    graph = MODELS["perceptron"]()
    export(graph, tmp_path, name)
    (tmp_path / "main.c").write_text(
        '#include "network_config.h"\nextern const nn_network *chosen;\nconst nn_network *chosen = &NETWORK;\n'
        "extern unsigned char buffer[];\nunsigned char buffer[NETWORK_ACTIVATIONS_SIZE];\n"
    )
    assert global_symbols(tmp_path, "main.c") == {"chosen", "buffer"}


def test_selftest_is_declared_when_there_is_one(tmp_path: Path) -> None:
    graph = MODELS["perceptron"]()
    files = emit(graph, plan(graph), "network")
    assert "nn_status network_selftest(void *activations);" in files["network.h"]
    assert ".selftest = network_selftest," in files["network.c"]
    write(tmp_path, files)
    (tmp_path / "network_selftest.c").write_text(
        '#include "network.h"\nnn_status network_selftest(void *a) { return a == 0 ? NN_ERROR_NULL : NN_ERROR_SELFTEST; }\n'
    )
    assert HostNetwork(tmp_path).selftest() is False


def test_another_runtime_version_does_not_compile(tmp_path: Path) -> None:
    write(tmp_path, generated("perceptron"))
    header = (RUNTIME / "nn.h").read_text()
    (tmp_path / "nn.h").write_text(header.replace("#define NN_RUNTIME_VERSION 1", "#define NN_RUNTIME_VERSION 2"))
    with pytest.raises(ToolchainError, match="generated for runtime version 1"):
        compile_host([tmp_path / "perceptron.c"], [tmp_path, RUNTIME], tmp_path / "x.o", ["-c"])


def test_null_and_alignment_are_checked(tmp_path: Path) -> None:
    write(tmp_path, generated("perceptron"))
    sources = [tmp_path / "perceptron.c", tmp_path / "perceptron_data.c"]
    compile_host([*sources, *runtime_files(sources)], [RUNTIME, tmp_path], tmp_path / "p.so", ["-shared", "-fPIC"])
    library = ctypes.CDLL(str(tmp_path / "p.so"))
    buffer = ctypes.create_string_buffer(4096)
    aligned = -(-ctypes.addressof(buffer) // 16) * 16
    assert library.perceptron_run(None) == 1 and library.perceptron_trace(None, None, None) == 1
    assert [library.perceptron_run(ctypes.c_void_p(aligned + step)) for step in (1, 2, 4, 8)] == [2, 2, 2, 2]
    assert library.perceptron_run(ctypes.c_void_p(aligned)) == 0


def test_header_is_usable_from_cpp(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    write(tmp_path, generated("perceptron"))
    (tmp_path / "use.cpp").write_text('#include "perceptron.h"\nint main() { return perceptron_run(nullptr) == NN_OK; }\n')
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-std=c++11", f"-I{RUNTIME}", "-c", "use.cpp", "-o", "use.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with (tmp_path / "use.o").open("rb") as stream:
        names = {symbol.name for symbol in ELFFile(stream).get_section_by_name(".symtab").iter_symbols()}
    assert "perceptron_run" in names, "the C name, not a C++ one"


@pytest.mark.parametrize("model", MODELS)
def test_runtime_sources(model: str, tmp_path: Path) -> None:
    """What emit says is what the includes say."""
    write(tmp_path, generated(model))
    files = runtime_files([tmp_path / f"{model}.c", tmp_path / f"{model}_data.c"])
    assert [path.name for path in files] == runtime_sources(plan(MODELS[model]()))


def test_comment_text() -> None:
    assert comment_text("a/b_c.d:e-f1") == "a/b_c.d:e-f1"
    assert comment_text('a*/b\n\\??/"é') == "a_/b____/__"
    assert len(comment_text("x" * 10_000)) == 60
    for name in HOSTILE:
        text = comment_text(name)
        assert text.isascii() and not set(text) & set("*?\\\n\"'{}();#")


def test_float_literals_read_back() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([np.exp2(rng.uniform(-120, 120, 500)), [0, 1, 2, 1 / 255, 1e-30, 123456789]]).astype(np.float32)
    for value in values:
        text = c_float(float(value))
        assert re.fullmatch(r"[-0-9.e+]+f", text) and any(mark in text for mark in ".e")
        assert np.float32(text[:-1]) == value


def test_arrays() -> None:
    text = array_definition(np.array([[1, -2], [3, 4]], np.int8), "x", "ATTRIBUTE")
    assert text == "const int8_t x[4] ATTRIBUTE = {\n    1, -2, 3, 4,\n};"
    assert array_definition(np.zeros(3, np.int32), "y", declare=True) == "const int32_t y[3];"
    assert "0.5f, 1.0f," in array_definition(np.array([0.5, 1], np.float32), "z")


def test_packed_lines() -> None:
    lines = list(packed_lines(["12345678"] * 40))
    assert max(map(len, lines)) <= 122 and "".join(lines).replace(" ", "") == "12345678," * 40
    assert list(packed_lines([])) == []


def test_tensor_without_quantization_has_scale_zero() -> None:
    graph = MODELS["perceptron"]()
    bare = replace(graph.tensors[graph.inputs[0]], quantization=None)
    graph.tensors.append(Tensor("unused", (1,), "int8"))
    from firmware_export.emit import _tensor_fields

    assert _tensor_fields(bare, 16) == "16u, 12u, 0.0f, 0, NN_INT8, 2, {1, 12}"
