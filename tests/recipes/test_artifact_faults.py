"""Artifacts under faults: kills at any moment, a disk that fills at any byte, one flipped bit anywhere, two writers."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recipes import artifacts
from recipes.artifacts import ArtifactError, Stage

ROOT = Path(__file__).resolve().parents[2]

# A stage that writes generation N of two files over and over, so that a kill meets every moment of a stage's life.
WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from recipes.artifacts import Stage
    root, first = Path(sys.argv[1]), int(sys.argv[2])
    for generation in range(first, first + 200):
        with Stage(root, "train", {"generation": generation}) as stage:
            for name in ("a.txt", "b.txt"):
                (stage.work / name).write_text(str(generation) * 300)
            stage.finish({"generation": generation}, f"generation {generation}")
""")


def write_stage(root: Path, generation: int, size: int = 300) -> Stage:
    with Stage(root, "train", {"generation": generation}) as stage:
        if not stage.unchanged:
            for name in ("a.txt", "b.txt"):
                (stage.work / name).write_text(str(generation) * size)
            stage.finish({"generation": generation}, "done")
    return stage


def whole_generation(root: Path) -> int | None:
    """The generation of the finished folder, after a check that all of it is of one generation; None when there is none."""
    write_lock_free(root)
    folder = root / "train"
    if not folder.exists() and (root / "train.old").exists():
        folder = root / "train.old"  # killed between the two renames: the next run moves it back
    if not folder.exists():
        return None
    manifest = artifacts.read_manifest(folder)
    generation = int(manifest["figures"]["generation"])
    for name, digest in manifest["outputs"].items():
        assert artifacts.sha256_file(folder / name) == digest
        assert (folder / name).read_text() == str(generation) * 300
    return generation


def write_lock_free(root: Path) -> None:
    """A killed process leaves no lock behind."""
    with artifacts.BuildLock(root):
        pass


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_leaves_one_whole_generation(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    last = -1
    for attempt in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(attempt * 1000)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 12)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        generation = whole_generation(tmp_path)
        assert generation is not None
        assert generation > last
        last = generation
    assert not write_stage(tmp_path, 9999).unchanged
    assert whole_generation(tmp_path) == 9999
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "train"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: how a full disk looks to a program, without a disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit", [0, 1, 63, 64, 65, 100, 200, 299, 300, 400])
def test_a_disk_that_fills_at_any_size_leaves_the_earlier_stage(tmp_path: Path, limit: int) -> None:
    write_stage(tmp_path, 1)
    with file_size_limit(limit), pytest.raises(ArtifactError, match="earlier artifacts are intact"):
        write_stage(tmp_path, 2)
    assert whole_generation(tmp_path) == 1
    assert write_stage(tmp_path, 1).unchanged
    assert not write_stage(tmp_path, 2).unchanged


def test_a_disk_that_fills_under_the_manifest_leaves_the_earlier_stage(tmp_path: Path) -> None:
    write_stage(tmp_path, 1)
    size = (tmp_path / "train" / "manifest.json").stat().st_size
    assert size > 400  # so that the files fit and the manifest does not
    with file_size_limit(size - 1), pytest.raises(ArtifactError, match="limit"):
        write_stage(tmp_path, 2)
    assert whole_generation(tmp_path) == 1
    assert not (tmp_path / "train.partial" / "manifest.json").exists()


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


@pytest.mark.parametrize("name", ["a.txt", "b.txt"])
def test_one_flipped_bit_in_an_output_is_found(tmp_path: Path, name: str) -> None:
    write_stage(tmp_path, 1)
    path = tmp_path / "train" / name
    content = path.read_bytes()
    for bit in random.Random(1).sample(range(len(content) * 8), 40):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(ArtifactError, match="is damaged: SHA-256"):
            artifacts.verified_hash(path)
    path.write_bytes(content)
    assert artifacts.verified_hash(path) == artifacts.sha256_file(path)


@pytest.mark.parametrize("length", [0, 1, 299])
def test_a_truncated_output_is_found(tmp_path: Path, length: int) -> None:
    write_stage(tmp_path, 1)
    path = tmp_path / "train" / "a.txt"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtifactError, match="is damaged"):
        artifacts.verified_hash(path)
    assert not write_stage(tmp_path, 1).unchanged


def test_one_flipped_bit_in_the_manifest_is_found_or_means_nothing(tmp_path: Path) -> None:
    """Nothing but white space may change without being noticed."""
    write_stage(tmp_path, 1)
    path = tmp_path / "train" / "manifest.json"
    content = path.read_bytes()
    original = json.loads(content)
    unnoticed = 0
    for bit in range(0, len(content) * 8, 37):
        path.write_bytes(flipped(content, bit))
        try:
            assert artifacts.read_manifest(tmp_path / "train") == original
            unnoticed += 1
        except ArtifactError as error:
            assert str(path) in str(error)
    assert unnoticed <= len(content) // 20


def test_every_cut_of_the_manifest_is_found(tmp_path: Path) -> None:
    write_stage(tmp_path, 1)
    path = tmp_path / "train" / "manifest.json"
    content = path.read_bytes()
    for length in range(0, len(content) - 2, 13):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            artifacts.read_manifest(tmp_path / "train")


def test_an_output_swapped_with_another_is_found(tmp_path: Path) -> None:
    with Stage(tmp_path, "train", {}) as stage:
        (stage.work / "a.txt").write_text("a")
        (stage.work / "b.txt").write_text("b")
        stage.finish({}, "done")
    folder = tmp_path / "train"
    (folder / "a.txt").rename(folder / "c.txt")
    (folder / "b.txt").rename(folder / "a.txt")
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.verified_hash(folder / "a.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    root = tmp_path / "b"
    root.mkdir(mode=0o500)
    with pytest.raises(ArtifactError, match="permission denied"):
        write_stage(root, 1)


@pytest.mark.parametrize("blocked", ["b", "b/train.partial"])
def test_a_file_in_the_way_is_one_line(tmp_path: Path, blocked: str) -> None:
    path = tmp_path / blocked
    path.parent.mkdir(exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_stage(tmp_path / "b", 1)
    assert path.read_text() == "in the way"


def test_two_writers_never_mix(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER.replace("first + 200", "first + 15"), str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(first)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for first in (0, 1000)
    ]
    for writer in writers:
        out, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        assert out.count("generation") == 15
    assert whole_generation(tmp_path) in (14, 1014)
