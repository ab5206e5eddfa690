"""Listening sockets as /proc prints them."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

import pytest

from pytest_infra.checks.autopsy.sockets import ListeningSocket, parse_sockets, read_listening

HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP = [
    HEADING,
    "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n",
    "   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0\n",
    "   2: 0100007F:1F90 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1\n",
]
TCP6 = [
    HEADING,
    "   0: B80D01200000000000000000010000FF:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4\n",
]
UDP = [HEADING, "  10: 00000000:0035 00000000:0000 07 00000000:00000000 00:0 0 0 0 5\n"]

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the sample was taken on a little-endian machine")


@little_endian
def test_only_listening_sockets_are_taken() -> None:
    found = list(parse_sockets("tcp", TCP))
    assert [str(item) for item in found] == ["8080 on 127.0.0.1", "22 on 0.0.0.0"]


@little_endian
def test_ipv6_and_udp() -> None:
    assert [str(item) for item in parse_sockets("tcp", TCP6)] == ["80 on [2001:db8::ff00:1]"]
    assert [str(item) for item in parse_sockets("udp", UDP)] == ["53 on 0.0.0.0"]


@pytest.mark.parametrize(
    ("bound", "asked", "takes"),
    [
        ("0.0.0.0", "192.0.2.1", True),
        ("0.0.0.0", "2001:db8::1", False),
        ("::", "192.0.2.1", True),
        ("::", "2001:db8::1", True),
        ("127.0.0.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_which_packets_a_socket_takes(bound: str, asked: str, takes: bool) -> None:
    assert ListeningSocket("tcp", ip_address(bound), 80).takes(ip_address(asked)) == takes


@pytest.mark.parametrize("v6only", [False, True])
def test_a_socket_of_ipv6_takes_ipv4_unless_told_otherwise(v6only: bool) -> None:
    everywhere = ListeningSocket("tcp", ip_address("::"), 80, v6only=v6only)
    assert everywhere.takes(ip_address("192.0.2.1")) != v6only
    assert everywhere.takes(ip_address("fd00::1"))


@pytest.mark.parametrize(("waiting", "backlog", "full"), [(1, 1, False), (2, 1, True), (5, None, False)])
def test_a_backlog_is_full_with_one_more_than_it_says(waiting: int, backlog: int | None, full: bool) -> None:
    assert ListeningSocket("tcp", ip_address("::"), 80, waiting=waiting, backlog=backlog).full == full


def test_a_socket_of_this_process_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            (found,) = [item for item in read_listening() if item.port == port]
    assert (found.protocol, found.address, found.v6only) == ("tcp", ip_address("127.0.0.1"), False)
    assert (found.waiting, found.backlog) == (1, 7)
