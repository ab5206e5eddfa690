"""What the tests against the kernel share: a ping without a program, and a census of this process."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from pytest_infra.core.wait import until

Echo = Callable[..., "float | None"]


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _echo(address: str, within_s: float) -> float | None:
    six = ip_address(address).version == 6
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        kind, answer, at = (128, 129, 0) if six else (8, 0, 20)
        mark = os.urandom(4)
        request = struct.pack("!BBH", kind, 0, 0) + mark
        if not six:
            request = struct.pack("!BBH", kind, 0, _checksum(request)) + mark
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        began = time.perf_counter()
        channel.sendto(request, (address, 0))
        while (left_s := began + within_s - time.perf_counter()) > 0:
            if poll.poll(left_s * 1000):
                reply = channel.recv(2048)
                if reply[at] == answer and reply[at + 4 : at + 8] == mark:
                    return time.perf_counter() - began
    return None


@pytest.fixture
def echo() -> Echo:
    """``echo(host, address)``: how many seconds an ICMP echo took, or None where no answer came."""

    def echo(host: Any, address: object, within_s: float = 2.0) -> float | None:
        try:
            return host.call(_echo, str(address).partition("/")[0], within_s)
        except OSError:  # no route, or an interface that is down
            return None

    return echo


@pytest.fixture
def ip() -> Callable[..., Any]:
    """``ip(node, "-6", "route")``: what ``ip -j`` says in a node, as data."""

    def ip(node: Any, *arguments: str) -> Any:
        return json.loads(node.run(["ip", "-j", "-d", *arguments]).stdout or "[]")

    return ip


Census = Callable[[], "Counter[str]"]


def _census() -> Counter[str]:
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        found[
            "file " + re.sub(r"^(socket|pipe|anon_inode|net|mnt|pid|uts|ipc|user|cgroup|time):.*", r"\1", target)
        ] += 1
    for thread in threading.enumerate():
        found[f"thread {re.sub(r'[0-9]+', 'N', thread.name)}"] += 1
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as children:
                found["children"] += len(children.read().split())
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def census(infra: Any) -> Census:
    """What this process holds: open files by kind, threads, children."""
    for thread in threading.enumerate():  # what an Open vSwitch test before this one has left to be tidied up
        if thread.name == "infra-ovs-spare" or thread.name.endswith("-cleaner"):
            thread.join()
    return _census


@pytest.fixture
def nothing_left(census: Census) -> Iterator[Callable[[], Counter[str]]]:
    """Nothing more is held at the end of the test, or when it is called, than at the beginning; gives what is left."""
    before = census()

    def check() -> Counter[str]:
        until(
            lambda: not census() - before,
            within_s=5,
            what="nothing is left",
            last_words=lambda: str(dict(census() - before)),
        )
        return census() - before

    yield check
    check()


@pytest.fixture
def script() -> Callable[..., str]:
    """Runs Python in a process of its own, and returns what it wrote."""

    def script(text: str, *arguments: str, timeout_s: float = 60) -> str:
        argv = [sys.executable, "-W", "error", "-c", text, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr, done.stderr
        return done.stdout

    return script
