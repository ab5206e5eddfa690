"""Commands in a container: what an engine sends is read to the last byte, however it comes in segments."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from pytest_infra.container.execute import Exec

FRAME = b"\x01\0\0\0\0\0\0\x04out\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
ANSWERS = {"/exec": b'{"Id": "e"}', "/json": b'{"Running": false, "ExitCode": 0, "Pid": 1}'}


def serve(listener: socket.socket, segments: list[bytes]) -> None:
    """An engine: one request on each connection, until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            request = connection.recv(65536).split(b" ")[1].decode()
            if request.endswith("/start"):
                for segment in segments:
                    connection.sendall(segment)
            else:
                body = next(body for end, body in ANSWERS.items() if request.endswith(end))
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)


@pytest.fixture(params=["one segment", "two segments", "a frame in two"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    segments = {
        "one segment": [UPGRADED + FRAME],
        "two segments": [UPGRADED, FRAME],
        "a frame in two": [UPGRADED + FRAME[:10], FRAME[10:]],
    }[request.param]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener, segments), daemon=True)
        server.start()
        yield SimpleNamespace(
            new_client=lambda: docker.APIClient(base_url=f"unix://{tmp_path / 's'}", version="1.41"),
            translate=lambda method, *args, **kwargs: method(*args, **kwargs),
        )
        listener.shutdown(socket.SHUT_RDWR)
        server.join(10)


def test_the_first_output_is_not_lost(engine: Any, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as out, (tmp_path / "err").open("w+b") as err:
        done = Exec(engine, "c", ["env"], stdin=-1, stdout=out.fileno(), stderr=err.fileno())
        assert done.wait(10) == 0
        assert os.pread(out.fileno(), 100, 0) == b"out\n"
