"""Single C functions called from Python: on an emulated Cortex-M and on the host, through one interface.

Memory is handed out from one area, so that structs can point to arrays; words are as wide as the target's pointers.
"""

from __future__ import annotations

import ctypes
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import unicorn
from kernel_harness.machine import FLASH, MODELS, RAM, SIZE, Image, InstructionCounter
from kernel_harness.program import HERE, RUNTIME, linker_script
from unicorn import arm_const

from firmware_export.toolchain import Toolchain

GUARD = 64
"""Bytes between two pieces of memory, which must keep their pattern."""
PATTERN = 0xC3
Bytes = npt.NDArray[np.uint8]


class Library(ABC):
    """Functions of compiled runtime files, and memory for their arguments."""

    pointer_bytes: int

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int]] = []

    @abstractmethod
    def call(self, name: str, *arguments: int) -> int:
        """Calls a function with integers and addresses; gives what it returns, 32 bits (64 on the host)."""

    @abstractmethod
    def _write(self, address: int, data: bytes) -> None: ...

    @abstractmethod
    def _read(self, address: int, size: int) -> bytes: ...

    @abstractmethod
    def _base(self) -> int: ...

    def reset(self) -> None:
        """Gives all memory back."""
        self._pieces = []

    def put(self, data: npt.NDArray[np.generic] | bytes, *, misaligned: int = 0) -> int:
        """Copies data to new memory, at a multiple of 16 plus `misaligned`; gives the address."""
        raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        begin = self._pieces[-1][0] + self._pieces[-1][1] if self._pieces else self._base()
        address = -(-(begin + GUARD) // 16) * 16 + misaligned
        self._write(begin, bytes([PATTERN]) * (address - begin))
        self._write(address, raw + bytes([PATTERN]) * (2 * GUARD))
        self._pieces.append((address, len(raw)))
        return address

    def room(self, size: int, *, misaligned: int = 0) -> int:
        """New memory filled with the pattern."""
        return self.put(bytes([PATTERN]) * size, misaligned=misaligned)

    def get(self, address: int, dtype: str, count: int) -> npt.NDArray[np.generic]:
        """An array from memory."""
        kind = np.dtype(dtype)
        return np.frombuffer(self._read(address, kind.itemsize * count), kind).copy()

    def put_struct(self, kinds: str, values: Sequence[int]) -> int:
        """A struct of members one behind the other: P pointer, I uint32, i int32. Gives its address."""
        raw = b""
        for kind, value in zip(kinds, values, strict=True):
            size = self.pointer_bytes if kind == "P" else 4
            raw += bytes(-len(raw) % size)
            raw += (value % (1 << (8 * size))).to_bytes(size, "little")
        return self.put(raw)

    def assert_untouched(self) -> None:
        """Not a byte between the pieces of memory has changed."""
        for address, size in self._pieces:
            before, behind = self._read(address - 16, 16), self._read(address + size, 16)
            assert set(before) | set(behind) == {PATTERN}, f"bytes beside {address:#x} have changed"


class ArmLibrary(Library):
    """Functions in unicorn. instructions: how many the last call executed."""

    pointer_bytes = 4

    def __init__(self, sources: Sequence[str], functions: Sequence[str], toolchain: Toolchain, core: str = "cortex-m4") -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="library-")
        self._image = Image(_link(Path(self._folder.name), sources, functions, toolchain, core))
        self._engine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self._engine.ctl_set_cpu_model(MODELS[core])
        for base in (FLASH, RAM):
            self._engine.mem_map(base, SIZE)
        for address, data in self._image.segments:
            self._engine.mem_write(address, data)
        self._counter = InstructionCounter(self._engine, self._image.address("marker"))
        self.instructions = 0

    def call(self, name: str, *arguments: int) -> int:
        stack = self._image.symbols["stack_top"][0] - 64
        registers = (arm_const.UC_ARM_REG_R0, arm_const.UC_ARM_REG_R1, arm_const.UC_ARM_REG_R2, arm_const.UC_ARM_REG_R3)
        for register, value in zip(registers, arguments, strict=False):
            self._engine.reg_write(register, value & 0xFFFFFFFF)
        for place, value in enumerate(arguments[4:]):
            self._engine.mem_write(stack + 4 * place, (value & 0xFFFFFFFF).to_bytes(4, "little"))
        kept = {register: 0x11110000 + register for register in _KEPT}
        for register, value in kept.items():
            self._engine.reg_write(register, value)
        finish = self._image.address("marker")
        self._engine.reg_write(arm_const.UC_ARM_REG_SP, stack)
        self._engine.reg_write(arm_const.UC_ARM_REG_LR, finish | 1)
        before = self._counter.total
        self._engine.emu_start(self._image.address(name) | 1, finish, timeout=60_000_000)
        self.instructions = self._counter.total - before
        assert self._engine.reg_read(arm_const.UC_ARM_REG_PC) & ~1 == finish, f"{name} did not return"
        assert self._engine.reg_read(arm_const.UC_ARM_REG_SP) == stack, f"{name} left the stack elsewhere"
        changed = [register for register, value in kept.items() if self._engine.reg_read(register) != value]
        assert not changed, f"{name} did not keep r4 to r11"
        return int(self._engine.reg_read(arm_const.UC_ARM_REG_R0))

    def _write(self, address: int, data: bytes) -> None:
        self._engine.mem_write(address, data)

    def _read(self, address: int, size: int) -> bytes:
        return bytes(self._engine.mem_read(address, size))

    def _base(self) -> int:
        return RAM + (1 << 20)


_KEPT = tuple(range(arm_const.UC_ARM_REG_R4, arm_const.UC_ARM_REG_R11 + 1))


def _link(folder: Path, sources: Sequence[str], functions: Sequence[str], toolchain: Toolchain, core: str) -> Path:
    """An image that holds the functions, kept alive by a table."""
    declarations = "\n".join(f"void {name}(void);" for name in functions)
    table = ", ".join(functions)
    text = f'#include "harness.h"\n{declarations}\nvoid run_cases(void) {{\n'
    text += f"    static void (*const volatile functions[])(void) = {{{table}}};\n    marker();\n"
    text += "    finish(functions[0] == 0 ? 1u : 0u, 0, 0u);\n}\n"
    source = folder / "functions.c"
    source.write_text(text)
    flags = [*toolchain.compile_flags(core, "none", "2"), f"-I{RUNTIME}", f"-I{HERE}"]
    paths = [source, HERE / "startup.c", RUNTIME.parent / "boards" / "memory.c", *(RUNTIME / name for name in sources)]
    objects = []
    for path in paths:
        objects.append(folder / f"{path.stem}.o")
        toolchain.compile(path, objects[-1], [*flags, "-fno-builtin"] if path.stem == "memory" else flags)
    toolchain.link(objects, folder / "library.elf", linker_script(core, folder), core, "none")
    return folder / "library.elf"


class HostLibrary(Library):
    """Functions in this process: the portable versions of the steps."""

    pointer_bytes = ctypes.sizeof(ctypes.c_void_p)

    def __init__(self, sources: Sequence[str], toolchain: Toolchain, optimize: str = "2") -> None:
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "library.so"
            flags = [*toolchain.compile_flags("host", "none", optimize), f"-I{RUNTIME}", "-fPIC", "-shared"]
            toolchain.run([*flags, *(str(RUNTIME / name) for name in sources), "-o", str(path)], "building a library")
            self._library = ctypes.CDLL(str(path))
        self._memory = ctypes.create_string_buffer(1 << 20)

    def call(self, name: str, *arguments: int) -> int:
        function = getattr(self._library, name)
        function.restype = ctypes.c_void_p
        wide = [ctypes.c_void_p(value) if value > 0xFFFFFFFF else ctypes.c_int64(value) for value in arguments]
        return int(function(*wide) or 0)

    def _write(self, address: int, data: bytes) -> None:
        assert self._base() <= address <= self._base() + len(self._memory) - len(data)
        ctypes.memmove(address, data, len(data))

    def _read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(address, size)

    def _base(self) -> int:
        return ctypes.addressof(self._memory)
