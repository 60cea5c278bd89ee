"""Whole generated networks on qemu's cores: planned buffers, kernels of the core's class, every output byte compared."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from graph_builder import Build
from kernel_harness.machine import Run, run_qemu
from kernel_harness.program import HERE, RUNTIME, linker_script

from firmware_export.c_text import array_definition
from firmware_export.check import check
from firmware_export.emit import emit, runtime_sources
from firmware_export.geometry import same_padding
from firmware_export.graph import ABSENT, Graph
from firmware_export.plan import Plan, plan
from firmware_export.simulate import simulate
from firmware_export.target import Target
from firmware_export.toolchain import Toolchain

GUARD = 64
MAIN = """\
#include "harness.h"
{includes}

static int8_t buffer[{size}] __attribute__((aligned(16)));
static volatile uint32_t failures[{count}];
{data}

/* Runs one network between two guards; gives the bytes that are wrong or changed beside its buffer. */
static uint32_t run(const nn_network *network, const int8_t *input, const int8_t *expected) {{
    for (uint32_t i = 0; i < sizeof buffer; ++i) {{
        buffer[i] = (int8_t)(uint8_t)(0x5au ^ i);
    }}
    int8_t *activations = buffer + {guard};
    for (uint32_t n = 0; n < network->input_count; ++n) {{
        for (uint32_t i = 0; i < network->inputs[n].size; ++i) {{
            activations[network->inputs[n].offset + i] = *input++;
        }}
    }}
    marker();
    uint32_t wrong = network->run(activations) == NN_OK ? 0u : 1u;
    marker();
    for (uint32_t n = 0; n < network->output_count; ++n) {{
        for (uint32_t i = 0; i < network->outputs[n].size; ++i) {{
            wrong += activations[network->outputs[n].offset + i] != *expected++ ? 1u : 0u;
        }}
    }}
    for (uint32_t i = 0; i < sizeof buffer; ++i) {{
        const int outside = i < {guard}u || i >= {guard}u + network->activations_size;
        wrong += outside && buffer[i] != (int8_t)(uint8_t)(0x5au ^ i) ? 1u : 0u;
    }}
    return wrong;
}}

void run_cases(void) {{
    uint32_t failed = 0;
    marker();
    marker();
{calls}
    for (uint32_t i = 0; i < {count}u; ++i) {{
        failed += failures[i] != 0u ? 1u : 0u;
    }}
    finish(failed, failures, {count}u);
}}
"""


@dataclass(frozen=True)
class Network:
    """A graph, its plan for a target, one set of inputs and the simulator's outputs."""

    graph: Graph
    layout: Plan
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]

    @staticmethod
    def of(graph: Graph, target: Target, seed: int = 0) -> Network:
        rng = np.random.default_rng(seed)
        inputs = tuple(rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs)
        return Network(graph, plan(graph, target), inputs, tuple(simulate(graph, *inputs)))

    @property
    def functions(self) -> set[str]:
        """Kernels that it calls."""
        return {code.function for code in self.layout.codes if code.function}


def run_networks(networks: Sequence[Network], toolchain: Toolchain, core: str, fpu: str) -> Run:
    """One program with all networks, one after the other in the same buffer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = []
        for place, network in enumerate(networks):
            for file, text in emit(network.graph, network.layout, f"net{place}", selftest=False).items():
                (folder / file).write_text(text)
            sources += [folder / f"net{place}.c", folder / f"net{place}_data.c"]
        (folder / "cases.c").write_text(main_text(networks))
        sources += [RUNTIME / file for file in sorted({s for n in networks for s in runtime_sources(n.layout)})]
        flags = [*toolchain.compile_flags(core, fpu, "2"), f"-I{RUNTIME}", f"-I{HERE}", f"-I{folder}"]
        objects = []
        for source in (*sources, folder / "cases.c", HERE / "startup.c", RUNTIME.parent / "boards" / "memory.c"):
            objects.append(folder / f"{source.stem}.o")
            toolchain.compile(source, objects[-1], [*flags, "-fno-builtin"] if source.stem == "memory" else flags)
        toolchain.link(objects, folder / "networks.elf", linker_script(core, folder), core, fpu)
        return run_qemu(folder / "networks.elf", core)


def main_text(networks: Sequence[Network]) -> str:
    """The C program."""
    data, calls = [], []
    for place, network in enumerate(networks):
        for word, arrays in (("input", network.inputs), ("expected", network.outputs)):
            joined = np.concatenate([array.reshape(-1) for array in arrays])
            data.append("static " + array_definition(joined, f"{word}_{place}"))
        calls.append(f"    failures[{place}] = run(&net{place}_network, input_{place}, expected_{place});")
    return MAIN.format(
        includes="\n".join(f'#include "net{place}.h"' for place in range(len(networks))),
        size=max(network.layout.size for network in networks) + 2 * GUARD,
        count=len(networks),
        data="\n".join(data),
        calls="\n".join(calls),
        guard=GUARD,
    )


def convolutional(seed: int) -> Graph:
    """An image through convolutions, depthwise ones, residual sums and a pool to a vector, as small networks are built."""
    rng = np.random.default_rng([seed, 5])
    build = Build(seed)
    size, channels = (int(rng.integers(4, 14)), int(rng.integers(4, 14))), int(rng.choice([1, 3, 5, 16]))
    x = image = build.activation((1, *size, channels), 0.02, -128, "image")
    x = convolved(build, rng, x, int(rng.choice([4, 8, 11, 16, 24])), 3)
    for _ in range(int(rng.integers(1, 5))):
        block = rng.integers(0, 3)
        if block == 0:
            x = convolved(build, rng, separated(build, rng, x), int(rng.choice([5, 8, 16, 32])), 1)
        elif block == 1:
            x = residual(build, rng, x)
        else:
            x = convolved(build, rng, x, int(rng.choice([6, 16, 20])), int(rng.choice([1, 3])), stride=int(rng.integers(1, 3)))
    x = pooled(build, x)
    y = build.fully_connected(build.reshape(x, (1, build.tensors[x].shape[-1])), int(rng.integers(2, 12)), per_channel=True)
    graph = build.graph(image, y)
    check(graph)
    return graph


def convolved(build: Build, rng: np.random.Generator, x: int, channels: int, kernel: int, stride: int = 1) -> int:
    """SAME padding; two in three are behind a ReLU."""
    padding = same_padding(build.tensors[x].shape[1:3], (kernel, kernel), (stride, stride))
    zero_point = -128 if rng.random() < 0.67 else int(rng.integers(-100, 100))
    return build.conv(x, channels, kernel, stride=stride, padding=padding, zero_point=zero_point)


def separated(build: Build, rng: np.random.Generator, x: int) -> int:
    """A 3x3 depthwise convolution."""
    stride = int(rng.integers(1, 3))
    _, height, width, channels = build.tensors[x].shape
    padding = same_padding((height, width), (3, 3), (stride, stride))
    weights = build.weights((1, 3, 3, channels), 3)
    scale = float(np.float32(build.tensors[x].scale * 0.015 * 74 * 73 * 3 / 40))
    y = build.activation((1, -(-height // stride), -(-width // stride), channels), scale, -128)
    attributes = {"stride": (stride, stride), "dilation": (1, 1), "padding": padding, "clamp": (-128, 127)}
    return build.node("depthwise_conv2d", (x, weights, ABSENT), y, **attributes)


def residual(build: Build, rng: np.random.Generator, x: int) -> int:
    """Two convolutions and the sum with what went into them."""
    channels = build.tensors[x].shape[3]
    y = convolved(build, rng, convolved(build, rng, x, channels, 3), channels, 3)
    scale = float(np.float32(max(build.tensors[x].scale, build.tensors[y].scale) * rng.uniform(0.8, 1.6)))
    z = build.activation(build.tensors[x].shape, scale, -128)
    return build.node("add", (x, y), z, clamp=(-128, 127))


def pooled(build: Build, x: int) -> int:
    """The average over the image."""
    _, height, width, channels = build.tensors[x].shape
    quantization = build.tensors[x]
    y = build.activation((1, 1, 1, channels), quantization.scale, quantization.zero_point)
    attributes = {"kernel": (height, width), "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    return build.node("average_pool2d", (x,), y, **attributes)
