"""The house rules that a machine can read: imports, sizes, docstrings, words that do not belong, ratio of tests."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("recipes", "train", "compress", "firmware_export", "host_tools")
ALLOWED = {
    "recipes": set(),
    "train": {"recipes"},
    "firmware_export": {"recipes"},
    "compress": {"recipes", "train", "firmware_export"},
    "host_tools": {"recipes", "firmware_export", "train.data"},
}
FORBIDDEN_CALLS = {"eval", "exec"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal"}
TEXT = {".py", ".c", ".h", ".md", ".toml", ".yaml", ".yml", ".txt", ".ld", ".cfg", ""}


def tracked(*suffixes: str) -> list[Path]:
    """Files that git tracks or would track, with one of the suffixes."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [ROOT / name for name in listed if name]
    return [f for f in sorted(files) if f.is_file() and (not suffixes or f.suffix in suffixes)]


def program_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def sources() -> list[Path]:
    return [p for p in tracked(".py") if program_of(p) in PROGRAMS]


def imported(tree: ast.AST) -> list[str]:
    """Every module a file imports, "a.b" for `from a import b` as well."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def may_import(program: str, module: str) -> bool:
    target = module.split(".")[0]
    if target not in PROGRAMS or target == program:
        return True
    return any(module == allowed or module.startswith(allowed + ".") for allowed in ALLOWED[program])


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way_and_nothing_unpickles(path: Path) -> None:
    tree = ast.parse(path.read_text())
    wrong = [m for m in imported(tree) if not may_import(program_of(path), m)]
    assert not wrong, f"{program_of(path)} may import {sorted(ALLOWED[program_of(path)])}, not {wrong}"
    assert not [m for m in imported(tree) if m.split(".")[0] in FORBIDDEN_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS), f"line {node.lineno}"
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                assert not (keyword.arg == "shell" and value is True), f"shell=True in line {node.lineno}"
                assert not (keyword.arg == "weights_only" and value is not True), f"line {node.lineno}"
                assert not (keyword.arg == "allow_pickle" and value is not False), f"line {node.lineno}"


def test_the_import_rule_itself_refuses() -> None:
    assert not may_import("train", "compress.prune")
    assert not may_import("host_tools", "train.loop.fit")
    assert not may_import("recipes", "train")
    assert may_import("host_tools", "train.data.load_dataset")
    assert may_import("train", "numpy")


def test_torch_and_tensorflow_stay_out_of_the_light_parts() -> None:
    """The host tool and the exporter start without torch; tensorflow is never a top-level import."""
    for path in sources():
        light = program_of(path) in ("recipes", "firmware_export", "host_tools") or path == ROOT / "train" / "data.py"
        for node in ast.parse(path.read_text()).body:
            roots = {m.split(".")[0] for m in imported(node)}
            assert "tensorflow" not in roots, path
            assert not (light and "torch" in roots), path


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_functions_are_small() -> None:
    sizes = sorted((length(f), f"{p.relative_to(ROOT)}:{f.name}") for p in sources() for f in functions(p))
    assert sizes[len(sizes) // 2][0] <= 10, "median length of a function"
    assert sizes[int(len(sizes) * 0.9)][0] <= 40, "nine of ten functions"
    assert not [s for s in sizes if s[0] > 80]


def test_files_are_small() -> None:
    sizes = [
        (p.read_text().count("\n"), str(p.relative_to(ROOT))) for p in tracked(".py", ".c", ".h") if program_of(p) in PROGRAMS
    ]
    assert not [s for s in sizes if s[0] > 500]


def test_public_functions_say_what_they_do() -> None:
    missing = [
        f"{p.relative_to(ROOT)}:{f.lineno} {f.name}"
        for p in sources()
        for f in functions(p)
        if not f.name.startswith("_") and ast.get_docstring(f) is None and not overrides(f)
    ]
    assert not missing


def overrides(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Methods of the operator and transport interfaces are described there; nested functions are not public."""
    interface = {"infer", "simulate", "emit", "examples", "macs", "read_tflite", "read_onnx", "write_tflite", "forward"}
    interface |= {"constants", "litert_default"}
    interface |= {"results", "folded", "combine", "fields", "choose", "onnx_attributes"}  # of the operators' own base classes
    return function.name in interface | {"open", "close", "read", "write", "extra_repr"}


def test_no_catch_all_module() -> None:
    names = {p.stem for p in sources()}
    assert not names & {"utils", "util", "helpers", "misc", "common"}


def test_nothing_names_a_machine_or_how_it_was_made() -> None:
    # The words are put together here so that this file does not contain them.
    words = ["/" + "work/", "/" + "root/", "/" + "home/", "/" + "tmp/w/", r"\b" + "sub" + "agent", "py" + r"pi\.org/simple"]
    pattern = re.compile("|".join(words), re.IGNORECASE)
    found = []
    for path in tracked():
        if path.suffix in TEXT:
            for number, line in enumerate(path.read_text(errors="replace").split("\n"), 1):
                if pattern.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found


def test_no_large_or_foreign_binary_is_tracked() -> None:
    assert not [p for p in tracked() if p.stat().st_size > 1 << 20]
    kept_failures = ROOT / "tests" / "regression"
    binaries = tracked(".npz", ".gz", ".pt", ".pkl", ".elf", ".so", ".o")
    assert [path for path in binaries if kept_failures not in path.parents] == []


def test_every_requirement_is_pinned_and_constrained() -> None:
    constraints = dict(line.split("==") for line in requirement_lines("constraints.txt"))
    assert constraints["torch"] == "2.13.0"
    normal = {name.lower().replace("_", "-"): version for name, version in constraints.items()}
    for file in ("requirements.txt", "requirements-dev.txt", "requirements-tensorflow.txt"):
        for line in requirement_lines(file):
            name, version = line.split("==")
            assert normal[name.lower().replace("_", "-")] == version, f"{file}: {line}"


def requirement_lines(file: str) -> list[str]:
    return [line.strip() for line in (ROOT / file).read_text().splitlines() if line.strip() and not line.startswith("#")]


def lines_of(paths: list[Path]) -> int:
    return sum(1 for p in paths for line in p.read_text(errors="replace").split("\n") if line.strip())


def test_tests_outweigh_the_code() -> None:
    code = lines_of([p for p in tracked(".py", ".c", ".h") if program_of(p) in PROGRAMS])
    golden = ROOT / "tests" / "golden"
    tests = lines_of([p for p in tracked(".py", ".c", ".h") if program_of(p) == "tests" and golden not in p.parents])
    print(f"{tests} lines of tests for {code} lines of code: {tests / code:.2f}")
    assert tests >= 1.3 * code


def test_every_make_target_is_documented() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony.group(1).split():
        assert re.search(rf"^  make {target} ", shown, re.MULTILINE), target
        assert re.search(rf"^{target}:.*## \S", text, re.MULTILINE), target
