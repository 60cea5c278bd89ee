"""The inner steps of Cortex-M3 and M0+ as callable functions: assembly by both compilers, and the portable versions."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pytest
from firmware_builder import compiler, needs_gcc
from kernel_harness.program import host
from kernel_harness.shared_objects import ArmLibrary, HostLibrary, Library

Int64 = npt.NDArray[np.int64]
SOURCES = tuple(f"step_{name}{core}.c" for name in ("trio", "trio_depthwise", "octet") for core in ("", "_v7m", "_v6m"))
COMMON = (
    "nn_trio_expand",
    "nn_trio_gather",
    "nn_trio_plane_linear",
    "nn_trio_plane_signed",
    "nn_octet_expand",
    "nn_octet_sums",
)
BUILDS = {"m3-gcc": ("cortex-m3", "gcc"), "m3-zig": ("cortex-m3", "zig"), "m0-gcc": ("cortex-m0plus", "gcc"),
          "m0-zig": ("cortex-m0plus", "zig"), "m4-zig": ("cortex-m4", "zig")}  # fmt: skip
on_every_build = pytest.mark.parametrize(
    "kind", [*(pytest.param(name, marks=needs_gcc) if "gcc" in name else name for name in BUILDS), "host"]
)
MASK = (1 << 32) - 1
BIAS = 1 << 20


@functools.cache
def _library(kind: str) -> Library:
    if kind == "host":
        return HostLibrary(SOURCES, host())
    core, tool = BUILDS[kind]
    plain, flipped = ("nn_trio_channels",), ("nn_trio_channels_flipped",)
    functions = (*COMMON, *(plain if "m3" in kind else flipped if "m0" in kind else plain + flipped))
    return ArmLibrary(SOURCES, functions, compiler(tool), core)


def fresh(kind: str) -> Library:
    """A build with all its memory free."""
    library = _library(kind)
    library.reset()
    return library


def flips(kind: str) -> tuple[bool, ...]:
    """Whether weights are flipped, of the channel steps that a build has."""
    return (False,) if "m3" in kind else (True,) if "m0" in kind else (False, True)


def words_of(trio: Int64) -> Int64:
    """X and Y of three pixels [..., 3]: a + 2^21 b, c + 2^10 b, modulo 2^32: [..., 2]."""
    a, b, c = np.moveaxis(trio, -1, 0)
    return np.stack([a + (b << 21), c + (b << 10)], -1) & MASK


def expanded(pixels: Int64) -> Int64:
    """Six pixels [6, depth] -> [depth, 4]: the even ones' words, then the odd ones'."""
    return np.concatenate([words_of(pixels[0::2].T), words_of(pixels[1::2].T)], 1)


def signed32(x: Int64) -> Int64:
    """Modulo 2^32, signed."""
    return ((x & MASK) ^ 0x80000000) - 0x80000000


def value(scaled: Int64, factor: Int64, shift: int, negative: Int64 | int = 0, rounding: int = 0) -> Int64:
    """What a form makes of scaled sums: to int8."""
    v = (scaled * factor) >> 32
    return np.clip((v + rounding - np.where(v < 0, negative, 0)) >> shift, -128, 127)
