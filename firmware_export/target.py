"""What code is made for: a class of cores that share inner steps and packed data, and what matters most."""

from __future__ import annotations

from dataclasses import dataclass

PORTABLE = "portable"
"""The operators' own C files alone, for any core."""
CORE_CLASSES = {
    "host": "dsp",
    "cortex-m0plus": "v6m",
    "cortex-m3": "v7m",
    "cortex-m4": "dsp",
    "cortex-m7": "dsp",
    "cortex-m33": "dsp",
    "cortex-m55": "mve",
}
"""Core -> class. The host runs the data of "dsp" through portable forms of the same inner steps."""
GOALS = ("balanced", "time", "ram", "flash")
"""balanced: a larger buffer only where it saves instructions (planning/choice.py says how many). time: fewest instructions,
whatever buffer. ram: smallest buffer, for at most 1.3 times the instructions of balanced. flash: as balanced, least code."""


@dataclass(frozen=True)
class Target:
    """core_class: PORTABLE or a value of CORE_CLASSES. optimize: one of GOALS."""

    core_class: str = PORTABLE
    optimize: str = "balanced"

    @staticmethod
    def of(core: str, optimize: str) -> Target:
        """The target of a core of toolchain.CORES, or of "host"."""
        return Target(CORE_CLASSES[core], optimize)


def export_stage(core: str) -> str:
    """Name of the stage, and of its folder in build/<recipe>, that holds the generated C for a core: "export" for most."""
    core_class = CORE_CLASSES[core]
    return "export" if core_class == CORE_CLASSES["host"] else f"export-{core_class}"
