"""What a change costs, on a machine that is never quiet: base and change are measured in turns, A B B A."""

from __future__ import annotations

from pytest_infra import compare, measure_throughput

RULES = 2000


def test_what_2000_firewall_rules_cost(lab):
    """Each packet walks past all the rules: that must show in the CPU time of each packet."""
    a, plain, filtered = lab.host("a"), lab.host("plain"), lab.host("filtered")
    lab.link(a, plain)
    lab.link(a, filtered)
    rules = [f"udp dport {number + 1} drop" for number in range(RULES)]
    chain = ["type filter hook input priority 0", *rules]
    filtered.run(["nft", "-f", "-"], input="table inet filter {\nchain input {\n" + "\n".join(chain) + "\n}\n}\n")

    def measure(b):
        return lambda: measure_throughput(
            a, b, protocol="udp", rate="8 Mbit/s", size=200, duration="100 ms", generator="built-in"
        )

    report = compare(measure(plain), measure(filtered), metric="cpu_per_packet_s", blocks=5)
    assert report.ratio > 1.05, report.explain()
