"""Machine code of a Cortex-M image as instructions: what each reads, writes, costs the stack, and where it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstone import CS_ARCH_ARM, CS_MODE_MCLASS, CS_MODE_THUMB, CS_MODE_V8, Cs
from capstone import arm as c
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

_CALLS = (c.ARM_INS_BL, c.ARM_INS_BLX)
_MULTIPLE_LOADS = (c.ARM_INS_LDM, c.ARM_INS_POP, c.ARM_INS_VLDMIA, c.ARM_INS_VPOP, c.ARM_INS_LDMDB, c.ARM_INS_VLDMDB)
_MULTIPLE_STORES = (c.ARM_INS_STM, c.ARM_INS_PUSH, c.ARM_INS_STMDB, c.ARM_INS_VSTMIA, c.ARM_INS_VPUSH, c.ARM_INS_VSTMDB)
_LOADS = (
    c.ARM_INS_LDR, c.ARM_INS_LDRB, c.ARM_INS_LDRH, c.ARM_INS_LDRSB, c.ARM_INS_LDRSH, c.ARM_INS_LDRT, c.ARM_INS_LDRBT,
)  # fmt: skip
_STORES = (c.ARM_INS_STR, c.ARM_INS_STRB, c.ARM_INS_STRH)
_BRANCHES = (c.ARM_INS_B, c.ARM_INS_CBZ, c.ARM_INS_CBNZ)
_LONG_FLOAT = (c.ARM_INS_VDIV, c.ARM_INS_VSQRT)
_FUSED_FLOAT = (c.ARM_INS_VMLA, c.ARM_INS_VMLS, c.ARM_INS_VFMA, c.ARM_INS_VFMS, c.ARM_INS_VNMLA, c.ARM_INS_VNMLS)


WEIGHTS = ".weights"


@dataclass(frozen=True)
class Instruction:
    """One Thumb instruction.

    kind: "alu", "address" (ADR: a place in the code nearby), "load", "store", "load many", "store many", "branch", "call",
        "return", "pointer" (BLX, BX: a call or jump to the address in a register), "table" (TBB, TBH), "divide",
        "float long", "float fused", "it".
    words: registers that a multiple load or store moves. target: of a branch or call to a fixed address.
    reads, writes: registers, by capstone's numbers. address: those that make a memory address.
    indexed: whether the address is a sum of two registers.
    pushed: bytes by which it lowers the stack pointer; -1: by a register.
    constant: what MOVW or MOVT puts into one half of the register it writes.
    """

    place: int
    size: int
    mnemonic: str
    kind: str
    words: int = 0
    target: int | None = None
    reads: frozenset[int] = frozenset()
    writes: frozenset[int] = frozenset()
    address: frozenset[int] = frozenset()
    indexed: bool = False
    pushed: int = 0
    constant: int | None = None

    @property
    def misaligned(self) -> bool:
        """A 32-bit instruction that does not lie at a multiple of 4."""
        return self.size == 4 and self.place % 4 != 0


def disassemble(code: bytes, place: int) -> list[Instruction]:
    """The instructions of a piece of code that lies at `place`. What capstone does not know counts as "alu"."""
    engine = Cs(CS_ARCH_ARM, CS_MODE_THUMB | CS_MODE_MCLASS | CS_MODE_V8)
    engine.detail = True
    found, offset = [], 0
    while offset < len(code):
        decoded = next(engine.disasm(code[offset : offset + 4], place + offset, 1), None)
        if decoded is None:
            wide = code[offset + 1] >> 3 >= 0x1D
            found.append(Instruction(place + offset, 4 if wide else 2, "unknown", "alu"))
        else:
            found.append(_instruction(decoded))
        offset += found[-1].size
    return found


def _instruction(decoded: Any) -> Instruction:
    insn = decoded
    reads, writes = insn.regs_access()
    operands = insn.operands
    memory = [o.mem for o in operands if o.type == c.ARM_OP_MEM]
    kind, words = _kind(insn, operands, set(writes))
    base = {memory[0].base} | ({memory[0].index} if memory[0].index else set()) if memory else set()
    if kind in ("load many", "store many") and not memory:
        base = {c.ARM_REG_SP} if _is_push_or_pop(insn) else {operands[0].reg}
    fixed = [o.imm for o in operands if o.type == c.ARM_OP_IMM] if kind in ("branch", "call") else []
    return Instruction(
        insn.address,
        insn.size,
        insn.mnemonic,
        kind,
        words,
        fixed[-1] if fixed else None,
        frozenset(reads),
        frozenset(writes),
        frozenset(base),
        bool(memory and memory[0].index),
        _pushed(insn, operands, words, memory),
        operands[1].imm if insn.mnemonic.startswith(("movw", "movt")) else None,
    )


def _is_push_or_pop(insn: Any) -> bool:
    return insn.id in (c.ARM_INS_PUSH, c.ARM_INS_POP, c.ARM_INS_VPUSH, c.ARM_INS_VPOP)


def _kind(insn: Any, operands: list[Any], writes: set[int]) -> tuple[str, int]:
    """The kind, and the registers that a multiple access moves."""
    number = insn.id
    if number in _MULTIPLE_LOADS or number in _MULTIPLE_STORES:
        registers = [o.reg for o in operands if o.type == c.ARM_OP_REG]
        listed = registers if _is_push_or_pop(insn) else registers[1:]
        words = sum(2 if c.ARM_REG_D0 <= r <= c.ARM_REG_D31 else 1 for r in listed)
        return ("load many" if number in _MULTIPLE_LOADS else "store many"), words
    single = {c.ARM_INS_LDRD: ("load many", 2), c.ARM_INS_STRD: ("store many", 2)}
    single |= {c.ARM_INS_VLDR: ("load many", 1), c.ARM_INS_VSTR: ("store many", 1)}
    single |= (
        dict.fromkeys(_BRANCHES, ("branch", 0)) | dict.fromkeys(_LOADS, ("load", 0)) | dict.fromkeys(_STORES, ("store", 0))
    )
    single |= {c.ARM_INS_TBB: ("table", 0), c.ARM_INS_TBH: ("table", 0)}
    single |= {c.ARM_INS_SDIV: ("divide", 0), c.ARM_INS_UDIV: ("divide", 0), c.ARM_INS_IT: ("it", 0)}
    single |= dict.fromkeys(_LONG_FLOAT, ("float long", 0)) | dict.fromkeys(_FUSED_FLOAT, ("float fused", 0))
    if number in _CALLS:
        return ("call" if operands[0].type == c.ARM_OP_IMM else "pointer"), 0
    if number == c.ARM_INS_BX:
        return ("return" if operands[0].reg == c.ARM_REG_LR else "pointer"), 0
    if number in single:
        return single[number]
    if number == c.ARM_INS_ADR or (number in (c.ARM_INS_ADD, c.ARM_INS_ADDW) and _reads_place(operands)):
        return "address", 0
    return ("return" if c.ARM_REG_PC in writes else "alu"), 0


def _reads_place(operands: list[Any]) -> bool:
    """Whether the second operand is the program counter."""
    return bool(operands[1].type == c.ARM_OP_REG and operands[1].reg == c.ARM_REG_PC)


def _pushed(insn: Any, operands: list[Any], words: int, memory: list[Any]) -> int:
    number = insn.id
    registers = [o.reg for o in operands if o.type == c.ARM_OP_REG]
    if number in (c.ARM_INS_PUSH, c.ARM_INS_VPUSH):
        return 4 * words
    if number in (c.ARM_INS_STMDB, c.ARM_INS_VSTMDB) and registers[0] == c.ARM_REG_SP:
        return 4 * words
    if number in (c.ARM_INS_SUB, c.ARM_INS_SUBW) and registers[0] == c.ARM_REG_SP:
        immediate = [o.imm for o in operands if o.type == c.ARM_OP_IMM]
        return int(immediate[-1]) if immediate else -1
    if number in (*_STORES, c.ARM_INS_STRD) and memory and insn.writeback and memory[0].base == c.ARM_REG_SP:
        return max(0, -int(memory[0].disp))
    return 0


@dataclass(frozen=True)
class Function:
    """A function of an image and its instructions in order."""

    name: str
    place: int
    instructions: tuple[Instruction, ...]


def functions(elf: Path) -> dict[int, Function]:
    """Every function of an image by its address; constants between the code (mapping symbols $d) are left out."""
    found = {}
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        sections = [(s["sh_addr"], s.data()) for s in file.iter_sections() if s["sh_flags"] & SH_FLAGS.SHF_EXECINSTR]
        symbols = list(file.get_section_by_name(".symtab").iter_symbols())
    marks = sorted((s["st_value"], s.name[:2]) for s in symbols if s.name[:2] in ("$t", "$d"))
    for symbol in symbols:
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"] and symbol["st_shndx"] != "SHN_UNDEF":
            start = symbol["st_value"] & ~1
            pieces = _code_pieces(start, start + symbol["st_size"], marks)
            code = [i for begin, end in pieces for i in disassemble(_bytes(sections, begin, end), begin)]
            found[start] = Function(symbol.name, start, tuple(code))
    return found


def _code_pieces(start: int, end: int, marks: Sequence[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    """The parts of [start, end) that are instructions."""
    inside = [(place, kind) for place, kind in marks if start < place < end]
    before = [kind for place, kind in marks if place <= start]
    bounds = [(start, before[-1] if before else "$t"), *inside]
    for (place, kind), (following, _) in zip(bounds, [*bounds[1:], (end, "")], strict=True):
        if kind == "$t" and following > place:
            yield place, following


def _bytes(sections: Sequence[tuple[int, bytes]], begin: int, end: int) -> bytes:
    for address, data in sections:
        if address <= begin and end <= address + len(data):
            return data[begin - address : end - address]
    return b""


def taken_addresses(elf: Path, known: Mapping[int, Function]) -> frozenset[int]:
    """The functions whose address stands somewhere in the image, as a word or as the halves of MOVW and MOVT: those that a
    call through a pointer may reach. The section of weights is left out: it holds numbers."""
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        kept = [s for s in file.iter_sections() if s["sh_flags"] & SH_FLAGS.SHF_ALLOC and s["sh_type"] != "SHT_NOBITS"]
        data = [s.data() for s in kept if s.name != WEIGHTS]
    words = {int.from_bytes(part[i : i + 4], "little") for part in data for i in range(0, len(part) - 3, 4)}
    for function in known.values():
        words |= _assembled(function)
    return frozenset(place for place in known if place | 1 in words)


def _assembled(function: Function) -> set[int]:
    """Every word that a MOVW and a MOVT of the same register can make together."""
    halves: dict[frozenset[int], tuple[set[int], set[int]]] = {}
    for i in function.instructions:
        if i.constant is not None:
            halves.setdefault(i.writes, (set(), set()))[i.mnemonic.startswith("movt")].add(i.constant)
    return {high << 16 | low for lows, highs in halves.values() for low in lows for high in highs}
