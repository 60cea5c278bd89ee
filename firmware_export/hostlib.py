"""The generated C, compiled for this computer and run in this process: what `host` answers, thousands of images a second."""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from firmware_export.graph import DTYPES, Array, GraphError
from firmware_export.toolchain import Toolchain, host_toolchain
from recipes.artifacts import ArtifactError, PipelineError

RUNTIME = Path(__file__).parent / "runtime"
INCLUDE = re.compile(r'^#include "([A-Za-z0-9_]+)\.h"$', re.MULTILINE)
TYPE_NAMES = ("int8", "uint8", "int16", "int32", "float32", "bool", "int64")
"""By nn_type of runtime/nn.h."""
ARITHMETIC_NAMES = ("double", "float32")
"""By nn_arithmetic of runtime/nn.h."""
STATUS_NAMES = ("NN_OK", "NN_ERROR_NULL", "NN_ERROR_ALIGNMENT", "NN_ERROR_SELFTEST")


class HostRunError(PipelineError):
    """The compiled network answered with a result code other than NN_OK."""


class _Tensor(ctypes.Structure):
    """nn_tensor of runtime/nn.h."""

    _fields_: ClassVar = [
        ("offset", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
        ("type", ctypes.c_uint8),
        ("rank", ctypes.c_uint8),
        ("shape", ctypes.c_uint16 * 6),
    ]


class _Network(ctypes.Structure):
    """nn_network of runtime/nn.h, up to its functions."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("hash", ctypes.c_uint8 * 32),
        ("arithmetic", ctypes.c_uint8),
        ("input_count", ctypes.c_uint8),
        ("output_count", ctypes.c_uint8),
        ("layer_count", ctypes.c_uint16),
        ("activations_size", ctypes.c_uint32),
        ("inputs", ctypes.POINTER(_Tensor)),
        ("outputs", ctypes.POINTER(_Tensor)),
    ]


_OBSERVER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)

DRIVER = """\
#include "{name}.h"

static uint8_t activations[{upper}_ACTIVATIONS_SIZE + 1u] __attribute__((aligned(16)));

const nn_network *nn_host_network(void);
nn_status nn_host_run(const uint8_t *const *inputs, uint8_t *const *outputs, uint32_t count);
nn_status nn_host_trace(const uint8_t *const *inputs, nn_observer observer);
nn_status nn_host_selftest(void);

const nn_network *nn_host_network(void) {{ return &{name}_network; }}

static void copy_in(const uint8_t *const *inputs, uint32_t image) {{
    for (uint32_t i = 0; i < {name}_network.input_count; ++i) {{
        const nn_tensor *tensor = &{name}_network.inputs[i];
        __builtin_memcpy(activations + tensor->offset, inputs[i] + (uint64_t)image * tensor->size, tensor->size);
    }}
}}

nn_status nn_host_run(const uint8_t *const *inputs, uint8_t *const *outputs, uint32_t count) {{
    for (uint32_t image = 0; image < count; ++image) {{
        copy_in(inputs, image);
        const nn_status status = {name}_run(activations);
        if (status != NN_OK) {{
            return status;
        }}
        for (uint32_t i = 0; i < {name}_network.output_count; ++i) {{
            const nn_tensor *tensor = &{name}_network.outputs[i];
            __builtin_memcpy(outputs[i] + (uint64_t)image * tensor->size, activations + tensor->offset, tensor->size);
        }}
    }}
    return NN_OK;
}}

nn_status nn_host_trace(const uint8_t *const *inputs, nn_observer observer) {{
    copy_in(inputs, 0);
    return {name}_trace(activations, observer, 0);
}}

nn_status nn_host_selftest(void) {{
    return {name}_network.selftest == 0 ? NN_ERROR_SELFTEST : {name}_network.selftest(activations);
}}
"""


@dataclass(frozen=True)
class Edge:
    """A network's input or output as the compiled descriptor tells it."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of one image in a batch: without the leading 1."""
        return self.shape[1:] if self.shape[:1] == (1,) else self.shape


class HostNetwork:
    """An exported network as a shared library. Not for use in several threads at once: it has one activation buffer.

    Args:
        export_folder: holds <name>.c, <name>_data.c and, where the export wrote one, <name>_selftest.c.
        optimize: the compiler's -O level, "s", "2" or "3".
        toolchain: default toolchain.host_toolchain().
    Raises:
        ArtifactError: the generated C is not there.
        ToolchainError: no compiler, or it fails.
    """

    def __init__(
        self, export_folder: Path, name: str = "network", *, optimize: str = "3", toolchain: Toolchain | None = None
    ) -> None:
        sources = generated_sources(export_folder, name)
        with tempfile.TemporaryDirectory(prefix="hostlib-") as folder:
            driver = Path(folder) / "host_driver.c"
            driver.write_text(DRIVER.format(name=name, upper=name.upper()))
            library = Path(folder) / f"{name}.so"
            compile_host(
                [*sources, driver, *runtime_files(sources)], [RUNTIME, export_folder], library,
                ["-shared", "-fPIC"], optimize=optimize, toolchain=toolchain,
            )  # fmt: skip
            self._library = ctypes.CDLL(str(library))
        self._library.nn_host_network.restype = ctypes.POINTER(_Network)
        descriptor = self._library.nn_host_network().contents
        self.name = name
        self.hash = bytes(descriptor.hash).hex()
        self.arithmetic = ARITHMETIC_NAMES[descriptor.arithmetic]
        self.activations_bytes = int(descriptor.activations_size)
        self.inputs = tuple(_edge(descriptor.inputs[i]) for i in range(descriptor.input_count))
        self.outputs = tuple(_edge(descriptor.outputs[i]) for i in range(descriptor.output_count))

    def run(self, *batches: Array) -> list[Array]:
        """The outputs for every image.

        Args:
            batches: for each input an array [n, ...] of its type; [n, h, w, c] for an input [1, h, w, c].
        Returns:
            For each output an array [n, ...].
        Raises:
            GraphError: another number, shape or type of inputs.
        """
        arrays = self._checked(batches)
        count = len(arrays[0])
        results = [np.empty((count, *edge.batch_shape), DTYPES[edge.dtype]) for edge in self.outputs]
        self._check(self._library.nn_host_run(_pointers(arrays), _pointers(results), ctypes.c_uint32(count)))
        return [*results]

    def trace(self, *inputs: Array) -> list[list[Array]]:
        """The outputs of every layer for one image, as flat int8 arrays. Arguments and errors as simulate."""
        arrays = self._checked([value.reshape(1, *edge.batch_shape) for value, edge in zip(inputs, self.inputs, strict=True)])
        layers: list[list[Array]] = []

        def _observe(_: int, layer: int, output: int, data: int, size: int) -> None:
            if output == 0:
                layers.append([])
            assert layer == len(layers) - 1 and output == len(layers[-1])
            layers[-1].append(np.frombuffer(ctypes.string_at(data, size), np.int8))

        self._check(self._library.nn_host_trace(_pointers(arrays), _OBSERVER(_observe)))
        return layers

    def selftest(self) -> bool:
        """Whether the exported known answers come out; False too where the export wrote none."""
        return int(self._library.nn_host_selftest()) == 0

    def _checked(self, batches: Sequence[Array]) -> list[Array]:
        if len(batches) != len(self.inputs):
            raise GraphError(f"{len(batches)} inputs given; {self.name} takes {len(self.inputs)}")
        for place, (batch, edge) in enumerate(zip(batches, self.inputs, strict=True)):
            if batch.shape[1:] != edge.batch_shape or batch.dtype != DTYPES[edge.dtype] or len(batch) != len(batches[0]):
                raise GraphError(
                    f"input {place} is {batch.dtype} {batch.shape}; {self.name} takes {edge.dtype} "
                    f"({len(batches[0])}, {', '.join(map(str, edge.batch_shape))})"
                )
        return [np.ascontiguousarray(batch) for batch in batches]

    def _check(self, status: int) -> None:
        if status != 0:
            raise HostRunError(f"{self.name} returned {STATUS_NAMES[status]} on the host; please report the model")


def generated_sources(export_folder: Path, name: str) -> list[Path]:
    """The C files of an exported network. Raises ArtifactError if they are not there."""
    sources = [export_folder / f"{name}.c", export_folder / f"{name}_data.c"]
    for source in sources:
        if not source.is_file():
            raise ArtifactError(f"{source} not found: run the export first (python -m firmware_export RECIPE)")
    selftest = export_folder / f"{name}_selftest.c"
    return [*sources, selftest] if selftest.is_file() else sources


def runtime_files(sources: Iterable[Path]) -> list[Path]:
    """The C files of runtime/ that the sources need: those of every header that is included, directly or not."""
    waiting = [path.read_text() for path in sources]
    seen: set[str] = set()
    while waiting:
        for stem in INCLUDE.findall(waiting.pop()):
            if stem not in seen:
                seen.add(stem)
                files = [path for path in RUNTIME.glob(f"{stem}*.c") if header_of(path) == stem]
                waiting += [path.read_text() for path in (RUNTIME / f"{stem}.h", *files) if path.is_file()]
    return sorted(path for path in RUNTIME.glob("*.c") if header_of(path) in seen)


def header_of(source: Path) -> str:
    """The stem of the header that declares what a C file of runtime/ defines: the longest one that its name begins with.

    step_winograd_transforms.c has no header of its own and belongs to step_winograd.h.
    """
    words = source.stem.split("_")
    stems = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((stem for stem in stems if (source.parent / f"{stem}.h").is_file()), source.stem)


def compile_host(
    sources: Iterable[Path],
    includes: Iterable[Path],
    output: Path,
    flags: Sequence[str] = (),
    *,
    optimize: str = "2",
    toolchain: Toolchain | None = None,
) -> None:
    """Compiles and links for this computer. Raises ToolchainError when there is no compiler or it fails."""
    compiler = toolchain or host_toolchain()
    arguments = [*compiler.compile_flags("host", "none", optimize), *flags, *(f"-I{folder}" for folder in includes)]
    compiler.run([*arguments, *map(str, sources), "-o", str(output)], f"compiling {output.name}")


def _edge(tensor: _Tensor) -> Edge:
    return Edge(tuple(tensor.shape[: tensor.rank]), TYPE_NAMES[tensor.type], float(tensor.scale), int(tensor.zero_point))


def _pointers(arrays: Sequence[Array]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
