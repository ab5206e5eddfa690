"""When is a container ready? Conditions to wait for, looked at from outside: nothing is needed in the image."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.errors import BadInput, WaitTimeout
from ..core.wait import until

__all__ = ["ENDED", "Condition", "ReadyNode", "all_of", "any_of", "exited", "healthy", "http", "log", "port", "why_not"]

ENDED = ("exited", "dead")
"""The states of a container that does not run any more."""
_ANSWER_S = 5.0
_LEAST_LOOK_S = 0.1
_LONGEST_LINE = 4096
_LISTEN = "0A"  # the state TCP_LISTEN in /proc/net/tcp (proc_pid_net(5))


class ReadyNode(Protocol):
    """What a condition may ask a container."""

    left_s: float
    """How long it may take to look, seconds."""

    @property
    def state(self) -> Any:
        """Its state now."""

    def logs(self, tail: int | None = None) -> str:
        """What it has written."""

    def enter(self, function: Any, *args: Any) -> Any:
        """Run a function in its network namespace."""


@dataclass(frozen=True)
class Condition:
    """Something to wait for. A child says in `look` what is still missing; an empty string means it holds."""

    def lost(self, state: Any) -> bool:
        """Whether it cannot come true any more, for a container in that state."""
        return bool(state.status in ENDED)

    def look(self, node: ReadyNode) -> str:
        """What is missing now."""
        raise AssertionError(f"{type(self).__name__} cannot look at {node}")


@dataclass(frozen=True)
class _Port(Condition):
    number: int

    def __str__(self) -> str:
        return f"TCP port {self.number} open"

    def look(self, node: ReadyNode) -> str:
        found = node.enter(_listening)
        if self.number in found:
            return ""
        return f"nothing listens on it; open are {', '.join(map(str, sorted(found))) or 'none'}"


@dataclass(frozen=True)
class _Log(Condition):
    pattern: str
    times: int

    def __str__(self) -> str:
        return f"log line {self.pattern!r}" + (f", {self.times} times" if self.times > 1 else "")

    def look(self, node: ReadyNode) -> str:
        seen = len(re.findall(self.pattern, node.logs(), re.MULTILINE))
        return "" if seen >= self.times else f"seen {seen} times"


@dataclass(frozen=True)
class _Http(Condition):
    number: int
    path: str
    status: int

    def __str__(self) -> str:
        return f"HTTP status {self.status} for {self.path} on port {self.number}"

    def look(self, node: ReadyNode) -> str:
        found: str = node.enter(_get, self.number, self.path, min(node.left_s, _ANSWER_S))
        return "" if found == str(self.status) else found


@dataclass(frozen=True)
class _Healthy(Condition):
    def __str__(self) -> str:
        return "healthy"

    def lost(self, state: Any) -> bool:
        return super().lost(state) or not state.health

    def look(self, node: ReadyNode) -> str:
        state = node.state
        if not state.health:
            return "it has no health command: give it health=Health([...])"
        return "" if state.health == "healthy" else f"{state.health}: {state.health_log or 'no answer yet'}"


@dataclass(frozen=True)
class _Exited(Condition):
    status: int

    def __str__(self) -> str:
        return f"ended with status {self.status}"

    def lost(self, state: Any) -> bool:
        return super().lost(state) and state.exit_code != self.status

    def look(self, node: ReadyNode) -> str:
        state = node.state
        return "" if state.status == "exited" and state.exit_code == self.status else str(state)


@dataclass(frozen=True)
class _All(Condition):
    parts: tuple[Condition, ...]
    every: bool

    def __str__(self) -> str:
        return (" and " if self.every else " or ").join(str(part) for part in self.parts)

    def lost(self, state: Any) -> bool:
        return (any if self.every else all)(part.lost(state) for part in self.parts)

    def look(self, node: ReadyNode) -> str:
        missing = []
        for part in self.parts:
            found = part.look(node)
            if found and self.every:
                return f"{part}: {found}"
            if not found and not self.every:
                return ""
            missing.append(f"{part}: {found}")
        return "" if self.every else "; ".join(missing)


def why_not(node: ReadyNode, condition: Condition, within_s: float) -> str:
    """Wait for a condition; the words say why it did not come true, and are empty where it did."""
    missing, deadline = "", time.monotonic() + within_s

    def look() -> bool:
        nonlocal missing
        lost = condition.lost(node.state)
        node.left_s = max(deadline - time.monotonic(), _LEAST_LOOK_S)
        missing = condition.look(node)
        return not missing or lost

    try:
        until(look, within_s=within_s, what=str(condition))
    except WaitTimeout:
        why = f"waited {within_s:g} s for: {condition}"
    else:
        why = "it ended while waited for" if node.state.status in ENDED else "this cannot come true"
        why = f"{why}: {condition}" if missing else ""
    return f"{why}; {missing}" if missing else why


def port(number: int) -> Condition:
    """A process listens on this TCP port, at whatever address; it is not connected to."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 65535:
        raise BadInput(f"port {number!r} is not allowed; give a whole number from 1 to 65535")
    return _Port(number)


def log(pattern: str, times: int = 1) -> Condition:
    """A line that the container has written (to standard output or error) matches a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise BadInput(f"log line {pattern!r} is no regular expression: {error}") from None
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise BadInput(f"times {times!r} is not allowed; give a whole number from 1")
    return _Log(pattern, times)


def http(number: int, path: str = "/", status: int = 200) -> Condition:
    """A GET request of this path, sent within the container's network, gets this status."""
    if not isinstance(path, str) or not re.fullmatch(r"/[!-~]*", path):
        raise BadInput(f"the path {path!r} must begin with '/' and have only printable ASCII without spaces (RFC 9112)")
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise BadInput(f"the status {status!r} is not allowed; give a whole number from 200 to 599")
    port(number)
    return _Http(number, path, status)


def healthy() -> Condition:
    """The engine's health command says so."""
    return _Healthy()


def exited(status: int = 0) -> Condition:
    """It has ended with this status."""
    if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status <= 255:
        raise BadInput(f"the exit status {status!r} is not allowed; give a whole number from 0 to 255")
    return _Exited(status)


def all_of(*conditions: Condition) -> Condition:
    """All of these, looked at in this order."""
    return _All(_checked("all_of", conditions), every=True)


def any_of(*conditions: Condition) -> Condition:
    """At least one of these."""
    return _All(_checked("any_of", conditions), every=False)


def _checked(what: str, conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    if not conditions or not all(isinstance(one, Condition) for one in conditions):
        raise BadInput(f"{what} takes conditions of pytest_infra.ready, one at least; got {conditions!r}")
    return conditions


def _sockets() -> list[tuple[str, int]]:
    """Address, as the kernel writes it, and port of each listening TCP socket of this thread's network namespace."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/thread-self/net/{name}", encoding="ascii") as table:
                rows: Sequence[str] = table.read().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for row in rows:
            words = row.split()
            if words[3] == _LISTEN:
                address, _, number = words[1].rpartition(":")
                found.append((address, int(number, 16)))
    return found


def _listening() -> set[int]:
    return {number for _, number in _sockets()}


def _get(number: int, path: str, within_s: float) -> str:
    """The status of a GET request to whoever listens on the port here, or what went wrong."""
    addresses = [address for address, found in _sockets() if found == number]
    if not addresses:
        return "nothing listens on the port"
    target, deadline = _loopback_or_own(addresses[0]), time.monotonic() + within_s
    host = f"[{target}]" if ":" in target else target
    try:
        with socket.create_connection((target, number), timeout=within_s) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{number}\r\nConnection: close\r\n\r\n".encode())
            said = _first_line(sock, deadline)
    except OSError as error:
        return str(error) or type(error).__name__
    status = re.match(r"HTTP/\d(?:\.\d)? (\d{3})", said)
    return status[1] if status else f"its answer is no HTTP: {said[:40]!r}" if said else "it closed without an answer"


def _first_line(sock: socket.socket, deadline: float) -> str:
    """What comes until the end of a line, of the stream, or of the time, however slowly."""
    said = b""
    while b"\n" not in said and len(said) < _LONGEST_LINE:
        if (left_s := deadline - time.monotonic()) <= 0:
            raise TimeoutError(f"no whole answer in time, only {said[:40]!r}")
        sock.settimeout(left_s)
        if not (more := sock.recv(_LONGEST_LINE)):
            break
        said += more
    return said.decode("latin-1")


def _loopback_or_own(address: str) -> str:
    """An address to connect to, for the address of a listening socket as /proc/net/tcp has it."""
    if set(address) == {"0"}:
        return "127.0.0.1" if len(address) == 8 else "::1"
    words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)
