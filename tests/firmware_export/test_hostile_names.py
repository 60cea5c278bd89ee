"""A thousand hostile names of tensors and every awkward name of a network: the generated C has the expected symbols only."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from elftools.elf.elffile import ELFFile
from graph_builder import Build, inputs_of, small_net
from onnx import ModelProto
from qdq_builder import Qdq

from firmware_export.__main__ import main
from firmware_export.board import load_board
from firmware_export.emit import emit
from firmware_export.graph import Graph, GraphError
from firmware_export.hostlib import RUNTIME, HostNetwork, compile_host
from firmware_export.image import build_image, toolchain_for
from firmware_export.plan import plan
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.reserved_names import FOLDERS, STANDARD_HEADERS, reserved_names
from firmware_export.simulate import simulate
from firmware_export.toolchain import Toolchain, host_toolchain
from firmware_export.write_tflite import write_tflite

COUNT = 1000
KEYWORDS = [
    "auto",
    "break",
    "case",
    "char",
    "const",
    "continue",
    "default",
    "do",
    "double",
    "else",
    "enum",
    "extern",
    "float",
    "for",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "register",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "typedef",
    "union",
    "unsigned",
    "void",
    "volatile",
    "while",
    "_Bool",
    "_Complex",
    "asm",
    "typeof",
    "class",
    "new",
    "this",
    "template",
    "namespace",
    "NULL",
    "main",
    "memcpy",
    "uint8_t",
    "NN_OK",
    "nn_network",
]
PIECES = (
    "*/", "/*", "//", "\n", "\r\n", "\t", "\\", "\\\n", '"', "'", "??/", "??<", "??)", "%:", "<:", "#", "##", "#define x y",
    "{", "}", "(", ")", ";", ",", "@", "$", "`", "%s", "%n", "{0}", "{weights}", "\x00", "\x1b[31m", "\x7f", "\u202e", "\u2028",
    "é", "名", "🙂", "_", ".", ":", "-", "+", " ", "0", "a", "Z", "int injected;", "void injected(void) {}",
    "__attribute__((constructor))",
)  # fmt: skip
COLLIDING = (
    "network",
    "network_run",
    "network_data",
    "network_0_params",
    "network_1_weights",
    "NETWORK_INPUT_0_SIZE",
    "a",
    "x",
)
EXPECTED = {"network.c": {"network_network", "network_run", "network_trace"}}


def hostile_names(count: int = COUNT) -> list[str]:
    """Keywords, names of what is generated, the same name again and again, and random joins of PIECES, some very long."""
    rng = np.random.default_rng(7)
    fixed = [*KEYWORDS, *COLLIDING, *COLLIDING, "", " ", "*" * 300 + "/", "\\" * 100, "n" * 5000]
    sizes = rng.integers(1, 9, count - len(fixed))
    joined = ["".join(PIECES[place] for place in rng.integers(0, len(PIECES), size)) for size in sizes]
    return [*fixed, *joined]


def relu_chain(names: list[str]) -> Graph:
    """One relu for each name; its output bears it. The clamps differ, so that none of them is left out."""
    build = Build()
    x = y = build.activation((1, 3), name="*/ int injected; /*")
    for place, name in enumerate(names):
        y = build.node("relu", (y,), build.activation((1, 3), name=name), clamp=(-128, 127 - place % 50))
    return build.graph(x, y)


def written(graph: Graph, folder: Path, name: str = "network") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in emit(graph, plan(graph), name, selftest=False).items():
        (folder / file).write_text(text)
    return folder


def symbols(folder: Path, source: str, toolchain: Toolchain | None = None, flags: tuple[str, ...] = ("-O0",)) -> set[str]:
    """What a compiled file defines for others."""
    output = folder / f"{source}.o"
    compile_host([folder / source], [RUNTIME, folder], output, ["-c", *flags], toolchain=toolchain)
    with output.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        return {s.name for s in table.iter_symbols() if s["st_info"]["bind"] != "STB_LOCAL" and s["st_shndx"] != "SHN_UNDEF"}


def code_of(text: str) -> str:
    """C without its comments."""
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def chain() -> Graph:
    return relu_chain(hostile_names())


@pytest.fixture(scope="module")
def folder(chain: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(chain, tmp_path_factory.mktemp("chain"))


# Names of tensors


def test_there_are_a_thousand_and_each_danger_occurs() -> None:
    names = hostile_names()
    assert len(names) == COUNT and len(set(names)) > 900
    for piece in (*PIECES, *KEYWORDS, *COLLIDING):
        assert any(piece in name for name in names), piece


def test_the_symbols_are_exactly_the_expected_ones(folder: Path) -> None:
    assert symbols(folder, "network.c") == EXPECTED["network.c"]
    assert symbols(folder, "network_data.c") == set()


def test_with_trigraphs_and_with_another_compiler_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-std=c99 of gcc reads trigraphs; clang warns of them."""
    assert symbols(folder, "network.c", flags=("-O0", "-trigraphs")) == EXPECTED["network.c"]
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    zig = host_toolchain()
    assert zig.kind == "zig"
    assert symbols(folder, "network.c", zig) == EXPECTED["network.c"]


def test_nothing_of_a_name_is_code(folder: Path, chain: Graph) -> None:
    harmless = code_of(written(relu_chain(["y"] * COUNT), folder / "harmless").joinpath("network.c").read_text())
    found = code_of((folder / "network.c").read_text())
    hashes = re.compile(r"\.hash = \{[^}]*\}")
    assert hashes.sub("", found) == hashes.sub("", harmless), "the same C but for comments"
    assert "injected" not in found


def test_comments_hold_letters_from_the_short_list_only(folder: Path) -> None:
    text = (folder / "network.c").read_text()
    assert all(character == "\n" or 32 <= ord(character) < 127 for character in text)
    for comment in re.findall(r"/\*(.*?)\*/", text, flags=re.DOTALL):
        assert "/*" not in comment and "??" not in comment and "\\" not in comment
    assert max(map(len, text.splitlines())) <= 128


def test_it_still_computes(folder: Path, chain: Graph) -> None:
    network = HostNetwork(folder, optimize="1")
    for seed in range(3):
        inputs = inputs_of(chain, seed)
        assert network.run(*inputs)[0].tobytes() == simulate(chain, *inputs)[0].tobytes()


def renamed(data: bytes, names: list[str]) -> bytes:
    """A .tflite file whose tensors, graph, description and metadata bear hostile names, byte for byte."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for tensor, name in zip(model.subgraphs[0].tensors, names, strict=False):
        tensor.name = name.encode("utf-8", "surrogateescape")
    model.subgraphs[0].name = model.description = names[0].encode()
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("start", range(0, COUNT, 125))
def test_names_that_come_from_a_tflite_file(tmp_path: Path, start: int) -> None:
    """Weights and biases bear them too."""
    data = renamed(write_tflite(small_net()), hostile_names()[start : start + 125])
    graph = read_tflite_bytes(data)
    assert all(tensor.name.isprintable() and len(tensor.name) <= 60 for tensor in graph.tensors)
    plain = written(small_net(), tmp_path / "plain")
    found = written(graph, tmp_path / "found")
    tables = {f"network_{layer}_{table}" for layer in (0, 1, 2, 4) for table in ("weights", "bias", "multipliers", "shifts")}
    assert symbols(found, "network.c") == EXPECTED["network.c"]
    assert symbols(found, "network_data.c") == symbols(plain, "network_data.c") == tables
    assert code_of((found / "network_data.c").read_text()) == code_of((plain / "network_data.c").read_text())


def onnx_with(names: list[str]) -> ModelProto:
    """A QDQ model in which every value has another name."""
    net = Qdq((1, 2, 4, 4))
    model = net.model(net.conv(net.conv(net.input(), 3), 4))
    values = [*(t.name for t in model.graph.initializer), *(o for n in model.graph.node for o in n.output), "input"]
    new = {name: f"{hostile}#{place}" for place, (name, hostile) in enumerate(zip(values, names, strict=False))}
    for tensor in model.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.name = names[0] if names else node.name
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for end in (*model.graph.input, *model.graph.output):
        end.name = new.get(end.name, end.name)
    return model


@pytest.mark.parametrize("start", range(0, COUNT, 250))
def test_names_that_come_from_an_onnx_file(tmp_path: Path, start: int) -> None:
    graph = read_onnx_bytes(onnx_with(hostile_names()[start : start + 250]).SerializeToString())
    found = written(graph, tmp_path / "found")
    assert symbols(found, "network.c") == EXPECTED["network.c"]
    assert graph.hash() == read_onnx_bytes(onnx_with([]).SerializeToString()).hash()


def test_the_reports_and_the_terminal_get_printable_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "\x1b[31mmodel.tflite"
    path.write_bytes(renamed(write_tflite(small_net()), ["\x1b[2J*/\n", *hostile_names()[:20]]))
    assert main([str(path), "--build", str(tmp_path / "b"), "--images", "1"]) == 0
    printed = capsys.readouterr().out
    assert all(character == "\n" or character.isprintable() for character in printed.replace(str(tmp_path), ""))


# Names of networks

AWKWARD = ("int", "while", "memcpy", "printf", "unix", "linux", "a", "x_data", "network_data", "z" * 31, "host", "abs")


@pytest.mark.parametrize("name", AWKWARD)
def test_networks_with_awkward_names(tmp_path: Path, name: str) -> None:
    """Identifiers always have an ending, so that keywords and functions of the C library are harmless."""
    graph = replace(small_net(), name=name)
    folder = written(graph, tmp_path, name)
    assert symbols(folder, f"{name}.c") == {f"{name}_network", f"{name}_run", f"{name}_trace"}
    inputs = inputs_of(graph)
    assert HostNetwork(folder, name, optimize="1").run(*inputs)[0].tobytes() == simulate(graph, *inputs)[0].tobytes()


@pytest.mark.parametrize("name", ["x_data", "host", "while"])
def test_firmware_of_networks_with_awkward_names(tmp_path: Path, name: str) -> None:
    board = load_board("nucleo_f446re")
    folder = written(small_net(), tmp_path / "export", name)
    assert build_image(board, folder, tmp_path / "work", toolchain_for(board)).flash_bytes > 1000


def c_files() -> list[str]:
    here = RUNTIME.parent
    return sorted({path.stem for folder in FOLDERS for path in (here / folder).glob("*.[ch]")})


@pytest.mark.parametrize(
    "name", sorted({*STANDARD_HEADERS, "network_config", "board", "board_config", "main", "stm32", "relu", "server"})
)
def test_names_of_other_files_are_refused(name: str) -> None:
    graph = small_net()
    with pytest.raises(GraphError, match=f"network name '{name}' is that of a file of .*; choose another"):
        emit(graph, plan(graph), name)


def test_every_file_that_is_compiled_beside_is_reserved() -> None:
    assert len(c_files()) > 60 and set(c_files()) <= reserved_names()
    assert "network" not in reserved_names() and "digits" not in reserved_names()


@pytest.mark.parametrize(
    "name",
    ["", "Net", "1net", "_net", "net-work", "net.work", "net work", "nn", "nn_net", "ne\nt", "é", "x" * 32, "*/", "net;"],
)
def test_names_that_are_no_identifiers_are_refused(name: str) -> None:
    graph = small_net()
    with pytest.raises(GraphError, match=r"^network name '[A-Za-z0-9_.:/-]*'; supported: ") as caught:
        emit(graph, plan(graph), name)
    assert str(caught.value).isprintable()


def test_standard_headers_of_the_compiler_are_all_reserved(tmp_path: Path) -> None:
    """The list is that of C99: each of them can be included."""
    source = tmp_path / "all.c"
    source.write_text("".join(f"#include <{name}.h>\n" for name in STANDARD_HEADERS if name != "complex"))
    compile_host([source], [], tmp_path / "all.o", ["-c"])
