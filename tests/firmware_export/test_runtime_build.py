"""The kernels as objects: no warning from any compiler for any core, nothing needed from outside, bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from bundle import RUNTIME, gcc_or_skip
from elftools.elf.elffile import ELFFile
from example_cases import all_cases, cases_of

from firmware_export.operators import operator_of, registry
from firmware_export.toolchain import CORES, Toolchain, arm_toolchain, host_toolchain

KERNELS = sorted(
    {source for case in all_cases() for node in case.graph.nodes for source in operator_of(node).emit(case.graph, node).sources}
)
MEMORY = {"memcpy", "memset"}
"""What a freestanding program must have anyway; boards/memory.c gives it."""
ARITHMETIC = {
    "cortex-m0plus": {
        "__aeabi_lmul",
        "__aeabi_lasr",
        "__aeabi_idiv",
        "__aeabi_uidiv",
        "__aeabi_idivmod",
        "__aeabi_uidivmod",
        "__clzsi2",
        "__aeabi_memcpy",
        "__aeabi_memset",
        "__aeabi_memclr4",
    },
    "cortex-m3": {"__aeabi_memcpy", "__aeabi_memset", "__aeabi_memclr4"},
    "cortex-m4": {"__aeabi_memcpy", "__aeabi_memset", "__aeabi_memclr4"},
    "cortex-m7": {"__aeabi_memcpy", "__aeabi_memset", "__aeabi_memclr4"},
    "cortex-m33": {"__aeabi_memcpy", "__aeabi_memset", "__aeabi_memclr4"},
    "cortex-m55": {"__aeabi_memcpy", "__aeabi_memset", "__aeabi_memclr4"},
}
"""What the compilers' own library (libgcc, compiler-rt) does for a core that has no instruction for it."""
FLOAT = {f"__aeabi_{name}" for name in ("fmul", "fdiv", "fsub", "i2f", "f2iz", "fcmpge", "fcmpgt", "fcmple", "fcmplt")}
FLOAT |= {"__divsf3", "__mulsf3", "__gesf2", "__lesf2"}
"""The same for float32 on a core without FPU; only the edges of a model compute in it."""
COMPUTES_IN_FLOAT = {"quantize.c", "dequantize.c"}
SWITCHES = {"__gnu_thumb1_case_uqi", "__gnu_thumb1_case_sqi", "__gnu_thumb1_case_uhi", "__gnu_thumb1_case_shi"}
SHARED = dict.fromkeys(("logistic", "tanh", "hard_swish", "leaky_relu"), "lookup.c") | {"sum": "mean.c"}
"""Operators without a C file of their own."""
LIMIT_M4 = 9216
"""Bytes of all kernels together on a Cortex-M4 at -Os."""


@dataclass(frozen=True)
class Object:
    needed: frozenset[str]
    defined: frozenset[str]
    code: int
    variables: int


def inspect(path: Path) -> Object:
    """Symbols and section sizes of an object file."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        symbols = [
            s for s in elf.get_section_by_name(".symtab").iter_symbols() if s.name and s["st_info"]["bind"] == "STB_GLOBAL"
        ]
        sections = [(s.name, s["sh_size"]) for s in elf.iter_sections()]
    return Object(
        needed=frozenset(s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"),
        defined=frozenset(s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF"),
        code=sum(size for name, size in sections if name.startswith((".text", ".rodata"))),
        variables=sum(size for name, size in sections if name.startswith((".data", ".bss"))),
    )


def compiled(toolchain: Toolchain, core: str, folder: Path, optimize: str = "s") -> dict[str, Object]:
    """Every kernel; a warning is an error."""
    objects = {}
    for name in KERNELS:
        output = folder / f"{name}.o"
        toolchain.compile(RUNTIME / name, output, [*toolchain.compile_flags(core, "none", optimize), f"-I{RUNTIME}"])
        objects[name] = inspect(output)
    return objects


def check_needs(objects: dict[str, Object], core: str) -> None:
    own = frozenset().union(*(o.defined for o in objects.values()))
    for name, found in objects.items():
        known = MEMORY | ARITHMETIC[core] | SWITCHES | (FLOAT if name in COMPUTES_IN_FLOAT else set())
        assert found.needed - own <= known, name
        assert all(symbol.startswith("nn_") for symbol in found.defined), name
        assert found.variables == 0, f"{name} has variables"


@pytest.mark.parametrize("core", sorted(CORES))
def test_gcc(core: str, tmp_path: Path) -> None:
    check_needs(compiled(gcc_or_skip(), core, tmp_path), core)


def test_zig(tmp_path: Path) -> None:
    check_needs(compiled(arm_toolchain("zig"), "cortex-m0plus", tmp_path), "cortex-m0plus")


def test_size_on_a_cortex_m4(tmp_path: Path) -> None:
    objects = compiled(gcc_or_skip(), "cortex-m4", tmp_path)
    sizes = {name: found.code for name, found in objects.items()}
    print(sizes)
    assert sum(sizes.values()) <= LIMIT_M4, sizes


@pytest.fixture(scope="module")
def v6m(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    """The kernels for a Cortex-M0+, where division and 64-bit products are calls, and can be counted."""
    return compiled(gcc_or_skip(), "cortex-m0plus", tmp_path_factory.mktemp("v6m"), "2")


def test_division_only_where_a_pool_meets_another_count_and_for_phases(v6m: dict[str, Object]) -> None:
    divisions = {"__aeabi_idiv", "__aeabi_uidiv", "__aeabi_idivmod", "__aeabi_uidivmod"}
    dividing = {name for name, found in v6m.items() if divisions & found.needed}
    assert dividing == {"average_pool2d.c", "transpose_conv.c"}


def test_64_bit_products_only_where_something_is_requantized(v6m: dict[str, Object]) -> None:
    multiplying = {name for name, found in v6m.items() if "__aeabi_lmul" in found.needed}
    multiplying -= {"add_broadcast.c", "reduce_sum.c", "sub.c", "mul.c", "prelu.c", "batch_matmul.c", "lstm.c"}
    assert multiplying == {"add.c", "dense.c", "depthwise_conv2d.c", "mean.c", "quantize.c", "relu.c", "softmax.c"}


def test_host_compilers_at_other_levels(tmp_path: Path) -> None:
    """Some warnings only come with optimisation, some only without."""
    host = host_toolchain()
    for level in ("s", "3"):
        for name in KERNELS:
            flags = [*host.compile_flags("host", "none", level), "-fPIC", f"-I{RUNTIME}"]
            host.compile(RUNTIME / name, tmp_path / "host.o", flags)


@pytest.mark.parametrize("name", sorted(registry()))
def test_an_operator_is_two_files(name: str) -> None:
    """The Python file, and a C file with its header, which define the function and its parameters; both have its name
    where no other operator computes with the same function."""
    codes = [operator_of(case.graph.nodes[0]).emit(case.graph, case.graph.nodes[0]) for case in cases_of(name)]
    for code in codes:
        header = (RUNTIME / f"{code.sources[0].removesuffix('.c')}.h").read_text()
        assert code.sources[0] in KERNELS
        assert f"void {code.function}(" in header and f"}} {code.params_type};" in header
    assert codes[0].sources[0] == SHARED.get(name, f"{name}.c")


@pytest.mark.parametrize("name", KERNELS)
def test_headers_guard_themselves(name: str) -> None:
    stem = name.removesuffix(".c")
    header = (RUNTIME / f"{stem}.h").read_text()
    guard = f"NN_{stem.upper()}_H"
    assert f"#ifndef {guard}\n#define {guard}\n" in header and header.rstrip().endswith("#endif")


@pytest.mark.parametrize("name", KERNELS)
def test_sources_begin_with_what_they_are(name: str) -> None:
    text = (RUNTIME / name).read_text()
    assert text.startswith("/* ")
    assert "malloc" not in text and "stdio" not in text and "assert" not in text
    assert max(map(len, text.splitlines())) <= 128
