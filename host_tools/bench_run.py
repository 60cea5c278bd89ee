"""Runs a bench image in unicorn or qemu: exact counts of executed instructions, in all and per layer, output, stack."""

from __future__ import annotations

import ctypes
import functools
import itertools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from unicorn import UC_ARCH_ARM, UC_HOOK_BLOCK, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, UcError, arm_const
from unicorn.unicorn_py3.unicorn import uclib

from firmware_export.graph import DTYPES, Array
from firmware_export.hostlib import compile_host
from firmware_export.memory_usage import flash_image
from firmware_export.toolchain import ToolchainError
from host_tools.bench_image import MACHINE, NAME, BenchImage
from host_tools.cycles import Block
from host_tools.disassembly import Function, disassemble, functions

UNICORN_CPUS = {
    "cortex-m0plus": arm_const.UC_CPU_ARM_CORTEX_M0,
    "cortex-m3": arm_const.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm_const.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7,
}
QEMU_MACHINES = {
    "cortex-m3": "mps2-an385",
    "cortex-m4": "mps2-an386",
    "cortex-m7": "mps2-an500",
    "cortex-m33": "mps2-an505",
    "cortex-m55": "mps3-an547",
}
TIME_LIMIT_S = 600
_PRIVATE_BUS = 0xE0000000, 0x00100000
_MEMORY = 4 << 20
_NONE = 2**64 - 1


@dataclass(frozen=True)
class Counted:
    """One inference: executed instructions, those of each layer (call included), outputs, bytes of stack.

    The instructions between the layers are in no layer. blocks: what ran, for cycles.estimate; only from unicorn.
    """

    instructions: int
    per_layer: tuple[int, ...]
    outputs: tuple[Array, ...]
    stack_bytes: int
    blocks: tuple[Block, ...] = ()


class _Counter(ctypes.Structure):
    """trace_counter of bench_machine/trace_counter.c."""

    _fields_: ClassVar = [
        *((name, ctypes.c_uint64) for name in ("executed", "unknown", "origin", "size")),
        *((name, ctypes.c_void_p) for name in ("code", "blocks", "counts", "jumps", "wide", "marks", "laps")),
        *((name, ctypes.c_uint64) for name in ("lap_count", "lap_limit", "previous")),
    ]


@functools.cache
def _counter_library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        library = Path(folder) / "trace_counter.so"
        compile_host([MACHINE / "trace_counter.c"], [], library, ["-shared", "-fPIC"])
        return ctypes.CDLL(str(library))


class _Trace:
    """What an engine executes: the counter of trace_counter.c over the image's code."""

    def __init__(self, engine: Uc, origin: int, code: bytes, marks: set[int]) -> None:
        halfwords = len(code) // 2 + 1
        self._code = ctypes.create_string_buffer(code, len(code) + 4)
        self.blocks, self.counts, self.jumps, self.wide = (np.zeros(halfwords, np.uint32) for _ in range(4))
        self._marks = np.zeros(halfwords, np.uint8)
        self._marks[[(place - origin) // 2 for place in marks]] = 1
        self._laps = np.zeros((len(marks) + 2, 2), np.uint64)
        arrays = (self.blocks, self.counts, self.jumps, self.wide, self._marks, self._laps)
        addresses = (ctypes.addressof(self._code), *(array.ctypes.data for array in arrays))
        self.counter = _Counter(0, 0, origin, len(code), *addresses, 0, len(self._laps), _NONE)
        function, handle = ctypes.cast(_counter_library().count_block, ctypes.c_void_p), ctypes.c_size_t()
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        hook = ctypes.byref(self.counter)
        uclib.uc_hook_add(engine._uch, ctypes.byref(handle), UC_HOOK_BLOCK, function, hook, *everywhere)

    def forget(self) -> None:
        """Begins to count blocks and jumps anew."""
        for counts in (self.counts, self.jumps, self.wide):
            counts[:] = 0
        self.counter.previous = _NONE

    def laps(self) -> list[tuple[int, int]]:
        """(address, instructions executed before it) in the order of the run."""
        return [(int(place), int(count)) for place, count in self._laps[: self.counter.lap_count]]


def run_unicorn(image: BenchImage) -> Counted:
    """One inference in unicorn.

    Raises:
        ToolchainError: the program did not come to its end.
    """
    core = image.core
    code = flash_image(image.elf, core.vectors, core.flash - core.vectors + core.size)
    symbols = {symbol.name: symbol.address for symbol in image.memory.symbols}
    engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
    engine.ctl_set_cpu_model(UNICORN_CPUS[core.core])
    for address, size in ((core.vectors, _MEMORY), (core.ram, _MEMORY), _PRIVATE_BUS):
        engine.mem_map(address, size)
    engine.mem_write(core.vectors, code)
    engine.reg_write(arm_const.UC_ARM_REG_SP, int.from_bytes(code[:4], "little"))
    marks = {*call_returns(functions(image.elf)), symbols["bench_begin"], symbols["bench_end"]}
    trace = _Trace(engine, core.vectors, code, marks)
    _advance(engine, symbols["reset_handler"], symbols["bench_begin"])
    trace.forget()
    _advance(engine, symbols["bench_begin"], symbols["bench_end"])
    blocks = _blocks(trace, code, core.vectors)
    _advance(engine, symbols["bench_end"], symbols["bench_done"])
    if trace.counter.unknown:
        raise ToolchainError("code was run that is not in the image; please report the model")
    memory = bytes(engine.mem_read(symbols["bench_activations"], image.plan.size))
    stack = int.from_bytes(engine.mem_read(symbols["bench_stack_used"], 4), "little")
    total, per_layer = _between(image, trace.laps(), symbols["bench_begin"], symbols["bench_end"])
    return Counted(total, per_layer, _outputs(image, memory), stack, blocks)


def _advance(engine: Uc, start: int, end: int) -> None:
    """Runs from one address to another, which is not run. Raises ToolchainError when it does not come there."""
    try:
        engine.emu_start(start | 1, end, timeout=TIME_LIMIT_S * 1_000_000)
    except UcError as error:
        raise ToolchainError(f"the bench program stopped in unicorn: {error}; please report the model") from None
    if engine.reg_read(arm_const.UC_ARM_REG_PC) & ~1 != end:
        raise ToolchainError("the bench program did not come to its end in unicorn; please report the model")


def call_returns(known: dict[int, Function]) -> list[int]:
    """Every address to which a call of a layer may return: the compiler may have made two rows of calls, with and without
    the check for an observer."""
    bodies = [f for f in known.values() if f.name.startswith((f"{NAME}_layers", f"{NAME}_trace", f"{NAME}_run"))]
    return [i.place + i.size for body in bodies for i in body.instructions if i.kind == "call"]


def _between(image: BenchImage, laps: list[tuple[int, int]], begin: int, end: int) -> tuple[int, tuple[int, ...]]:
    """Instructions from bench_begin to bench_end, and those up to each layer's return; 0 for layers without a call.

    Raises:
        ToolchainError: not every layer was one call.
    """
    places = [place for place, _ in laps]
    first, last = places.index(begin), places.index(end)
    counts = [count for _, count in laps]
    called = [place for place, code in enumerate(image.plan.codes) if code.function]
    if last - first - 1 < len(called):
        raise ToolchainError(f"{last - first - 1} calls of {len(called)} layers were seen; please report the model")
    per_layer = [0] * len(image.plan.codes)
    for layer, (before, after) in zip(called, itertools.pairwise(counts[first : first + len(called) + 1]), strict=True):
        per_layer[layer] = after - before
    return counts[last] - counts[first], tuple(per_layer)


def _outputs(image: BenchImage, memory: bytes) -> tuple[Array, ...]:
    found = []
    for index in image.graph.outputs:
        tensor, offset = image.graph.tensors[index], image.plan.offsets[index]
        found.append(np.frombuffer(memory, DTYPES[tensor.dtype], tensor.elements, offset).reshape(tensor.shape))
    return tuple(found)


def _blocks(trace: _Trace, code: bytes, origin: int) -> tuple[Block, ...]:
    found = []
    for halfword in np.flatnonzero(trace.counts):
        start, size = 2 * int(halfword), int(trace.blocks[halfword]) >> 16
        instructions = disassemble(code[start : start + size], origin + start)
        figures = (int(counts[halfword]) for counts in (trace.counts, trace.jumps, trace.wide))
        found.append(Block(instructions, *figures))
    return tuple(found)


def has_qemu() -> bool:
    """Whether qemu for Arm is installed."""
    return shutil.which("qemu-system-arm") is not None


@functools.cache
def _plugin() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bench-plugin-"))
    library = folder / "count_plugin.so"
    compile_host([MACHINE / "count_plugin.c"], [], library, ["-shared", "-fPIC", "-fvisibility=hidden"])
    return library


def run_qemu(image: BenchImage) -> Counted:
    """One inference in qemu: the same counts, without blocks.

    Raises:
        ToolchainError: qemu is missing, or the program did not come to its end.
    """
    symbols = {symbol.name: symbol.address for symbol in image.memory.symbols}
    places = [symbols["bench_begin"], symbols["bench_end"], *call_returns(functions(image.elf))]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        counts = Path(folder) / "counts"
        command = ["qemu-system-arm", "-M", QEMU_MACHINES[image.core.core], "-display", "none", "-monitor", "none"]
        command += ["-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel", str(image.elf)]
        command += ["-plugin", f"{_plugin()},out={counts}" + "".join(f",marker={place:#x}" for place in places)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"qemu-system-arm could not be run ({error}); install qemu-system-arm") from None
        said = [bytes.fromhex(line) for line in ended.stderr.split("\n")[:-1] + ended.stdout.split("\n")[:-1]]
        laps = [(int(line.split()[0], 16), int(line.split()[1])) for line in counts.read_text().splitlines()]
    total, per_layer = _between(image, laps, symbols["bench_begin"], symbols["bench_end"])
    tensors = [image.graph.tensors[index] for index in image.graph.outputs]
    outputs = [np.frombuffer(data, DTYPES[t.dtype]).reshape(t.shape) for data, t in zip(said[2:], tensors, strict=True)]
    return Counted(total, per_layer, tuple(outputs), int.from_bytes(said[1], "little"))
