"""A Cortex-M board in this process: unicorn runs the image, a small model answers for UART, cycle counter and reset.

There is no interrupt controller: the firmware asks its UART directly too, and sleeps (WFI) when there is nothing to do.
Every register that is not modelled reads 0 and forgets what is written; an access outside memory is a LinkError.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from unicorn import (
    UC_ARCH_ARM,
    UC_HOOK_BLOCK,
    UC_HOOK_MEM_INVALID,
    UC_MEM_FETCH_PROT,
    UC_MEM_FETCH_UNMAPPED,
    UC_MEM_READ_PROT,
    UC_MEM_READ_UNMAPPED,
    UC_MODE_MCLASS,
    UC_MODE_THUMB,
    UC_PROT_ALL,
    UC_PROT_EXEC,
    UC_PROT_READ,
    Uc,
    UcError,
    arm_const,
)
from unicorn.unicorn_py3.unicorn import uclib

from firmware_export.board import Board
from firmware_export.hostlib import compile_host
from firmware_export.memory_usage import flash_image, read_memory
from firmware_export.toolchain import ToolchainError
from host_tools.errors import LinkError

_CPUS = {
    "cortex-m0plus": arm_const.UC_CPU_ARM_CORTEX_M0,
    "cortex-m3": arm_const.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm_const.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7,
}
_PERIPHERALS = ((0x40000000, 0x20000000), (0xE0000000, 0x00100000))
"""Address and bytes: peripherals, private peripheral bus."""
_UART_REGISTERS = {"stm32_usart_v1": (0x00, 0x04, 0x04), "stm32_usart_v2": (0x1C, 0x24, 0x28)}
"""Offsets of status, received data, data to transmit; see boards/<driver>.h."""
_RXNE, _TXE = 0x20, 0xC0
_AIRCR, _DWT_CYCCNT, _TIM2_CNT = 0xE000ED0C, 0xE0001004, 0x40000024
_WFI = b"\x30\xbf"


class _BlockCounter(ctypes.Structure):
    """block_counter of block_counter.c."""

    _fields_: ClassVar = [
        ("executed", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("unknown", ctypes.c_uint64),
        ("origin", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("code", ctypes.c_void_p),
        ("counted", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
    ]


@functools.cache
def _counter_library() -> ctypes.CDLL:
    """block_counter.c, compiled once for this process. Raises ToolchainError when there is no C compiler."""
    with tempfile.TemporaryDirectory(prefix="counter-") as folder:
        library = Path(folder) / "block_counter.so"
        compile_host([Path(__file__).with_name("block_counter.c")], [], library, ["-shared", "-fPIC"])
        return ctypes.CDLL(str(library))


class Machine:
    """CPU, memory and UART of a board, after power-on.

    Attributes:
        received: bytes on their way to the firmware.
        sent: bytes the firmware has sent; whoever reads them removes them.
        resets: how often the firmware has reset itself.
        readers, writers: models of registers by address; tests add their own.
        engine: the unicorn engine, for hooks.
    """

    def __init__(self, board: Board, elf: Path) -> None:
        """Raises ToolchainError for a file that is not an ELF image for this board's memory."""
        self.received, self.sent, self.resets = bytearray(), bytearray(), 0
        self.readers: dict[int, Callable[[], int]] = {}
        self.writers: dict[int, Callable[[int], None]] = {}
        self._board = board
        self._symbols = read_memory(elf).symbols
        self._image = flash_image(elf, board.code.origin, board.code.size)
        if len(self._image) < 8:
            raise ToolchainError(f"{elf} has no vector table; delete it and build again")
        self.engine = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.engine.ctl_set_cpu_model(_CPUS[board.core])
        self._map_memory()
        self._model_registers()
        self._add_counter()
        self._invalid: tuple[int, int] | None = None
        self.engine.hook_add(UC_HOOK_MEM_INVALID, self._on_invalid)
        self.reset()

    @property
    def instructions(self) -> int:
        """Instructions executed since power-on."""
        return int(self._counter.executed)

    def reset(self) -> None:
        """As the board's reset button: the CPU starts anew, RAM keeps its bytes, what was on the line is lost."""
        stack, start = struct.unpack_from("<II", self._image)
        self.received.clear()
        self.engine.reg_write(arm_const.UC_ARM_REG_PRIMASK, 0)
        self.engine.reg_write(arm_const.UC_ARM_REG_SP, stack)
        self._pc, self._reset_wanted, self._count_origin = start & ~1, False, self.instructions

    def run(self, instructions: int) -> bool:
        """Runs until the firmware sleeps, or about so many instructions. Returns whether it sleeps.

        Raises:
            LinkError: it touched memory that is not there, or met an instruction that is none.
        """
        self._counter.limit = self.instructions + instructions
        while self.instructions < self._counter.limit:
            try:
                self.engine.emu_start(self._pc | 1, 0)
            except UcError as error:
                raise self._fault(error) from None
            self._pc = self.engine.reg_read(arm_const.UC_ARM_REG_PC)
            if self._reset_wanted:
                self.reset()
                self.resets += 1
            elif bytes(self.engine.mem_read(self._pc - 2, 2)) == _WFI:
                return True
        return False

    def _map_memory(self) -> None:
        for memory in self._board.memory:
            access = UC_PROT_READ | UC_PROT_EXEC if memory.kind == "flash" else UC_PROT_ALL
            self.engine.mem_map(memory.origin, memory.size, access)
        self.engine.mem_write(self._board.code.origin, self._image)
        for address, size in _PERIPHERALS:
            self.engine.mmio_map(address, size, self._read, address, self._write, address)

    def _read(self, engine: Uc, offset: int, size: int, base: Any) -> int:
        model = self.readers.get(base + offset)
        return 0 if model is None else model()

    def _write(self, engine: Uc, offset: int, size: int, value: int, base: Any) -> None:
        model = self.writers.get(base + offset)
        if model is not None:
            model(value)

    def _model_registers(self) -> None:
        assert self._board.uart is not None
        status, receive, transmit = (self._board.uart.base + o for o in _UART_REGISTERS[self._board.uart.driver])
        self.readers[status] = lambda: _TXE | _RXNE if self.received else _TXE
        self.readers[receive] = lambda: self.received.pop(0) if self.received else 0
        self.writers[transmit] = lambda value: self.sent.append(value & 0xFF)
        self.readers[_DWT_CYCCNT] = self.readers[_TIM2_CNT] = lambda: (self.instructions - self._count_origin) % 2**32
        self.writers[_DWT_CYCCNT] = self._set_count
        self.writers[_AIRCR] = self._system_control

    def _set_count(self, value: int) -> None:
        self._count_origin = self.instructions - value

    def _system_control(self, value: int) -> None:
        if value >> 16 == 0x05FA and value & 4:
            self._reset_wanted = True
            self.engine.emu_stop()

    def _add_counter(self) -> None:
        """Hooks count_block. The Python binding takes only Python functions, hence its C interface."""
        library = _counter_library()
        self._code = ctypes.create_string_buffer(self._image, len(self._image))
        self._counted = (ctypes.c_uint32 * (len(self._image) // 2 + 1))()
        stop = ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p)
        self._counter = _BlockCounter(
            origin=self._board.code.origin,
            size=len(self._image),
            code=ctypes.addressof(self._code),
            counted=ctypes.addressof(self._counted),
            stop=stop,
        )
        function, handle = ctypes.cast(library.count_block, ctypes.c_void_p), ctypes.c_size_t()
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        uclib.uc_hook_add(
            self.engine._uch, ctypes.byref(handle), UC_HOOK_BLOCK, function, ctypes.byref(self._counter), *everywhere
        )

    def _on_invalid(self, engine: Uc, access: int, address: int, size: int, value: int, data: Any) -> bool:
        self._invalid = (access, address)
        return False

    def _fault(self, error: UcError) -> LinkError:
        pc = self.engine.reg_read(arm_const.UC_ARM_REG_PC) & ~1
        inside = [s.name for s in self._symbols if s.address <= pc < s.address + s.size]
        where = f"{inside[0] if inside else 'unknown code'} (address {pc:#010x})"
        what = f"stopped with '{error}'"
        if self._invalid is not None:
            access, address = self._invalid
            verb = {UC_MEM_READ_UNMAPPED: "read", UC_MEM_READ_PROT: "read"}.get(access, "wrote to")
            verb = "jumped to" if access in (UC_MEM_FETCH_UNMAPPED, UC_MEM_FETCH_PROT) else verb
            what = f"{verb} address {address:#010x}, which it must not"
        return LinkError(f"the firmware on the emulated {self._board.name} {what}, in {where}; build it again and report this")
