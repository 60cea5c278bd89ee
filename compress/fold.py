"""Batch-norm folding: from a trained network to the fx graph that is quantized and written.

After it no batch normalisation and no dropout is left; every convolution carries a bias. The graph holds only what
`LAYERS` lists and additions, and each later part (fake_quantize.py, write_onnx.py) walks that graph.
"""

from __future__ import annotations

import copy
import operator

import torch
from torch import Tensor, fx, nn

from firmware_export.graph import GraphError
from train.models import GlobalAveragePool, SameConv2d, trace

LAYERS: tuple[type[nn.Module], ...] = (
    SameConv2d,
    nn.Linear,
    nn.ReLU,
    nn.ReLU6,
    nn.MaxPool2d,
    nn.Flatten,
    GlobalAveragePool,
)
ADDITIONS = (operator.add, operator.iadd, torch.add)


def fold_batch_norm(model: nn.Module) -> fx.GraphModule:
    """A copy of the network for inference: batch norms folded into the convolutions before them, dropout removed.

    Raises:
        GraphError: a batch norm does not directly follow a convolution, or a layer is not one of LAYERS.
    """
    traced = trace(copy.deepcopy(model).eval())
    for node in list(traced.graph.nodes):
        layer = layer_of(traced, node)
        if isinstance(layer, nn.BatchNorm2d):
            _fold(traced, node, layer)
        elif isinstance(layer, (nn.Dropout, nn.Identity)):
            _remove(traced.graph, node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    _check_layers(traced)
    return traced.eval()


def layer_of(traced: fx.GraphModule, node: object) -> nn.Module | None:
    """The layer that an fx node calls; None where it calls none."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return traced.get_submodule(str(node.target))
    return None


@torch.no_grad()
def folded_parameters(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weights and bias that give norm(convolution(x)), computed in float64 and returned as float32.

    y = gamma * (w*x + b - mean) / sqrt(variance + eps) + beta (Jacob et al. 2018, section 3.2).
    """
    if norm.running_mean is None or norm.running_var is None:
        raise GraphError("a batch norm without running statistics cannot be folded; train it with track_running_stats")
    gamma = norm.weight.double() if norm.affine else torch.ones(norm.num_features, dtype=torch.float64)
    beta = norm.bias.double() if norm.affine else torch.zeros(norm.num_features, dtype=torch.float64)
    factor = gamma / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(factor) if convolution.bias is None else convolution.bias.double()
    weights = convolution.weight.double() * factor.reshape(-1, 1, 1, 1)
    return weights.float(), (beta + (bias - norm.running_mean.double()) * factor).float()


def _fold(traced: fx.GraphModule, node: fx.Node, norm: nn.BatchNorm2d) -> None:
    source = node.args[0]
    convolution = layer_of(traced, source)
    if not isinstance(convolution, nn.Conv2d) or not isinstance(source, fx.Node) or len(source.users) != 1:
        raise GraphError(f"batch norm '{node.target}' does not directly follow one convolution; only that can be folded")
    weights, bias = folded_parameters(convolution, norm)
    convolution.weight = nn.Parameter(weights)
    convolution.bias = nn.Parameter(bias)
    _remove(traced.graph, node)


def _remove(graph: fx.Graph, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _check_layers(traced: fx.GraphModule) -> None:
    for node in traced.graph.nodes:
        layer = layer_of(traced, node)
        known = node.op in ("placeholder", "output") or isinstance(layer, LAYERS)
        if not known and not (node.op == "call_function" and node.target in ADDITIONS):
            found = type(layer).__name__ if layer is not None else f"{node.op} {node.target}"
            names = ", ".join(sorted(layer_type.__name__ for layer_type in LAYERS))
            raise GraphError(
                f"layer '{node.name}' is {found}; supported: {names}, addition, and BatchNorm2d after a convolution"
            )
