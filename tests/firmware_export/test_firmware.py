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
    export_model(file, folder / "export", FirmwareExportSection())
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
