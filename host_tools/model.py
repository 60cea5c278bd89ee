"""What the stage `export` left, loaded and checked against each other: graph, TFLite twin, generated C, figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from firmware_export.export import load_graph
from firmware_export.graph import Graph, Tensor
from firmware_export.hostlib import HostNetwork
from firmware_export.progress import Advance
from firmware_export.simulate import simulate
from firmware_export.target import export_stage
from host_tools.compare import Int8
from host_tools.firmware import verify_stage
from host_tools.link import ExpectedModel
from recipes.artifacts import ArtifactError, verified_hash
from recipes.recipe import Recipe

INT8_ONNX = "model_int8.onnx"


@dataclass(frozen=True)
class Model:
    """One exported network.

    export: the artifact folder. name: prefix of the generated files. info: network_c_info.json.
    onnx: the int8 QDQ file it was made from. twin: the same network as .tflite.
    """

    export: Path
    name: str
    graph: Graph
    info: dict[str, Any]
    onnx: bytes
    twin: bytes

    @property
    def hash(self) -> str:
        """Graph.hash(), which the board tells in its hello."""
        return self.graph.hash()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return int(self.info["macs"])

    @property
    def activations_bytes(self) -> int:
        """Bytes of the activation buffer, scratch included."""
        return int(self.info["memory"]["activations_bytes"])

    @property
    def output(self) -> Tensor:
        """The logits (or probabilities)."""
        return self.graph.tensors[self.graph.outputs[0]]

    def expected(self) -> ExpectedModel:
        """What the board must say it runs."""
        inputs = [self.graph.tensors[index] for index in self.graph.inputs]
        outputs = [self.graph.tensors[index] for index in self.graph.outputs]
        sizes = sum(t.nbytes for t in inputs), sum(t.nbytes for t in outputs)
        return ExpectedModel(self.hash, self.graph.arithmetic, *sizes, inputs[0].dtype, outputs[0].dtype)

    @cached_property
    def network(self) -> HostNetwork:
        """The generated C, compiled for this computer at its first use."""
        return HostNetwork(self.export, self.name)

    def compiled(self, images: Int8) -> Int8:
        """Answers int8 [n, outputs] of the generated C, compiled for this computer, to images int8 [n, h, w, c]."""
        answers = self.network.run(images)
        return np.asarray(answers[0], np.int8).reshape(len(images), -1)


def load_model(root: Path, recipe: Recipe, core: str = "host") -> Model:
    """Loads what build/<recipe> holds of the network for a core.

    Raises:
        ArtifactError: the export is missing, one of its files is damaged, or it was made from another int8 model.
        GraphError: the int8 model is damaged.
    """
    export, name = root / export_stage(core), recipe.firmware_export.name
    onnx, twin = root / "compress" / INT8_ONNX, export / f"{name}.tflite"
    for path in (onnx, twin, export / f"{name}_c_info.json"):
        verified_hash(path)
    verify_stage(export)
    info = read_info(export, name)
    graph = load_graph(onnx, recipe.firmware_export)
    if graph.hash() != info["model_hash"]:
        raise ArtifactError(
            f"{export} was made from another model ({info['model_hash'][:12]}..., {onnx.name} is {graph.hash()[:12]}...); "
            "run python -m firmware_export again"
        )
    return Model(export, name, graph, info, onnx.read_bytes(), twin.read_bytes())


def read_info(export: Path, name: str) -> dict[str, Any]:
    """<name>_c_info.json of an export, with every key that is used here.

    Raises:
        ArtifactError: missing, damaged or of another version.
    """
    path = export / f"{name}_c_info.json"
    again = "run python -m firmware_export again"
    try:
        info = json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} not found; {again}") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {again}") from None
    wanted = {"version", "model_hash", "macs", "layers", "inputs", "outputs", "memory", "constants_bytes"}
    if not isinstance(info, dict) or not wanted <= info.keys() or info["version"] != 1:
        raise ArtifactError(f"{path} is not a version 1 network description; {again}")
    return info


def simulated(graph: Graph, images: Int8, advance: Advance = lambda amount: None) -> Int8:
    """Answers int8 [n, outputs] of the numpy simulator to images int8 [n, h, w, c]."""
    outputs = []
    for image in images:
        outputs.append(np.asarray(simulate(graph, image[None])[0], np.int8).reshape(-1))
        advance(1)
    return np.stack(outputs)
