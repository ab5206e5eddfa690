"""The labs that are measured, ours and the yardstick's, behind one shape: make, then close."""

from __future__ import annotations

import os
import resource
import socket
import struct
import time
from typing import Protocol

from yardstick import Yardstick

from pytest_infra import Infra, Lab

ECHO_REQUEST, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}


class Closeable(Protocol):
    def close(self) -> None: ...


class Ours:
    """`hosts` hosts on one switch, with addresses, up."""

    def __init__(self, infra: Infra, hosts: int, switch: str = "bridge") -> None:
        self.lab: Lab = infra.lab().start()
        try:
            middle = getattr(self.lab, switch)("sw1")
            self.hosts = [self.lab.host() for _ in range(hosts)]
            for host in self.hosts:
                self.lab.link(host, middle)
            self.lab.up()
        except BaseException:
            self.lab.stop()
            raise

    def close(self) -> None:
        self.lab.stop()


def make(kind: str, infra: Infra, hosts: int) -> Closeable:
    return Ours(infra, hosts) if kind == "pytest-infra" else Yardstick(hosts)


def allow_many_files() -> None:
    """The yardstick keeps two descriptors a host."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory_bytes() -> int:
    """The memory that this process has in RAM (proc_pid_statm(5))."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def first_ping_s(address: str, version: int) -> float:
    """The round trip of one ICMP echo in the calling thread's namespace (RFC 792, RFC 4443); 10 s when unanswered."""
    family, protocol = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}[version]
    body = struct.pack("!HH", 0x5EED, 1) + bytes(8)
    checksum = _checksum(struct.pack("!BBH", ECHO_REQUEST[version], 0, 0) + body)
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.settimeout(10)
        began = time.perf_counter()
        try:
            sock.sendto(struct.pack("!BBH", ECHO_REQUEST[version], 0, checksum) + body, (address, 0))
            while sock.recv(2048)[20 if version == 4 else 0] != ECHO_REPLY[version]:
                pass
        except OSError:  # no route yet, or no answer
            return 10.0
        return time.perf_counter() - began
