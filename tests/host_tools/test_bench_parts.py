"""The parts of `bench` by themselves: where programs lie, what is compiled how, how laps become layers' counts."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from unicorn import UC_ARCH_ARM, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, arm_const

from firmware_export.graph import Array, Graph, Node, Quantization, Tensor
from firmware_export.operators import LayerCode
from firmware_export.simulate import simulate
from firmware_export.toolchain import CORES as COMPILER_CORES
from firmware_export.toolchain import FPUS, ToolchainError, arm_toolchain
from host_tools import bench_run
from host_tools.bench_image import CORES, BenchCore, BenchImage, _input_header, _linker_script, _own_flags, build_bench_image
from host_tools.bench_run import QEMU_MACHINES, UNICORN_CPUS, _advance, _between, _outputs, call_returns, run_unicorn
from host_tools.disassembly import Function, Instruction

MEMORIES = {
    "cortex-m0plus": [(0x00000000, 4 << 20), (0x20000000, 4 << 20)],
    "cortex-m3": [(0x00000000, 4 << 20), (0x20000000, 4 << 20)],
    "cortex-m4": [(0x00000000, 4 << 20), (0x20000000, 4 << 20)],
    "cortex-m7": [(0x00000000, 4 << 20), (0x20000000, 4 << 20)],
    "cortex-m33": [(0x10000000, 4 << 20), (0x38000000, 4 << 20)],
    "cortex-m55": [(0x11000000, 2 << 20), (0x31000000, 2 << 20), (0x00000000, 512 << 10)],
}
"""Memories of Arm's MPS2 boards (AN385, AN386, AN500: ZBT SSRAM 1 and 2/3), AN505 (SSRAM 1 and 2/3, secure) and AN547."""


def regions_of(core: BenchCore) -> dict[str, tuple[int, int]]:
    text = _linker_script(core)
    assert "@" not in text
    found = re.findall(r"(\w+) \(\w+\) : ORIGIN = (0x[0-9a-f]{8}), LENGTH = (0x[0-9a-f]+)", text)
    return {name: (int(begin, 16), int(size, 16)) for name, begin, size in found}


@pytest.mark.parametrize("core", CORES)
def test_programs_lie_in_memory_that_the_board_has(core: str) -> None:
    regions = regions_of(CORES[core])
    assert regions.keys() == {"VECTORS", "FLASH", "RAM"} and regions["VECTORS"][1] == 1024
    for name, (begin, size) in regions.items():
        held = any(base <= begin and begin + size <= base + room for base, room in MEMORIES[core])
        assert held, f"{name} {begin:#x} {size:#x}"
    ends = sorted((begin, begin + size) for begin, size in regions.values())
    assert all(before[1] <= after[0] for before, after in pairwise(ends)), "regions do not overlap"


@pytest.mark.parametrize("core", CORES)
def test_vectors_begin_where_the_core_looks_for_them(core: str) -> None:
    """VTOR of the machine after reset: 0, but the secure SSRAM on AN505; always a multiple of 1 KB."""
    expected = 0x10000000 if core == "cortex-m33" else 0
    assert CORES[core].vectors == expected and CORES[core].core == core


def test_cores_are_known_to_the_compiler_and_to_an_emulator() -> None:
    assert CORES.keys() <= set(COMPILER_CORES)
    assert {core.fpu for core in CORES.values()} <= set(FPUS)
    assert CORES.keys() == UNICORN_CPUS.keys() | QEMU_MACHINES.keys()
    assert CORES["cortex-m0plus"].fpu == CORES["cortex-m3"].fpu == "none", "Armv6-M and Armv7-M have none"


def test_inputs_stand_in_flash_one_behind_the_other() -> None:
    inputs = [np.array([[1, -2]], np.int8), np.array([1.0], np.float32), np.array([200], np.uint8)]
    text = _input_header(inputs)
    assert text.startswith("#include <stdint.h>\nstatic const uint8_t bench_input[7] = {")
    values = [int(value) for value in re.findall(r"\d+", text.split("{")[1])]
    assert values == [1, 254, 0, 0, 128, 63, 200], "float32 1.0 is 0x3f800000, lowest byte first"


@pytest.mark.parametrize("kind, no_patterns", [("gcc", True), ("zig", False)])
def test_memory_functions_are_not_compiled_into_calls_of_themselves(kind: str, no_patterns: bool) -> None:
    toolchain = cast(Any, SimpleNamespace(kind=kind))
    flags = _own_flags(Path("boards/memory.c"), toolchain)
    assert flags[0] == "-fno-builtin" and ("-fno-tree-loop-distribute-patterns" in flags) == no_patterns
    assert _own_flags(Path("network.c"), toolchain) == [] == _own_flags(Path("conv2d.c"), toolchain)
    (attribute,) = _own_flags(Path("network_data.c"), toolchain)
    assert attribute == '-DNETWORK_DATA_ATTRIBUTE=__attribute__((section(".weights")))'


def instruction(place: int, size: int, kind: str) -> Instruction:
    return Instruction(place, size, kind, kind)


def test_calls_of_layers_return_behind_themselves() -> None:
    """BL is four bytes, BLX of a register two; only calls in the network's own functions are layers."""
    layers = (instruction(0x100, 4, "call"), instruction(0x104, 2, "alu"), instruction(0x106, 4, "call"))
    trace = (instruction(0x200, 2, "load"), instruction(0x202, 4, "call"), instruction(0x206, 2, "branch"))
    other = (instruction(0x300, 4, "call"),)
    known = {
        0x100: Function("network_layers", 0x100, layers),
        0x180: Function("network_layers.part.0", 0x180, (instruction(0x180, 4, "call"),)),
        0x200: Function("network_trace", 0x200, trace),
        0x300: Function("nn_conv2d", 0x300, other),
        0x400: Function("network_run", 0x400, (instruction(0x400, 4, "branch"),)),
    }
    assert sorted(call_returns(known)) == [0x104, 0x10A, 0x184, 0x206]
    assert call_returns({}) == []


CALL, NONE = LayerCode("nn_relu", "nn_relu_params", {}), LayerCode("", "", {})
BEGIN, END = 0x1000, 0x2000


def image_of(*codes: LayerCode) -> BenchImage:
    return cast(BenchImage, SimpleNamespace(plan=SimpleNamespace(codes=codes)))


def test_laps_become_instructions_of_layers() -> None:
    """Counts before an address is executed: a layer ends where its call returns."""
    laps = [(0x500, 3), (BEGIN, 100), (0x10, 130), (0x20, 190), (0x30, 200), (END, 260), (0x40, 999)]
    assert _between(image_of(CALL, CALL, CALL), laps, BEGIN, END) == (160, (30, 60, 10))
    assert _between(image_of(CALL, NONE, CALL, NONE, CALL), laps, BEGIN, END) == (160, (30, 0, 60, 0, 10))
    assert _between(image_of(CALL), laps, BEGIN, END) == (160, (30,)), "calls behind the last layer are in no layer"
    assert _between(image_of(NONE, NONE), laps, BEGIN, END) == (160, (0, 0))
    assert _between(image_of(), [(BEGIN, 7), (END, 9)], BEGIN, END) == (2, ())


def test_a_layer_that_was_not_one_call_is_told() -> None:
    laps = [(BEGIN, 100), (0x10, 130), (END, 260)]
    with pytest.raises(ToolchainError, match="1 calls of 2 layers were seen; please report the model"):
        _between(image_of(CALL, CALL), laps, BEGIN, END)


def test_outputs_are_read_where_the_plan_has_them() -> None:
    tensors = [
        Tensor("a", (1, 2), "int8", Quantization.per_tensor(1, 0)),
        Tensor("b", (1, 2), "float32"),
        Tensor("c", (3,), "uint8", Quantization.per_tensor(1, 0)),
    ]
    graph = Graph(tensors, [], (), (2, 1, 0))
    plan = SimpleNamespace(offsets={0: 1, 1: 8, 2: 4})
    memory = bytes([9, 255, 2, 9, 250, 251, 252, 9, 0, 0, 128, 63, 0, 0, 0, 192])
    found = _outputs(cast(BenchImage, SimpleNamespace(graph=graph, plan=plan)), memory)
    assert [array.tolist() for array in found] == [[250, 251, 252], [[1.0, -2.0]], [[-1, 2]]]


def three_layers() -> Graph:
    """relu - reshape - relu, with a view between: two calls for three layers."""
    scale = Quantization.per_tensor(0.05, 3)
    shapes: list[tuple[int, ...]] = [(1, 4, 3), (1, 4, 3), (1, 12), (1, 12)]
    tensors = [Tensor(f"t{place}", shape, "int8", scale) for place, shape in enumerate(shapes)]
    clamp = {"clamp": (3, 127)}
    nodes = [
        Node("relu", (0,), (1,), clamp),
        Node("reshape", (1,), (2,), {"shape": (1, 12)}),
        Node("relu", (2,), (3,), {"clamp": (3, 40)}),
    ]
    return Graph(tensors, nodes, (0,), (3,))


@pytest.fixture(scope="module")
def vector() -> Array:
    found: Array = np.arange(-60, 60, 10, dtype=np.int8).reshape(1, 4, 3)
    return found


@pytest.fixture(scope="module")
def image(vector: Array, tmp_path_factory: pytest.TempPathFactory) -> BenchImage:
    work = tmp_path_factory.mktemp("bench")
    return build_bench_image(three_layers(), CORES["cortex-m3"], "balanced", [vector], work, arm_toolchain("auto"))


def test_a_program_with_a_layer_that_moves_nothing(image: BenchImage, vector: Array) -> None:
    """The counts add up, the output is the clamped input, and a second run counts the same."""
    counted = run_unicorn(image)
    assert counted.outputs[0].tolist() == [np.clip(vector, 3, 40).reshape(-1).tolist()]
    assert np.array_equal(counted.outputs[0], simulate(image.graph, vector)[0])
    first, view, second = counted.per_layer
    assert view == 0 and first >= 12 and second >= 12 and first + second < counted.instructions
    assert 16 <= counted.stack_bytes < 400
    again = run_unicorn(image)
    assert (again.instructions, again.per_layer, again.blocks) == (counted.instructions, counted.per_layer, counted.blocks)
    assert sum(len(block.instructions) * block.count for block in counted.blocks) >= counted.instructions


def test_an_image_is_told_by_its_sections(image: BenchImage) -> None:
    """No weights in a network of relus; parameters of two layers; code of the kernel and the calls."""
    assert image.weights_bytes == 0 and image.core.core == "cortex-m3"
    assert 2 * 16 <= image.tables_bytes < 400 and 100 < image.code_bytes < 2000
    symbols = {symbol.name: symbol.address for symbol in image.memory.symbols}
    assert symbols["bench_activations"] % 16 == 0 and symbols["bench_activations"] >= image.core.ram
    assert all(image.core.flash <= symbols[name] for name in ("bench_begin", "bench_end", "bench_done"))


@pytest.mark.parametrize(
    ("halfwords", "words"),
    [
        ((0xE7FE,), "did not come to its end in unicorn"),  # b .
        ((0x6800,), "stopped in unicorn"),  # ldr r0, [r0], where there is no memory
    ],
)
def test_a_program_that_does_not_end_is_told(halfwords: tuple[int, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_run, "TIME_LIMIT_S", 1)
    engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
    engine.ctl_set_cpu_model(UNICORN_CPUS["cortex-m3"])
    engine.mem_map(0x10000, 0x1000)
    engine.mem_write(0x10000, b"".join(word.to_bytes(2, "little") for word in halfwords))
    engine.reg_write(arm_const.UC_ARM_REG_R0, 0x70000000)
    with pytest.raises(ToolchainError, match=words):
        _advance(engine, 0x10000, 0x10800)
