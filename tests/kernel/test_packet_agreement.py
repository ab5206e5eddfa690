"""Random policies mean the same to the model, Open vSwitch, nftables and librte_acl: all four are asked each time.

``INFRA_POLICIES=300`` has as many random policies drawn; without it there are fewer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pytest_infra.checks.agree import assert_installs
from pytest_infra.core.errors import CheckFailed
from pytest_infra.packet.classifier import Classifier, Verdict
from pytest_infra.packet.compare import differences
from pytest_infra.packet.device import Device
from pytest_infra.packet.install_acl import RteAcl
from pytest_infra.packet.install_nft import NftIngress
from pytest_infra.packet.install_ovs import OvsFlows
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.probed import Probed
from pytest_infra.session import Infra

POLICIES = int(os.environ.get("INFRA_POLICIES", "12"))
PORTS = ("p1", "p2", "p3")


class Renamed:
    """A device whose ports are called p1, p2, p3."""

    def __init__(self, device: Device) -> None:
        self.device, self.name, self.shows = device, device.name, device.shows
        self._to = dict(zip(PORTS, device.ports, strict=True))
        self._back = {own: name for name, own in self._to.items()}

    def install(self, policy: Classifier) -> None:
        rules = [
            replace(rule, in_port=rule.in_port and self._to[rule.in_port], to=rule.to and self._to[rule.to])
            for rule in policy.rules
        ]
        default = self._to.get(policy.default, policy.default)
        self.device.install(Classifier(rules, default=default, ports=tuple(self._to.values())))

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        found = self.device.classify_all([replace(packet, in_port=self._to[packet.in_port]) for packet in packets])
        return [
            replace(
                verdict,
                to=tuple(self._back[port] for port in verdict.to),
                packet=verdict.packet and replace(verdict.packet, in_port=self._back[verdict.packet.in_port]),
            )
            for verdict in found
        ]


class Together:
    """All devices: says what the model says, unless one of them says something else; then that."""

    name = "one of Open vSwitch, nftables and librte_acl"
    shows = ("rule", "packet")
    outputs = ports = PORTS
    matches: tuple[str, ...]

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = [Renamed(device) for device in devices]
        self.matches = tuple(
            name for name in devices[0].matches if all(name in device.matches for device in devices[1:])
        )
        self.installed: Classifier | None = None
        self.asked = dict.fromkeys((device.name for device in devices), 0)

    def install(self, classifier: Classifier) -> None:
        for device in self._devices:
            device.install(classifier)
        self.installed = classifier

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        assert self.installed is not None
        found = self.installed.classify_all(packets)
        wanted = list(found)
        for device in self._devices:
            self.asked[device.name] += len(packets)
            for place, got in enumerate(device.classify_all(packets)):
                if differences(got, wanted[place], device.shows):
                    missing: Mapping[str, Any] = {
                        name: getattr(wanted[place], name) for name in self.shows if name not in device.shows
                    }
                    found[place] = replace(got, **missing)
        return found


@pytest.fixture(scope="module")
def devices() -> Iterator[list[Device]]:
    with Infra() as session, session.lab() as lab:
        switch, box = lab.ovs("sw1"), lab.host("dut")
        for name in PORTS:
            lab.link(lab.host(f"a{name}"), switch, ip=[])
            lab.link(box, lab.host(f"b{name}"), ip=[], peer_ip=[])
        lab.up()
        with RteAcl(ports=PORTS, outputs=PORTS) as acl, Probed(NftIngress(box)) as nft:
            yield [OvsFlows(switch), nft, acl]


@pytest.mark.timeout(60 + 5 * POLICIES)
def test_random_policies_are_the_same_to_all(devices: list[Device]) -> None:
    together = Together(devices)
    report = assert_installs(together, examples=POLICIES, seed=4)
    assert report.policies >= POLICIES
    assert set(together.asked.values()) == {report.packets}
    print(f"{report.policies} policies and {report.packets} packets, each by the model, {', '.join(together.asked)}")


def test_one_that_differs_is_noticed(devices: list[Device]) -> None:
    class Wrong(RteAcl):
        def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
            return [
                replace(verdict, to=("p3",)) if verdict.to == ("p1",) else verdict
                for verdict in super().classify_all(packets)
            ]

    with Wrong(ports=PORTS, outputs=PORTS) as wrong, pytest.raises(CheckFailed, match="went to p3, wanted to p1"):
        assert_installs(Together([*devices[:2], wrong]), examples=POLICIES, seed=4)
