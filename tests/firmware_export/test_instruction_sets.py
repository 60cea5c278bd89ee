"""Every image holds only instructions its core has: emulators here run more than a core does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile
from firmware_builder import BOARDS, COMPILER, COMPILERS, compiler, echo_image

from firmware_export.board import load_board
from firmware_export.image import link_image

ARCHITECTURES = {"cortex-m0plus": 12, "cortex-m3": 10, "cortex-m4": 13, "cortex-m7": 13}
"""Tag_CPU_arch of the ARM ABI (addenda 32): v6S-M, v7, v7E-M."""
SECTIONS = {".text", ".stack", ".data", ".activations", ".bss"}
# ARMv7E-M only (DSP extension): ARMv7-M manual A4.4.3 and following.
DSP = re.compile(
    r"(sml[as]l?(bb|bt|tb|tt|ww|wb|wt|ad|sd|d|dx|adx|sdx|awb|awt)x?|smu(ad|sd)x?|smul(bb|bt|tb|tt|wb|wt)|smm(la|ls|ul)r?|"
    r"[su]sat16|[suq][hq]?(add|sub)(8|16)|[suq][hq]?(asx|sax)|uh(add|sub)(8|16)|q(d)?(add|sub)|[su]xta(b|h|b16)|"
    r"[su]xtb16|pkh(bt|tb)|sel|usada?8|umaal)(\.w)?"
)
FLOAT = re.compile(r"v\w+(\.f\d+)?.*|fld.*|fst.*")


def code_of(image: Path) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of every stretch of Thumb code, told from data by the mapping symbols $t and $d."""
    with image.open("rb") as stream:
        elf = ELFFile(stream)
        text = elf.get_section_by_name(".text")
        data, origin, end = text.data(), text["sh_addr"], text["sh_addr"] + text["sh_size"]
        symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
        marks = {
            s["st_value"]: s.name[:2] for s in symbols if s.name[:2] in ("$t", "$d", "$a") and origin <= s["st_value"] < end
        }
        objects = {s["st_value"] for s in symbols if s["st_info"]["type"] == "STT_OBJECT" and origin <= s["st_value"] < end}
    places = sorted({*marks, *objects, end})
    assert "$a" not in marks.values(), "no Cortex-M has ARM code"
    for start, stop in itertools.pairwise(places):
        if marks.get(start) == "$t":
            yield start, data[start - origin : stop - origin]


def halfwords(code: bytes) -> Iterator[tuple[int, int | None]]:
    """Each instruction as its first halfword and, for a 32-bit one, its second."""
    words = [int.from_bytes(code[i : i + 2], "little") for i in range(0, len(code) - 1, 2)]
    place = 0
    while place < len(words):
        wide = words[place] >> 11 >= 0x1D
        yield words[place], words[place + 1] if wide else None
        place += 2 if wide else 1


def is_v6m(first: int, second: int | None) -> bool:
    """ARMv6-M manual A5: 32-bit instructions are BL, MSR, MRS and barriers; no CBZ, no IT."""
    if second is None:
        return not (first & 0xF500 == 0xB100 or (first & 0xFF00 == 0xBF00 and first & 0xF))
    call = first & 0xF800 == 0xF000 and second & 0xD000 == 0xD000
    barrier = first == 0xF3BF and second & 0xFFC0 in (0x8F40, 0x8F00)
    status = (first & 0xFFF0 == 0xF380 and second & 0xFF00 == 0x8800) or (first == 0xF3EF and second & 0xF000 == 0x8000)
    undefined = first & 0xFFF0 == 0xF7F0 and second & 0xF000 == 0xA000
    return call or barrier or status or undefined


def mnemonics(code: bytes, address: int) -> list[str]:
    """Mnemonics without condition; everything must be decodable."""
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    found = list(decoder.disasm(code, address))
    assert sum(instruction.size for instruction in found) == len(code), hex(address)
    return [i.mnemonic for i in found]


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("name", BOARDS)
def test_image_is_marked_for_its_core(name: str, kind: str) -> None:
    with echo_image(name, kind).image.open("rb") as stream:
        elf = ELFFile(stream)
        assert {s.name for s in elf.iter_sections() if s["sh_flags"] & 2 and s["sh_size"]} <= SECTIONS
        attributes = elf.get_section_by_name(".ARM.attributes")
        tags = {
            tag.tag: tag.value
            for part in attributes.iter_subsections()
            for s in part.iter_subsubsections()
            for tag in s.iter_attributes()
        }
    assert tags["TAG_CPU_ARCH"] == ARCHITECTURES[load_board(name).core]
    assert chr(tags["TAG_CPU_ARCH_PROFILE"]) == "M"
    assert (tags.get("TAG_ABI_VFP_ARGS", 0) == 1) == (load_board(name).fpu != "none")


@pytest.mark.parametrize("kind", COMPILERS)
def test_m0plus_has_nothing_newer_than_v6m(kind: str) -> None:
    image = echo_image("nucleo_g071rb", kind).image
    count = 0
    for address, code in code_of(image):
        for first, second in halfwords(code):
            assert is_v6m(first, second), f"{first:04x} {second} after {address:#x}"
            count += 1
    assert count > 500


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("name", [name for name in BOARDS if name != "nucleo_g071rb"])
def test_no_dsp_on_m3_and_no_foreign_float(name: str, kind: str) -> None:
    found = {m for address, code in code_of(echo_image(name, kind).image) for m in mnemonics(code, address)}
    assert {"ldr", "bl"} <= found
    if load_board(name).core == "cortex-m3":
        assert not {m for m in found if DSP.fullmatch(m) or FLOAT.fullmatch(m)}
    if load_board(name).fpu == "fpv4-sp-d16":
        assert not {m for m in found if m.endswith(".f64") and not m.startswith(("vldr", "vstr", "vmov"))}
    if load_board(name).fpu != "none":
        assert {m for m in found if FLOAT.fullmatch(m)}, "the multiplication of floats in echo_main.c"


def test_the_checks_see_what_they_are_for(tmp_path: Path) -> None:
    """Code for a larger core, put into the same checks, is found."""
    main = tmp_path / "dsp_main.c"
    main.write_text(
        "int main(void);\nstatic volatile int x;\nint main(void) {\n    int y = 0;\n    if (x) {\n"
        '        __asm__ volatile("smlad %0, %1, %1, %0" : "+r"(y) : "r"(x));\n    }\n    return y / x;\n}\n'
    )
    image = link_image(load_board("nucleo_f446re"), [main], [], tmp_path / "work", compiler(COMPILER)).image
    assert any(DSP.fullmatch(m) for address, code in code_of(image) for m in mnemonics(code, address))
    assert not all(is_v6m(*pair) for _, code in code_of(image) for pair in halfwords(code))


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        (0xB570, None, True),  # push
        (0xB100, None, False),  # cbz
        (0xBB11, None, False),  # cbnz
        (0xBF08, None, False),  # it eq
        (0xBF30, None, True),  # wfi
        (0xF000, 0xF801, True),  # bl
        (0xF3EF, 0x8010, True),  # mrs r0, primask
        (0xF380, 0x8810, True),  # msr primask, r0
        (0xF3BF, 0x8F4F, True),  # dsb
        (0xF3BF, 0x8F6F, True),  # isb
        (0xFB90, 0xF0F1, False),  # sdiv
        (0xF44F, 0x7080, False),  # mov.w
        (0xE92D, 0x4FF0, False),  # push.w
    ],
)
def test_decoder_of_v6m(first: int, second: int | None, allowed: bool) -> None:
    assert is_v6m(first, second) == allowed


def test_names_of_dsp_instructions() -> None:
    for name in (
        "smlad",
        "smuad",
        "sxtab16",
        "ssat16",
        "qadd",
        "uadd8",
        "smlabb",
        "smulwb",
        "pkhbt",
        "smmla",
        "sxtah",
        "umaal",
    ):
        assert DSP.fullmatch(name), name
    for name in ("smull", "smlal", "umull", "mla", "sxtb", "uxth", "ssat", "usat", "sbfx", "mls", "subs", "sub.w"):
        assert not DSP.fullmatch(name), name
