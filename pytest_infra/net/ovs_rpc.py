"""A small JSON-RPC client for the daemons of Open vSwitch, over a unix socket that stays open.

Both OVSDB (RFC 7047) and the control socket that ovs-appctl(8) speaks to ("unixctl") use JSON-RPC 1.0: objects
one after the other, without anything between them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import BadInput, InfraError

__all__ = ["Operation", "OvsError", "RpcClient", "appctl", "mapping", "members", "set_of", "transact", "uuid"]

Operation = Mapping[str, Any]
"""An operation of an OVSDB transaction (RFC 7047, section 5.2)."""

_RECEIVE_BYTES = 1 << 18
_PATH_BYTES = 107  # unix(7): sun_path has 108 bytes, the last of them 0


class OvsError(InfraError):
    """A daemon of Open vSwitch refused a request, or does not answer."""


class RpcClient:
    """A connection to one daemon, made at the first request and again after an error.

    Args:
        path: the unix socket.
        what: the daemon, for messages.
        timeout_s: how long a request may take by default.
    """

    def __init__(self, path: str, what: str, timeout_s: float = 10.0) -> None:
        if len(path.encode()) > _PATH_BYTES:
            raise BadInput(
                f"the socket path {path!r} has {len(path.encode())} bytes; at most {_PATH_BYTES} are allowed"
            )
        self.path = path
        self.what = what
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._number = 0

    def request(self, method: str, params: Sequence[object], timeout_s: float | None = None) -> Any:
        """Send one request and return its result.

        Args:
            method: its name.
            params: its arguments, JSON types.
            timeout_s: how long it may take; the client's own limit by default.

        Raises:
            OvsError: the daemon refused it, cannot be reached, or did not answer in time.
        """
        import json

        with self._lock:
            self._number += 1
            message = {"id": self._number, "method": method, "params": params}
            try:
                reply = self._exchange(json.dumps(message).encode(), timeout_s or self.timeout_s)
            except OSError as error:
                self._drop()
                said = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
                raise OvsError(f"{self.what} does not answer {method!r}: {said}") from error
        if reply.get("error") is not None:
            raise OvsError(f"{self.what} refused {method!r}: {_text(reply['error'])}")
        return reply["result"]

    def connect(self) -> bool:
        """Open the connection if it is not open; False where nobody listens (yet)."""
        with self._lock:
            try:
                self._socket = self._socket or self._open()
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Close the connection; a later request opens it again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, message: bytes, timeout_s: float) -> dict[str, Any]:
        if self._socket is None:
            self._socket = self._open()
        self._socket.settimeout(timeout_s)
        self._socket.sendall(message)
        while True:
            reply = self._receive(self._socket)
            if reply.get("method") is None and reply.get("id") == self._number:
                return reply
            if reply.get("method") == "echo":  # RFC 7047, section 4.1.11: the server asks whether we live
                self._socket.sendall(_echo(reply))

    def _open(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(self.timeout_s)
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _receive(connection: socket.socket) -> dict[str, Any]:
        import json

        data = bytearray()
        while True:
            chunk = connection.recv(_RECEIVE_BYTES)
            if not chunk:
                raise ConnectionResetError(104, "it closed the connection")
            data += chunk
            if not data.rstrip().endswith(b"}"):
                continue  # one request at a time: an answer ends where the data ends
            try:
                reply: dict[str, Any] = json.loads(data)
            except ValueError:
                continue
            return reply


def _echo(request: Mapping[str, Any]) -> bytes:
    import json

    return json.dumps({"id": request.get("id"), "result": request.get("params"), "error": None}).encode()


def _text(error: object) -> str:
    if isinstance(error, Mapping):
        return ": ".join(str(error[key]) for key in ("error", "details") if error.get(key))
    return str(error).strip()


def transact(client: RpcClient, *operations: Operation, timeout_s: float | None = None) -> list[dict[str, Any]]:
    """Run operations as one OVSDB transaction on the Open_vSwitch database (RFC 7047, section 4.1.3).

    Raises:
        OvsError: an operation failed, and with it the whole transaction.
    """
    results = client.request("transact", ["Open_vSwitch", *operations], timeout_s)
    for number, result in enumerate(results):
        if result and result.get("error"):
            what = operations[number].get("op", "?") if number < len(operations) else "commit"
            table = operations[number].get("table", "") if number < len(operations) else ""
            raise OvsError(f"{client.what} refused {' '.join(filter(None, (what, table)))}: {_text(result)}")
    return [result or {} for result in results]


def appctl(client: RpcClient, command: str, *arguments: str, timeout_s: float | None = None) -> str:
    """Run one command of ovs-appctl(8) by way of the daemon's control socket, and return what it says.

    Raises:
        OvsError: the daemon refused it or does not answer.
    """
    return str(client.request(command, list(arguments), timeout_s) or "")


def set_of(values: Sequence[object]) -> list[object]:
    """A set as OVSDB writes it (RFC 7047, section 5.1)."""
    return ["set", list(values)]


def mapping(values: Mapping[str, str]) -> list[object]:
    """A map as OVSDB writes it (RFC 7047, section 5.1)."""
    return ["map", [[key, value] for key, value in values.items()]]


def uuid(name: str) -> list[object]:
    """A reference to a row that the same transaction inserts under `name` (RFC 7047, section 5.1)."""
    return ["named-uuid", name]


def members(value: Sequence[Any]) -> list[str]:
    """The rows that a column refers to, as OVSDB writes one or several of them (RFC 7047, section 5.1)."""
    return [item[1] for item in value[1]] if value[0] == "set" else [value[1]]
