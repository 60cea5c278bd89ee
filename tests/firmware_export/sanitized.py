"""Programs of kernel calls on the host under the address and undefined-behaviour sanitizers, each buffer a heap block."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_harness.program import HERE, RUNTIME, Case, program_text

from firmware_export.toolchain import Toolchain

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def run_sanitized(cases: list[Case], folder: Path) -> None:
    """Runs the cases; an answer that is wrong or a byte beside a buffer fails the test."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; the sanitizers are tested with gcc")
    gcc = Toolchain("cc", ("gcc",), "any")
    source = folder / "cases.c"
    source.write_text(heap_program(cases))
    sources = sorted({name for case in cases for name in case.code.sources})
    flags = [*gcc.compile_flags("host", "none", "1"), *SANITIZE, f"-I{RUNTIME}", f"-I{HERE}"]
    files = [str(source), str(HERE / "host_main.c"), *(str(RUNTIME / name) for name in sources)]
    gcc.run([*flags, *files, "-o", str(folder / "cases")], "building with sanitizers")
    ended = subprocess.run([str(folder / "cases")], capture_output=True, text=True, timeout=120)
    assert ended.stdout == "failed 0\n", ended.stderr[:2000]


def heap_program(found: list[Case]) -> str:
    """The harness' program with every buffer from malloc instead of one array."""
    text = program_text(found).replace(
        '#include "harness.h"', '#include "harness.h"\n#include <stdlib.h>\n#include <string.h>', 1
    )
    for number, case in enumerate(found):
        places = case.places()
        names = [*(f"in{i}" for i in range(len(case.inputs))), "out"] + (["scratch"] if case.code.scratch_bytes else [])
        sizes = [*(x.size for x in case.inputs), case.expected.size, case.code.scratch_bytes]
        begin = text.index(f"    {case.code.function}(&k{number}_params")
        end = text.index("\n", begin)
        lines = [f"    int8_t *{name} = malloc({size});" for name, size in zip(names, sizes, strict=False)]
        lines += [f"    memcpy(in{i}, input_{number}_{i}, {x.size});" for i, x in enumerate(case.inputs)]
        lines += [f"    {case.code.function}(&k{number}_params, {', '.join(names)});"]
        lines += [f"    memcpy(buffer + {places[len(case.inputs)]}, out, {case.expected.size});"]
        lines += [f"    free({name});" for name in names]
        text = text[:begin] + "\n".join(lines) + text[end:]
    return text
