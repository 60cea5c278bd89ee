"""Artifacts: hashes, atomic writes, stages that are not run twice, damage, full disks, two runs at once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from recipes import artifacts
from recipes.artifacts import ArtifactError, DataError, PipelineError, Stage, UsageError

ROOT = Path(__file__).resolve().parents[2]


def make_stage(root: Path, name: str = "train", content: str = "weights", **config: object) -> Stage:
    """Runs a stage that writes one file; returns it."""
    with Stage(root, name, config) as stage:
        if not stage.unchanged:
            (stage.work / "model.txt").write_text(content)
            stage.finish({"accuracy": 0.5}, f"{name}: done")
    return stage


def test_file_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert artifacts.sha256_file(path) == hashlib.sha256(b"abc").hexdigest()


def test_canonical_json_does_not_depend_on_order() -> None:
    assert artifacts.canonical_json({"b": 1, "a": [1, 2]}) == '{"a":[1,2],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        artifacts.canonical_json(float("nan"))


def test_source_hash_sees_names_and_bytes_but_no_caches(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "a.py").write_text("x = 1")
    first = artifacts.source_hash(folder)
    (folder / "__pycache__" / "a.pyc").write_text("changed")
    assert artifacts.source_hash(folder) == first
    (folder / "a.py").write_text("x = 2")
    second = artifacts.source_hash(folder)
    assert second != first
    (folder / "a.py").rename(folder / "b.py")
    assert artifacts.source_hash(folder) not in (first, second)


def test_atomic_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    artifacts.write_text_atomic(tmp_path / "deep" / "a.txt", "one")
    artifacts.write_text_atomic(tmp_path / "deep" / "a.txt", "two")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "two"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    artifacts.write_bytes_atomic(path, b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(ArtifactError, match=r"cannot write .*limit.*earlier artifacts are intact"):
            artifacts.write_bytes_atomic(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "read-only"), (errno.EACCES, "permission"), (errno.EIO, "input/output")],
)
def test_storage_errors_say_what_to_do(number: int, words: str) -> None:
    message = str(artifacts.storage_error(Path("a"), OSError(number, os.strerror(number))))
    assert words in message
    assert "intact" in message


def test_a_stage_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_stage(tmp_path, epochs=3)
    assert not first.unchanged
    assert capsys.readouterr().out == "train: done\n"
    second = make_stage(tmp_path, content="other", epochs=3)
    assert second.unchanged
    assert (tmp_path / "train" / "model.txt").read_text() == "weights"
    assert second.again() == "train: unchanged, not run again (train: done)"


def test_another_config_runs_the_stage_again(tmp_path: Path) -> None:
    make_stage(tmp_path, epochs=3)
    again = make_stage(tmp_path, content="new", epochs=4)
    assert not again.unchanged
    assert (tmp_path / "train" / "model.txt").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "train"]


def test_another_input_runs_the_stage_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("1")
    for content, unchanged in (("1", False), ("1", True), ("2", False)):
        source.write_text(content)
        with Stage(tmp_path / "b", "export", {}, [source]) as stage:
            assert stage.unchanged == unchanged
            if not unchanged:
                stage.finish({}, "done")


def test_the_manifest_tells_everything(tmp_path: Path) -> None:
    make_stage(tmp_path, epochs=3)
    manifest = json.loads((tmp_path / "train" / "manifest.json").read_text())
    assert manifest["config"] == {"epochs": 3}
    assert manifest["figures"] == {"accuracy": 0.5}
    assert manifest["outputs"] == {"model.txt": hashlib.sha256(b"weights").hexdigest()}
    assert manifest["versions"]["numpy"]
    assert not (tmp_path / "train" / ".key").exists()


def test_a_damaged_output_is_made_again(tmp_path: Path) -> None:
    make_stage(tmp_path)
    (tmp_path / "train" / "model.txt").write_text("weightt")
    assert not make_stage(tmp_path).unchanged
    assert (tmp_path / "train" / "model.txt").read_text() == "weights"


def test_a_damaged_input_is_refused(tmp_path: Path) -> None:
    make_stage(tmp_path)
    model = tmp_path / "train" / "model.txt"
    model.write_text("weightt")
    with pytest.raises(ArtifactError, match="is damaged: SHA-256"), Stage(tmp_path, "compress", {}, [model]):
        pass


def test_damage_is_seen_in_subfolders_too(tmp_path: Path) -> None:
    with Stage(tmp_path, "export", {}) as stage:
        (stage.work / "src").mkdir()
        (stage.work / "src" / "a.c").write_text("int a;")
        stage.finish({}, "done")
    source = tmp_path / "export" / "src" / "a.c"
    assert artifacts.verified_hash(source) == hashlib.sha256(b"int a;").hexdigest()
    source.write_text("int b;")
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.verified_hash(source)


def test_a_missing_input_names_the_stage_before(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the stage before"), Stage(tmp_path, "x", {}, [tmp_path / "train" / "m"]):
        pass


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}', '{"version": 1}', "\x00\x01"])
def test_a_damaged_manifest_is_an_error_for_readers(tmp_path: Path, text: str) -> None:
    make_stage(tmp_path)
    (tmp_path / "train" / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError):
        artifacts.read_manifest(tmp_path / "train")
    assert not make_stage(tmp_path).unchanged  # the stage itself just makes it again


@pytest.mark.parametrize("key", ["figures", "summary", "config", "outputs"])
def test_a_changed_manifest_is_damage(tmp_path: Path, key: str) -> None:
    make_stage(tmp_path)
    path = tmp_path / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[key] = {"accuracy": 0.9}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="was changed after its stage wrote it"):
        artifacts.read_manifest(tmp_path / "train")
    assert not make_stage(tmp_path).unchanged


def test_another_version_of_a_package_runs_the_stage_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_stage(tmp_path)
    monkeypatch.setattr(artifacts, "package_versions", lambda: {"torch": "9.9"})
    assert not make_stage(tmp_path).unchanged
    assert make_stage(tmp_path).unchanged


def test_an_unreadable_file_is_an_artifact_error(tmp_path: Path) -> None:
    folder = tmp_path / "a-folder"
    folder.mkdir()
    with pytest.raises(ArtifactError, match=r"cannot read .*is a directory"):
        artifacts.sha256_file(folder)


def test_no_permission_in_a_stage_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="permission denied; choose a folder"), Stage(tmp_path, "train", {}):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_leftovers_that_cannot_be_removed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_stage(tmp_path)
    make_stage(tmp_path, name="train.old")

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(ArtifactError, match=r"cannot write .*train\.old: permission denied"):
        make_stage(tmp_path)


def test_an_error_in_a_stage_leaves_the_earlier_folder(tmp_path: Path) -> None:
    make_stage(tmp_path, epochs=3)
    with pytest.raises(DataError), Stage(tmp_path, "train", {"epochs": 4}) as stage:
        (stage.work / "model.txt").write_text("half")
        raise DataError("no data")
    assert (tmp_path / "train" / "model.txt").read_text() == "weights"
    assert make_stage(tmp_path, epochs=3).unchanged


def test_a_stage_that_refuses_its_input_leaves_no_work(tmp_path: Path) -> None:
    with pytest.raises(DataError), Stage(tmp_path, "train", {}):
        raise DataError("no data")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_work_that_was_begun_is_kept_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(DataError), Stage(tmp_path, "train", {}) as stage:
        (stage.work / "checkpoint").write_text("epoch 3")
        raise DataError("no data")
    with Stage(tmp_path, "train", {}) as stage:
        assert stage.resumed and (stage.work / "checkpoint").read_text() == "epoch 3"


def test_no_space_in_a_stage_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no space left"), Stage(tmp_path, "train", {}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_work_of_a_killed_run_is_kept_for_the_same_config_only(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Stage(tmp_path, "train", {"epochs": 3}) as stage:
        (stage.work / "checkpoint").write_text("step 5")
        raise RuntimeError
    with Stage(tmp_path, "train", {"epochs": 3}) as stage:
        assert stage.resumed
        assert (stage.work / "checkpoint").read_text() == "step 5"
    with Stage(tmp_path, "train", {"epochs": 4}) as stage:
        assert not stage.resumed
        assert not (stage.work / "checkpoint").exists()


def test_a_swap_cut_in_the_middle_is_mended(tmp_path: Path) -> None:
    make_stage(tmp_path)
    (tmp_path / "train").rename(tmp_path / "train.old")
    assert make_stage(tmp_path).unchanged
    make_stage(tmp_path, name="train.old")  # both there: the new one counts
    assert make_stage(tmp_path).unchanged
    assert not (tmp_path / "train.old").exists()


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from recipes.artifacts import Stage
        with Stage(Path(sys.argv[1]), "train", {}) as stage:
            print("unchanged" if stage.unchanged else "runs", flush=True)
            if not stage.unchanged:
                time.sleep(1.0)
                (stage.work / "a").write_text("a")
                stage.finish({}, "done")
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "runs\n"
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert f"waiting: {tmp_path} is in use by process {first.pid}" in second.stderr
        assert second.stdout == "unchanged\n"


def test_a_stage_killed_while_writing_leaves_the_earlier_one(tmp_path: Path) -> None:
    make_stage(tmp_path, epochs=3)
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from recipes.artifacts import Stage
        with Stage(Path(sys.argv[1]), "train", {"epochs": 4}) as stage:
            (stage.work / "model.txt").write_text("half")
            print("writing", flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGKILL)
    assert make_stage(tmp_path, epochs=3).unchanged
    start = time.monotonic()
    assert not make_stage(tmp_path, epochs=4).unchanged  # the lock of a killed process is free
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("statement", "code", "words"),
    [
        ("raise UsageError('unknown key')", 2, "error: unknown key"),
        ("raise DataError('two\\nlines')", 3, "error: two lines"),
        ("raise ArtifactError('damaged')", 4, "error: damaged"),
        ("raise PipelineError('x')", 1, "error: x"),
        ("raise KeyboardInterrupt", 130, "error: interrupted"),
        ("raise MemoryError", 1, "error: out of memory"),
        ("raise ValueError('odd')", 1, "error: ValueError: odd (not foreseen by this program; EDGE_TRACEBACK=1"),
        ("open('/nonexistent/file')", 1, "error: FileNotFoundError"),
        ("raise OSError(28, 'No space left on device', 'a.bin')", 4, "error: cannot write a.bin: no space left"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(statement: str, code: int, words: str) -> None:
    script = f"from recipes.artifacts import *\ndef main(arguments):\n    {statement}\nrun_program(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bild", "x"], "unrecognized arguments: --bild x; did you mean '--build'?; see prog --help"),
        (["--kind", "gccc"], "invalid choice: 'gccc'"),
        (["--kind", "gccc"], "did you mean 'gcc'?"),
        (["--build"], "expected one argument"),
        (["zzz"], "unrecognized arguments: zzz; see prog --help"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], words: str) -> None:
    parser = artifacts.OneLineParser(prog="prog")
    parser.add_argument("--build")
    parser.add_argument("--kind", choices=("gcc", "zig"))
    with pytest.raises(UsageError) as caught:
        parser.parse_args(arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_exit_codes_of_the_base_classes_differ() -> None:
    classes = [PipelineError, UsageError, DataError, ArtifactError]
    assert len({c.exit_code for c in classes}) == len(classes)


def test_the_traceback_of_an_unforeseen_error_can_be_asked_for() -> None:
    script = "from recipes.artifacts import *\ndef main(arguments):\n    raise ValueError('odd')\nrun_program(main)"
    environment = {**os.environ, "EDGE_TRACEBACK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
