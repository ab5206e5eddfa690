"""DPDK without hardware: how soon a process forwards, and what one changed thing does to the price of a packet."""

from __future__ import annotations

import json
from collections.abc import Callable

from measure import Row, progress, seconds

from pytest_infra import Infra, Lab, assert_reachable, measure_packet_rate
from pytest_infra.dpdk import Memif, Null, Ring
from pytest_infra.lab.dpdk_node import DpdkNode

READY_MS, OVS_READY_MS = 600, 2500
TRIAL = "200 ms"


def _testpmd(lab: Lab) -> None:
    lab.dpdk("d", ports=[lab.host("a"), lab.host("b")])


def _ovs(lab: Lab) -> None:
    switch = lab.ovs("sw1", dpdk=True)
    for name in ("a", "b"):
        lab.link(lab.host(name), switch)


def _ready(runs: int) -> list[Row]:
    rows = []
    for what, declare, limit_ms in (
        ("testpmd between two hosts: first packet may pass", _testpmd, READY_MS),
        ("Open vSwitch on DPDK, first switch of a process, two hosts: first packet may pass", _ovs, OVS_READY_MS),
    ):
        values = []
        for run in range(runs):
            progress(f"  {what}, {run + 1} of {runs}")
            with Infra() as infra, infra.lab() as lab:
                declare(lab)
                values.append(seconds(lab.up) * 1e3)
                assert_reachable(lab.nodes["a"], lab.nodes["b"], within="5 s")
        median = sorted(values)[len(values) // 2]
        rows.append(Row(what, "ms", values, f"{limit_ms} ms", median <= limit_ms))
    return rows


PAIRS: dict[str, tuple[str, str, dict[str, object], dict[str, object]]] = {
    "burst": ("null, burst 32", "null, burst 1", {"vdev": Null()}, {"vdev": Null(), "burst": 1}),
    "hugepages": (
        "null with copies, ordinary memory",
        "null with copies, huge pages",
        {"vdev": Null(copy=True)},
        {"vdev": Null(copy=True), "hugepages": "128 MiB"},
    ),
    "cores": ("null, 1 worker", "null, 2 workers", {"vdev": Null(), "cores": 1}, {"vdev": Null(), "cores": 2}),
    "queue": ("null", "ring: a queue without locks", {"vdev": Null()}, {"vdev": Ring()}),
}
"""One thing changed: what A and B are called, and how each is made."""


def _make(lab: Lab, options: dict[str, object]) -> DpdkNode:
    return lab.dpdk(ports=2, start=False, **options)  # type: ignore[arg-type]


def _price(values: dict[str, list[list[float]]], name: str, node: DpdkNode) -> None:
    report = measure_packet_rate(node, lasting=TRIAL)
    if report.packets:
        values[name][0].append(report.packets_per_s / 1e6)
        values[name][1].append(report.cpu_per_packet_s * 1e9)


def _pairs(runs: int) -> list[Row]:
    rows = []
    for pair, (name_a, name_b, options_a, options_b) in PAIRS.items():
        progress(f"  {pair}")
        values: dict[str, list[list[float]]] = {name_a: [[], []], name_b: [[], []]}
        with Infra() as infra, infra.lab() as lab:
            a, b = _make(lab, options_a), _make(lab, options_b)
            for node, options in ((a, options_a), (b, options_b)):
                if isinstance(options["vdev"], Ring):
                    node.console("start tx_first 4")
                    node.stop_forwarding()
            for _ in range(runs):  # A B B A
                for name, node in ((name_a, a), (name_b, b), (name_b, b), (name_a, a)):
                    _price(values, name, node)
        for name, (rates, prices) in values.items():
            rows.append(Row(f"{pair}: {name}", "Mpps", rates))
            rows.append(Row(f"{pair}: {name}, CPU time of a packet", "ns", prices))
    return rows


def _memif(runs: int) -> list[Row]:
    """A generator and a sink that share memory, each on a core of its own; copied, and read in place."""
    rows = []
    for name, zero_copy in (("copied", False), ("read in place (zero-copy)", True)):
        progress(f"  memif, {name}")
        rates = []
        with Infra() as infra, infra.lab() as lab:
            huge = {"hugepages": "128 MiB", "eal": ["--single-file-segments"]}
            sink = lab.dpdk("sink", ports=[Memif("w")], forward="rxonly", **huge)  # type: ignore[arg-type]
            source = lab.dpdk(
                "source",
                ports=[Memif("w", zero_copy=zero_copy)],
                forward="txonly",
                start=False,
                **huge,  # type: ignore[arg-type]
            )
            lab.up()
            source.start_forwarding()
            for _ in range(2 * runs):
                before = sink.statistics().received
                report = measure_packet_rate(source, lasting=TRIAL)
                rates.append((sink.statistics().received - before) / report.duration_s / 1e6)
        rows.append(Row(f"memif between two processes, huge pages, {name}", "Mpps", rates))
    return rows


def _tcp_gbps(make: Callable[[Lab], None]) -> float:
    with Infra() as infra, infra.lab() as lab:
        make(lab)
        a, b = lab.nodes["a"], lab.nodes["b"]
        assert_reachable(a, b, within="5 s")
        server = b.spawn(["iperf3", "--server", "--one-off", "--forceflush"])
        server.wait_for("Server listening")
        address = str(b.ports[0].addresses[0].ip)
        done = json.loads(a.run(["iperf3", "--client", address, "--time", "2", "--json"]).stdout)
        return float(done["end"]["sum_received"]["bits_per_second"]) / 1e9


def _tcp(runs: int) -> list[Row]:
    def between(vdev: str) -> Callable[[Lab], None]:
        return lambda lab: lab.dpdk("d", ports=[lab.host("a"), lab.host("b")], vdev=vdev) and None

    makers: dict[str, Callable[[Lab], None]] = {
        **{f"testpmd, {vdev}": between(vdev) for vdev in ("af_packet", "af_xdp", "tap", "pcap")},
        "Open vSwitch on DPDK, af_packet": _ovs,
    }
    rows = []
    for name, make in makers.items():
        progress(f"  TCP, {name}")
        rows.append(Row(f"TCP payload through {name}", "Gbit/s", [_tcp_gbps(make) for _ in range(runs)]))
    return rows


def dpdk(runs: int) -> list[Row]:
    """All of it; poll mode takes whole cores, so it is kept short."""
    few = min(runs, 3)
    return [*_ready(min(runs, 5)), *_pairs(few), *_memif(few), *_tcp(few)]
