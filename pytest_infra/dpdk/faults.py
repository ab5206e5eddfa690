"""What is wrong with a DPDK process, from what it and the machine say: pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .telemetry import PortStatistics, Statistics

__all__ = ["Fault", "faults_of"]


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
    workers: int,
) -> Iterator[Fault]:
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
        workers: how many workers it has.
    """
    if end:
        words = f"\n{last_words}" if last_words else ""
        where = f"; a core dump goes to {core_pattern}" if end.startswith("was killed") and core_pattern else ""
        yield Fault("dpdk-ended", f"{what} {end}{words}", f"read what it wrote last{where}", "PROCESS ENDED")
        return
    if now is None:
        yield Fault("dpdk-silent", f"{what} does not answer by telemetry", "see what it does: gdb -p PID", "SILENT")
        return
    if workers < 1:
        yield Fault("dpdk-no-worker", f"{what} has no core for a worker", "give it one: cores=1", "NO WORKER")
    if not forwarding:
        yield Fault("dpdk-stopped", f"{what} was told to stop forwarding", "d.start_forwarding()", "STOPPED")
    for port, moved in _ports(now, before):
        yield from _of_port(what, port, moved, shared_cores)


def _of_port(what: str, port: PortStatistics, moved: PortStatistics, shared: tuple[str, ...]) -> Iterator[Fault]:
    name = f"port {port.number} ({port.device}) of {what}"
    if not port.started:
        yield Fault("dpdk-port-stopped", f"{name} is stopped", f"port start {port.number}", "STOPPED", port.number)
    elif not port.link_up:
        yield Fault("dpdk-link-down", f"{name} has no link", "set both ends of its link up", "LINK DOWN", port.number)
    if moved.rx_no_buffers or moved.xstats.get("rx_mbuf_allocation_errors", 0):
        count = moved.rx_no_buffers or moved.xstats["rx_mbuf_allocation_errors"]
        cause = f"{name} found the pool of buffers empty {count} times"
        yield Fault("dpdk-no-buffers", cause, "give it more: buffers=, or free them sooner", "NO BUFFERS", port.number)
    if moved.rx_missed:
        crowd = f": its core is not its own: {'; '.join(shared)}" if shared else ""
        cause = f"{name} missed {moved.rx_missed} packets that nobody took in time{crowd}"
        remedy = "give the worker a core of its own, or send more slowly"
        yield Fault("dpdk-missed", cause, remedy, "MISSED", port.number)
    for direction, errors in (("receive", moved.rx_errors), ("send", moved.tx_errors)):
        if errors:
            cause = f"{name} had {errors} errors when it was to {direction}"
            remedy = "see d.statistics().ports: the driver's own counters are in xstats"
            yield Fault(f"dpdk-{direction}-errors", cause, remedy, "ERRORS", port.number)
