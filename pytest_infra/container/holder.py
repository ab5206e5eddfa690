"""The process that keeps a session's private Docker engine up for as long as one process of the session uses it.

The workers of a parallel test run share one engine, and any of them may be killed; so none of them owns it. Whoever
needs the engine first starts this process, which binds a socket in the abstract namespace (unix(7)): of several that
are started at once, one gets the name. Each user keeps a connection open; the kernel closes it when the user dies. With
the last connection the engine is taken down, and only then is that connection closed: so its user sees it go.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Sequence

from ..core.errors import InfraError
from .dockerd import Dockerd

__all__ = ["connection_name", "main", "same_user"]

_FIRST_USER_S = 30.0


def connection_name(key: str) -> str:
    """The abstract socket name of a session's engine."""
    return f"\0pytest-infra-engine-{os.geteuid()}-{key}"


def same_user(channel: socket.socket) -> bool:
    """Whether the other end of a connection is a process of this user: abstract names have no permissions."""
    _, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.geteuid())


def main(arguments: Sequence[str]) -> int:
    """Hold the engine of the session whose key is the argument; 0 also when another process already does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the tests; this process ends with its last user
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listening:
        try:
            listening.bind(connection_name(arguments[0]))
        except OSError:
            return 0
        listening.listen(128)
        users: list[socket.socket] = []
        status = _hold(listening, users)
    for user in users:
        user.close()
    return status


def _hold(listening: socket.socket, users: list[socket.socket]) -> int:
    import json

    try:
        with Dockerd() as daemon:
            _serve(listening, users, json.dumps(daemon.describe()).encode(), daemon)
            listening.close()  # who comes from now on starts an engine of its own
    except InfraError as error:
        _serve(listening, users, json.dumps({"error": str(error)}).encode(), None)
        return 1
    return 0


def _serve(listening: socket.socket, users: list[socket.socket], greeting: bytes, daemon: Dockerd | None) -> None:
    """Greet everyone who connects; ends when the last user, who stays in `users`, has gone, or nobody comes."""
    while True:
        ready, _, _ = select.select([listening, *users], [], [], 1.0 if users or daemon is None else _FIRST_USER_S)
        if not ready and not users:
            return
        if daemon is not None and not daemon.process.running:
            return
        if listening in ready:
            user, _ = listening.accept()
            if same_user(user):
                user.send(greeting)
                users.append(user)
            else:
                user.close()
        gone = [user for user in users if user in ready and not _lives(user)]
        if len(gone) == len(users) and users and listening not in ready:
            return
        for user in gone:
            users.remove(user)
            user.close()


def _lives(user: socket.socket) -> bool:
    try:
        return bool(user.recv(16))
    except OSError:
        return False
