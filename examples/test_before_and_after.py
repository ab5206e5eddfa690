"""What a change costs, on a machine that is never quiet: base and change are measured in turns, A B B A."""

from __future__ import annotations

from pytest_infra import compare, measure_throughput

RULES = 2000


def test_what_2000_firewall_rules_cost(lab):
    """Each packet walks past all the rules: that must show in the CPU time of each packet."""
    a, plain, filtered = lab.host("a"), lab.host("plain"), lab.host("filtered")
    lab.link(a, plain)
    lab.link(a, filtered)
    filtered.run(["nft", "add table inet filter; add chain inet filter input { type filter hook input priority 0; }"])
    rules = [f"add rule inet filter input udp dport {number + 1} drop" for number in range(RULES)]
    for first in range(0, RULES, 200):  # in one piece they are more than an ordinary user may send to the kernel
        filtered.run(["nft", "-f", "-"], input="\n".join(rules[first : first + 200]) + "\n")

    def measure(b):
        return lambda: measure_throughput(
            a, b, protocol="udp", rate="8 Mbit/s", size=200, duration="100 ms", generator="built-in"
        )

    report = compare(measure(plain), measure(filtered), metric="cpu_per_packet_s", blocks=5)
    assert report.ratio > 1.05, report.explain()
