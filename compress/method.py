"""What a compression method is, and how a recipe's list of steps finds it.

A method is one file in this folder that holds a `METHOD`: a settings section and a function. Dropping the file in is
the whole change.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import fx, nn

import compress
from recipes.artifacts import UsageError, did_you_mean
from recipes.recipe import CompressSection, Section, TrainSection, parse
from train.data import Dataset
from train.models import ModelConfig


@dataclass(frozen=True)
class Candidate:
    """A network on its way through the steps.

    model: float, built by build_model(config). quantized: its fake-quantized fx graph, once a step has made one.
    """

    model: nn.Module
    config: ModelConfig
    quantized: fx.GraphModule | None = None

    @property
    def current(self) -> nn.Module:
        """The network whose answers count now."""
        return self.model if self.quantized is None else self.quantized


@dataclass(frozen=True)
class Context:
    """What every method may use.

    teacher: the unpruned float network, in eval mode. train: the recipe's training settings, the basis of fine-tuning.
    work: folder for this step's checkpoints, None for none.
    """

    dataset: Dataset
    train: TrainSection
    teacher: nn.Module
    seed: int
    work: Path | None = None

    def for_step(self, index: int, name: str) -> Context:
        """The same with checkpoints of its own for one step."""
        return replace(self, work=None if self.work is None else self.work / f"{index}_{name}")


@dataclass(frozen=True)
class Method:
    """A settings section and `apply(candidate, settings, context)`, which leaves the candidate given to it unchanged.

    last: only allowed as the last step.
    """

    settings: type[Section]
    apply: Callable[[Candidate, Any, Context], Candidate]
    last: bool = False


@dataclass(frozen=True)
class Step:
    """One entry of a recipe's list."""

    name: str
    method: Method
    settings: Section

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        """Runs the method with this step's settings."""
        return self.method.apply(candidate, self.settings, context)


@cache
def methods() -> dict[str, Method]:
    """Every method by name, found by looking into this folder."""
    found: dict[str, Method] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(compress.__path__)):
        method = None if name.startswith("_") else getattr(importlib.import_module(f"compress.{name}"), "METHOD", None)
        if isinstance(method, Method):
            found[name] = method
    return found


def plan_steps(section: CompressSection) -> list[Step]:
    """The recipe's steps, each with its method and checked settings.

    Raises:
        UsageError: an unknown method or setting ("did you mean"), more than one method in an entry, or a method that
            has to be the last one before others.
    """
    steps = [_plan_step(entry, f"compress.steps.{index}") for index, entry in enumerate(section.steps)]
    for index, step in enumerate(steps[:-1]):
        if step.method.last:
            raise UsageError(
                f"compress.steps.{index}: '{step.name}' must be the last step; '{steps[index + 1].name}' follows it"
            )
    return steps


def _plan_step(entry: dict[str, dict[str, Any]], where: str) -> Step:
    if len(entry) != 1:
        raise UsageError(f"{where} holds {len(entry)} keys; expected one method, such as 'prune: {{ratio: 0.5}}'")
    name, values = next(iter(entry.items()))
    known = methods()
    if name not in known:
        raise UsageError(f"{where}: unknown method '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")
    return Step(name, known[name], parse(known[name].settings, values, f"{where}.{name}"))
