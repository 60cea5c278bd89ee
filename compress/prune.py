"""Channel pruning that really shrinks the network: torch-pruning's dependency groups, channels in multiples of `round_to`.

Channels that belong together (both inputs of an addition, a depthwise convolution and the pointwise one before it)
are removed together. The widths that result go into the ModelConfig, and the network is built anew from it.
Fang et al., "DepGraph: Towards Any Structural Pruning" (2023).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import torch
import torch_pruning
from pydantic import Field
from torch import nn

from compress.distill import FineTuning, fine_tune
from compress.method import Candidate, Context, Method
from train.models import ModelConfig, SameConv2d, build_model


class PruneSettings(FineTuning):
    """Settings of the step; epochs and what goes with them are for the training between iterations."""

    ratio: float = Field(0.5, ge=0, lt=1, description="share of channels to remove, of every layer (or of all, see scope)")
    scope: Literal["layer", "global"] = Field("layer", description="rank channels within a layer or over the whole network")
    importance: Literal["magnitude", "batch_norm", "lamp"] = Field("magnitude", description="what ranks channels")
    round_to: int = Field(4, ge=1, le=64, description="channel counts stay multiples of this")
    iterations: int = Field(1, ge=1, le=20, description="prune in this many equal parts, training between them")
    epochs: int = Field(3, ge=1, le=10000, description="after each iteration but the last")


IMPORTANCE: dict[str, Any] = {
    "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
    "batch_norm": torch_pruning.importance.BNScaleImportance,
    "lamp": torch_pruning.importance.LAMPImportance,
}
MAXIMUM_LAYER_RATIO = 0.9
"""With scope global: no layer loses more than this."""


def prune(candidate: Candidate, settings: PruneSettings, context: Context) -> Candidate:
    """Removes whole channels, so that tensors really shrink; a later distill step recovers the accuracy it costs."""
    model = copy.deepcopy(candidate.model).eval()
    pruner = _pruner(model, candidate.config, settings)
    for iteration in range(settings.iterations):
        pruner.step()
        if iteration + 1 < settings.iterations:
            _train_between(model, settings, context, iteration)
    return rebuild(model, candidate.config)


def widths_of(model: nn.Module) -> tuple[int, ...]:
    """Channel counts in the order of ModelConfig.widths: every convolution but depthwise ones and projected skips."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, SameConv2d)]
    free = [layer for name, layer in layers if not name.endswith("skip_conv") and not is_depthwise(layer)]
    return tuple(layer.out_channels for layer in free)


def is_depthwise(layer: nn.Conv2d) -> bool:
    """Whether every channel has its own filter."""
    return layer.groups > 1


def rebuild(model: nn.Module, config: ModelConfig) -> Candidate:
    """The pruned network as build_model makes it from the config with the pruned widths."""
    pruned = replace(config, widths=widths_of(model))
    rebuilt = build_model(pruned)
    rebuilt.load_state_dict(model.state_dict())
    return Candidate(rebuilt.eval(), pruned)


def _pruner(model: nn.Module, config: ModelConfig, settings: PruneSettings) -> Any:
    height, width, channels = config.input_shape
    return torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, channels, height, width),
        importance=IMPORTANCE[settings.importance](),
        global_pruning=settings.scope == "global",
        pruning_ratio=settings.ratio,
        max_pruning_ratio=MAXIMUM_LAYER_RATIO,
        iterative_steps=settings.iterations,
        ignored_layers=[layer for layer in model.modules() if isinstance(layer, nn.Linear)],
        round_to=settings.round_to,
    )


def _train_between(model: nn.Module, settings: PruneSettings, context: Context, iteration: int) -> None:
    work = None if context.work is None else context.work / str(iteration)
    fine_tune(model, settings, replace(context, work=work), f"prune {iteration + 1}/{settings.iterations}")
    model.eval()


METHOD = Method(PruneSettings, prune)
