"""What a change costs, on a machine that is never quiet: base and change are measured in turns, A B B A."""

from __future__ import annotations

from pytest_infra import assert_ratio, assert_throughput, compare, measure_throughput

RULES = "table inet filter {{ chain input {{ type filter hook input priority 0;\n{}}} }}"


def test_what_500_firewall_rules_cost(lab):
    """Each packet walks past 500 rules: that must show in the CPU time of each packet."""
    a, plain, filtered = lab.host("a"), lab.host("plain"), lab.host("filtered")
    lab.link(a, plain)
    lab.link(a, filtered)
    rules = "".join(f"ip saddr 203.0.113.{number % 250} tcp dport {number + 1} drop\n" for number in range(500))
    filtered.run(["nft", "-f", "-"], input=RULES.format(rules))

    def measure(b):
        return lambda: measure_throughput(
            a, b, protocol="udp", rate="40 Mbit/s", size=200, duration="200 ms", generator="built-in"
        )

    report = compare(measure(plain), measure(filtered), metric="cpu_per_packet_s", blocks=6)
    assert report.low < report.ratio < report.high
    assert report.ratio > 1.05
    assert_ratio(measure(plain), measure(filtered), at_most=50.0, blocks=5)


def test_one_link_is_as_quick_as_another(lab):
    """No figure is promised: both are measured in this run."""
    a, b, c, d = lab.host("a"), lab.host("b"), lab.host("c"), lab.host("d")
    lab.link(a, b, rate="100 Mbit/s")
    lab.link(c, d, rate="100 Mbit/s")
    assert_throughput(a, b, relative_to=(c, d), at_least=0.5)
