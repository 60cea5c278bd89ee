"""Five small models whose generated C is kept in tests/golden.

After an intended change of the generated C: `PYTHONPATH=. python tests/firmware_export/golden_models.py` writes the folder
again; look at the difference before committing it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from graph_builder import Build

from firmware_export.check import check
from firmware_export.emit import emit
from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.plan import plan

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def residual() -> Graph:
    """conv - (conv - conv) + skip - global mean - fully connected."""
    build = Build(1)
    x = build.activation((1, 8, 8, 1), 1 / 255, -128, "image")
    stem = build.conv(x, 4, clamp=(-3, 127))
    inner = build.conv(build.conv(stem, 4, clamp=(-3, 127)), 4)
    total = build.node("add", (stem, inner), build.activation((1, 8, 8, 4), 0.9, -128, "sum"), clamp=(-128, 127))
    mean = build.node("mean", (total,), build.activation((1, 4), 0.3, -120, "pooled"), axes=(1, 2), keep_dims=0)
    return build.graph(x, build.fully_connected(mean, 3, per_channel=True))


def separable() -> Graph:
    """conv stride 2 - depthwise - pointwise - average pool - reshape - fully connected - softmax."""
    build = Build(2)
    x = build.activation((1, 10, 6, 2), 0.02, 5, "spectrogram")
    y = build.conv(x, 4, stride=2, padding=(0, 1, 0, 1), clamp=(-3, 100))
    weights = build.weights((1, 3, 3, 4), 3)
    depthwise = build.activation((1, 5, 3, 4), build.tensors[y].scale * 3, -128, "depthwise")
    window = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1)}
    y = build.node("depthwise_conv2d", (y, weights, build.bias(y, weights, 4)), depthwise, clamp=(-128, 127), **window)
    y = build.conv(y, 6, kernel=1, padding=(0, 0, 0, 0))
    pool = build.tensor(Tensor("pool", (1, 2, 1, 6), "int8", build.tensors[y].quantization))
    y = build.node("average_pool2d", (y,), pool, kernel=(2, 3), stride=(2, 2), padding=(0, 0, 0, 0), clamp=(-128, 127))
    y = build.fully_connected(build.reshape(y, (1, 12)), 4)
    return build.graph(x, build.node("softmax", (y,), build.activation((1, 4), 1 / 256, -128, "probabilities"), beta=1.0))


def perceptron() -> Graph:
    """Two fully connected layers, one scale for each weight matrix."""
    build = Build(3)
    x = build.activation((1, 12), 0.05, -7, "features")
    return build.graph(x, build.fully_connected(build.fully_connected(x, 9), 5))


def two_ends() -> Graph:
    """Two inputs, two outputs, no MACs: max pool of a sum, and a relu of it that changes the scale."""
    build = Build(4)
    left, right = build.activation((1, 4, 6, 3), 0.05, 3, "left"), build.activation((1, 4, 6, 3), 0.02, -9, "right")
    total = build.node("add", (left, right), build.activation((1, 4, 6, 3), 0.06, 0, "sum"), clamp=(-128, 127))
    pooled = build.activation((1, 2, 3, 3), 0.06, 0, "pooled")
    build.node("max_pool2d", (total,), pooled, kernel=(3, 3), stride=(2, 2), padding=(0, 1, 0, 1), clamp=(-128, 127))
    return build.graph((left, right), (pooled, build.relu(total, (0, 127), scale=0.03)))


def hostile_names() -> Graph:
    """Names that try to leave their comment, in a model whose file is otherwise ordinary."""
    build = Build(5)
    x = build.activation((1, 5), 0.05, 0, "*/ int injected; /*")
    names = ["line\nend", 'quote"\\', "??/\n*/ trigraph", "Gerät/名前", "int", "x" * 300, ""]
    y = x
    for name in names:
        q = Quantization(np.array([0.05], np.float32), np.array([0]))
        y = build.node("relu", (y,), build.tensor(Tensor(name, (1, 5), "int8", q)), clamp=(-100, 100))
    return build.graph(x, y)


MODELS: dict[str, Callable[[], Graph]] = {
    maker.__name__: maker for maker in (residual, separable, perceptron, two_ends, hostile_names)
}


def generated(name: str) -> dict[str, str]:
    """The generated C of one model; its prefix is the model's name."""
    graph = MODELS[name]()
    check(graph)
    return emit(graph, plan(graph), name, selftest=False)


if __name__ == "__main__":
    for name in MODELS:
        folder = GOLDEN / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in generated(name).items():
            (folder / file).write_text(text)
        print(f"{folder}: {len(generated(name))} files")
