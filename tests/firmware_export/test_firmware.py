"""The whole firmware with a generated network: built for every board, answering over the serial protocol, bit-exact."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import BOARDS, COMPILER, COMPILERS, compiler
from qdq_builder import dscnn, resnet
from test_instruction_sets import DSP, FLOAT, code_of, halfwords, is_v6m, mnemonics

from firmware_export.board import load_board
from firmware_export.export import export_model, load_graph
from firmware_export.graph import Graph
from firmware_export.image import FitError, ImageReport, build_image
from firmware_export.simulate import simulate
from firmware_export.target import Target
from host_tools.emulator import UnicornTransport
from host_tools.link import ExpectedModel, Link
from recipes.recipe import FirmwareExportSection

MODELS = {"resnet": resnet, "dscnn": dscnn}
_FOLDER = tempfile.TemporaryDirectory(prefix="firmware-")
BUILDS = [(board, COMPILER) for board in BOARDS] + [("nucleo_f446re", "zig"), ("nucleo_g071rb", "zig")]


@functools.cache
def exported(model: str) -> tuple[Graph, Path]:
    """A small network with random weights, and the folder of its generated C."""
    folder = Path(_FOLDER.name) / model
    folder.mkdir()
    file = folder / "model.onnx"
    file.write_bytes(MODELS[model]().SerializeToString())
    export_model(file, folder / "export", FirmwareExportSection(), Target())
    return load_graph(file, FirmwareExportSection()), folder / "export"


@functools.cache
def built(model: str, board: str, kind: str) -> ImageReport:
    work = Path(_FOLDER.name) / model / kind / board
    return build_image(load_board(board), exported(model)[1], work, compiler(kind))


def expected_model(graph: Graph) -> ExpectedModel:
    source, result = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    return ExpectedModel(graph.hash(), graph.arithmetic, source.nbytes, result.nbytes)


@pytest.mark.parametrize(("board", "kind"), dict.fromkeys(BUILDS))
@pytest.mark.parametrize("model", MODELS)
def test_answers_are_those_of_the_simulator(model: str, board: str, kind: str) -> None:
    graph, _ = exported(model)
    report = built(model, board, kind)
    rng = np.random.default_rng(3)
    shape = graph.tensors[graph.inputs[0]].shape
    images = [rng.integers(-128, 128, shape, np.int8), *(np.full(shape, v, np.int8) for v in (-128, 0, 127))]
    with Link(UnicornTransport(load_board(board), report.image), expected_model(graph)) as link:
        assert link.hello.board == board and link.hello.build_id == report.build_id
        for image in images:
            result = link.run(image.tobytes())
            assert result.outputs == b"".join(output.tobytes() for output in simulate(graph, image))
            assert result.cycles is not None and result.unit == "cycles" and result.attempts == 1
        assert 0 < result.stack_used <= report.stack_bytes // 2, "room for interrupts and for larger networks"


@pytest.mark.parametrize("kind", COMPILERS)
def test_kernels_have_only_instructions_of_the_core(kind: str) -> None:
    small = built("dscnn", "nucleo_g071rb", kind).image
    assert all(is_v6m(*pair) for _, code in code_of(small) for pair in halfwords(code))
    if ("nucleo_f103rb", kind) in BUILDS:
        found = {m for start, code in code_of(built("dscnn", "nucleo_f103rb", kind).image) for m in mnemonics(code, start)}
        assert not {m for m in found if DSP.fullmatch(m) or FLOAT.fullmatch(m)}


@pytest.mark.parametrize("kind", COMPILERS)
def test_network_image_is_reproducible(tmp_path: Path, kind: str) -> None:
    """Export and image made again, in another folder: equal bytes."""
    if ("nucleo_g071rb", kind) not in BUILDS:
        pytest.skip("built with the other compiler only")
    again = tmp_path / "export"
    export_model(exported("dscnn")[1].parent / "model.onnx", again, FirmwareExportSection(), Target())
    for file in sorted(exported("dscnn")[1].iterdir()):
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    first = built("dscnn", "nucleo_g071rb", kind)
    second = build_image(load_board("nucleo_g071rb"), again, tmp_path / "work", compiler(kind))
    for name in ("firmware.elf", "firmware.bin", "firmware.hex", "firmware.map", "image.json"):
        assert (second.image.parent / name).read_bytes() == (first.image.parent / name).read_bytes(), name


def test_board_that_resets_between_images_is_seen_and_goes_on() -> None:
    graph, _ = exported("dscnn")
    report = built("dscnn", "nucleo_f446re", COMPILER)
    transport = UnicornTransport(load_board("nucleo_f446re"), report.image)
    shape = graph.tensors[graph.inputs[0]].shape
    images = np.random.default_rng(4).integers(-128, 128, (6, *shape), np.int8)
    with Link(transport, expected_model(graph)) as link:
        for number, image in enumerate(images):
            if number in (2, 4):
                transport.reset()
            assert link.run(image.tobytes()).outputs == simulate(graph, image)[0].tobytes()
        assert link.statistics.resets == 2


@pytest.mark.parametrize(("board", "kind"), dict.fromkeys(BUILDS))
def test_board_answers_its_known_answers(board: str, kind: str) -> None:
    """The self-test in flash, whose expected bytes TFLite Micro computed."""
    graph, _ = exported("dscnn")
    with Link(UnicornTransport(load_board(board), built("dscnn", board, kind).image), expected_model(graph)) as link:
        assert link.selftest()


@pytest.mark.long
@pytest.mark.parametrize("optimize", ["s", "3"])
@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("board", BOARDS)
def test_every_board_compiler_and_level(tmp_path: Path, board: str, kind: str, optimize: str) -> None:
    graph, export = exported("resnet")
    report = build_image(load_board(board), export, tmp_path, compiler(kind), optimize)
    image = np.random.default_rng(5).integers(-128, 128, graph.tensors[graph.inputs[0]].shape, np.int8)
    with Link(UnicornTransport(load_board(board), report.image), expected_model(graph)) as link:
        assert link.run(image.tobytes()).outputs == simulate(graph, image)[0].tobytes()


def test_activations_and_weights_are_among_the_largest() -> None:
    regions = {region.name: dict(region.largest) for region in built("resnet", "nucleo_h743zi", COMPILER).regions}
    info = exported("resnet")[1] / "network_c_info.json"
    assert f'"activations_bytes": {regions["AXI_SRAM"]["activations"]}' in info.read_text()


def test_generated_network_that_does_not_fit(tmp_path: Path) -> None:
    board = load_board("nucleo_f103rb")
    memory = tuple(m.model_copy(update={"size": 4096}) if m.kind == "ram" else m for m in board.memory)
    with pytest.raises(FitError, match=r"does not fit nucleo_f103rb: SRAM needs [\d,]+ of 4,096 bytes, .* largest: \w+ [\d,]+"):
        build_image(board.model_copy(update={"memory": memory}), exported("resnet")[1], tmp_path, compiler(COMPILER))
    assert list(tmp_path.iterdir()) == []
