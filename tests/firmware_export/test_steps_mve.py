"""The inner steps for Helium, called directly in their C form, against numpy; what the assembly keeps of its caller's."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import COMPILERS, compiler
from kernel_harness.machine import MACHINES
from kernel_harness.program import HERE, RUNTIME, host, linker_script
from kernel_harness.shared_objects import ArmLibrary, HostLibrary, Library
from mve_checks import CORE, FPU, needs_qemu
from second_arithmetic import divide_by_power, doubling_high_mul, wrapped

SOURCES = ("step_mve.c", "step_depthwise_mve.c")
FORMS = ("plain", "signed", "general")
FUNCTIONS = (
    "nn_mve_clamp", "nn_mve_copy_rows", "nn_mve_copy_two", "nn_strip_interleave",
    *(f"nn_mve_{what}_{form}" for what in ("pair", "single") for form in FORMS),
    *(f"nn_strip_{rows}_{form}" for rows in ("two_rows", "one_row") for form in FORMS[:2]),
)  # fmt: skip
on_every_build = pytest.mark.parametrize("kind", ["host", "m3"])


@functools.cache
def library(kind: str) -> Library:
    """host: this machine; m3: a core without vectors, in unicorn."""
    return HostLibrary(SOURCES, host()) if kind == "host" else ArmLibrary(SOURCES, FUNCTIONS, compiler("zig"), "cortex-m3")


def fresh(kind: str) -> Library:
    library(kind).reset()
    return library(kind)


def requantized(total: int, multiplier: int, shift: int, zero_point: int, form: str) -> int:
    """What step_mve.h says of the forms, on Python integers."""
    scaled = doubling_high_mul(wrapped(total << max(shift, 0)), multiplier)
    right = max(-shift, 0)
    if form == "plain":
        scaled = (scaled + (1 << right >> 1)) >> right
    else:
        scaled = divide_by_power(scaled, right)
    return max(-128, min(127, scaled + zero_point))


@dataclass
class Groups:
    """Random channels: weights [channels, rows, bytes of a row], and their output stage."""

    weights: np.ndarray
    start: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray

    @staticmethod
    def random(rng: np.random.Generator, groups: int, rows: int, row_bytes: int, form: str) -> Groups:
        count = 8 * groups
        low, high = {"plain": (-12, 1), "signed": (-12, 0), "general": (-12, 4)}[form]
        return Groups(
            rng.integers(-128, 128, (count, rows, row_bytes)),
            rng.integers(-20_000, 20_000, count),
            rng.integers(1 << 30, 1 << 31, count),
            rng.integers(low, high, count),
        )

    def records(self) -> bytes:
        """As step_mve.h describes them."""
        raw = b""
        vectors = self.weights.shape[2] // 16
        for first in range(0, self.start.size, 8):
            blocks = [np.arange(first + odd, first + 8, 2) for odd in (0, 1)]
            for block in blocks:
                raw += self.start[block].astype("<i4").tobytes()
                whole = self.weights[block, :, : 16 * vectors].reshape(4, -1, 16).swapaxes(0, 1)
                raw += whole.astype("i1").tobytes() + self.weights[block, :, 16 * vectors :].astype("i1").tobytes()
            for block in blocks:
                raw += self.multiplier[block].astype("<i4").tobytes() + self.shift[block].astype("i1").tobytes()
        return raw

    def outputs(self, x: np.ndarray, zero_point: int, form: str) -> list[int]:
        """x: [rows, bytes of a row]."""
        sums = self.start + (self.weights * x).sum((1, 2))
        stages = zip(sums.tolist(), self.multiplier.tolist(), self.shift.tolist(), strict=True)
        return [requantized(*stage, zero_point, form) for stage in stages]


def call_step(what: Library, function: str, groups: Groups, pixels: list[np.ndarray], zero_point: int, gap: int) -> np.ndarray:
    """Puts everything into memory, calls, and gives int8 [pixels, channels]."""
    rows, row_bytes = pixels[0].shape
    images = [np.pad(x, ((0, 0), (0, gap)), constant_values=99).astype(np.int8).reshape(-1) for x in pixels]
    places = [what.put(image[: image.size - gap], misaligned=3) for image in images]
    outputs = [what.room(groups.start.size, misaligned=5) for _ in pixels]
    raw = groups.records()
    weights = what.put(raw)
    pair = lambda values: values if len(values) == 2 else [values[0], values[0]]  # noqa: E731
    fields = [
        *pair(places),
        *pair(outputs),
        weights,
        weights + len(raw),
        rows,
        row_bytes // 16,
        row_bytes % 16,
        gap,
        zero_point,
    ]
    what.call(function, what.put_struct("PPPPPPIIIIiII", [*fields, 0, 0]))
    what.assert_untouched()
    return np.stack([what.get(place, "i1", groups.start.size) for place in outputs])


@on_every_build
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "groups, rows, row_bytes, gap",
    [(1, 1, 16, 0), (2, 1, 5, 0), (3, 1, 37, 0), (1, 3, 48, 7), (2, 3, 64, 96), (1, 2, 80, 1), (1, 1, 1, 0)],
)
def test_pairs(kind: str, form: str, groups: int, rows: int, row_bytes: int, gap: int) -> None:
    rng = np.random.default_rng(row_bytes)
    made = Groups.random(rng, groups, rows, row_bytes, form)
    pixels = [rng.integers(-128, 128, (rows, row_bytes)) for _ in range(2)]
    found = call_step(fresh(kind), f"nn_mve_pair_{form}", made, pixels, -7, gap)
    assert found.tolist() == [made.outputs(x, -7, form) for x in pixels]


@on_every_build
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("groups, depth", [(1, 16), (2, 1), (1, 15), (3, 64), (1, 77)])
def test_singles(kind: str, form: str, groups: int, depth: int) -> None:
    rng = np.random.default_rng(depth)
    made = Groups.random(rng, groups, 1, depth, form)
    x = rng.integers(-128, 128, (1, depth))
    assert call_step(fresh(kind), f"nn_mve_single_{form}", made, [x], 90, 0).tolist() == [made.outputs(x, 90, form)]


@on_every_build
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_clamp(kind: str, count: int) -> None:
    what = fresh(kind)
    x = np.random.default_rng(count).integers(-128, 128, count).astype(np.int8)
    place = what.put(x, misaligned=1)
    what.call("nn_mve_clamp", place, count, -20, 33)
    assert np.array_equal(what.get(place, "i1", count), x.clip(-20, 33))
    what.assert_untouched()


@on_every_build
@pytest.mark.parametrize("rows, row_bytes", [(1, 1), (3, 9), (3, 16), (2, 40)])
def test_copied_rows(kind: str, rows: int, row_bytes: int) -> None:
    what = fresh(kind)
    x = np.random.default_rng(rows).integers(-128, 128, (rows, 50)).astype(np.int8)
    to = what.room(rows * (row_bytes + 2))
    what.call("nn_mve_copy_rows", what.put(x), 50, to, row_bytes + 2, row_bytes, rows)
    found = what.get(to, "i1", rows * (row_bytes + 2)).reshape(rows, -1)
    assert np.array_equal(found[:, :row_bytes], x[:, :row_bytes])
    assert np.all(found[:, row_bytes:].view(np.uint8) == 0xC3)


@on_every_build
@pytest.mark.parametrize("rows, row_bytes, apart", [(3, 9, 3), (3, 9, 6), (10, 4, 2), (1, 16, 16)])
def test_two_copied_windows(kind: str, rows: int, row_bytes: int, apart: int) -> None:
    """Rows side by side; what was written behind the last one may be anything, for 16 bytes."""
    what = fresh(kind)
    x = np.random.default_rng(rows).integers(-128, 128, (rows, 60)).astype(np.int8)
    image, first, second = what.put(x), *(what.room(rows * row_bytes + 16) for _ in range(2))
    what.call("nn_mve_copy_two", what.put_struct("PPPPII", [image, image + apart, first, second, row_bytes, 60]), rows)
    for place, begin in ((first, 0), (second, apart)):
        expected = x[:, begin : begin + row_bytes].reshape(-1)
        assert np.array_equal(what.get(place, "i1", rows * row_bytes), expected)
    what.assert_untouched()


@on_every_build
@pytest.mark.parametrize("count", [1, 15, 16, 17, 48])
def test_interleaved_rows(kind: str, count: int) -> None:
    """Rows that do not move on give the same 16 elements again and again."""
    what, rng = fresh(kind), np.random.default_rng(count)
    rows = [rng.integers(-128, 128, 64).astype(np.int8) for _ in range(4)]
    steps = [16, 0, 16, 0]
    to = what.room(4 * (-(-count // 16) * 16))
    places = [what.put(row, misaligned=1) for row in rows]
    what.call("nn_strip_interleave", what.put_struct("PPPPIIII", [*places, *steps]), to, count)
    found = what.get(to, "i1", 4 * count).reshape(count, 4)
    for place, (row, step) in enumerate(zip(rows, steps, strict=True)):
        assert np.array_equal(found[:, place], row[np.arange(count) % (64 if step else 16)])


@on_every_build
@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("columns, stride", [(1, 1), (2, 1), (5, 1), (4, 2), (7, 3)])
def test_strips(kind: str, form: str, rows: int, columns: int, stride: int) -> None:
    """Outputs of three channels, row behind row; with two rows at a time the second window is a row lower."""
    if rows == 2 and (columns < 2 or stride > 1):
        return
    what, rng, channels = fresh(kind), np.random.default_rng(columns), 3
    strip = rng.integers(-128, 128, ((columns - 1) * stride + 4, channels, 4))
    weights = rng.integers(-128, 128, (channels, 3, 4))
    shift, start = rng.integers(-11, -1, channels), rng.integers(-9000, 9000, channels)
    multiplier = rng.integers(1 << 30, 1 << 31, channels)
    weights[:, 0, 3], weights[:, 1:, 3] = shift, 0
    raw = b"".join(
        weights[c].astype("i1").tobytes() + np.array([start[c], multiplier[c]], "<i4").tobytes() for c in range(channels)
    )
    pitch, row_bytes = 4 * channels, columns * channels
    output = what.room(rows * row_bytes)
    scatter = [0, row_bytes, channels, row_bytes + channels] if rows == 2 else [0, channels, 2 * channels, 3 * channels]
    gather = [0, pitch, 2 * pitch, 3 * pitch if rows == 2 else 0]
    fields = [what.put(strip.astype("i1")), output, what.put(raw), channels, columns, channels, pitch * stride, 11]
    name = f"nn_strip_{'two_rows' if rows == 2 else 'one_row'}_{form}"
    what.call(name, what.put_struct("IIIIIIIIPPPIIIIi", [*gather, *scatter, *fields]))
    expected = np.zeros((rows, columns, channels), np.int64)
    for row, column, c in np.ndindex(expected.shape):
        window = strip[column * stride : column * stride + 3, c, row : row + 3]
        total = int(start[c] + (window * weights[c, :, :3]).sum())
        expected[row, column, c] = requantized(total, int(multiplier[c]), int(shift[c]), 11, form)
    assert np.array_equal(what.get(output, "i1", expected.size).reshape(expected.shape), expected)
    what.assert_untouched()


def test_plain_differs_from_the_reference_only_at_negative_ties() -> None:
    """Why it is taken only where negative results are clamped away."""
    rng = np.random.default_rng(5)
    totals = [*rng.integers(-(1 << 20), 1 << 20, 3000).tolist(), *range(-300, 301)]
    differing = [
        (total, shift)
        for total in totals
        for shift in (-1, -2, -5, -9)
        if requantized(total, 1 << 30, shift, 0, "plain") != requantized(total, 1 << 30, shift, 0, "signed")
    ]
    assert differing
    for total, shift in differing:
        high = doubling_high_mul(total, 1 << 30)
        assert high < 0 and -high % (1 << -shift) == 1 << (-shift - 1)


KEEPERS = {
    "nn_mve_pair_signed": "&block", "nn_mve_pair_general": "&block", "nn_mve_single_signed": "&block",
    "nn_strip_two_rows_signed": "&strip", "nn_strip_one_row_plain": "&strip",
}  # fmt: skip
KEEPER = """\
#include "harness.h"
#include "step_depthwise_mve.h"
#include "step_mve.h"

static int8_t image[256], output[256];
static uint32_t records[256];
extern uint32_t kept[24];
extern void (*volatile step)(void *argument);
uint32_t kept[24];
void (*volatile step)(void *argument);

/* Calls step(argument) with a mark in every register that it must keep; what they hold then goes to kept. */
__attribute__((naked, noinline)) static void call_marked(void *argument __attribute__((unused))) {
    __asm__ volatile(".syntax unified\\n"
                     "push {r4-r11, lr}\\nvpush {d8-d15}\\nsub sp, #4\\n"
                     "movw r4, #1004\\nmovw r5, #1005\\nmovw r6, #1006\\nmovw r7, #1007\\n"
                     "movw r8, #1008\\nmovw r9, #1009\\nmovw r10, #1010\\nmovw r11, #1011\\n"
                     "vdup.32 q4, r4\\nvdup.32 q5, r5\\nvdup.32 q6, r6\\nvdup.32 q7, r7\\n"
                     "ldr r1, =step\\nldr r1, [r1]\\nblx r1\\n"
                     "ldr r1, =kept\\nstmia r1!, {r4-r11}\\nvstmia r1, {s16-s31}\\n"
                     "add sp, #4\\nvpop {d8-d15}\\npop {r4-r11, pc}\\n.ltorg\\n");
}

static uint32_t changed(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < 8u; ++i) {
        count += kept[i] != 1004u + i ? 1u : 0u;
    }
    for (uint32_t i = 0; i < 16u; ++i) {
        count += kept[8u + i] != 1004u + i / 4u ? 1u : 0u;
    }
    return count;
}

void run_cases(void) {
    static volatile uint32_t failures[@COUNT@];
@CALLS@
    uint32_t failed = 0;
    for (uint32_t i = 0; i < @COUNT@u; ++i) {
        failed += failures[i] != 0u ? 1u : 0u;
    }
    finish(failed, failures, @COUNT@u);
}
"""
CALL = """\
    {{
        nn_mve_block block = {{{{image, image}}, {{output, output}}, records, records + 64, 1u, 1u, 7u, 0u, 0, {{0u, 0u}}}};
        nn_strip strip = {{{{0u, 4u, 8u, 12u}}, {{0u, 16u, 1u, 17u}}, image, output, records, 1u, 5u, 1u, 4u, 0}};
        (void)block;
        (void)strip;
        step = (void (*)(void *)){function};
        call_marked({argument});
        failures[{place}] = changed();
    }}"""


@needs_qemu
@pytest.mark.parametrize("kind", COMPILERS)
def test_assembly_keeps_what_it_must(kind: str) -> None:
    """r4 to r11 and q4 to q7 belong to the caller."""
    calls = "\n".join(
        CALL.format(function=function, argument=argument, place=place)
        for place, (function, argument) in enumerate(KEEPERS.items())
    )
    toolchain = compiler(kind)
    flags = [*toolchain.compile_flags(CORE, FPU, "2"), f"-I{RUNTIME}", f"-I{HERE}", "-Wno-cast-function-type"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "keeper.c").write_text(KEEPER.replace("@COUNT@", str(len(KEEPERS))).replace("@CALLS@", calls))
        objects = []
        paths = [
            folder / "keeper.c",
            HERE / "startup.c",
            RUNTIME.parent / "boards" / "memory.c",
            *(RUNTIME / s for s in SOURCES),
        ]
        for path in paths:
            objects.append(folder / f"{path.stem}.o")
            toolchain.compile(path, objects[-1], [*flags, "-fno-builtin"])
        toolchain.link(objects, folder / "keeper.elf", linker_script(CORE, folder), CORE, FPU)
        command = ["qemu-system-arm", "-M", MACHINES[CORE], "-display", "none", "-monitor", "none", "-serial", "none"]
        command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(folder / "keeper.elf")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert [int(line) for line in ended.stderr.split()] == [0] * len(KEEPERS), ended.stderr
