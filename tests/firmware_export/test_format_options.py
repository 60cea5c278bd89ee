"""Every option that the format allows is read, and means what TFLite Micro takes it for."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from oracles import tflite_micro
from tflite_files import BUILDERS, Build

from firmware_export.passes import simplify
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

SHORT, LONG = 60, 3000


def check_files(build: Build, count: int, seed: int) -> None:
    """The answers to random inputs: of the file, of the graph, of the graph after all passes and of its twin."""
    rng = np.random.default_rng([seed, zlib.crc32(build.__name__.encode())])
    checked = 0
    while checked < count:
        model = build(rng)
        if model is None:
            continue
        graph = read_tflite_bytes(model)
        simple = simplify(graph)
        vector = [rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs]
        wanted = tflite_micro(model, vector)[0].tobytes()
        assert simulate(graph, *vector)[0].tobytes() == wanted
        assert simulate(simple, *vector)[0].tobytes() == wanted
        if checked % 4 == 0:
            assert tflite_micro(write_tflite(simple), vector)[0].tobytes() == wanted
        checked += 1


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_files(build: Build) -> None:
    check_files(build, SHORT, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_many_files(build: Build) -> None:
    check_files(build, LONG, seed=2)
