"""The rule of the arithmetic float32: Python = C in integers = C on an FPU = the definition in exact fractions."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from bundle import LINKER_SCRIPT, MEMORY_C, Emulator, gcc_or_skip
from float32_definition import INT32_MAX, INT32_MIN, by_definition, to_float32

from firmware_export.hostlib import RUNTIME, compile_host
from firmware_export.operators._accumulator import OutputStage
from firmware_export.requantize import requantize_float32
from firmware_export.toolchain import Toolchain, arm_toolchain

Values = tuple[np.ndarray, np.ndarray]
"""int32 accumulators and float32 scales, one for each."""
WRAPPER = """
#include "requantize_float32.h"
void many(const int32_t *x, const float *scales, int32_t *result, uint32_t count);
void many(const int32_t *x, const float *scales, int32_t *result, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        result[i] = nn_requantize_float32(x[i], scales[i]);
    }
}
void outputs(const int32_t *x, const float *scales, int8_t *result, const int32_t *stage);
/* stage: zero point, min, max, count */
void outputs(const int32_t *x, const float *scales, int8_t *result, const int32_t *stage) {
    const nn_output_stage output = {.scales = scales, .output = nn_output_float32, .zero_point = (int16_t)stage[0],
                                    .min = (int8_t)stage[1], .max = (int8_t)stage[2]};
    for (uint32_t i = 0; i < (uint32_t)stage[3]; ++i) {
        result[i] = nn_output(&output, i, (uint32_t)x[i]);
    }
}
"""
ARM_ENTRY = """
/* keeps both functions; never run */
void reset_handler(void);
void reset_handler(void) {
    static void (*const volatile first)(const int32_t *, const float *, int32_t *, uint32_t) = many;
    static void (*const volatile second)(const int32_t *, const float *, int8_t *, const int32_t *) = outputs;
    first(0, 0, 0, 0);
    second(0, 0, 0, 0);
}
"""
ARENA = 0x20010000


def near_ties() -> Values:
    """Accumulators whose products lie on, just below and just above halves, for scales of every size."""
    rng = np.random.default_rng(1)
    scales = (np.exp2(rng.uniform(-31, 8, 400))).astype(np.float32)
    scales[:40] = np.exp2(np.arange(40) - 31.0)
    xs, chosen = [], []
    for scale in scales.tolist():
        for target in rng.integers(-260, 260, 12) + 0.5:
            for off in (-1, 0, 1):
                x = round(Fraction(float(target)) / Fraction(scale)) + off
                if INT32_MIN <= x <= INT32_MAX:
                    xs.append(x)
                    chosen.append(scale)
    return np.array(xs, np.int32), np.array(chosen, np.float32)


def large() -> Values:
    """Accumulators of 24 and more bits, where float32 does not hold them: ties, both neighbours, the ends."""
    ends = [INT32_MIN, INT32_MIN + 1, INT32_MAX, INT32_MAX - 1, 0, 1, -1]
    ties = [sign * ((1 << k) + (odd << (k - 24)) + (1 << (k - 25)) + d) for k in range(25, 31) for odd in (0, 1, 5)
            for d in (-1, 0, 1) for sign in (-1, 1)]  # fmt: skip
    ties += [sign * ((1 << 24) + d) for d in range(-4, 9) for sign in (-1, 1)]
    scales = [
        1.0,
        0.5,
        0.75,
        2.0**-23,
        2.0**-24,
        2.0**-30,
        3e-8,
        1.1754944e-38,
        1e-39,
        0.0,
        255.99998,
        2.0**22,
        2.0**23,
        2.0**29,
    ]
    pairs = [(x, scale) for x in ends + ties for scale in scales]
    return np.array([p[0] for p in pairs], np.int32), np.array([p[1] for p in pairs], np.float32)


def random_values(count: int, seed: int) -> Values:
    rng = np.random.default_rng(seed)
    xs = rng.integers(-(2**31), 2**31, count) >> (31 - rng.integers(1, 32, count))
    return xs.astype(np.int32), np.exp2(rng.uniform(-34, 12, count)).astype(np.float32)


EVERY = {"near ties": near_ties(), "large": large(), "random": random_values(10_000, 2)}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("float32")
    (folder / "wrapper.c").write_text(WRAPPER)
    compile_host([folder / "wrapper.c"], [RUNTIME], folder / "wrapper.so", ["-shared", "-fPIC"])
    return ctypes.CDLL(str(folder / "wrapper.so"))


def in_c(library: ctypes.CDLL, values: Values) -> list[int]:
    result = np.empty(values[0].size, np.int32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*values, result)]
    library.many(*pointers, ctypes.c_uint32(values[0].size))
    return result.tolist()


def away_from_the_end(values: list[int]) -> list[int]:
    """-2^31 as -2^31 + 1: integers saturate to the one, the FPU to the other, and no output tells them apart."""
    return [max(value, INT32_MIN + 1) for value in values]


@pytest.mark.parametrize("name", sorted(EVERY))
def test_python_and_c_in_integers(host: ctypes.CDLL, name: str) -> None:
    x, scale = EVERY[name]
    expected = [by_definition(*pair) for pair in zip(x.tolist(), scale.tolist(), strict=True)]
    if name == "large":
        subnormal = scale < np.finfo(np.float32).tiny
        assert not np.any(np.array(expected)[subnormal])
    assert requantize_float32(x.astype(np.int64), scale).tolist() == expected
    assert away_from_the_end(in_c(host, (x, scale))) == away_from_the_end(expected)


@pytest.mark.long
def test_python_and_c_in_integers_long(host: ctypes.CDLL) -> None:
    x, scale = random_values(3_000_000, 3)
    expected = requantize_float32(x.astype(np.int64), scale).tolist()
    assert away_from_the_end(in_c(host, (x, scale))) == away_from_the_end(expected)


class Core:
    """The wrapper on an emulated core."""

    def __init__(self, folder: Path, toolchain: Toolchain, core: str, fpu: str) -> None:
        (folder / "wrapper.c").write_text(WRAPPER + ARM_ENTRY)
        (folder / "link.ld").write_text(LINKER_SCRIPT)
        flags = [*toolchain.compile_flags(core, fpu, "2"), f"-I{RUNTIME}", "-fno-builtin"]
        for source in (folder / "wrapper.c", MEMORY_C):
            toolchain.compile(source, folder / f"{source.stem}.o", flags)
        objects = [folder / "wrapper.o", folder / "memory.o"]
        toolchain.link(objects, folder / "wrapper.elf", folder / "link.ld", core, fpu)
        self.emulator = Emulator(folder / "wrapper.elf", core)

    def place(self, *arrays: np.ndarray) -> list[int]:
        """Copies arrays to memory, one behind the other; gives the addresses."""
        addresses, address = [], ARENA
        for array in arrays:
            self.emulator._cpu.mem_write(address, array.tobytes())
            addresses.append(address)
            address += -(-array.nbytes // 16) * 16
        return addresses

    def many(self, values: Values) -> list[int]:
        found: list[int] = []
        for start in range(0, values[0].size, 4096):
            x, scale = (array[start : start + 4096] for array in values)
            addresses = self.place(x, scale, np.zeros(x.size, np.int32))
            self.emulator.call("many", *addresses, x.size)
            found += np.frombuffer(self.emulator._cpu.mem_read(addresses[2], 4 * x.size), np.int32).tolist()
        return found

    def outputs(self, values: Values, stage: tuple[int, int, int]) -> list[int]:
        x, scale = values
        addresses = self.place(x, scale, np.zeros(x.size, np.int8), np.array([*stage, x.size], np.int32))
        self.emulator.call("outputs", *addresses)
        return np.frombuffer(self.emulator._cpu.mem_read(addresses[2], x.size), np.int8).tolist()


CORES: dict[str, tuple[Callable[[], Toolchain], str, str]] = {
    "m4f gcc": (gcc_or_skip, "cortex-m4", "fpv4-sp-d16"),
    "m4f zig": (lambda: arm_toolchain("zig"), "cortex-m4", "fpv4-sp-d16"),
    "m7 gcc": (gcc_or_skip, "cortex-m7", "fpv5-d16"),
    "m4 without fpu": (gcc_or_skip, "cortex-m4", "none"),
    "m3 gcc": (gcc_or_skip, "cortex-m3", "none"),
    "m0+ gcc": (gcc_or_skip, "cortex-m0plus", "none"),
    "m0+ zig": (lambda: arm_toolchain("zig"), "cortex-m0plus", "none"),
}


@pytest.fixture(params=sorted(CORES), scope="module")
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Core:
    toolchain, name, fpu = CORES[request.param]
    return Core(tmp_path_factory.mktemp("core"), toolchain(), name, fpu)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_core(core: Core, name: str) -> None:
    x, scale = EVERY[name]
    assert away_from_the_end(core.many((x, scale))) == away_from_the_end(requantize_float32(x.astype(np.int64), scale).tolist())


@pytest.mark.parametrize(
    "stage", [(0, -128, 127), (-128, -128, 127), (127, -128, 127), (-128, -128, 40), (5, 5, 127), (9, 9, 9)]
)
def test_outputs_of_every_core(core: Core, stage: tuple[int, int, int]) -> None:
    """Zero point and clamp, also where the scaled sum is at the ends of int32."""
    x = np.concatenate([large()[0][::7], near_ties()[0][::17]])
    scale = np.concatenate([large()[1][::7], near_ties()[1][::17]])
    exact = [by_definition(*pair) + stage[0] for pair in zip(x.tolist(), scale.tolist(), strict=True)]
    expected = [max(stage[1], min(stage[2], value)) for value in exact]
    assert core.outputs((x, scale), stage) == expected
    output = OutputStage(np.zeros(x.size, np.int64), np.zeros(x.size, np.int64), stage[0], stage[1:], scale)
    assert output.apply(x.astype(np.int64)).tolist() == expected


@pytest.mark.parametrize(
    ("x", "scale", "expected"),
    [(1, 0.5, 0), (3, 0.5, 2), (5, 0.5, 2), (-1, 0.5, 0), (-3, 0.5, -2), (7, 0.25, 2), (10, 0.1, 1), (25, 0.1, 2),
     (-25, 0.1, -2), (35, 0.1, 4), (16777217, 1.0, 16777216), (16777219, 1.0, 16777220), (2**31 - 1, 1.0, INT32_MAX),
     (-(2**31), 1.0, INT32_MIN)],
)  # fmt: skip
def test_worked_out_by_hand(x: int, scale: float, expected: int) -> None:
    """25 * float32(0.1) is 2.5 in float32 though float32(0.1) is more than 0.1; 2^24 + 1 is a tie, as is 2^24 + 3."""
    assert requantize_float32(np.array([x]), np.float32([scale])).tolist() == [expected]
    assert by_definition(x, struct.unpack("<f", struct.pack("<f", scale))[0]) == expected


@pytest.mark.parametrize(
    ("s_in", "s_w", "s_out"), [(0.1, 0.3, 0.7), (0.0123, 0.0456, 0.0789), (1 / 255, 0.00731, 0.0313), (3e-5, 2e-4, 0.9)]
)
def test_scales_are_rounded_after_each_operation(s_in: float, s_w: float, s_out: float) -> None:
    """(input * weights) / output, each to float32; double keeps the exact ratio's nearest Q31."""
    scales = [Fraction(float(np.float32(s))) for s in (s_in, s_w, s_out)]
    product = to_float32(scales[0] * scales[1])
    short = OutputStage.from_scales("float32", float(scales[0]), np.float32([s_w]), float(scales[2]), 2, 0, (-128, 127))
    assert short.scale is not None and short.scale.tolist() == [float(to_float32(product / scales[2]))] * 2
    assert [Fraction(int(m)) * Fraction(2) ** (int(s) - 31) for m, s in zip(short.multiplier, short.shift, strict=True)] == [
        Fraction(float(short.scale[0]))
    ] * 2
    exact = OutputStage.from_scales("double", float(scales[0]), np.float32([s_w]), float(scales[2]), 1, 0, (-128, 127))
    ratio = scales[0] * scales[1] / scales[2]
    assert exact.scale is None
    assert abs(Fraction(int(exact.multiplier[0])) * Fraction(2) ** (int(exact.shift[0]) - 31) / ratio - 1) < Fraction(1, 2**30)


def test_no_float_instruction_where_nothing_names_the_rule(tmp_path: Path) -> None:
    """requantize.h alone leaves an object for an FPU core without any; the float32 rule converts there and multiplies."""
    toolchain = gcc_or_skip()
    code = {}
    for name, include, call in (
        ("double", "requantize.h", "nn_output(stage, 0, x)"),
        ("float32", "requantize_float32.h", "nn_output_float32(stage, 0, x)"),
    ):
        source = tmp_path / f"{name}.c"
        source.write_text(
            f'#include "{include}"\nint8_t f(const nn_output_stage *stage, uint32_t x);\n'
            f"int8_t f(const nn_output_stage *stage, uint32_t x) {{ return {call}; }}\n"
        )
        flags = [*toolchain.compile_flags("cortex-m4", "fpv4-sp-d16", "2"), f"-I{RUNTIME}", "-S"]
        toolchain.run([*flags, str(source), "-o", str(tmp_path / f"{name}.s")], "compiling")
        code[name] = (tmp_path / f"{name}.s").read_text()
    assert "\tv" not in code["double"]
    assert [word for word in ("vcvt.f32.s32", "vmul.f32", "vcvtr.s32.f32") if word not in code["float32"]] == []
