"""The README's new operator, added as it says: its files put into a copy of the package, then compared bit for bit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from graph_builder import Build

from firmware_export.graph import Graph, GraphError
from firmware_export.operators import registry
from firmware_export.read_tflite import read_tflite_bytes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "firmware_export" / "README.md").read_text()
BLOCK = re.compile(r"^`((?:operators|runtime)/[a-z0-9_.]+)`:\n\n```[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = dict(BLOCK.findall(README))

MODEL = """
import sys
from pathlib import Path
from graph_builder import Build
from firmware_export.graph import Quantization, Tensor
from firmware_export.write_tflite import write_tflite

build = Build()
x = build.activation((1, 4, 8, 4), 0.05, -9, "x")
y = build.tensor(Tensor("|x|", (1, 4, 8, 4), "int8", Quantization.per_tensor(0.02, -128)))
Path(sys.argv[1]).write_bytes(write_tflite(build.graph(x, build.node("abs", (x,), y))))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is needed, with the README's files in it."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("firmware_export", "recipes", "tests/firmware_export"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "tests/conftest.py", ".clang-format"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
    for name, text in FILES.items():
        assert not (folder / "firmware_export" / name).exists(), "a new operator, not one that is there"
        (folder / "firmware_export" / name).write_text(text)
    return folder


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'tests' / 'firmware_export'}"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
    )


def test_it_is_two_files_and_a_header() -> None:
    assert list(FILES) == ["operators/abs.py", "runtime/abs.c", "runtime/abs.h"]


def test_without_them_the_model_is_refused_as_the_readme_says(checkout: Path, tmp_path: Path) -> None:
    assert "abs" not in registry()
    model = tmp_path / "model.tflite"
    made = python(checkout, "-c", MODEL, str(model))
    assert made.returncode == 0, made.stderr
    with pytest.raises(GraphError, match=r"^operator 0 is ABS, which is not supported; supported: ADD, "):
        read_tflite_bytes(model.read_bytes())
    assert "operator 0 is ABS, which is not supported; supported: ADD, ..." in README


def test_with_them_the_tests_of_every_operator_take_it_up(checkout: Path) -> None:
    """At least: enough examples, the simulator against TensorFlow Lite Micro, reading its own twin; the README's command."""
    (command,) = re.findall(r"^python -m (pytest .*test_operators\.py.*?)  +#", README, re.MULTILINE)
    result = python(checkout, "-m", *command.split(), "-p", "no:cacheprovider", "-o", "addopts=")
    assert result.returncode == 0, result.stdout[-3000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed and int(passed[1]) >= 7, result.stdout[-300:]


KERNELS = """
import sys
from pathlib import Path
from bundle import Bundle, Emulator, gcc_or_skip
from example_cases import cases_of, differences
from firmware_export.toolchain import arm_toolchain, host_toolchain

cases = cases_of("abs")
bundle = Bundle(Path(sys.argv[1]), cases)
for case, found in zip(cases, bundle.run_host(bundle.host_program(host_toolchain())), strict=True):
    assert differences(case, found) == ""
for core in ("cortex-m4", "cortex-m3"):
    emulator = Emulator(bundle.arm_program(arm_toolchain(), core), core)
    for index, case in enumerate(cases):
        found = [emulator.run(index, case.graph, bundle.plans[index], vector) for vector in case.vectors]
        assert differences(case, found) == ""
print("equal", len(cases))
"""


def test_its_c_is_equal_on_this_computer_and_on_emulated_cores(checkout: Path, tmp_path: Path) -> None:
    """As test_kernels.py does for all operators at once, here for the new one alone."""
    pytest.importorskip("unicorn")
    result = python(checkout, "-c", KERNELS, str(tmp_path))
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "equal 60"


def test_the_whole_program_takes_the_model(checkout: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    assert python(checkout, "-c", MODEL, str(model)).returncode == 0
    (command,) = re.findall(r"^python -m (firmware_export model\.tflite)$", README, re.MULTILINE)
    words = [str(model) if word == "model.tflite" else word for word in command.split()]
    result = python(checkout, "-m", *words, "--build", str(tmp_path / "b"))
    assert result.returncode == 0, result.stderr
    last = result.stdout.strip().splitlines()[-1]
    (shown,) = re.findall(r"^(compare: .*)$", README, re.MULTILINE)
    assert last.startswith(shown + "; ")
    assert (tmp_path / "b" / "model" / "export" / "network.c").read_text().count("nn_abs(") == 1


def test_the_readmes_line_for_the_table(checkout: Path) -> None:
    result = python(checkout, "-m", "firmware_export.tables")
    assert "| `abs` | ABS | Abs | y = requantize(\\|x - zero point of x\\|) + zero point of y, saturated. |" in result.stdout


def test_its_code_keeps_the_house_rules(checkout: Path) -> None:
    path = checkout / "firmware_export" / "operators" / "abs.py"
    for command in (["check"], ["format", "--check"]):
        result = python(checkout, "-m", "ruff", *command, str(path))
        assert result.returncode == 0, result.stdout
    formatter = shutil.which("clang-format")
    if formatter is None:
        return
    for name in ("abs.c", "abs.h"):
        source = checkout / "firmware_export" / "runtime" / name
        shown = subprocess.run([formatter, str(source)], capture_output=True, text=True, check=True).stdout
        assert shown == source.read_text(), name


def test_the_other_commands_and_files_of_the_readme_exist() -> None:
    for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", README):
        if f"{name}" not in FILES:
            assert any((ROOT / folder / name).exists() for folder in ("firmware_export", ".")), name
    shown = subprocess.run(
        [sys.executable, "-m", "firmware_export", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for option in set(re.findall(r"--[a-z]+", README)):
        assert option in shown, option


def test_graphs_of_it_are_ordinary(checkout: Path) -> None:
    """The original's own graph classes know nothing of it: there is no list to add it to."""
    build = Build()
    x = build.activation((1, 4))
    graph: Graph = build.graph(x, build.node("abs", (x,), build.activation((1, 4))))
    from firmware_export.check import check

    with pytest.raises(GraphError, match="unknown operator 'abs'"):
        check(graph)
