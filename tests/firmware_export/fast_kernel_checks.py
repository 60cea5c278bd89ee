"""What every fast kernel is held to, on every core: the simulator's bytes, and not a byte beside its buffers."""

from __future__ import annotations

from collections.abc import Sequence

from firmware_builder import COMPILER, compiler
from kernel_harness.machine import run_host, run_unicorn
from kernel_harness.program import GUARD, Case, build_program, host


def wrong_labels(cases: dict[str, Case], kind: str, core: str = "cortex-m4") -> list[str]:
    """The labels of the cases that fail on an emulated core."""
    run = run_unicorn(build_program(list(cases.values()), compiler(kind), core), core)
    return [label for label, wrong in zip(cases, run.failures, strict=True) if wrong]


def assert_portable(cases: Sequence[Case]) -> None:
    """The C versions of the inner steps: on the host, and some of them on cores without the DSP extension."""
    assert not run_host(build_program(cases, host(), "host")).failed
    for core in ("cortex-m0plus", "cortex-m3"):
        assert not run_unicorn(build_program(cases[::7], compiler(COMPILER), core), core).failed


def instructions(case: Case) -> int:
    """Executed instructions of a call that must be right, on a Cortex-M4."""
    run = run_unicorn(build_program([case], compiler("gcc")))
    assert run.failures == [0]
    return run.instructions[0]


def shifted(case: Case, ahead: int) -> Case:
    """The same call with the output beginning `ahead` bytes before its (first) input, other inputs and scratch behind both."""
    output = GUARD + max(0, -ahead)
    begin = output + ahead
    places = [begin]
    end = max(begin + case.inputs[0].size, output + case.expected.size)
    for buffer in case.inputs[1:]:
        places.append(_behind(end))
        end = places[-1] + buffer.size
    return Case(case.code, case.inputs, case.expected, (*places, output, _behind(end)))


def _behind(end: int) -> int:
    return -(-(end + GUARD) // 16) * 16
