"""Which layer a NaN or an infinity comes from."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recipes.artifacts import PipelineError


class TrainingError(PipelineError):
    """Training failed: NaN or infinity in the loss or the weights."""

    exit_code: ClassVar[int] = 9


def first_nonfinite(model: nn.Module, images: Tensor) -> str | None:
    """Runs a batch and names the first layer, in order of execution, whose weights or output hold NaN or infinity.

    None when every layer is finite. The model's mode is kept; batch norm in training mode takes the batch into its
    running statistics.
    """
    found: list[str] = []

    def _look(name: str) -> Any:
        def _hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not found and (what := _nonfinite_part(module, output)):
                found.append(f"layer '{name}' ({what})")

        return _hook

    leaves = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(_look(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None


def _nonfinite_part(module: nn.Module, output: Any) -> str | None:
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if not bool(torch.isfinite(tensor).all()):
            return name
    if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
        return "its output"
    return None
