"""Downloads from a local server that behaves well, badly, or not at all."""

from __future__ import annotations

import hashlib
import http.server
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import train.download as module
from recipes.artifacts import DataError
from train.data import cache_folder, load_idx_dataset
from train.download import download

BODY = bytes(range(256)) * 1024
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[:-1] + b"?"


class Handler(http.server.BaseHTTPRequestHandler):
    """Each path is one behaviour; /file/<name> serves the server's `files`."""

    def do_GET(self) -> None:
        self.server.requested.append(self.path)  # type: ignore[attr-defined]
        name = self.path.rpartition("/")[2]
        files: dict[str, bytes] = self.server.files  # type: ignore[attr-defined]
        if name in files:
            self.answer(files[name])
        else:
            getattr(self, "answer_" + name, self.answer_missing)()

    def answer(self, body: bytes, claimed: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        self.end_headers()
        self.wfile.write(body)

    def answer_good(self) -> None:
        self.answer(BODY)

    def answer_missing(self) -> None:
        self.send_error(404)

    def answer_broken(self) -> None:
        self.send_error(503)

    def answer_other(self) -> None:
        self.answer(OTHER)

    def answer_short(self) -> None:
        self.answer(BODY[:1000])

    def answer_cut(self) -> None:
        self.answer(BODY[:100_000], claimed=len(BODY))

    def answer_endless(self) -> None:
        """No length, and more and more bytes until the client hangs up."""
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
                self.server.sent += 1 << 16  # type: ignore[attr-defined]
        except OSError:
            pass

    def answer_silent(self) -> None:
        time.sleep(3)

    def answer_stalled(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(BODY[:5000])
        self.wfile.flush()
        time.sleep(3)

    def answer_garbage(self) -> None:
        self.wfile.write(b"\x00\xffnot http at all\r\n\r\n")

    def answer_moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", "good")
        self.end_headers()

    def answer_tofile(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.daemon_threads = True
    instance.files, instance.requested, instance.sent = {}, [], 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield instance
    instance.shutdown()
    thread.join()
    instance.server_close()


def address(server: http.server.ThreadingHTTPServer, name: str = "") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


@pytest.mark.parametrize("name", ["good", "moved"])
def test_a_good_file_arrives(server: Any, tmp_path: Path, name: str) -> None:
    target = tmp_path / "new" / "folder" / "file"
    download(address(server, name), target, len(BODY), SHA)
    assert target.read_bytes() == BODY
    assert [p.name for p in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"cannot download http://\S+: the server answered 404 Not Found; try again later"),
        ("broken", "the server answered 503"),
        ("other", f"gave other bytes: SHA-256 {hashlib.sha256(OTHER).hexdigest()[:12]}..., expected {SHA[:12]}"),
        ("short", "gave 1,000 bytes, expected 262,144"),
        ("cut", "100,000 bytes, expected 262,144|broke off"),
        ("endless", "gave more than the expected 262,144 bytes"),
        ("garbage", r"cannot download .*: \?\?not http at all"),
        ("tofile", "cannot download .*302"),
    ],
)
def test_a_bad_answer_is_one_sentence_and_leaves_nothing(server: Any, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        download(address(server, name), tmp_path / "file", len(BODY), SHA)
    assert "data.folder (DATA=)" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_is_left_soon(server: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        download(address(server, "endless"), tmp_path / "file", 1000, SHA)
    assert server.sent < 1 << 24


@pytest.mark.parametrize("name", ["silent", "stalled"])
def test_a_server_that_says_nothing_is_given_up(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    started = time.monotonic()
    with pytest.raises(DataError, match="timed out"):
        download(address(server, name), tmp_path / "file", len(BODY), SHA)
    assert time.monotonic() - started < 3
    assert list(tmp_path.iterdir()) == []


def test_nobody_at_that_address(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot download http://127.0.0.1:9/x: .*refused"):
        download("http://127.0.0.1:9/x", tmp_path / "file", len(BODY), SHA)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "x", ""])
def test_only_http(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="only http and https"):
        download(url, tmp_path / "file", len(BODY), SHA)


def test_an_earlier_file_survives_a_failed_download(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"earlier")
    with pytest.raises(DataError):
        download(address(server, "other"), tmp_path / "file", len(BODY), SHA)
    assert (tmp_path / "file").read_bytes() == b"earlier"


def test_no_space_for_the_file(server: Any, tmp_path: Path) -> None:
    """A file-size limit of 10,000 bytes stands for the full disk."""
    code = (
        "import sys, pathlib\nfrom recipes.artifacts import one_line_errors\nfrom train.download import download\n"
        "with one_line_errors():\n    download(sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])\n"
    )
    arguments = [sys.executable, "-c", code, address(server, "good"), str(tmp_path / "file"), str(len(BODY)), SHA]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert done.returncode == 4 and "file size limit" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_in_plain_lines(server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(address(server, "good"), tmp_path / "file", len(BODY), SHA)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["downloading good"] * 4
    assert lines[-1].endswith("100 % of 262,144 bytes")


def test_a_data_set_is_downloaded_once(server: Any, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    server.files = published.contents
    first, _, _ = load_idx_dataset(published.source(), None, address(server, "file"))
    assert (first.images == published.train.images).all()
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == sorted(published.contents)
    assert server.requested == [f"/file/{name}" for name in published.contents]
    load_idx_dataset(published.source(), None, address(server, "file"))
    assert len(server.requested) == 4


def test_a_damaged_cache_is_found(server: Any, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    server.files = published.contents
    load_idx_dataset(published.source(), None, address(server))
    path = tmp_path / "cache" / "test-labels.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=r"test-labels\.gz is damaged: SHA-256 .*; delete it and get it again"):
        load_idx_dataset(published.source(), None, address(server))


def test_the_url_of_a_mirror_comes_from_the_environment(server: Any, published: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import train.data as data
    from recipes.recipe import DataSection

    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASHION_MNIST_URL", address(server, "mirror"))
    monkeypatch.setattr(data, "FASHION_MNIST", published.source())
    server.files = published.contents
    assert len(data.load_dataset(DataSection(name="fashion_mnist"), 1).test) == 12
    assert server.requested[0] == "/mirror/train-images.gz"


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_CACHE", raising=False)
    monkeypatch.setenv("HOME", "somewhere")
    assert cache_folder() == Path("somewhere") / ".cache" / "edge-inference"
    monkeypatch.setenv("EDGE_CACHE", "elsewhere")
    assert cache_folder() == Path("elsewhere")
