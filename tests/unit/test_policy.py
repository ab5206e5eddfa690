"""Which route policy routing gives a packet, as ip-rule(8) has it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pytest_infra.core.node import Route
from pytest_infra.net.policy import Policy, PolicyRule

MAIN, DEFAULT = PolicyRule(32766, 4, table=254), PolicyRule(32767, 4, table=253)
A, B = ip_address("10.0.0.1"), ip_address("10.0.9.1")


def policy(*rules: PolicyRule, **tables: list[Route]) -> Policy:
    named = {254: [Route(ip_network("10.0.0.0/8"), "main")], **{int(name[1:]): found for name, found in tables.items()}}
    return Policy([PolicyRule(0, 4, table=255), *rules, MAIN, DEFAULT], named)


def interface(chosen: tuple[Route | None, PolicyRule | None]) -> str:
    route, _ = chosen
    return route.interface if route else ""


TEN = [Route(ip_network("0.0.0.0/0"), "ten")]


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ({}, "ten"),
        ({"source": ip_network("10.0.0.0/24")}, "ten"),
        ({"source": ip_network("10.0.1.0/24")}, "main"),
        ({"source": ip_network("10.0.1.0/24"), "inverted": True}, "ten"),
        ({"destination": ip_network("10.0.9.1/32")}, "ten"),
        ({"destination": ip_network("10.0.9.2/32")}, "main"),
        ({"arrives_by": "eth0"}, "ten"),
        ({"arrives_by": "lo"}, "main"),
        ({"beyond": ("fwmark",)}, "main"),
        ({"beyond": ("fwmark",), "inverted": True}, "main"),
        ({"shortest": 0}, "main"),
        ({"kind": "nop"}, "main"),
        ({"kind": "goto", "goto": 32767}, ""),
        ({"version": 6}, "main"),
    ],
)
def test_the_rules_that_take_a_packet(rule: dict[str, object], chosen: str) -> None:
    added = PolicyRule(**{"priority": 100, "version": 4, "table": 10, **rule})  # type: ignore[arg-type]
    assert interface(policy(added, _10=TEN).choose(B, A, "eth0")) == chosen


def test_a_packet_that_begins_here_comes_by_lo() -> None:
    here = PolicyRule(100, 4, table=10, arrives_by="lo")
    assert interface(policy(here, _10=TEN).choose(B, A, "")) == "ten"


def test_the_lowest_priority_goes_first_and_throw_goes_on() -> None:
    first, second = PolicyRule(10, 4, table=1), PolicyRule(20, 4, table=2)
    throws = [Route(ip_network("10.0.9.0/24"), "", kind="throw")]
    assert interface(policy(second, first, _1=TEN, _2=[]).choose(B, A, "")) == "ten"
    assert interface(policy(second, first, _1=throws, _2=TEN).choose(B, A, "")) == "ten"


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_rule_can_refuse(kind: str) -> None:
    rule = PolicyRule(10, 4, kind=kind)
    route, by = policy(rule).choose(B, A, "")
    assert route is not None
    assert (route.kind, by) == (kind, rule)


def test_a_rule_reads_as_ip_rule_prints_it() -> None:
    assert str(PolicyRule(10, 4, table=254, inverted=True, source=ip_network("10.0.0.0/24"))) == (
        "10: not from 10.0.0.0/24 lookup main"
    )
    assert str(PolicyRule(10, 4, kind="goto", goto=20, arrives_by="eth0")) == "10: from all iif eth0 goto 20"
    assert str(PolicyRule(10, 6, kind="prohibit", beyond=("fwmark",))) == "10: from all fwmark prohibit"
