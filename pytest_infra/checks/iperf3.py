"""iperf3 as a traffic generator (iperf3(1)): its JSON output as a `Flow`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..core.errors import CommandFailed, InfraError
from ..core.node import Node
from ..core.process import Process, await_end
from .flow import Flow
from .inet import free_port
from .target import Ends

__all__ = ["find_iperf3", "parse_iperf3", "run_iperf3"]

_START_S, _SPARE_S = 10.0, 20.0
_LEAST_S = 1.0
_CONNECT_MS = 3000


def find_iperf3(*nodes: Node) -> str:
    """Its version, where each node has it and can reach its own children; else an empty string."""
    for node in nodes:
        try:
            done = node.run(["iperf3", "--version"], check=False)
        except (CommandFailed, NotImplementedError):
            return ""
        if not done.ok:
            return ""
    return done.stdout.split(" (")[0].strip()


def run_iperf3(
    ends: Ends, *, protocol: str, streams: int, duration_s: float, size: int = 0, rate_bps: float = 0
) -> Flow:
    """Measure with a server in one node and a client in the other.

    Raises:
        InfraError: iperf3 says that it failed; it exits with 0 all the same (esnet/iperf issue 1405).
    """
    assert ends.destination is not None
    address = str(ends.address)
    port = str(ends.destination.call(free_port, address))
    with ends.destination.spawn(["iperf3", "-s", "-1", "-B", address, "-p", port, "--forceflush"]) as server:
        server.wait_for("listening", within_s=_START_S)
        argv = ["iperf3", "-c", address, "-p", port, "-J", "-P", str(streams), "-t", f"{max(_LEAST_S, duration_s):.0f}"]
        argv += ["--connect-timeout", str(_CONNECT_MS)]
        argv += ["-B", ends.bind_to] if ends.bind_to else []
        if protocol == "udp":
            argv += ["-u", "-l", str(size), "-b", f"{rate_bps / streams:.0f}"]
        client = ends.source.spawn(argv)
        await_end(client.pid, duration_s + _SPARE_S)
        waited_s = max(_waited_s(client), _waited_s(server))
        done = client.wait(_SPARE_S)
    return parse_iperf3(done.stdout, protocol, waited_s)


def _waited_s(process: Process) -> float:
    """How long it has waited for a CPU: the kernel tells it until the process has been reaped (schedstat)."""
    with suppress(OSError), open(f"/proc/{process.pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[1]) / 1e9
    return 0.0


def parse_iperf3(text: str, protocol: str, waited_s: float = 0.0) -> Flow:
    """What ``iperf3 -J`` wrote, as figures.

    Raises:
        InfraError: it is no JSON, or has an ``error``.
    """
    import json

    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise InfraError(f"iperf3 wrote no JSON: {text[:200]!r}") from None
    if "error" in found:
        advice = "; assert_reachable says why" if "unable to connect" in found["error"] else ""
        raise InfraError(f"iperf3 failed: {found['error']}{advice}")
    end = found["end"]
    cpu = end["cpu_utilization_percent"]
    share = (cpu["host_total"] + cpu["remote_total"]) / 100
    if protocol == "udp":
        return _udp(end["sum"], share, waited_s)
    sent, got = end["sum_sent"], end["sum_received"]
    mss = int(found["start"].get("tcp_mss_default", 0))
    return Flow(
        payload_bytes=got["bytes"],
        duration_s=got["seconds"],
        packets=-(-sent["bytes"] // mss) if mss else 0,
        retransmits=sent.get("retransmits", 0),
        cpu_s=share * got["seconds"],
        waited_s=waited_s,
        held_back=min(1.0, waited_s / got["seconds"]),
        mss=mss,
    )


def _udp(total: Mapping[str, Any], share: float, waited_s: float) -> Flow:
    packets, lost = total["packets"], total["lost_packets"]
    arrived = packets - lost
    return Flow(
        payload_bytes=round(total["bytes"] * arrived / packets) if packets else 0,
        duration_s=total["seconds"],
        packets=arrived,
        offered_packets=packets,
        lost=lost,
        cpu_s=share * total["seconds"],
        waited_s=waited_s,
        held_back=min(1.0, waited_s / total["seconds"]),
    )
