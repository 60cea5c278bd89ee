"""Artifacts between stages: errors with exit codes, SHA-256 manifests, atomic writes, one lock per build folder.

A stage works in `<folder>.partial` and the finished folder appears under its own name in one rename, so a stage that
is killed, fails or finds no space never damages what an earlier run made. `manifest.json` is written last; the next
stage checks the hashes in it before it reads anything.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NoReturn

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the operating system that are the disk's or the folder's, not the program's."""
TRACEBACK = "EDGE_TRACEBACK"
"""Environment variable: when set, an error that was not foreseen shows its traceback."""


class PipelineError(Exception):
    """Base of every error a person may meet: one line saying what was found, what is expected, what to do next."""

    exit_code: ClassVar[int] = 1


class UsageError(PipelineError):
    """An unknown recipe, key, option or value."""

    exit_code = 2


class DataError(PipelineError):
    """A data set is missing, damaged or of the wrong shape."""

    exit_code = 3


class ArtifactError(PipelineError):
    """A stage's artifact is missing, damaged or could not be written (no space, read-only)."""

    exit_code = 4


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ArtifactError(f"cannot read {path}: {reason}; check its permissions, or run its stage again") from error


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same value gives the same text. NaN and infinity raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def source_hash(*folders: Path) -> str:
    """SHA-256 over the names and bytes of every source file below the folders, so that changed code runs a stage again."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
                digest.update(sha256_file(path).encode())
    return digest.hexdigest()


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old bytes or the new ones, never a part: temporary file, fsync, rename.

    Raises:
        ArtifactError: nothing could be written; the earlier file is intact and the temporary one is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def write_text_atomic(path: Path, text: str) -> None:
    """As write_bytes_atomic, UTF-8."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, value: Any) -> None:
    """As write_bytes_atomic, indented JSON with a newline at its end."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Makes the renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError) -> ArtifactError:
    """The sentence for an operating-system error met while writing `path`."""
    reasons = {
        errno.ENOSPC: "no space left on the device; free some space and run again",
        errno.EDQUOT: "the disk quota is used up; free some space and run again",
        errno.EFBIG: "the file size limit is reached; raise it (ulimit -f) and run again",
        errno.EROFS: "the file system is read-only; choose another build folder with BUILD=",
        errno.EACCES: "permission denied; choose a folder you may write with BUILD=",
        errno.EPERM: "not permitted; choose a folder you may write with BUILD=",
    }
    reason = reasons.get(error.errno or 0, (error.strerror or str(error)).lower())
    return ArtifactError(f"cannot write {path}: {reason} (earlier artifacts are intact)")


class BuildLock:
    """An exclusive lock on one build folder (flock): the second run says whom it waits for, then goes on after it."""

    def __init__(self, root: Path) -> None:
        self._path = root / ".lock"
        self._descriptor = -1

    def __enter__(self) -> BuildLock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise storage_error(self._path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            print(f"waiting: {self._path.parent} is in use by process {holder}", file=sys.stderr, flush=True)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # the number is only told to whoever waits: a full disk must not stop a stage here
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class Stage:
    """One step of the pipeline and the folder it makes.

    Use as a context manager. `unchanged` is true when the folder already holds what this config and these inputs
    give; then do nothing but print `again()`. Otherwise write every file below `work` and call `finish`. A `work`
    folder left behind by a killed run of the same config and inputs is kept (`resumed`), of another one is removed.

    Args:
        root: the build folder, locked while the stage runs (build/<recipe>).
        name: the stage's folder below root, e.g. "train" or "firmware/host".
        config: everything that decides the result, as plain JSON values (include source_hash of the code).
        inputs: artifact files read by the stage; each must be listed, unharmed, in the manifest beside it
            or, where no manifest is beside it, is hashed as it is.
    """

    def __init__(self, root: Path, name: str, config: Mapping[str, Any], inputs: Iterable[Path] = ()) -> None:
        self.root, self.name, self.config = root, name, dict(config)
        self.folder = root / name
        self.work = self.folder.with_name(self.folder.name + ".partial")
        self.unchanged = self.resumed = False
        self.manifest: dict[str, Any] = {}
        self._inputs = list(inputs)
        self._lock = BuildLock(root)

    def __enter__(self) -> Stage:
        self._lock.__enter__()
        try:
            self._recover()
            self._input_hashes = {self._relative(path): verified_hash(path) for path in self._inputs}
            identity = {"stage": self.name, "config": self.config, "inputs": self._input_hashes}
            self._key = sha256_json({**identity, "versions": package_versions()})
            self.unchanged = self._is_current()
            if not self.unchanged:
                self._prepare_work()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, PipelineError):
            self._drop_empty_work()
        self._lock.__exit__()
        if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
            raise storage_error(self.work, error) from error

    def finish(self, figures: Mapping[str, Any], summary: str) -> None:
        """Writes the manifest over every file in `work` and moves the folder to its own name.

        Args:
            figures: plain JSON values worth keeping (accuracy, bytes, ...), read by later stages and the report.
            summary: the stage's closing line: what, figures, where.
        Raises:
            ArtifactError: the disk is full or read-only; the earlier folder is intact.
        """
        try:
            outputs = {str(path.relative_to(self.work)): sha256_file(path) for path in self._files()}
            self.manifest = {
                "version": MANIFEST_VERSION,
                "stage": self.name,
                "key": self._key,
                "config": self.config,
                "inputs": self._input_hashes,
                "outputs": outputs,
                "figures": dict(figures),
                "summary": summary,
                "versions": package_versions(),
            }
            self.manifest["digest"] = manifest_digest(self.manifest)
            write_json_atomic(self.work / MANIFEST, self.manifest)
            self._swap()
        except OSError as error:
            raise storage_error(self.folder, error) from error
        print(summary, flush=True)

    def again(self) -> str:
        """The line for a stage that had nothing to do."""
        return f"{self.name}: unchanged, not run again ({self.manifest['summary']})"

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.work.rglob("*")) if path.is_file() and path.name not in (MANIFEST, ".key")]

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.root)

    def _old(self) -> Path:
        return self.folder.with_name(self.folder.name + ".old")

    def _recover(self) -> None:
        """Ends a swap that was cut between its two renames."""
        try:
            if self._old().exists():
                if self.folder.exists():
                    shutil.rmtree(self._old())
                else:
                    self._old().rename(self.folder)
        except OSError as error:
            raise storage_error(self._old(), error) from error

    def _is_current(self) -> bool:
        try:
            self.manifest = read_manifest(self.folder)
        except ArtifactError:
            return False
        if self.manifest["key"] != self._key:
            return False
        return all(_intact(self.folder / name, digest) for name, digest in self.manifest["outputs"].items())

    def _prepare_work(self) -> None:
        key_file = self.work / ".key"
        try:
            self.resumed = key_file.is_file() and key_file.read_text() == self._key
            if not self.resumed:
                if self.work.exists():
                    shutil.rmtree(self.work)
                self.work.mkdir(parents=True)
                write_text_atomic(key_file, self._key)
        except OSError as error:
            raise storage_error(self.work, error) from error

    def _drop_empty_work(self) -> None:
        """Removes a work folder in which nothing was begun, such as that of a model that is refused."""
        with contextlib.suppress(OSError):
            if [path.name for path in self.work.iterdir()] == [".key"]:
                shutil.rmtree(self.work)

    def _swap(self) -> None:
        (self.work / ".key").unlink(missing_ok=True)
        if self.folder.exists():
            self.folder.rename(self._old())
        self.work.rename(self.folder)
        sync_folder(self.folder.parent)
        shutil.rmtree(self._old(), ignore_errors=True)


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_file(path) == digest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage.

    Raises:
        ArtifactError: the stage has not been run, or its manifest is damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} not found: run the stage '{folder.name}' first (make pipeline runs them all)") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete {folder} and run the stage again") from None
    wanted = {"version", "stage", "key", "config", "inputs", "outputs", "figures", "summary", "digest"}
    if not isinstance(manifest, dict) or not wanted <= manifest.keys() or manifest["version"] != MANIFEST_VERSION:
        raise ArtifactError(f"{path} is not a version {MANIFEST_VERSION} manifest; delete {folder} and run the stage again")
    if manifest["digest"] != manifest_digest(manifest):
        raise ArtifactError(f"{path} was changed after its stage wrote it; delete {folder} and run the stage again")
    return manifest


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content, its own digest left out: a changed figure is as much damage as a changed file."""
    return sha256_json({key: value for key, value in manifest.items() if key != "digest"})


def verified_hash(path: Path) -> str:
    """SHA-256 of an input file, compared with the manifest that lists it.

    The manifest is looked for beside the file and in the folders above it, four levels at most.

    Raises:
        ArtifactError: the file is missing, or differs from the bytes its stage wrote.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} not found: run the stage before this one first (make pipeline runs them all)")
    found = sha256_file(path)
    for folder in list(path.parents)[:4]:
        if (folder / MANIFEST).is_file():
            expected = read_manifest(folder)["outputs"].get(path.relative_to(folder).as_posix())
            if expected is not None and expected != found:
                raise ArtifactError(
                    f"{path} is damaged: SHA-256 {found[:12]}..., its manifest says {expected[:12]}...; "
                    f"delete {folder} and run its stage again"
                )
            break
    return found


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that can change a result; told in every manifest."""
    names = ("torch", "torch-pruning", "numpy", "onnx", "onnxruntime", "ai-edge-litert", "tflite-micro", "unicorn", "ziglang")
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns every error a person may meet into one line on stderr and the documented exit code."""
    try:
        yield
    except PipelineError as error:
        _leave(" ".join(str(error).split()), error.exit_code)
    except KeyboardInterrupt:
        _leave("interrupted; run the same command again to go on", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno in STORAGE_ERRORS:
            _leave(str(storage_error(Path(error.filename or "output"), error)), ArtifactError.exit_code)
        _leave_unexpected(error)
    except MemoryError:
        _leave("out of memory; use a smaller model, batch or data set", PipelineError.exit_code)
    except Exception as error:
        _leave_unexpected(error)


def _leave_unexpected(error: Exception) -> NoReturn:
    if os.environ.get(TRACEBACK):
        raise error
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    _leave(f"{what} (not foreseen by this program; {TRACEBACK}=1 shows where it happened)", PipelineError.exit_code)


def _leave(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


class OneLineParser(argparse.ArgumentParser):
    """A command line that says in one line what is wrong with it, and names the nearest known option or choice."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError instead of printing the usage block."""
        known = [option for action in self._actions for option in (*action.option_strings, *map(str, action.choices or ()))]
        words = re.findall(r"--?\w[\w-]*|(?<=')[^']+(?=')", message.split("(choose")[0])
        asked = next((word for word in words if word not in known), "")
        raise UsageError(f"{message}{did_you_mean(asked, known)}; see {self.prog} --help")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def run_program(main: Callable[[list[str]], int]) -> NoReturn:
    """Runs a program's `main(arguments)` as a process: one-line errors, exit code."""
    with one_line_errors():
        sys.exit(main(sys.argv[1:]))
