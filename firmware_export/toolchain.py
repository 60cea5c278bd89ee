"""Compilers: arm-none-eabi-gcc or zig (from PyPI, no root needed) for the boards, the machine's own or zig for the host.

Every flag that makes an image reproducible is here: prefix map, no time stamps, no build id, a cleaned environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.artifacts import ArtifactError, PipelineError, UsageError, did_you_mean


class ToolchainError(PipelineError):
    """A compiler or emulator is missing or failed: what was found, what to do."""

    exit_code = 8


@dataclass(frozen=True)
class Core:
    """How both compilers name a core. zig: its CPU model; dwt: whether the core has a cycle counter.

    with_fpu: features that zig's CPU model lacks and that come with the FPU, whose registers they use.
    """

    gcc: str
    zig: str
    dwt: bool
    with_fpu: str = ""


CORES = {
    "cortex-m0plus": Core("cortex-m0plus", "cortex_m0plus", dwt=False),
    "cortex-m3": Core("cortex-m3", "cortex_m3", dwt=True),
    "cortex-m4": Core("cortex-m4", "cortex_m4", dwt=True),
    "cortex-m7": Core("cortex-m7", "cortex_m7", dwt=True),
    "cortex-m33": Core("cortex-m33", "cortex_m33+dsp", dwt=True),
    "cortex-m55": Core("cortex-m55", "cortex_m55", dwt=True, with_fpu="+mve_fp"),
}
FPUS = {"none": "", "fpv4-sp-d16": "+vfp4d16sp", "fpv5-sp-d16": "+fp_armv8d16sp", "fpv5-d16": "+fp_armv8d16"}
"""FPU by gcc's name, and the features that zig's CPU models lack."""

WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wdouble-promotion",
    "-Werror",
    "-Werror=date-time",
    "-Werror=implicit-function-declaration",
)
_COMMON = ("-std=c99", "-g0", "-fno-common", "-ffunction-sections", "-fdata-sections", *WARNINGS)
_FREESTANDING = (
    "-ffreestanding",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fomit-frame-pointer",
)
_TIMEOUT_S = 600
_DISK_PROBLEMS = (
    "No space left on device",
    "File size limit exceeded",
    "File too large",
    "Disk quota exceeded",
    "Read-only file system",
)
"""What compilers and linkers print when it is the disk that failed, not the source."""


@dataclass(frozen=True)
class Toolchain:
    """A compiler driver. kind: "gcc", "zig" or, for the machine's own compiler, "cc"."""

    kind: str
    command: tuple[str, ...]
    version: str

    @property
    def label(self) -> str:
        """For reports and the build id, e.g. "gcc 12.2.1" or "zig 0.15.2"."""
        return f"{self.kind} {self.version}"

    def target_flags(self, core: str, fpu: str) -> list[str]:
        """The flags that choose core, FPU and float ABI; core "host" means the machine itself.

        Args:
            core: a key of CORES, or "host".
            fpu: a key of FPUS.
        """
        if core == "host":
            return ["-fno-sanitize=all"] if self.kind == "zig" else []
        if self.kind == "zig":
            abi = "eabi" if fpu == "none" else "eabihf"
            features = FPUS[fpu] + (CORES[core].with_fpu if fpu != "none" else "")
            return ["-target", f"thumb-freestanding-{abi}", f"-mcpu={CORES[core].zig}{features}", "-fno-sanitize=all"]
        flags = [f"-mcpu={CORES[core].gcc}", "-mthumb"]
        return flags + (["-mfloat-abi=soft"] if fpu == "none" else [f"-mfpu={fpu}", "-mfloat-abi=hard"])

    def compile_flags(self, core: str, fpu: str, optimize: str) -> list[str]:
        """All flags of a compilation but the include folders and macros. optimize: "s", "2" or "3"."""
        flags = [*self.target_flags(core, fpu), f"-O{optimize}", *_COMMON]
        return flags if core == "host" else [*flags, *_FREESTANDING]

    def compile(self, source: Path, output: Path, flags: Sequence[str]) -> None:
        """Compiles one file to an object. Raises ToolchainError with the first message of the compiler."""
        prefix_map = f"-ffile-prefix-map={source.parent}=."
        self.run([*flags, prefix_map, "-c", str(source), "-o", str(output)], f"compiling {source.name}")

    def link(self, objects: Sequence[Path], output: Path, script: Path, core: str, fpu: str) -> None:
        """Links a firmware image with a linker script. Raises ToolchainError when it cannot be linked."""
        flags = [*self.target_flags(core, fpu), "-nostdlib", "-static", "-T", str(script), "-Wl,--gc-sections"]
        flags += ["-Wl,--build-id=none", "-Wl,--entry=reset_handler", "-Wl,-z,max-page-size=8"]
        libraries = ["-lgcc"] if self.kind == "gcc" else []
        self.run([*flags, *map(str, objects), *libraries, "-o", str(output)], f"linking {output.name}")

    def run(self, arguments: Sequence[str], action: str) -> str:
        """Runs the compiler driver and gives its standard output.

        Raises:
            ToolchainError: it failed, took longer than ten minutes or could not be started.
            ArtifactError: the disk is full.
        """
        try:
            result = subprocess.run(
                [*self.command, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                env=_environment(),
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"{action}: {self.command[0]} could not be run ({error}); check the installation") from None
        full = next((text for text in _DISK_PROBLEMS if text.lower() in result.stderr.lower()), None)
        if full is not None:
            raise ArtifactError(f"{action}: {full.lower()}; make room and run again (earlier artifacts are intact)")
        if result.returncode != 0:
            raise ToolchainError(f"{action}: {self.label} failed: {_first_message(result.stderr)}")
        return result.stdout


def arm_toolchain(preference: str = "auto") -> Toolchain:
    """The compiler for the boards.

    Args:
        preference: "gcc" (arm-none-eabi-gcc), "zig", or "auto": what the environment variable TOOLCHAIN names, else
            gcc where it is installed, else zig.
    Raises:
        ToolchainError: none is installed.
        UsageError: an unknown name.
    """
    choice = preference if preference != "auto" else os.environ.get("TOOLCHAIN") or "auto"
    if choice not in ("auto", "gcc", "zig"):
        raise UsageError(f"unknown toolchain '{choice}'; known: auto, gcc, zig{did_you_mean(choice, ('auto', 'gcc', 'zig'))}")
    gcc = shutil.which("arm-none-eabi-gcc")
    if choice != "zig" and gcc is not None:
        return _identified("gcc", (gcc,))
    if choice == "gcc":
        raise ToolchainError(
            "arm-none-eabi-gcc not found; install gcc-arm-none-eabi, or use TOOLCHAIN=zig (pip install ziglang)"
        )
    zig = _zig()
    if zig is None:
        raise ToolchainError(
            "no compiler for Cortex-M: neither arm-none-eabi-gcc nor the Python package ziglang is installed; "
            "run `pip install -r requirements.txt`, or install gcc-arm-none-eabi"
        )
    return _identified("zig", zig)


def host_toolchain() -> Toolchain:
    """The compiler for this machine: $CC, cc, gcc or clang, else zig.

    Raises:
        ToolchainError: none is installed, or $CC cannot be run.
    """
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise ToolchainError(f"CC is set to '{os.environ['CC']}': {error}; set it to a C compiler or unset it") from None
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise ToolchainError(f"CC is set to '{chosen[0]}', which is not installed; unset CC or set it to a C compiler")
        return _identified("cc", tuple(chosen))
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return _identified("cc", (found,))
    zig = _zig()
    if zig is None:
        raise ToolchainError("no C compiler: neither cc, gcc, clang nor the Python package ziglang; run `pip install ziglang`")
    return _identified("zig", zig)


def _zig() -> tuple[str, ...] | None:
    """`zig cc` of the PyPI package, started directly: a Python process in between would cost more than a compilation."""
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (program := Path(folder) / "zig").is_file():
            return (str(program), "cc")
    return None


def _identified(kind: str, command: tuple[str, ...]) -> Toolchain:
    asking = ((command[0],), ["version"]) if kind == "zig" else (command, ["--version"])  # zig cc tells clang's
    text = Toolchain(kind, asking[0], "").run(asking[1], "asking for the version")
    found = re.search(r"\b(\d+\.\d+\.\d+)\b", text)
    return Toolchain(kind, command, found.group(1) if found else "unknown")


def _environment() -> dict[str, str]:
    """The caller's environment without what changes a compiler's output, and with private caches for zig."""
    drop = ("CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "GCC_EXEC_PREFIX", "COMPILER_PATH", "CCC_OVERRIDE_OPTIONS")
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    cache = str(_zig_cache())
    zig = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    return kept | zig | {"LC_ALL": "C", "TZ": "UTC", "SOURCE_DATE_EPOCH": "0"}


def _zig_cache() -> Path:
    """A folder of this user that can be written: EDGE_CACHE, else ~/.cache/edge-inference, else the temporary folder."""
    chosen = os.environ.get("ZIG_GLOBAL_CACHE_DIR")
    if chosen:
        return Path(chosen)
    root = Path(os.environ.get("EDGE_CACHE") or Path(os.environ.get("HOME", "/nonexistent")) / ".cache" / "edge-inference")
    for folder in (root / "zig", Path(tempfile.gettempdir()) / f"edge-inference-{os.getuid()}" / "zig"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise ToolchainError(f"zig needs a folder for its cache and {root} cannot be written; set EDGE_CACHE to one that can")


def _first_message(text: str) -> str:
    """The first line of a compiler's output that names an error, else its first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search("error|undefined|overflowed", line, re.IGNORECASE)]
    return (errors or lines or ["no message"])[0]
