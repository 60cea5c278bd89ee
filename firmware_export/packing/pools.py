"""Pools and means four channels at a time: the simple kernels' calls, sent to the fast kernels of the same parameters."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.operators import LayerCode

FAST = ("average_pool2d", "max_pool2d", "mean")
"""Kernels that have a fast form of the same parameters, in a C file of the name with _fast behind it."""


def fast_pool(code: LayerCode) -> LayerCode:
    """The same call to the fast kernel; anything else unchanged."""
    name = code.function.removeprefix("nn_")
    if name not in FAST:
        return code
    sources = (f"{name}_fast.c", *(source for source in code.sources if source != f"{name}.c"))
    return replace(code, function=f"{code.function}_fast", sources=sources)
