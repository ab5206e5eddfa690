"""What is saved when traffic is split over namespaces: each has its own rule set and its own connection table."""

from __future__ import annotations

import shutil
import socket
import time
from typing import Any

from measure import Row, progress

from pytest_infra import Infra

RULES, FLOWS, PARTS = 4000, 20_000, 10


def _connect(count: int) -> None:
    """So many flows, each a UDP datagram to a port of its own; nobody listens, nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for number in range(count):
            channel.sendto(b"", ("127.0.0.1", 1024 + number))


def _packet_s(packets: int = 2000) -> float:
    """The CPU time of a packet to oneself, which passes the whole rule set."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        began = time.thread_time()
        for _ in range(packets):
            channel.sendto(b"", ("127.0.0.1", 9))
        return (time.thread_time() - began) / packets


def _fill(host: Any, rules: int, flows: int) -> None:
    head = "add table ip t\nadd chain ip t c { type filter hook output priority 0; }\nadd rule ip t c ct state new\n"
    host.run(["nft", "-f", "-"], input=head)
    host.call(_connect, flows)
    lines = [f"add rule ip t c ip daddr 10.{n >> 8}.{n & 255}.1 drop\n" for n in range(rules)]
    host.run(["nft", "-f", "-"], input="".join(lines))


def _listing_ms(host: Any) -> float:
    began = time.perf_counter()
    host.run(["sh", "-c", "conntrack -L >/dev/null 2>&1"])
    return (time.perf_counter() - began) * 1e3


def namespaces(runs: int) -> list[Row]:
    """All rules and flows in one namespace, beside a tenth of them in each of ten."""
    packets: dict[str, list[float]] = {"whole": [], "part": []}
    lists: dict[str, list[float]] = {"whole": [], "part": []}
    with Infra() as infra, infra.lab() as lab:
        hosts = {"whole": lab.host(), "part": lab.host()}
        others = [lab.host() for _ in range(PARTS - 1)]
        _fill(hosts["whole"], RULES, FLOWS)
        for host in (hosts["part"], *others):
            _fill(host, RULES // PARTS, FLOWS // PARTS)
        for number in range(runs):
            progress(f"  namespaces, {number + 1} of {runs}")
            for name, host in hosts.items():
                packets[name].append(host.call(_packet_s) * 1e6)
                if shutil.which("conntrack"):
                    lists[name].append(_listing_ms(host))
        counts = {name: host.sysctl["net.netfilter.nf_conntrack_count"] for name, host in hosts.items()}
    rows = [
        Row(f"a packet, {RULES} rules in one namespace", "us", packets["whole"]),
        Row(f"a packet, {RULES // PARTS} rules in each of {PARTS}", "us", packets["part"]),
        Row("connections in the table of the one", "", [float(counts["whole"])]),
        Row(f"connections in the table of each of {PARTS}", "", [float(counts["part"])]),
    ]
    if lists["whole"]:
        rows += [
            Row("those of the one listed (conntrack -L)", "ms", lists["whole"]),
            Row(f"those of one of {PARTS} listed", "ms", lists["part"]),
        ]
    return rows
