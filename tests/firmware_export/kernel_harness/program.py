"""Programs of kernel calls: each case is a LayerCode with inputs, expected output and places in one buffer.

The same C text runs on the host, in unicorn and in qemu. Every case checks its output, and that not a byte beside its
buffers has changed.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firmware_export.c_text import array_definition, packed_lines
from firmware_export.operators import LayerCode
from firmware_export.toolchain import Toolchain, host_toolchain

HERE = Path(__file__).parent
RUNTIME = HERE.parents[2] / "firmware_export" / "runtime"
_FOLDER = tempfile.TemporaryDirectory(prefix="kernels-")
GUARD = 32
"""Bytes around and between the buffers that must keep their pattern."""


@dataclass(frozen=True)
class Memory:
    """Where a program lies on qemu's evaluation board of a core: vectors, code with constants, and RAM."""

    vectors: int = 0x00000000
    flash: int = 0x00000000
    ram: int = 0x20000000
    size: int = 4 << 20

    def script(self, text: str) -> str:
        """The linker script `text` with these addresses."""
        lines = [line for line in text.splitlines() if " : ORIGIN = " not in line]
        place = lines.index("MEMORY {") + 1
        regions = {"VECTORS (rx)": (self.vectors, 1024), "FLASH (rx)": (self.flash, self.size)}
        if self.vectors == self.flash:
            regions["FLASH (rx)"] = (self.flash + 1024, self.size - 1024)
        regions["RAM (rwx)"] = (self.ram, self.size)
        lines[place:place] = [f"    {name} : ORIGIN = {start:#x}, LENGTH = {size}" for name, (start, size) in regions.items()]
        return "\n".join(lines) + "\n"


MEMORIES = {
    "cortex-m33": Memory(vectors=0x10000000, flash=0x10000000, ram=0x38000000),
    "cortex-m55": Memory(flash=0x11000000, ram=0x31000000, size=2 << 20),
}
"""Cores whose board is not laid out as Memory() says: the secure aliases of mps2-an505 and mps3-an547."""


@dataclass(frozen=True)
class Case:
    """One call. Offsets are places in the buffer; None lays inputs, output and scratch one behind the other, apart."""

    code: LayerCode
    inputs: tuple[np.ndarray, ...]
    expected: np.ndarray
    offsets: tuple[int, ...] | None = None

    def places(self) -> tuple[int, ...]:
        """Offsets of the inputs, the output and the scratch."""
        if self.offsets is not None:
            return self.offsets
        sizes = [*(x.size for x in self.inputs), self.expected.size]
        offsets = [GUARD]
        for size in sizes:
            offsets.append(-(-(offsets[-1] + size + GUARD) // 16) * 16)
        return tuple(offsets)

    def extent(self) -> int:
        """Bytes of the buffer that this case needs, guard included."""
        places = self.places()
        sizes = [*(x.size for x in self.inputs), self.expected.size, self.code.scratch_bytes]
        return max(place + size for place, size in zip(places, sizes, strict=True)) + GUARD


def program_text(cases: Sequence[Case]) -> str:
    """The C file of a program that runs the cases in order."""
    headers = sorted({case.code.sources[0].removesuffix(".c") + ".h" for case in cases})
    includes = "\n".join(f'#include "{header}"' for header in headers)
    bodies = "\n".join(_case_text(number, case) for number, case in enumerate(cases))
    calls = "\n".join(f"    case_{number}();" for number in range(len(cases)))
    size = max(case.extent() for case in cases)
    return PROGRAM.format(includes=includes, count=len(cases), size=size, bodies=bodies, calls=calls, guard=GUARD)


PROGRAM = """\
#include "harness.h"
{includes}

static uint8_t buffer[{size}] __attribute__((aligned(16)));
volatile uint32_t failures[{count}];

static uint8_t pattern(uint32_t place) {{ return (uint8_t)(0xa5u ^ place); }}

static void put(uint32_t place, const int8_t *bytes, uint32_t count) {{
    for (uint32_t i = 0; i < count; ++i) {{
        buffer[place + i] = (uint8_t)bytes[i];
    }}
}}

static uint32_t wrong_bytes(uint32_t place, const int8_t *bytes, uint32_t count) {{
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < count; ++i) {{
        wrong += buffer[place + i] != (uint8_t)bytes[i] ? 1u : 0u;
    }}
    return wrong;
}}

/* Whether a place lies in one of the ranges, pairs of begin and end. */
static int may_change(uint32_t place, const uint32_t *ranges, uint32_t count) {{
    for (uint32_t i = 0; i < count; i += 2u) {{
        if (place >= ranges[i] && place < ranges[i + 1u]) {{
            return 1;
        }}
    }}
    return 0;
}}

/* Bytes right before and behind the ranges that have lost their pattern. */
static uint32_t touched_bytes(const uint32_t *ranges, uint32_t count) {{
    uint32_t touched = 0;
    for (uint32_t i = 0; i < count; ++i) {{
        const uint32_t first = i % 2u == 0u ? ranges[i] - {guard}u : ranges[i];
        for (uint32_t place = first; place < first + {guard}u; ++place) {{
            touched += !may_change(place, ranges, count) && buffer[place] != pattern(place) ? 1u : 0u;
        }}
    }}
    return touched;
}}

{bodies}
void run_cases(void) {{
    uint32_t failed = 0;
    marker();
    marker();
{calls}
    for (uint32_t i = 0; i < {count}u; ++i) {{
        failed += failures[i] != 0u ? 1u : 0u;
    }}
    finish(failed, failures, {count}u);
}}
"""

CASE = """\
{constants}
static void case_{number}(void) {{
    static const uint32_t ranges[] = {{{ranges}}};
    for (uint32_t i = 0; i < sizeof buffer; ++i) {{
        buffer[i] = pattern(i);
    }}
{puts}
    marker();
    {function}({arguments});
    marker();
    failures[{number}] = wrong_bytes({output}u, expected_{number}, {size}u) + touched_bytes(ranges, {range_count}u);
}}
"""


def _case_text(number: int, case: Case) -> str:
    code, places = case.code, case.places()
    name = f"k{number}"
    arrays = [array_definition(c.data, f"{name}_{c.suffix}") for c in code.constants]
    arrays += [array_definition(x.reshape(-1), f"input_{number}_{i}") for i, x in enumerate(case.inputs)]
    arrays.append(array_definition(case.expected.reshape(-1), f"expected_{number}"))
    sizes = [*(x.size for x in case.inputs), case.expected.size]
    puts = (f"    put({places[i]}u, input_{number}_{i}, {x.size}u);" for i, x in enumerate(case.inputs))
    used = places if code.scratch_bytes else places[: len(sizes)]
    spans = [*zip(places, sizes, strict=False), *([(places[-1], code.scratch_bytes)] if code.scratch_bytes else [])]
    return CASE.format(
        constants="\n".join(f"static {text}" for text in arrays) + "\n" + _params(name, code),
        number=number,
        ranges=", ".join(f"{begin}u, {begin + size}u" for begin, size in spans),
        range_count=2 * len(spans),
        puts="\n".join(puts),
        function=code.function,
        arguments=", ".join([f"&{name}_params", *(f"(int8_t *)buffer + {place}" for place in used)]),
        output=places[len(case.inputs)],
        size=case.expected.size,
    )


def _params(name: str, code: LayerCode) -> str:
    fields = []
    for field, text in code.fields.items():
        for constant in code.constants:
            text = text.replace(f"{{{constant.suffix}}}", f"{name}_{constant.suffix}")
        fields.append(f".{field} = {text}")
    return f"static const {code.params_type} {name}_params = {{\n" + "\n".join(packed_lines(fields)) + "\n};\n"


def build_program(cases: Sequence[Case], toolchain: Toolchain, core: str = "cortex-m4", fpu: str = "none") -> Path:
    """Compiles and links a program for an emulated core, or for the host; gives the executable."""
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
    source = folder / "cases.c"
    source.write_text(program_text(cases))
    flags = [*toolchain.compile_flags(core, fpu, "2"), f"-I{RUNTIME}", f"-I{HERE}"]
    sources = sorted({name for case in cases for name in case.code.sources})
    surroundings = [HERE / "host_main.c"] if core == "host" else [HERE / "startup.c", RUNTIME.parent / "boards" / "memory.c"]
    objects = [_object(RUNTIME / name, toolchain, tuple(flags)) for name in sources]
    objects += [_object(path, toolchain, (*flags, "-fno-builtin")) for path in surroundings]
    toolchain.compile(source, folder / "cases.o", flags)
    executable = folder / "cases.elf"
    if core == "host":
        toolchain.run([*map(str, (*objects, folder / "cases.o")), "-o", str(executable)], "linking")
    else:
        toolchain.link([*objects, folder / "cases.o"], executable, linker_script(core, folder), core, fpu)
    return executable


def linker_script(core: str, folder: Path) -> Path:
    """Writes the linker script for a core."""
    script = folder / "memory.ld"
    script.write_text(MEMORIES.get(core, Memory()).script((HERE / "flash.ld").read_text()))
    return script


@functools.cache
def _object(source: Path, toolchain: Toolchain, flags: tuple[str, ...]) -> Path:
    """A compiled file, once for each toolchain and set of flags."""
    key = hashlib.sha256(repr((toolchain.command, flags)).encode()).hexdigest()[:16]
    output = Path(_FOLDER.name) / f"{source.stem}-{key}.o"
    toolchain.compile(source, output, list(flags))
    return output


@functools.cache
def host() -> Toolchain:
    """The host's compiler, asked for once."""
    return host_toolchain()
