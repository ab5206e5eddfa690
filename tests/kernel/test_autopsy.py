"""An autopsy changes nothing, and quotes the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_infra.checks import measure_reach
from pytest_infra.checks.reach import ReachReport
from pytest_infra.core.linux import in_child_user_namespace
from pytest_infra.core.process import run
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.session import Infra

WITHIN = "100 ms"
_READS = (
    ["ip", "-d", "link"],
    ["ip", "address"],
    ["ip", "route", "show", "table", "all"],
    ["ip", "rule"],
    ["ip", "neighbour"],
    ["nft", "-a", "list", "ruleset"],
    ["ss", "-Htunap"],
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Infra() as session, session.lab("autopsy") as started:
        yield started


def state(lab: Lab) -> dict[str, str]:
    """What a user can see, less what any packet changes: packets are counted, neighbours confirmed, ages grow."""
    found = {}
    for owner in (*lab.nodes.values(), *lab.switches.values()):
        for argv in _READS:
            text = owner.namespace.call(run, argv, check=False).stdout  # type: ignore[union-attr]
            text = re.sub(
                r"packets \d+ bytes \d+|(STALE|REACHABLE|DELAY|PROBE)|[\d.]+sec|\w+_timer +[\d.]+|fdb .*", "", text
            )
            found[f"{owner.name}: {' '.join(argv)}"] = text
        found[f"{owner.name}: settings"] = str(owner.namespace.call(run, ["sysctl", "net"], check=False).stdout)  # type: ignore[union-attr]
    for switch in lab.switches.values():
        if hasattr(switch, "ofctl"):
            flows = switch.ofctl(["dump-flows", switch.name]).stdout
            found[f"{switch.name}: flows"] = re.sub(r"(duration|n_packets|n_bytes|idle_age)=[^,]*,", "", flows)
            found[f"{switch.name}: config"] = switch.vsctl(["show"]).stdout
    return found


def wired(lab: Lab) -> tuple[Host, Host, Host]:
    """a - sw1 (Open vSwitch) - r - sw2 (Linux bridge) - b, with firewall rules in r."""
    sw1, sw2 = lab.ovs("sw1"), lab.bridge("sw2")
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, sw1, ip="10.0.0.1/24")
    lab.link(r, sw1, ip="10.0.0.2/24")
    lab.link(r, sw2, ip="10.0.1.1/24")
    lab.link(b, sw2, ip="10.0.1.2/24")
    lab.up()
    r.run(["nft", "add table inet t"])
    r.run(["nft", "add chain inet t c { type filter hook forward priority 0; }"])
    r.run(["nft", "add rule inet t c counter accept"])
    return a, r, b


def failed(report: ReachReport, kind: str) -> None:
    assert not report.ok
    assert report.autopsy is not None
    assert report.autopsy.finding is not None, report.explain()
    assert report.autopsy.finding.kind == kind, report.explain()


def test_nothing_is_changed(lab: Lab) -> None:
    a, r, b = wired(lab)
    assert measure_reach(a, b).ok
    r.run(["nft", "insert rule inet t c icmp type echo-request counter drop"])
    measure_reach(a, b, within=WITHIN)
    before = state(lab)
    failed(measure_reach(a, b, within=WITHIN), "filtered")
    assert state(lab) == before


def test_an_autopsy_sends_one_probe_more(lab: Lab) -> None:
    a, r, b = wired(lab)
    assert measure_reach(a, b).ok
    r.run(["nft", "insert rule inet t c icmp type echo-request counter drop"])
    failed(measure_reach(a, b), "filtered")
    assert re.search(r"echo-request counter packets (\d+)", r.run(["nft", "list", "ruleset"]).stdout)[1] == "2"  # type: ignore[index]


def test_the_kernel_is_quoted(lab: Lab) -> None:
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, r)
    lab.link(r, b)
    assert measure_reach(a, b).ok
    r.run(["nft", "add table inet t"])
    r.run(["nft", "add chain inet t c { type filter hook forward priority 0; policy drop; }"])
    report = measure_reach(a, b, within=WITHIN)
    failed(report, "filtered")
    assert report.autopsy is not None
    root_only = () if in_child_user_namespace() else ("NETFILTER_DROP",)
    assert report.autopsy.reasons == root_only
