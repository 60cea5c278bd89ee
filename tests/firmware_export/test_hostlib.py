"""The compiled network in this process: answers, batches, traces, descriptor, speed, and refusals in one line."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from golden_models import GOLDEN, MODELS
from graph_builder import Build, inputs_of

from firmware_export.emit import emit, runtime_sources
from firmware_export.graph import Graph, GraphError
from firmware_export.hostlib import RUNTIME, HostNetwork, HostRunError, generated_sources, header_of, runtime_files
from firmware_export.operators import operator_of
from firmware_export.plan import plan
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.target import GOALS, Target
from firmware_export.toolchain import Toolchain, ToolchainError
from recipes.artifacts import ArtifactError


@pytest.fixture(scope="module")
def networks() -> dict[str, HostNetwork]:
    return {model: HostNetwork(GOLDEN / model, model) for model in ("residual", "separable", "two_ends")}


def test_descriptor(networks: dict[str, HostNetwork]) -> None:
    graph, network = MODELS["two_ends"](), networks["two_ends"]
    assert network.name == "two_ends" and network.arithmetic == "double"
    assert network.hash == graph.hash()
    assert network.activations_bytes == plan(graph).size
    assert [edge.shape for edge in network.inputs] == [(1, 4, 6, 3), (1, 4, 6, 3)]
    assert [(np.float32(edge.scale), edge.zero_point) for edge in network.inputs] == [
        (np.float32(0.05), 3),
        (np.float32(0.02), -9),
    ]
    assert [edge.shape for edge in network.outputs] == [(1, 2, 3, 3), (1, 4, 6, 3)]
    assert all(edge.dtype == "int8" for edge in (*network.inputs, *network.outputs))


@pytest.mark.parametrize("model", ["residual", "separable", "two_ends"])
def test_batches_equal_the_simulator(networks: dict[str, HostNetwork], model: str) -> None:
    graph, network = MODELS[model](), networks[model]
    vectors = [inputs_of(graph, seed) for seed in range(7)]
    batches = [np.concatenate([vector[place] for vector in vectors]) for place in range(len(graph.inputs))]
    found = network.run(*batches)
    for seed, vector in enumerate(vectors):
        for ours, theirs in zip(simulate(graph, *vector), found, strict=True):
            assert np.array_equal(ours[0], theirs[seed])


def test_an_image_does_not_see_the_one_before(networks: dict[str, HostNetwork]) -> None:
    network = networks["residual"]
    images = np.random.default_rng(0).integers(-128, 128, (5, 8, 8, 1)).astype(np.int8)
    forth, back = network.run(images)[0], network.run(images[::-1])[0]
    assert np.array_equal(forth, back[::-1])


def test_trace_equals_the_simulators(networks: dict[str, HostNetwork]) -> None:
    graph = MODELS["separable"]()
    (image,) = inputs_of(graph, 3)
    traced = networks["separable"].trace(image)
    expected = simulate_trace(graph, image)
    assert [[array.tobytes() for array in layer] for layer in traced] == [[a.tobytes() for a in layer] for layer in expected]


def test_an_empty_batch(networks: dict[str, HostNetwork]) -> None:
    assert networks["residual"].run(np.zeros((0, 8, 8, 1), np.int8))[0].shape == (0, 3)


def test_batches_need_not_be_contiguous(networks: dict[str, HostNetwork]) -> None:
    images = np.random.default_rng(0).integers(-128, 128, (4, 8, 8, 2)).astype(np.int8)[..., :1]
    copied = networks["residual"].run(images.copy())[0]
    assert np.array_equal(networks["residual"].run(images)[0], copied)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((2, 8, 8, 1), np.uint8), r"input 0 is uint8 \(2, 8, 8, 1\); residual takes int8"),
        (np.zeros((2, 8, 7, 1), np.int8), r"input 0 is int8 \(2, 8, 7, 1\); residual takes int8 \(2, 8, 8, 1\)"),
        (np.zeros((8, 8, 1), np.int8), "residual takes int8"),
    ],
)
def test_wrong_batches(networks: dict[str, HostNetwork], batch: np.ndarray, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        networks["residual"].run(batch)


def test_wrong_number_of_inputs(networks: dict[str, HostNetwork]) -> None:
    with pytest.raises(GraphError, match="1 inputs given; two_ends takes 2"):
        networks["two_ends"].run(np.zeros((1, 4, 6, 3), np.int8))
    with pytest.raises(GraphError, match="input 1 is int8"):
        networks["two_ends"].run(np.zeros((2, 4, 6, 3), np.int8), np.zeros((3, 4, 6, 3), np.int8))


def test_selftest_without_known_answers(networks: dict[str, HostNetwork]) -> None:
    assert networks["residual"].selftest() is False


def test_missing_export(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"network\.c not found: run the export first"):
        HostNetwork(tmp_path)


def test_compiler_that_fails(tmp_path: Path) -> None:
    (tmp_path / "network.c").write_text("this is not C\n")
    (tmp_path / "network_data.c").write_text("int x;\n")
    with pytest.raises(ToolchainError, match="error"):
        HostNetwork(tmp_path)


def test_compiler_that_is_missing() -> None:
    with pytest.raises(ToolchainError, match="could not be run"):
        HostNetwork(GOLDEN / "perceptron", "perceptron", toolchain=Toolchain("cc", ("/no/such/compiler",), "0"))


def test_selftest_file_is_compiled_when_there(tmp_path: Path) -> None:
    for name in ("network.c", "network_data.c"):
        (tmp_path / name).write_text("")
    assert [path.name for path in generated_sources(tmp_path, "network")] == ["network.c", "network_data.c"]
    (tmp_path / "network_selftest.c").write_text("")
    assert len(generated_sources(tmp_path, "network")) == 3


def test_runtime_files_follow_includes() -> None:
    names = [path.name for path in runtime_files(generated_sources(GOLDEN / "perceptron", "perceptron"))]
    assert names == ["dense.c", "fully_connected.c"]
    assert (RUNTIME / "dense.c").is_file()


def test_a_file_without_a_header_belongs_to_the_one_its_name_begins_with() -> None:
    assert header_of(RUNTIME / "step_winograd_transforms.c") == "step_winograd"
    assert header_of(RUNTIME / "step_r256_vector.c") == "step_r256_vector"
    for path in RUNTIME.glob("*.c"):
        assert (RUNTIME / f"{header_of(path)}.h").is_file(), path.name


def test_runtime_files_of_every_kernel_are_those_it_names(tmp_path: Path) -> None:
    """A firmware is linked from what the includes name; the packer lists what its kernel needs. Both must be the same."""
    graph = convolution_net()
    for core in ("host", "cortex-m0plus", "cortex-m3", "cortex-m55"):
        for goal in GOALS:
            layout = plan(graph, Target.of(core, goal))
            for name, text in emit(graph, layout, selftest=False).items():
                (tmp_path / name).write_text(text)
            found = {path.name for path in runtime_files(generated_sources(tmp_path, "network"))}
            assert set(runtime_sources(layout)) <= found, (core, goal)


def test_winograd_runs_on_the_host(tmp_path: Path) -> None:
    graph = convolution_net()
    layout = plan(graph, Target.of("host", "time"))
    assert any("winograd" in code.function for code in layout.codes)
    for name, text in emit(graph, layout, selftest=False).items():
        (tmp_path / name).write_text(text)
    image = np.random.default_rng(1).integers(-128, 128, (1, 16, 16, 8)).astype(np.int8)
    assert np.array_equal(HostNetwork(tmp_path).run(image)[0], simulate(graph, image)[0])


def convolution_net() -> Graph:
    """About 2.6 million MACs in convolutions of ordinary sizes."""
    build = Build(7)
    x = y = build.activation((1, 16, 16, 8), 0.05, -128)
    for channels in (16, 32, 32):
        y = build.conv(y, channels)
    return build.graph(x, y)


def test_host_speed(tmp_path: Path) -> None:
    """At least 50 million MACs a second on one core with -O2; ordinary machines reach twenty times that."""
    graph = convolution_net()
    for name, text in emit(graph, plan(graph), selftest=False).items():
        (tmp_path / name).write_text(text)
    network = HostNetwork(tmp_path, optimize="2")
    images = np.random.default_rng(0).integers(-128, 128, (10, 16, 16, 8)).astype(np.int8)
    network.run(images[:1])
    macs = sum(operator_of(node).macs(graph, node) for node in graph.nodes)
    start = time.process_time()
    found = network.run(images)[0]
    rate = macs * len(images) / (time.process_time() - start)
    assert np.array_equal(found[:1], simulate(graph, images[:1])[0])
    assert rate > 50e6, f"{rate / 1e6:.0f} million MACs a second"


@pytest.mark.parametrize("optimize", ["s", "2", "3"])
def test_every_optimisation_level_answers_alike(networks: dict[str, HostNetwork], optimize: str) -> None:
    images = np.random.default_rng(1).integers(-128, 128, (20, 10, 6, 2)).astype(np.int8)
    found = HostNetwork(GOLDEN / "separable", "separable", optimize=optimize).run(images)[0]
    assert np.array_equal(found, networks["separable"].run(images)[0])


def test_without_a_compiler_of_the_machine(networks: dict[str, HostNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    """zig from the Python package does it."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    images = np.random.default_rng(1).integers(-128, 128, (5, 8, 8, 1)).astype(np.int8)
    found = HostNetwork(GOLDEN / "residual", "residual").run(images)[0]
    assert np.array_equal(found, networks["residual"].run(images)[0])


def test_two_networks_live_side_by_side(networks: dict[str, HostNetwork]) -> None:
    """Each library has its own buffer and constants."""
    images = np.random.default_rng(1).integers(-128, 128, (1, 8, 8, 1)).astype(np.int8)
    other = HostNetwork(GOLDEN / "residual", "residual")
    before = networks["residual"].run(images)[0]
    other.run(-images)
    assert np.array_equal(networks["residual"].run(images)[0], before)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is unlinked once it is loaded."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    network = HostNetwork(GOLDEN / "perceptron", "perceptron")
    assert list(tmp_path.iterdir()) == []
    assert network.run(np.zeros((1, 12), np.int8))[0].shape == (1, 5)


def test_run_errors_name_the_result_code(networks: dict[str, HostNetwork]) -> None:
    with pytest.raises(HostRunError, match="residual returned NN_ERROR_ALIGNMENT on the host"):
        networks["residual"]._check(2)
