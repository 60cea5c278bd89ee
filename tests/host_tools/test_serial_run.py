"""The whole program against a board behind a TCP port: killed, interrupted, unplugged, chatted at."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from built_recipe import copy_recipe
from graph_board import GraphBoard, who

from host_tools.__main__ import main
from host_tools.compare import MismatchError
from host_tools.errors import LinkError
from host_tools.model import load_model
from recipes.recipe import load_recipe

PATIENCE = 60.0
IMAGES = 120


class BoardServer:
    """Serves one board on a TCP port of this machine, one connection after the other.

    Attributes:
        board: what answers. pause: seconds it takes for each request. closes_at: number of runs at which it hangs up.
        greeting: bytes it sends by itself to whoever connects. noise: bytes it answers whatever comes with, as well.
    """

    def __init__(
        self, board: GraphBoard, pause: float = 0.0, closes_at: int | None = None, greeting: bytes = b"", noise: bytes = b""
    ) -> None:
        self.board, self.pause, self.closes_at, self.greeting, self.noise = board, pause, closes_at, greeting, noise
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def target(self) -> str:
        """For --target."""
        return f"serial:socket://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def folder(self) -> str:
        """The folder of its results."""
        return f"serial_127.0.0.1_{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Stops serving."""
        self._ending.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                connection, _ = self._listener.accept()
                with connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.sendall(self.greeting)
        connection.settimeout(0.1)
        while not self._ending.is_set():
            try:
                data = connection.recv(4096)
            except TimeoutError:
                continue
            if not data or (self.closes_at is not None and self.board.runs >= self.closes_at):
                return
            time.sleep(self.pause)
            self.board.write(data)
            connection.sendall(self.noise + self.board.read(0.0))


@pytest.fixture
def recipe(built: Path, tmp_path: Path) -> Path:
    return copy_recipe(built, tmp_path)


@pytest.fixture
def serve(recipe: Path) -> Iterator[Callable[..., BoardServer]]:
    """Starts servers that are stopped after the test."""
    servers: list[BoardServer] = []
    model = load_model(recipe.parent / "build" / "tiny", load_recipe(recipe))

    def start(board: dict[str, object] | None = None, **options: object) -> BoardServer:
        servers.append(BoardServer(GraphBoard(model.graph, **{**who(model.export.parent), **(board or {})}), **options))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def arguments(recipe: Path, server: BoardServer) -> list[str]:
    words = [str(recipe), "--build", str(recipe.parent / "build"), "--board", "host", "--target", server.target]
    return [*words, "--images", str(IMAGES)]


def start(recipe: Path, server: BoardServer) -> subprocess.Popen[str]:
    """The program as a process of its own, which can be killed; interrupts reach it even where a shell's `&` ignores them."""
    words = [sys.executable, "-m", "host_tools", *arguments(recipe, server)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_interrupts)


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def results(recipe: Path, server: BoardServer) -> dict[str, object]:
    stored: dict[str, object] = json.loads(
        (recipe.parent / "build" / "tiny" / "run" / server.folder / "results.json").read_text()
    )
    return stored


def test_a_run_over_a_port(recipe: Path, serve: Callable[..., BoardServer], capsys: pytest.CaptureFixture[str]) -> None:
    server = serve()
    assert main(arguments(recipe, server)) == 0
    assert f"run: {IMAGES} of {IMAGES} images identical" in capsys.readouterr().out
    assert results(recipe, server)["resumed_images"] == 0 and server.board.runs == IMAGES


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_run_that_is_ended_goes_on_where_it_was(
    recipe: Path, serve: Callable[..., BoardServer], sent: signal.Signals
) -> None:
    server = serve(pause=0.01)
    process = start(recipe, server)
    wait_for(lambda: server.board.runs >= 20)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=PATIENCE)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert errors == "error: interrupted; run the same command again to go on\n"
    done, server.pause = server.board.runs, 0.0
    assert done < IMAGES
    assert main(arguments(recipe, server)) == 0
    stored = results(recipe, server)
    assert stored["identical"] == IMAGES
    # The answer under way when the process ended may be lost; nothing else is asked for twice.
    assert done - 1 <= int(str(stored["resumed_images"])) <= done
    assert server.board.runs <= IMAGES + 1


def test_a_port_that_goes_away_is_one_line_and_nothing_is_lost(recipe: Path, serve: Callable[..., BoardServer]) -> None:
    server = serve(closes_at=30)
    with pytest.raises(LinkError, match="run the same command again") as caught:
        main(arguments(recipe, server))
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    server.closes_at = None
    assert main(arguments(recipe, server)) == 0
    assert server.board.runs == IMAGES and results(recipe, server)["resumed_images"] == 30


def test_a_board_that_chatters_does_no_harm(recipe: Path, serve: Callable[..., BoardServer]) -> None:
    server = serve(greeting=b"\r\nBoot v1.2 \0\xff\x00\x01ok\r\n" * 40, noise=b"debug: run\r\n\0")
    assert main(arguments(recipe, server)) == 0
    link = results(recipe, server)["link"]
    assert isinstance(link, dict) and link["crc_errors"] >= IMAGES and link["retries"] == 0


def test_another_program_on_the_board_is_said(recipe: Path, serve: Callable[..., BoardServer]) -> None:
    server = serve(board={"silent": True}, noise=b"login: ")
    with pytest.raises(LinkError, match=r"login: .*another program on the board") as caught:
        main(["info", *arguments(recipe, server)])
    assert "\n" not in str(caught.value)


def test_wrong_answers_come_with_the_command_that_explains_them(
    recipe: Path, serve: Callable[..., BoardServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(board={"lie": lambda layer, output: output ^ 1 if layer == 2 else output})
    with pytest.raises(MismatchError, match=f"serial:.*: {IMAGES} of {IMAGES} answers differ") as caught:
        main(arguments(recipe, server))
    assert f"run: 0 of {IMAGES} images identical" in capsys.readouterr().out
    told = str(caught.value).split("find the layer with: python -m host_tools ")[1]
    with pytest.raises(MismatchError, match=r"layer 2 \(reshape\) is the first that differs"):
        main(shlex.split(told))


def test_two_runs_at_once_take_turns(
    recipe: Path, serve: Callable[..., BoardServer], capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = serve(pause=0.005), serve()
    early = threading.Thread(target=main, args=(arguments(recipe, first),))
    early.start()
    wait_for(lambda: first.board.runs >= 5)
    assert main(arguments(recipe, second)) == 0
    early.join(PATIENCE)
    message = capfd.readouterr().err
    assert "waiting: " in message and "is in use by process" in message
    assert first.board.runs == second.board.runs == IMAGES
    assert results(recipe, first)["identical"] == results(recipe, second)["identical"] == IMAGES
