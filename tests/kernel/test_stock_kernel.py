"""What only a stock kernel has. CI runs this in a guest: ``pytest --infra --infra-kernel=amd64 -m stock_kernel …``.

On a kernel without one of these features its test is skipped, with the reason; in the guest no skip is allowed.
"""

from __future__ import annotations

import fcntl
import os
import subprocess

import pytest

from pytest_infra import (
    BadInput,
    CommandFailed,
    Unavailable,
    assert_reachable,
    assert_unreachable,
    measure_latency,
)
from pytest_infra.net.tc import NETEM

pytestmark = [pytest.mark.infra, pytest.mark.stock_kernel, pytest.mark.timeout(900)]

_VHOST_GET_FEATURES, _VHOST_SET_OWNER, _VIRTIO_F_VERSION_1 = 0x8008AF00, 0xAF01, 32  # linux/vhost.h

_LACKS = ("Unknown device", "not supported", "No such file", "Error: Spec", "TC classifier not found")


def demand(node, *argv):
    """Run a command that a kernel without the feature refuses."""
    try:
        return node.run([*argv], timeout_s=120)
    except CommandFailed as error:
        if any(words in error.stderr for words in _LACKS):
            raise Unavailable("stock-kernel", f"{argv[:6]}: {error.stderr.strip()}", "--infra-kernel=…") from error
        raise


@pytest.fixture
def pair(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    return a, b


def test_netem_loses_what_it_is_told_to(pair):
    a, b = pair
    assert_reachable(a, b)
    demand(a, "tc", "qdisc", "add", "dev", "eth0", "root", "netem", "loss", "100%")
    assert_unreachable(a, b)
    a.run(["tc", "qdisc", "del", "dev", "eth0", "root"])
    assert_reachable(a, b)


def test_links_are_delayed_by_netem(lab):
    NETEM.demand()
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, delay="50 ms")
    assert min(measure_latency(a, b, count=5).delays_s) >= 0.1  # there and back
    assert "netem" in a.run(["tc", "qdisc", "show"]).stdout


@pytest.mark.parametrize(
    "kind",
    ["vlan", "macvlan", "vrf", "wireguard", "gretap", "geneve", "vxlan"],
)
def test_kinds_of_interfaces(pair, kind):
    a, _ = pair
    options = {
        "vlan": ["link", "eth0", "name", "x0", "type", "vlan", "id", "10"],
        "macvlan": ["link", "eth0", "name", "x0", "type", "macvlan", "mode", "bridge"],
        "vrf": ["x0", "type", "vrf", "table", "10"],
        "wireguard": ["x0", "type", "wireguard"],
        "gretap": ["x0", "type", "gretap", "local", "10.0.0.1", "remote", "10.0.0.2"],
        "geneve": ["x0", "type", "geneve", "id", "7", "remote", "10.0.0.2"],
        "vxlan": ["x0", "type", "vxlan", "id", "7", "remote", "10.0.0.2", "dstport", "4789"],
    }
    demand(a, "ip", "link", "add", *options[kind])
    assert "x0" in a.interfaces
    assert a.interfaces["x0"].kind == kind


def join(a, b, add):
    """The same interface at both ends, with addresses; packets pass it."""
    for node, mine, other in ((a, "1", "2"), (b, "2", "1")):
        demand(node, "ip", "link", "add", *add(mine, other))
        node.run(["ip", "address", "add", f"10.1.0.{mine}/24", "dev", "x0"])
        node.run(["ip", "link", "set", "x0", "up"])
    assert_reachable(a, "10.1.0.2", within="30 s")


def test_packets_pass_a_vlan_and_not_another_one(pair):
    a, b = pair
    join(a, b, lambda mine, other: ["link", "eth0", "name", "x0", "type", "vlan", "id", "10"])
    b.run(["ip", "link", "del", "x0"])
    b.run(["ip", "link", "add", "link", "eth0", "name", "x0", "type", "vlan", "id", "11"])
    b.run(["ip", "address", "add", "10.1.0.2/24", "dev", "x0"])
    b.run(["ip", "link", "set", "x0", "up"])
    assert_unreachable(a, "10.1.0.2")


def test_packets_pass_a_macvlan_until_it_is_gone(pair):
    a, b = pair
    join(a, b, lambda mine, other: ["link", "eth0", "name", "x0", "type", "macvlan", "mode", "bridge"])
    b.run(["ip", "link", "del", "x0"])
    assert_unreachable(a, "10.1.0.2")


def test_a_vrf_has_routes_of_its_own(pair):
    a, _ = pair
    demand(a, "ip", "link", "add", "blue", "type", "vrf", "table", "10")
    for command in ("link set blue up", "link set eth0 master blue"):
        a.run(["ip", *command.split()])
    ping = ["ping", "-c", "1", "-W", "20"]
    a.run([*ping, "-I", "blue", "10.0.0.2"])
    outside = a.run([*ping, "10.0.0.2"], check=False)
    assert "Network is unreachable" in outside.stderr, outside


def test_wireguard_lets_in_who_has_the_key_and_nobody_else(pair):
    a, b = pair
    keys = {node: a.run(["wg", "genkey"]).stdout for node in pair}
    public = {node: a.run(["wg", "pubkey"], input=keys[node]).stdout.strip() for node in pair}
    for node, peer, mine, other in ((a, b, "1", "2"), (b, a, "2", "1")):
        demand(node, "ip", "link", "add", "x0", "type", "wireguard")
        allow = ["allowed-ips", f"10.1.0.{other}/32", "endpoint", f"10.0.0.{other}:51820"]
        node.run(["wg", "set", "x0", "private-key", "/dev/stdin", "listen-port", "51820"], input=keys[node])
        node.run(["wg", "set", "x0", "peer", public[peer], *allow])
        node.run(["ip", "address", "add", f"10.1.0.{mine}/24", "dev", "x0"])
        node.run(["ip", "link", "set", "x0", "up"])
    assert_reachable(a, "10.1.0.2", within="60 s")
    b.run(["wg", "set", "x0", "private-key", "/dev/stdin"], input=a.run(["wg", "genkey"]).stdout)
    assert_unreachable(a, "10.1.0.2")


def test_packets_pass_a_gre_tunnel_until_it_is_gone(pair):
    a, b = pair
    join(a, b, lambda mine, other: ["x0", "type", "gretap", "local", f"10.0.0.{mine}", "remote", f"10.0.0.{other}"])
    b.run(["ip", "link", "del", "x0"])
    assert_unreachable(a, "10.1.0.2")


def test_packets_pass_a_geneve_tunnel_until_it_is_gone(pair):
    a, b = pair
    join(a, b, lambda mine, other: ["x0", "type", "geneve", "id", "7", "remote", f"10.0.0.{other}"])
    b.run(["ip", "link", "del", "x0"])
    assert_unreachable(a, "10.1.0.2")


def test_flower_drops_what_it_matches(pair):
    a, b = pair
    demand(b, "tc", "qdisc", "add", "dev", "eth0", "clsact")
    match = ["protocol", "ip", "flower", "ip_proto", "icmp", "action", "drop"]
    demand(b, "tc", "filter", "add", "dev", "eth0", "ingress", *match)
    assert_unreachable(a, b)
    assert_reachable(a, b, protocol="tcp", within="30 s")


def test_open_vswitch_in_the_kernel(lab):
    try:
        sw1 = lab.ovs("sw1", datapath="system", private=True)
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, sw1)
        lab.link(b, sw1)
        lab.up()
    except BadInput as error:
        raise Unavailable("stock-kernel", str(error), "--infra-kernel=…") from error
    assert_reachable(a, b, within="30 s")


def test_control_groups_of_version_2(infra):
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        raise Unavailable("stock-kernel", "no cgroup v2 at /sys/fs/cgroup", "--infra-kernel=…")
    with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as file:
        controllers = file.read().split()
    if not {"cpu", "io", "memory", "pids"} <= set(controllers):
        raise Unavailable("stock-kernel", f"cgroup v2 has only {controllers}", "--infra-kernel=…")
    with infra.cgroup("few", pids_max=20, memory_max="64 MiB", cpu_max=0.5) as group:
        assert group.run(["true"]).ok
        assert set(group.describe()["folders"].values()) == {group.folders["memory"]}
        assert group.folders["memory"].startswith("/sys/fs/cgroup")


def test_vhost_net_is_there():
    if "PYTEST_INFRA_GUEST" in os.environ:  # the kernel loads it for whoever opens the device, once that is there
        subprocess.run(["modprobe", "vhost_net"], check=True)
    if not os.path.exists("/dev/vhost-net"):
        raise Unavailable("stock-kernel", "no /dev/vhost-net", "--infra-kernel=…")
    fd = os.open("/dev/vhost-net", os.O_RDWR)
    try:
        fcntl.ioctl(fd, _VHOST_SET_OWNER)
        features = int.from_bytes(fcntl.ioctl(fd, _VHOST_GET_FEATURES, bytes(8)), "little")
        assert features >> _VIRTIO_F_VERSION_1 & 1
        with pytest.raises(OSError, match="busy"):  # it has an owner
            fcntl.ioctl(fd, _VHOST_SET_OWNER)
    finally:
        os.close(fd)


@pytest.mark.infra_requires("dpdk")
def test_rte_flow_of_a_tap_device_drops_what_its_rule_says(lab):
    """The driver puts the rule into the kernel's classifier flower."""
    if "PYTEST_INFRA_GUEST" in os.environ:
        subprocess.run(["modprobe", "--all", "tun", "sch_multiq", "sch_ingress", "cls_flower", "act_gact"], check=True)
    a, b = lab.host("a"), lab.host("b")
    d = lab.dpdk("d", ports=[a, b], vdev="tap")
    d.demand("rte_flow")
    assert_reachable(a, b, protocol="tcp", within="20 s")
    assert "created" in d.console("flow create 0 ingress pattern eth / ipv4 / tcp / end actions drop / end")
    assert_unreachable(a, b, protocol="tcp")
    assert_reachable(a, b, within="20 s")
    d.console("flow flush 0")
    assert_reachable(a, b, protocol="tcp", within="20 s")
