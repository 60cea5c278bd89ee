"""Downloading one published file with a known size and SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from recipes.artifacts import DataError, storage_error, sync_folder
from train.progress import progress

CHUNK = 1 << 16
TIMEOUT_S = 30


def download(url: str, path: Path, size: int, sha256: str) -> None:
    """Downloads a file; it appears under its name only when its size and SHA-256 are the expected ones.

    Args:
        url: http or https.
        path: where to put it; folders are made.
        size: bytes; never more than one chunk above it is read.
        sha256: 64 hexadecimal digits.
    Raises:
        DataError: the server cannot be reached or gives something else.
        ArtifactError: the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"cannot download {url}: only http and https are supported")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            found = _fetch(url, stream, size)
            os.fsync(stream.fileno())
        if found != sha256:
            raise DataError(f"{url} gave other bytes: SHA-256 {found[:12]}..., expected {sha256[:12]}...; {_ADVICE}")
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


_ADVICE = "try again later, or get the files another way and name their folder with data.folder (DATA=)"


def _fetch(url: str, target: BinaryIO, size: int) -> str:
    """Copies the answer's body into `target`; its SHA-256."""
    digest, received = hashlib.sha256(), 0
    with _open(url) as answer, progress(f"downloading {url.rpartition('/')[2]}", size, "bytes", quarters=True) as advance:
        while chunk := _read(answer, url):
            received += len(chunk)
            if received > size:
                raise DataError(f"{url} gave more than the expected {size:,} bytes; {_ADVICE}")
            digest.update(chunk)
            target.write(chunk)
            advance(len(chunk))
    if received != size:
        raise DataError(f"{url} gave {received:,} bytes, expected {size:,}; {_ADVICE}")
    return digest.hexdigest()


def _open(url: str) -> http.client.HTTPResponse:
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(url, timeout=TIMEOUT_S)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"cannot download {url}: {_reason(error)}; {_ADVICE}") from None
    return answer


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return answer.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"download of {url} broke off: {_reason(error)}; {_ADVICE}") from None


def _reason(error: Exception) -> str:
    """Why, in printable characters: a server's own words are not trusted."""
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server answered {error.code} {error.reason}"
    elif isinstance(error, urllib.error.URLError):
        reason = str(error.reason)
    else:
        reason = str(error) or type(error).__name__
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in reason[:200])
