"""What is wrong with a DPDK process, from what it and the machine say: pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .telemetry import PortStatistics, Statistics

__all__ = ["SUBJECTS", "Fault", "faults_of"]

SUBJECTS = {
    "dpdk-ended": "process",
    "dpdk-silent": "telemetry",
    "dpdk-cores": "cores",
    "dpdk-stopped": "forwarding",
    "dpdk-port-stopped": "ports",
    "dpdk-link-down": "links",
    "dpdk-no-buffers": "buffers",
    "dpdk-missed": "packets missed",
    "dpdk-receive-errors": "receive errors",
    "dpdk-send-errors": "send errors",
}
"""What is looked at, by the kind of the fault that is found there."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, at which port, and what to do about it."""

    kind: str
    cause: str
    next: str
    mark: str = ""
    port: int | None = None


def _ports(now: Statistics, known: Statistics) -> Iterator[tuple[PortStatistics, PortStatistics]]:
    moved = now.since(known)
    yield from zip(now.ports, moved.ports, strict=True)


def faults_of(
    *,
    what: str,
    end: str,
    last_words: str,
    core_pattern: str,
    now: Statistics | None,
    before: Statistics,
    forwarding: bool,
    shared_cores: tuple[str, ...],
    wrong_cores: tuple[str, ...],
    no_carrier: frozenset[int],
) -> list[Fault]:
    """What is wrong, the gravest first.

    Args:
        what: the process, in words.
        end: how it ended; empty while it runs.
        last_words: the last lines that it wrote.
        core_pattern: where the kernel puts core dumps (core(5)).
        now: its counters; None where it does not answer.
        before: its counters when it was ready, or at the last look.
        forwarding: whether it was told to forward.
        shared_cores: cores of its workers that others use too.
        wrong_cores: workers that may not run where they should, in words.
        no_carrier: ports whose link is down, as the kernel says: some drivers do not notice.
    """
    if end:
        words = f"\n{last_words}" if last_words else ""
        where = f"; a core dump goes to {core_pattern}" if end.startswith("was killed") and core_pattern else ""
        return [Fault("dpdk-ended", f"{what} {end}{words}", f"read what it wrote last{where}", "PROCESS ENDED")]
    if now is None:
        return [Fault("dpdk-silent", f"{what} does not answer by telemetry", "see what it does: gdb -p PID", "SILENT")]
    found = [*_of_process(what, forwarding, wrong_cores)]
    for port, moved in _ports(now, before):
        found += _of_port(what, port, moved, shared_cores, port.link_up and port.number not in no_carrier)
    order = list(SUBJECTS)
    return sorted(found, key=lambda fault: order.index(fault.kind))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _packets(count: int) -> str:
    return "1 packet" if count == 1 else f"{count} packets"


def _of_process(what: str, forwarding: bool, wrong_cores: tuple[str, ...]) -> Iterator[Fault]:
    if wrong_cores:
        cause = f"{what} polls on the wrong cores: {'; '.join(wrong_cores)}"
        yield Fault("dpdk-cores", cause, "look for who changed it: taskset, a control group's cpuset", "WRONG CORE")
    if not forwarding:
        yield Fault("dpdk-stopped", f"{what} was told to stop forwarding", "d.start_forwarding()", "STOPPED")


def _of_port(
    what: str, port: PortStatistics, moved: PortStatistics, shared: tuple[str, ...], link: bool
) -> Iterator[Fault]:
    name = f"port {port.number} ({port.device}) of {what}"
    if not port.started:
        yield Fault(
            "dpdk-port-stopped", f"{name} is stopped", f"d.console('port start {port.number}')", "STOPPED", port.number
        )
    elif not link:
        yield Fault("dpdk-link-down", f"{name} has no link", "set both ends of its link up", "LINK DOWN", port.number)
    if moved.rx_no_buffers or moved.xstats.get("rx_mbuf_allocation_errors", 0):
        count = moved.rx_no_buffers or moved.xstats["rx_mbuf_allocation_errors"]
        cause = f"{name} found the pool of buffers empty {_times(count)}"
        yield Fault("dpdk-no-buffers", cause, "give it more: buffers=, or free them sooner", "NO BUFFERS", port.number)
    if moved.rx_missed:
        crowd = f": its core is not its own: {'; '.join(shared)}" if shared else ""
        cause = f"{name} missed {_packets(moved.rx_missed)} that nobody took in time{crowd}"
        remedy = "give the worker a core of its own, or send more slowly"
        yield Fault("dpdk-missed", cause, remedy, "MISSED", port.number)
    for direction, errors in (("receive", moved.rx_errors), ("send", moved.tx_errors)):
        if errors:
            cause = f"{name} failed {_times(errors)} to {direction}"
            remedy = "see d.statistics().ports: the driver's own counters are in xstats"
            yield Fault(f"dpdk-{direction}-errors", cause, remedy, "ERRORS", port.number)
