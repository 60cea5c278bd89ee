"""Where int8 happens: puts quantizers into a folded fx graph.

Every layer reads int8 and gives int8. An activation function is fused: the range is taken after it. Max pool and
flatten move values without changing them, so they keep the quantization of their input.
"""

from __future__ import annotations

import copy

from torch import fx, nn

from compress.fake_quantize import ActivationQuantizer, QuantizedLayer
from compress.fold import layer_of
from train.data import INPUT_SCALE, INPUT_ZERO_POINT

ACTIVATIONS = (nn.ReLU, nn.ReLU6)
SAME_QUANTIZATION = (nn.MaxPool2d, nn.Flatten)


def insert_quantizers(folded: fx.GraphModule, momentum: float = 0.02) -> fx.GraphModule:
    """A copy of a folded network with weights and activations fake-quantized; ranges are still to be calibrated.

    Args:
        folded: from fold_batch_norm.
        momentum: weight of the newest batch in the moving average of ranges while training.
    """
    quantized = copy.deepcopy(folded)
    for node in list(quantized.graph.nodes):
        layer = layer_of(quantized, node)
        if node.op == "output" or isinstance(layer, SAME_QUANTIZATION):
            continue
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            _wrap(quantized, node, layer)
        if node.op == "placeholder":
            _insert(quantized, node, ActivationQuantizer(fixed=(float(INPUT_SCALE), INPUT_ZERO_POINT)))
        elif not _is_fused(quantized, node):
            _insert(quantized, node, ActivationQuantizer(momentum=momentum))
    quantized.graph.lint()
    quantized.recompile()
    return quantized


def quantizer_before(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The quantizer whose scale holds for the first input of `node`."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source if isinstance(layer_of(traced, source), ActivationQuantizer) else quantizer_before(traced, source)


def output_quantizer(traced: fx.GraphModule) -> ActivationQuantizer:
    """The quantizer of the network's answer."""
    result = next(node for node in traced.graph.nodes if node.op == "output")
    quantizer = layer_of(traced, quantizer_before(traced, result))
    assert isinstance(quantizer, ActivationQuantizer)
    return quantizer


def _is_fused(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the only reader is an activation function, after which the range is taken."""
    users = list(node.users)
    return len(users) == 1 and isinstance(layer_of(traced, users[0]), ACTIVATIONS)


def _wrap(traced: fx.GraphModule, node: fx.Node, layer: nn.Conv2d | nn.Linear) -> None:
    """Replaces a layer by its quantized form, which also reads the scale of its input."""
    traced.set_submodule(str(node.target), QuantizedLayer(layer))
    with traced.graph.inserting_before(node):
        scale = traced.graph.get_attr(f"{quantizer_before(traced, node).target}.scale")
    node.args = (*node.args, scale)


def _insert(traced: fx.GraphModule, node: fx.Node, quantizer: ActivationQuantizer) -> None:
    name = f"{node.name}_quantizer"
    traced.add_submodule(name, quantizer)
    with traced.graph.inserting_after(node):
        inserted = traced.graph.call_module(name)
    node.replace_all_uses_with(inserted)
    inserted.args = (node,)
