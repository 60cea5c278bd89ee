"""Finding compilers, their flags, and what is said when one is missing or fails."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from importlib import metadata
from pathlib import Path

import pytest
from firmware_builder import COMPILERS, compiler

from firmware_export import toolchain as module
from firmware_export.toolchain import CORES, FPUS, Toolchain, ToolchainError, arm_toolchain, host_toolchain
from recipes.artifacts import ArtifactError, UsageError

WHICH = shutil.which


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOOLCHAIN", "CC"):
        monkeypatch.delenv(name, raising=False)


def hide(monkeypatch: pytest.MonkeyPatch, *programs: str, zig: bool = False) -> None:
    """Makes programs, and the Python package ziglang, look as if they were not installed."""
    monkeypatch.setattr(shutil, "which", lambda name: None if name in programs else WHICH(name))
    if zig:
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("kind", COMPILERS)
def test_toolchain_by_name(kind: str) -> None:
    found = arm_toolchain(kind)
    assert found.kind == kind
    assert found.label.startswith(f"{kind} ") and found.version.count(".") == 2
    if kind == "zig":
        assert found.version == metadata.version("ziglang")


def test_auto_takes_gcc_else_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "gcc" if WHICH("arm-none-eabi-gcc") else "zig"
    assert arm_toolchain().kind == expected
    hide(monkeypatch, "arm-none-eabi-gcc")
    assert arm_toolchain("auto").kind == "zig"


def test_environment_decides_where_no_one_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLCHAIN", "zig")
    assert arm_toolchain().kind == "zig"
    monkeypatch.setenv("TOOLCHAIN", "gccc")
    with pytest.raises(UsageError, match=r"unknown toolchain 'gccc'; known: auto, gcc, zig; did you mean 'gcc'\?"):
        arm_toolchain()


def test_what_is_asked_for_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLCHAIN", "gcc")
    assert arm_toolchain("zig").kind == "zig"


@pytest.mark.parametrize(
    "problem", ["File size limit exceeded", "Disk quota exceeded", "Read-only file system", "File too large"]
)
def test_the_disk_is_not_the_compilers_fault(tmp_path: Path, problem: str) -> None:
    full = script(tmp_path / "full", f"echo 'cc1: {problem} (core dumped)' >&2; exit 1")
    with pytest.raises(ArtifactError, match=problem.lower()):
        Toolchain("cc", (str(full),), "1").run([], "compiling x.c")


def test_a_broken_cc_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", 'gcc "')
    with pytest.raises(ToolchainError, match="No closing quotation; set it to a C compiler or unset it"):
        host_toolchain()


def test_missing_gcc_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "arm-none-eabi-gcc")
    with pytest.raises(ToolchainError, match="install gcc-arm-none-eabi, or use TOOLCHAIN=zig") as error:
        arm_toolchain("gcc")
    assert error.value.exit_code == 8


@pytest.mark.parametrize("preference", ["auto", "zig"])
def test_no_compiler_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch, preference: str) -> None:
    hide(monkeypatch, "arm-none-eabi-gcc", zig=True)
    with pytest.raises(ToolchainError, match=r"no compiler for Cortex-M: neither .* run `pip install") as error:
        arm_toolchain(preference)
    assert "\n" not in str(error.value)


def test_host_compiler_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("cc", "gcc", "clang"):
        script(tmp_path / name, f"echo {name} version 1.2.3")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("cc", "gcc", "clang"):
        assert Path(host_toolchain().command[0]).name == name
        (tmp_path / name).unlink()
    assert host_toolchain().kind == "zig"


def test_host_compiler_of_cc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = script(tmp_path / "my-cc", "echo my compiler 9.8.7 $1")
    monkeypatch.setenv("CC", f"{program} --old")
    found = host_toolchain()
    assert (found.command, found.version) == ((str(program), "--old"), "9.8.7")
    monkeypatch.setenv("CC", "no-such-cc -m32")
    with pytest.raises(ToolchainError, match="CC is set to 'no-such-cc', which is not installed; unset CC"):
        host_toolchain()


def test_no_host_compiler_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cc", "gcc", "clang", zig=True)
    with pytest.raises(ToolchainError, match=r"no C compiler: .*pip install ziglang"):
        host_toolchain()


def test_version_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", str(script(tmp_path / "odd", "echo no digits")))
    assert host_toolchain().label == "cc unknown"


def test_compiler_that_cannot_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x00\x01")
    broken.chmod(0o755)
    with pytest.raises(ToolchainError, match=r"compiling a.c: .*broken could not be run .*check the installation"):
        Toolchain("cc", (str(broken),), "1").compile(Path("a.c"), tmp_path / "a.o", [])


def test_compiler_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.05)
    slow = Toolchain("cc", (str(script(tmp_path / "slow", "sleep 5")),), "1")
    with pytest.raises(ToolchainError, match=r"could not be run .*timed out"):
        slow.run([], "waiting")


@pytest.mark.parametrize("kind", COMPILERS)
def test_failure_is_the_first_error_in_one_line(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) {\n    return undeclared;\n}\n")
    tools = compiler(kind)
    with pytest.raises(ToolchainError, match=r"compiling wrong.c: (gcc|zig) [\d.]+ failed: .*error: .*undeclared") as error:
        tools.compile(source, tmp_path / "wrong.o", tools.compile_flags("cortex-m4", "none", "2"))
    assert "\n" not in str(error.value)


def test_silent_failure_and_full_disk(tmp_path: Path) -> None:
    silent = Toolchain("cc", (str(script(tmp_path / "silent", "exit 3")),), "1")
    with pytest.raises(ToolchainError, match="linking x: cc 1 failed: no message"):
        silent.run([], "linking x")
    full = script(tmp_path / "full", f"echo 'fatal error: {os.strerror(errno.ENOSPC)}' >&2; exit 1")
    with pytest.raises(ArtifactError, match="no space left on device; make room") as error:
        Toolchain("cc", (str(full),), "1").run([], "linking x")
    assert error.value.exit_code == 4


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize(
    "text",
    [
        "const char *made = __DATE__;",
        "int narrow(long long wide) { return wide; }",
        "int f(int x) { { int x = 2; (void)x; } return x; }",
        "float f(float x) { return (float)(x * 2.0); }",
        "int f(void) { return g(); }",
        "int f(int unused) { return 1; }",
    ],
    ids=["date-time", "conversion", "shadow", "double-promotion", "implicit-function", "unused-parameter"],
)
def test_warnings_are_errors(tmp_path: Path, kind: str, text: str) -> None:
    source = tmp_path / "warned.c"
    source.write_text(text + "\n")
    with pytest.raises(ToolchainError):
        compiler(kind).compile(source, tmp_path / "warned.o", compiler(kind).compile_flags("cortex-m4", "none", "2"))


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("fpu", FPUS)
def test_every_core_with_every_fpu_compiles(tmp_path: Path, kind: str, core: str, fpu: str) -> None:
    if fpu != "none" and core in ("cortex-m0plus", "cortex-m3"):
        return  # no such part
    source = tmp_path / "plain.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdint.h>\nfloat f(float x, float y);\nfloat f(float x, float y) { return x * y; }\n"
    )
    tools = compiler(kind)
    tools.compile(source, tmp_path / "plain.o", tools.compile_flags(core, fpu, "s"))
    called = b"__aeabi_fmul" in (tmp_path / "plain.o").read_bytes()
    assert called == (fpu == "none"), "the FPU multiplies, else a library function"


@pytest.mark.parametrize("kind", COMPILERS)
def test_environment_of_the_caller_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    source = tmp_path / "plain.c"
    source.write_text("#include <stdint.h>\nextern const char name[];\nconst char name[] = __FILE__;\n")
    tools = compiler(kind)
    flags = tools.compile_flags("cortex-m4", "none", "2")
    tools.compile(source, tmp_path / "first.o", flags)
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "stdint.h").write_text("#error poisoned\n")
    for name in ("CPATH", "C_INCLUDE_PATH"):
        monkeypatch.setenv(name, str(poison))
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12345")
    tools.compile(source, tmp_path / "second.o", flags)
    assert (tmp_path / "first.o").read_bytes() == (tmp_path / "second.o").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "first.o").read_bytes()


def test_zig_cache_lies_where_the_user_may_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "edge"))
    assert module._zig_cache() == tmp_path / "edge" / "zig" and (tmp_path / "edge" / "zig").is_dir()
    monkeypatch.delenv("EDGE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert module._zig_cache() == tmp_path / "home" / ".cache" / "edge-inference" / "zig"
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", "/chosen")
    assert module._zig_cache() == Path("/chosen")


def test_zig_cache_falls_back_to_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert module._zig_cache().is_relative_to(tmp_path / "temporary")
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match=r"zig needs a folder for its cache .* set EDGE_CACHE"):
        module._zig_cache()


def test_zig_runs_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("EDGE_CACHE", raising=False)
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    assert arm_toolchain("zig").version
