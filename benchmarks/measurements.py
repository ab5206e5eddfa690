"""What measurements are worth here: false alarms and found changes, the generator beside iperf3, the ways of links."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from measure import Row, progress

from pytest_infra import Infra, Lab, compare, find_rate, measure_latency, measure_loss, measure_throughput
from pytest_infra.checks.compare import forget_noise
from pytest_infra.core.errors import InfraError
from pytest_infra.net.tc import NETEM

SESSIONS = int(os.environ.get("INFRA_SESSIONS", "100"))
DATAGRAMS = 300
CHANGE = 1.2


def cost_of(lab: Lab) -> Callable[[float], Callable[[], float]]:
    """``cost(1.2)()``: seconds of CPU time for sending and taking datagrams over a veth, with that factor more work."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    address = str(b.ports[0].addresses[0].ip)
    there = b.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    there.bind((address, 9999))
    here = a.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    here.connect((address, 9999))
    payload = bytes(200)

    def cost(factor: float) -> Callable[[], float]:
        def measure() -> float:
            began = time.thread_time()
            for _ in range(round(DATAGRAMS * factor)):
                here.send(payload)
                there.recv(256)
            return (time.thread_time() - began) / DATAGRAMS

        return measure

    return cost


def comparisons(infra: Infra) -> list[Row]:
    """Sessions in which nothing was changed, and sessions in which a fifth of work was added; no bound is given."""
    alarms, found, blocks = 0, 0, []
    with infra.lab() as lab:
        cost = cost_of(lab)
        for number in range(SESSIONS):
            forget_noise()
            alarms += compare(cost(1), cost(1), metric="cost").differs
            report = compare(cost(1), cost(CHANGE), metric="cost")
            found += report.differs and report.ratio > 1
            blocks.append(report.blocks)
            if number % 20 == 0:
                progress(f"  session {number}: {alarms} false alarms, {found} changes found, {report.ratio:.3f}")
    share = 100 / SESSIONS
    return [
        Row(f"A/A: false alarms in {SESSIONS} runs", "%", [alarms * share], "5 %", alarms * share <= 5),
        Row(f"20 % more CPU time: found in {SESSIONS} runs", "%", [found * share], "90 %", found * share >= 90),
        Row("blocks A B B A until it was found", "", blocks),
    ]


def generators(infra: Infra, runs: int) -> list[Row]:
    """The built-in generator and iperf3 in turns, over one veth."""
    rows, medians = [], {}
    with infra.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b)
        for protocol in ("tcp", "udp"):
            rates: dict[str, list[float]] = {"iperf3": [], "built-in": []}
            for _ in range(runs):
                for generator, found in rates.items():
                    options = {"rate": "20 Gbit/s"} if protocol == "udp" and generator == "iperf3" else {}
                    try:
                        report = measure_throughput(a, b, protocol=protocol, generator=generator, **options)
                    except InfraError as error:
                        progress(f"  {generator}: {error}")
                        continue
                    found.append(report.payload_bps / 1e9)
            for generator, found in rates.items():
                rows.append(Row(f"{protocol} over a veth, {generator}", "Gbit/s", found))
                medians[generator] = rows[-1].median
            share = 100 * medians["built-in"] / medians["iperf3"]
            rows.append(Row(f"{protocol}: the built-in generator, of iperf3", "%", [share], "70 %", share >= 70))
    return rows


def ways(infra: Infra, runs: int) -> list[Row]:
    """What each way of this machine makes of 20 ms, of 5 % loss, and of 50 Mbit/s."""
    timed = ["netem"] if NETEM.probe() else ["relay"]
    delays, losses, rates, carried = [], [], [], []
    with infra.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        link = lab.link(a, b)
        for _ in range(runs):
            with link.impair(delay="20 ms", way=timed[0]):
                delays.append(1000 * measure_latency(a, b, one_way=True).figure_s("p50"))
            with link.impair(loss="5 %"):
                losses.append(100 * measure_loss(a, b, count=2000).loss)
            with link.impair(rate="50 Mbit/s"):
                rates.append(measure_throughput(a, b, generator="built-in").l2_bps / 1e6)
            with link.impair(delay="1 ms", way=timed[0]):
                carried.append(measure_throughput(a, b, generator="built-in").payload_bps / 1e9)
        with link.impair(rate="50 Mbit/s"):
            found = [find_rate(a, b, at_most="70 Mbit/s").lower_bps / 1e6 for _ in range(min(runs, 3))]
    near = all(19 <= value <= 21 for value in delays)
    return [
        Row(f"20 ms asked, {timed[0]}: median of one way", "ms", delays, "20 ± 1 ms", near),
        Row("5 % loss asked: lost of 2000", "%", losses),
        Row("50 Mbit/s of layer 2 asked: TCP, layer 2", "Mbit/s", rates),
        Row("the same: find_rate, 0.5 % loss, trials of 0.5 s", "Mbit/s", found),
        Row(f"TCP over 1 ms, {timed[0]}", "Gbit/s", carried),
    ]


def measurements(runs: int) -> list[Row]:
    with Infra() as infra:
        progress("  comparisons")
        rows = comparisons(infra)
        progress("  generators")
        rows += generators(infra, min(runs, 5))
        progress("  ways")
        return rows + ways(infra, min(runs, 5))
