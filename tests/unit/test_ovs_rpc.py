"""The JSON-RPC client, against a server that misbehaves in every way."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_infra.core.errors import BadInput
from pytest_infra.net.ovs_rpc import OvsError, RpcClient, appctl, mapping, set_of, transact, uuid

Handler = Callable[[socket.socket, dict[str, Any]], None]


def reply(connection: socket.socket, request: dict[str, Any], result: object = None, error: object = None) -> None:
    connection.sendall(json.dumps({"id": request["id"], "result": result, "error": error}).encode())


class Server:
    """Calls `handler` for each request, in a thread; closes the connection after it has returned None … False."""

    def __init__(self, path: Path) -> None:
        self.handler: Handler = reply
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while data := connection.recv(65536):
                    request = json.loads(data)
                    self.requests.append(request)
                    try:
                        self.handler(connection, request)
                    except ConnectionAbortedError:
                        break

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path / "s")
    yield started
    started.close()


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Iterator[RpcClient]:
    made = RpcClient(str(tmp_path / "s"), "ovsdb-server", timeout_s=5)
    yield made
    made.close()


def test_requests_share_a_connection(server: Server, client: RpcClient) -> None:
    server.handler = lambda connection, request: reply(connection, request, request["params"])
    assert client.request("echo", ["a"]) == ["a"]
    assert client.request("echo", ["b"]) == ["b"]
    assert server.connections == 1


def test_a_reply_in_pieces_with_an_echo_request_before_it(server: Server, client: RpcClient) -> None:
    def handler(connection: socket.socket, request: dict[str, Any]) -> None:
        if request.get("method") != "go":
            return  # the answer to our echo
        connection.sendall(json.dumps({"id": "echo", "method": "echo", "params": ["alive"]}).encode())
        answer = json.loads(connection.recv(65536))
        assert answer == {"id": "echo", "result": ["alive"], "error": None}
        text = json.dumps({"id": request["id"], "result": {"a": {"b": "}" * 50}}, "error": None}).encode()
        for start in range(0, len(text), 7):
            connection.sendall(text[start : start + 7])

    server.handler = handler
    assert client.request("go", []) == {"a": {"b": "}" * 50}}


def test_a_refusal_is_quoted(server: Server, client: RpcClient) -> None:
    server.handler = lambda connection, request: reply(connection, request, None, '"nowhere" is not a bridge\n')
    with pytest.raises(OvsError, match=r"^ovsdb-server refused 'fdb/show': \"nowhere\" is not a bridge$"):
        appctl(client, "fdb/show", "nowhere")


def test_a_failed_operation_is_named(server: Server, client: RpcClient) -> None:
    failed = {"error": "constraint violation", "details": "no such column"}
    server.handler = lambda connection, request: reply(connection, request, [{}, failed, None])
    operations = [{"op": "select", "table": "A"}, {"op": "insert", "table": "B"}, {"op": "select", "table": "C"}]
    with pytest.raises(OvsError, match="refused insert B: constraint violation: no such column"):
        transact(client, *operations)


def test_a_failed_commit_is_named(server: Server, client: RpcClient) -> None:
    server.handler = lambda connection, request: reply(connection, request, [{}, {"error": "referential integrity"}])
    with pytest.raises(OvsError, match="refused commit: referential integrity"):
        transact(client, {"op": "insert", "table": "B"})


def test_it_connects_again_after_the_server_has_gone_away(server: Server, client: RpcClient) -> None:
    def hang_up(connection: socket.socket, request: dict[str, Any]) -> None:
        raise ConnectionAbortedError

    server.handler = hang_up
    with pytest.raises(OvsError, match="does not answer 'echo': it closed the connection"):
        client.request("echo", [])
    server.handler = reply
    assert client.request("echo", []) is None
    assert server.connections == 2


def test_a_server_that_is_silent(server: Server, client: RpcClient) -> None:
    server.handler = lambda connection, request: None
    with pytest.raises(OvsError, match="ovsdb-server does not answer 'echo': no answer in time"):
        client.request("echo", [], timeout_s=0.05)


def test_nobody_there(tmp_path: Path) -> None:
    client = RpcClient(str(tmp_path / "none"), "ovs-vswitchd")
    assert not client.connect()
    with pytest.raises(OvsError, match="ovs-vswitchd does not answer 'version': No such file or directory"):
        client.request("version", [])


def test_a_path_that_is_too_long() -> None:
    with pytest.raises(BadInput, match="has 108 bytes; at most 107 are allowed"):
        RpcClient("/" + "x" * 107, "ovsdb-server")


def test_values_as_ovsdb_writes_them() -> None:
    assert set_of(["a", uuid("p")]) == ["set", ["a", ["named-uuid", "p"]]]
    assert mapping({"a": "b"}) == ["map", [["a", "b"]]]
