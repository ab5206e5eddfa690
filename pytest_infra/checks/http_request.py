"""One HTTP request from within a node: runs there by ``node.call`` (RFC 9110, RFC 9112)."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from ..core.errors import BadInput
from .inet import family_of, sockaddr

__all__ = [
    "Answered",
    "Failure",
    "Url",
    "check_headers",
    "check_method",
    "check_url",
    "in_hosts_file",
    "is_address",
    "send",
]

Failure = Literal["", "connection", "tls", "silence", "closed", "garbage"]
_PORTS = {"http": 80, "https": 443}
_MOST_BYTES = 1 << 20  # of a body; what is beyond is neither kept nor waited for
_SHOWN_BYTES = 60
_METHOD = re.compile(r"[A-Z]{1,20}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FIELD = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True)
class Url:
    """An absolute URL of HTTP, taken apart (RFC 3986)."""

    text: str
    scheme: str
    host: str
    port: int
    target: str
    """The path and the query, as they are sent."""


@dataclass(frozen=True)
class Answered:
    """What came back for one request."""

    failure: Failure = ""
    """What kept an answer away: the TCP connection, the TLS handshake, silence, the server that closed the connection,
    or something that is not HTTP; empty where there is an answer."""
    words: str = ""
    """The system's word for that."""
    status: int = 0
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in small letters."""
    text: str = ""
    """The body, at most 1 MiB of it; bytes that are no UTF-8 are replaced."""
    took_s: float = 0.0
    """Until the last byte, or until it failed."""

    @property
    def line(self) -> str:
        """The status line without the version."""
        return f"{self.status} {self.reason}".rstrip()


def check_url(text: str) -> Url:
    """Take a URL apart.

    Raises:
        BadInput: it is not an absolute one of http or https.
    """
    if not isinstance(text, str):
        raise BadInput(f"url {text!r} cannot be used; text is wanted")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"url {text!r} cannot be used: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise BadInput(
            f"url {text!r} cannot be used; one such as 'http://10.0.0.2:8080/path' or 'https://name/' is wanted"
        )
    if any(not 0x20 < ord(letter) < 0x7F for letter in text):
        raise BadInput(
            f"url {text!r} cannot be used: it holds other than printable ASCII characters; quote them (RFC 3986)"
        )
    return Url(text, parts.scheme, parts.hostname, port or _PORTS[parts.scheme], _target(parts))


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def check_method(method: str) -> str:
    """A method's name (RFC 9110 section 9.1)."""
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        raise BadInput(f"method {method!r} cannot be used; a word in capitals such as 'GET' or 'POST' is wanted")
    return method


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Header fields by name (RFC 9110 section 5)."""
    if not isinstance(headers, Mapping | None):
        raise BadInput(f"headers {headers!r} cannot be used; a dict of names and values is wanted")
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise BadInput(f"header {name!r} cannot be used: a name has letters, digits and any of !#$%&'*+-.^_`|~")
        if not isinstance(value, str) or not _FIELD.fullmatch(value):
            raise BadInput(f"header {name}: {value!r} cannot be used: a value is text of one line, in Latin letters")
    return dict(headers or {})


def in_hosts_file(name: str) -> list[str]:
    """The addresses that the node's own hosts file gives a name (hosts(5))."""
    if not os.path.exists("/etc/hosts"):
        return []
    found = []
    with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.partition("#")[0].split()
            if name.lower() in map(str.lower, words[1:]):
                found.append(words[0])
    return [address for address in found if is_address(address)]


def is_address(text: str) -> bool:
    """Whether it is an address of IPv4 or IPv6, and no name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def send(
    url: Url, address: str, *, method: str, headers: Mapping[str, str], body: bytes, ca: str | None, within_s: float
) -> Answered:
    """Send a request to an address, and wait `within_s` seconds for the whole answer; run it within the node."""
    began = time.monotonic()
    deadline = began + within_s
    try:
        with _connect(url, address, ca, deadline) as sock:
            found = _ask(sock, url, method, {"Connection": "close", **headers}, body, deadline)
    except _Failed as failed:
        found = Answered(failed.failure, str(failed))
    return replace(found, took_s=time.monotonic() - began)


class _Failed(Exception):
    def __init__(self, failure: Failure, words: str) -> None:
        super().__init__(words)
        self.failure = failure


def _connect(url: Url, address: str, ca: str | None, deadline: float) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_STREAM)
    failure: Failure = "connection"
    try:
        sock.settimeout(_left_s(deadline))
        sock.connect(sockaddr(address, url.port))
        if url.scheme == "http":
            return sock
        failure = "tls"
        sock.settimeout(_left_s(deadline))
        return ssl.create_default_context(cafile=ca).wrap_socket(sock, server_hostname=url.host)
    except OSError as error:  # SSLError is one
        sock.close()
        raise _Failed(failure, (error.strerror or str(error)).lower()) from None


def _ask(sock: socket.socket, url: Url, method: str, headers: dict[str, str], body: bytes, deadline: float) -> Answered:
    connection = http.client.HTTPConnection(url.host, url.port)
    connection.sock = sock
    text = b""
    try:
        connection.request(method, url.target, body or None, headers)
        response = connection.getresponse()
        while len(text) < _MOST_BYTES and (more := response.read1(_MOST_BYTES - len(text))):
            text += more
            sock.settimeout(_left_s(deadline))
        if response.length and len(text) < _MOST_BYTES:
            raise _Failed("closed", f"{len(text)} of {len(text) + response.length} bytes of the body, then the end")
    except TimeoutError:
        came = f"{len(text)} bytes of the body" if text else "the connection"
        raise _Failed("silence", f"{came}, then nothing") from None
    except (ConnectionError, http.client.IncompleteRead) as error:
        raise _Failed("closed", (str(error) or type(error).__name__).lower()) from None
    except http.client.BadStatusLine as error:
        raise _Failed("garbage", f"the answer begins with {str(error)[:_SHOWN_BYTES]!r}") from None
    except http.client.HTTPException as error:
        raise _Failed("garbage", f"{type(error).__name__}: {str(error)[:_SHOWN_BYTES]}") from None
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answered("", "", response.status, response.reason, names, text.decode(errors="replace"))


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
