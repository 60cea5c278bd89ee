"""The inner steps as callable functions: assembly by both compilers, and the portable versions on the host and an M3."""

from __future__ import annotations

import functools

import pytest
from firmware_builder import compiler, needs_gcc
from kernel_harness.program import host
from kernel_harness.shared_objects import ArmLibrary, HostLibrary, Library

R256_FORMS = tuple(f"{form}_{shift}" for form in ("linear", "signed") for shift in (7, 10, 13, 16))
VECTOR_FORMS = tuple(f"{how}{form}_{shift}" for how in ("", "direct_") for form in ("linear", "signed") for shift in (8, 12))
PLANE_FORMS = tuple(f"s{stride}_{shift}{width}" for stride in (1, 2) for shift in (7, 10) for width in ("", "_wide"))
WINOGRAD_SHIFTS = (7, 10, 13)
SOURCES = (
    "step_r256.c",
    "step_r256_vector.c",
    "step_depthwise.c",
    "step_winograd.c",
    "step_winograd_transforms.c",
    "add_linear.c",
    "patch.c",
)
FUNCTIONS = (
    "nn_r256_expand",
    "nn_r256_expand_nine",
    "nn_r256_sums",
    "nn_r256_vector_expand",
    "nn_r256_vector_sums",
    "nn_planes_copy",
    "nn_winograd_input",
    "nn_winograd_weights",
    "nn_add_linear_passes",
    "nn_add_signed_passes",
    "nn_copy_patch",
    *(f"nn_r256_{form}" for form in R256_FORMS),
    *(f"nn_r256_vector_{form}" for form in VECTOR_FORMS),
    *(f"nn_plane_{form}" for form in PLANE_FORMS),
    *(f"nn_winograd_shift_{shift}" for shift in WINOGRAD_SHIFTS),
)


@functools.cache
def step_library(kind: str) -> Library:
    """gcc, zig: a Cortex-M4; m3: a core without the DSP extension; host: this machine."""
    if kind == "host":
        return HostLibrary(SOURCES, host())
    if kind == "m3":
        return ArmLibrary(SOURCES, FUNCTIONS, compiler("zig"), "cortex-m3")
    return ArmLibrary(SOURCES, FUNCTIONS, compiler(kind))


KINDS = [pytest.param("gcc", marks=needs_gcc), "zig", "m3", "host"]


on_every_build = pytest.mark.parametrize("kind", KINDS)


def fresh(kind: str) -> Library:
    """A build with all its memory free."""
    library = step_library(kind)
    library.reset()
    return library
