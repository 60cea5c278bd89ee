"""What the report gathers: lives of tensors worked out by hand, memory parts that add up, a page written again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_recipe import FIGURES, change_manifest, copy_recipe

import host_tools.report
from firmware_export.board import load_board
from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.plan import plan
from firmware_export.report import network_info
from host_tools.__main__ import main
from host_tools.report import accuracy_steps, layer_rows, memory_uses, planned_tensors
from host_tools.report_pictures import MemoryUse, PlannedTensor
from host_tools.results import read_results
from recipes.artifacts import ArtifactError, BuildLock, read_manifest


def layer(
    index: int, operator: str, inputs: list[int], outputs: list[int], size: int, scratch: int = 0, at: int = 0
) -> dict[str, Any]:
    return {
        "index": index,
        "operator": operator,
        "summary": f"{operator} {index}",
        "input_offsets": inputs,
        "output_shapes": [[1, size]] * len(outputs),
        "output_offsets": outputs,
        "output_bytes": size * len(outputs),
        "macs": 10 * index,
        "weights_bytes": index,
        "scratch_bytes": scratch,
        "scratch_offset": at if scratch else None,
    }


def info() -> dict[str, Any]:
    """input -> conv -> conv -> add of both -> reshape."""
    return {
        "inputs": [{"offset": 0, "size": 64}],
        "outputs": [{"offset": 0, "size": 32}],
        "constants_bytes": 900,
        "blocks": [
            {"name": "input 0", "offset": 0, "size": 64, "first": 0, "last": 0, "over": []},
            {"name": "0: conv2d", "offset": 64, "size": 128, "first": 0, "last": 2, "over": []},
            {"name": "2: add", "offset": 64, "size": 32, "first": 2, "last": 3, "over": [1]},
        ],
        "layers": [
            layer(0, "conv2d", [0], [64], 128, scratch=16, at=192),
            layer(1, "conv2d", [64], [192], 128),
            layer(2, "add", [64, 192], [0], 32),
            layer(3, "reshape", [0], [0], 32),
        ],
    }


def test_blocks_become_boxes() -> None:
    assert planned_tensors(info()) == (
        PlannedTensor("input 0", 0, 64, 0, 0),
        PlannedTensor("0: conv2d", 64, 128, 0, 2),
        PlannedTensor("2: add", 64, 32, 2, 3, ("0: conv2d",)),
    )


def chain(rng: np.random.Generator, layers: int) -> Graph:
    """Additions of earlier tensors chosen at random, so that lives are long and cross each other; a reshape at the end."""
    quantization = Quantization.per_tensor(0.1, 0)
    tensors, nodes = [Tensor("x", (1, 4, 4, 3), "int8", quantization)], []
    for index in range(layers):
        earlier = [int(i) for i in rng.integers(max(0, index - 4), index + 1, 2)]
        tensors.append(Tensor(f"t{index}", (1, 4, 4, 3), "int8", quantization))
        nodes.append(Node("add", (earlier[0], earlier[1]), (index + 1,), {"clamp": (-128, 127)}))
    tensors.append(Tensor("flat", (1, 48), "int8", quantization))
    nodes.append(Node("reshape", (layers,), (layers + 1,), {"shape": (1, 48)}))
    return Graph(tensors, nodes, (0,), (layers + 1,))


def used_later(graph: Graph, tensor: int, after: int) -> bool:
    return any(tensor in node.inputs for node in graph.nodes[after:])


@pytest.mark.parametrize("seed", range(20))
def test_real_plans_are_drawn_as_they_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = chain(rng, int(rng.integers(2, 14)))
    layout = plan(graph)
    boxes = planned_tensors(network_info(graph, layout, "net"))
    assert len(boxes) == len(graph.nodes)  # the input and every node's output but the reshape's
    names = {"input 0": 0} | {f"{number}: add": number + 1 for number in range(len(graph.nodes) - 1)}
    for box in boxes:
        index = names[box.name]
        assert (box.offset, box.size, box.first) == (layout.offsets[index], 48, max(index - 1, 0))
        assert not used_later(graph, index, box.last + 1)
        for other in boxes:
            together = box.first <= other.last and other.first <= box.last and box != other
            apart = box.offset + box.size <= other.offset or other.offset + other.size <= box.offset
            handed_over = (box.first == other.last, other.name in box.over) == (True, True)
            handed_on = (other.first == box.last, box.name in other.over) == (True, True)
            assert apart or not together or handed_over or handed_on, (box, other)
    assert max(box.offset + box.size for box in boxes) <= layout.size


def test_layer_rows_copy_the_figures() -> None:
    rows = layer_rows(info())
    assert [(r.index, r.operator, r.shape, r.macs, r.weights, r.output) for r in rows][1] == (
        1,
        "conv2d",
        "conv2d 1",
        10,
        1,
        128,
    )


@pytest.fixture(scope="module")
def finished(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the built recipe whose test images have been run on the host."""
    recipe = copy_recipe(built, tmp_path_factory.mktemp("finished"))
    main([str(recipe), "--build", str(recipe.parent / "build"), "--target", "host", "--images", "30"])
    return recipe


def test_memory_parts_add_up(finished: Path) -> None:
    results = read_results(finished.parent / "build" / "tiny" / "run" / "host")
    board = load_board("nucleo_f103rb")
    on_board = results.model_copy(
        update={"flash_bytes": 9000, "ram_bytes": 2300, "stack_bytes": 4096, "activations_bytes": 144}
    )
    flash, ram = memory_uses(board, on_board, info())
    assert flash == MemoryUse("flash", (("weights and tables", 900), ("code", 8100)), 128 * 1024)
    assert ram == MemoryUse("RAM", (("activations", 144), ("stack, reserved", 4096), ("link and variables", 2156)), 20 * 1024)
    assert memory_uses(load_board("host"), results, info()) == ()


def test_two_regions_of_ram_are_one_bar(finished: Path) -> None:
    results = read_results(finished.parent / "build" / "tiny" / "run" / "host")
    on_board = results.model_copy(update={"flash_bytes": 9000, "ram_bytes": 2300, "stack_bytes": 4096})
    board = load_board("nucleo_h743zi")
    regions = {board.data, board.activations}
    _, ram = memory_uses(board, on_board, info())
    assert ram.capacity == sum(memory.size for memory in board.memory if memory.name in regions)


def test_steps_go_from_training_to_the_device(finished: Path) -> None:
    results = read_results(finished.parent / "build" / "tiny" / "run" / "host")
    steps = accuracy_steps(FIGURES, results)
    assert [(step.name, step.macs) for step in steps] == [
        ("train", 9000),
        ("quantize", 3136),
        ("int8 in onnxruntime", None),
        ("exact simulator", None),
        ("device (host)", None),
    ]
    assert steps[0].accuracy == 0.9 and steps[-1].accuracy == results.accuracy.device
    none = results.model_copy(update={"accuracy": results.accuracy.model_copy(update={"int8_onnx": None})})
    assert "int8 in onnxruntime" not in [step.name for step in accuracy_steps(FIGURES, none)]


def test_the_page_can_be_written_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(finished), "--build", str(finished.parent / "build"), "--target", "host"]
    page = finished.parent / "build" / "tiny" / "run" / "host" / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert main(["report", *words]) == 0
    assert page.read_bytes() == before  # so that the finished run stays valid
    assert str(page) in capsys.readouterr().out
    assert b"All 30 answers are bit-identical" in before


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's recipe, free to be changed."""
    return copy_recipe(finished, tmp_path)


def words(recipe: Path) -> list[str]:
    return [str(recipe), "--build", str(recipe.parent / "build"), "--target", "host"]


def host_run(recipe: Path) -> Path:
    return recipe.parent / "build" / "tiny" / "run" / "host"


def test_another_page_leaves_the_run_finished(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A later version of the program draws another page from the same results: the board is not asked again for it."""
    monkeypatch.setattr(host_tools.report, "page", lambda report: "<html>another page</html>")
    before = read_manifest(host_run(copied))
    assert main(["report", *words(copied)]) == 0
    assert (host_run(copied) / "report.html").read_text() == "<html>another page</html>"
    after = read_manifest(host_run(copied))
    assert {key for key in after if after[key] != before[key]} == {"outputs", "digest"}
    assert {name for name in after["outputs"] if after["outputs"][name] != before["outputs"][name]} == {"report.html"}
    capsys.readouterr()
    assert main([*words(copied), "--images", "30"]) == 0
    assert "run/host: unchanged, not run again" in capsys.readouterr().out


def test_a_damaged_page_is_repaired(copied: Path) -> None:
    page = host_run(copied) / "report.html"
    before = page.read_bytes()
    page.write_bytes(before[:100])
    assert main(["report", *words(copied)]) == 0
    assert page.read_bytes() == before


@pytest.mark.parametrize("name", ["results.json", "answers.npz"])
def test_a_page_is_not_made_from_results_that_were_changed(copied: Path, name: str) -> None:
    path = host_run(copied) / name
    path.write_bytes(path.read_bytes() + b"\n")
    page = (host_run(copied) / "report.html").read_bytes()
    with pytest.raises(ArtifactError, match=rf"{name} is damaged"):
        main(["report", *words(copied)])
    assert (host_run(copied) / "report.html").read_bytes() == page


def test_a_page_is_not_mixed_from_two_models(copied: Path) -> None:
    change_manifest(host_run(copied).parents[1] / "compress", lambda manifest: manifest["figures"].update(new=1))
    with pytest.raises(ArtifactError, match=r"compress/manifest\.json is not the one that .*run/host was made from; do that"):
        main(["report", *words(copied)])


def test_a_page_is_not_mixed_with_other_images(copied: Path) -> None:
    with pytest.raises(ArtifactError, match="was made with other test images than data set digits has"):
        main(["report", *words(copied), "data.limit=20"])


def test_the_page_waits_for_a_stage_that_is_running(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = threading.Thread(target=main, args=(["report", *words(copied)],))
    page = host_run(copied) / "report.html"
    page.unlink()
    with BuildLock(host_run(copied).parents[1]):
        written.start()
        written.join(1.0)
        assert written.is_alive() and not page.exists()
    written.join(60.0)
    assert page.exists() and "waiting: " in capfd.readouterr().err


def test_there_is_nothing_to_write_again_before_a_run(built: Path) -> None:
    with pytest.raises(ArtifactError, match=r"results\.json not found"):
        main(["report", str(built), "--build", str(built.parent / "build"), "--target", "host"])
