"""What the probes share: socket addresses, listeners, and ICMP errors read back from the kernel."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from .icmp import IcmpError

__all__ = ["family_of", "free_port", "listen", "local_address", "queued_icmp_error", "report_icmp_errors", "sockaddr"]

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_EXTENDED_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err, then the offender's address (ip(7))
_ANY_PORT = 9  # discard (RFC 863): connecting a datagram socket sends nothing


def sockaddr(address: str, port: int = 0) -> tuple[str, int] | tuple[str, int, int, int]:
    """What the socket calls take for an IPv4 or IPv6 address, which may end in ``%interface``."""
    if ":" not in address:
        return address, port
    bare, _, interface = address.partition("%")
    return bare, port, 0, socket.if_nametoindex(interface) if interface else 0


def family_of(address: str) -> socket.AddressFamily:
    """The address family of an address given as text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def free_port(address: str) -> int:
    """A TCP port of an address, in the calling thread's namespace, on which nobody listens now."""
    with socket.socket(family_of(address)) as sock:
        sock.bind(sockaddr(address))
        port: int = sock.getsockname()[1]
        return port


def local_address(destination: str) -> str | None:
    """The address that this node's kernel would send from to `destination`; None when it has no way there.

    Nothing is sent: connecting a datagram socket only looks up the route (udp(7)).
    """
    with socket.socket(family_of(destination), socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(sockaddr(destination, _ANY_PORT))
        except OSError:
            return None
        return str(sock.getsockname()[0])


def listen(kind: socket.SocketKind, address: str, port: int | None) -> socket.socket:
    """A listening socket for a check's own service; run it within the node that is to serve.

    It is bound to `address`, or to every address of that family where the node does not have `address` (any more):
    then nothing will reach it, and the check says why.

    Args:
        kind: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
        address: where to listen.
        port: the port; None for a free one.

    Raises:
        OSError: the port is taken (EADDRINUSE).
    """
    sock = socket.socket(family_of(address), kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind(sockaddr(address, port or 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            sock.bind(("::" if sock.family == socket.AF_INET6 else "0.0.0.0", port or 0))  # noqa: S104
        if kind == socket.SOCK_STREAM:
            sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


def report_icmp_errors(sock: socket.socket) -> None:
    """Have the kernel keep the ICMP errors that come back for what this socket sends (IP_RECVERR, ip(7))."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def queued_icmp_error(sock: socket.socket) -> IcmpError | None:
    """The first ICMP error that the kernel has kept for this socket, or None; errors of other origin do not count."""
    while True:
        try:
            _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return None
        for level, kind, content in ancillary:
            if (level, kind) not in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                continue
            if error := _parse_extended_error(content):
                return error


def _parse_extended_error(content: bytes) -> IcmpError | None:
    if len(content) < _EXTENDED_ERROR.size:
        return None
    _, origin, kind, code, _, _, _ = _EXTENDED_ERROR.unpack_from(content)
    if origin not in (_ORIGIN_ICMP, _ORIGIN_ICMP6):
        return None
    return IcmpError(_offender(content[_EXTENDED_ERROR.size :]), kind, code, 4 if origin == _ORIGIN_ICMP else 6)


def _offender(address: bytes) -> str:
    """The IP address in a struct sockaddr."""
    (family,) = struct.unpack_from("=H", address) if len(address) >= 2 else (0,)
    if family == socket.AF_INET and len(address) >= 8:
        return str(ipaddress.IPv4Address(address[4:8]))
    if family == socket.AF_INET6 and len(address) >= 24:
        return str(ipaddress.IPv6Address(address[8:24]))
    return "an unknown sender"
