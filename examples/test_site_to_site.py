"""WireGuard between two sites, with the kernel's or wireguard-go's own implementation."""

from __future__ import annotations

import pytest

from pytest_infra import CheckFailed, assert_reachable, until


def key_pair(node):
    private = node.run(["wg", "genkey"]).stdout
    return private, node.run(["wg", "pubkey"], input=private).stdout.strip()


def gateway(lab, name, network):
    """A host that forwards, with an inside link to a host, and a /run of its own, where wireguard-go has its socket."""
    gate, inner = lab.host(name, isolate=["mount"]), lab.host(f"{name}-host", routes=False)
    lab.link(inner, gate, ip=f"{network}.10/24", peer_ip=f"{network}.1/24")
    return gate, inner


def bring_up(gate, private, peer, endpoint, networks, tmp_path):
    gate.run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
    if not gate.run(["ip", "link", "add", "wg0", "type", "wireguard"], check=False).ok:
        gate.spawn(["wireguard-go", "--foreground", "wg0"])
    key = tmp_path / f"{gate.name}.key"
    key.write_text(private)
    peer_options = ["peer", peer, "endpoint", endpoint, "allowed-ips", networks, "persistent-keepalive", "1"]
    argv = ["wg", "set", "wg0", "private-key", str(key), "listen-port", "51820", *peer_options]
    until(lambda: gate.run(argv, check=False).ok, within_s=20, what="WireGuard takes its configuration")
    gate.run(["ip", "link", "set", "wg0", "up"])
    gate.run(["ip", "route", "add", networks, "dev", "wg0"])
    gate.sysctl["net.ipv4.ip_forward"] = "1"


@pytest.mark.infra_requires("wg", "wireguard-go", "ip")
@pytest.mark.parametrize("trusted", [True, False])
def test_two_sites_trust_each_other(lab, tmp_path, trusted):
    """What passes between the sites is not seen outside. In the failing twin the second site has another key."""
    internet = lab.router("internet")
    g1, a = gateway(lab, "g1", "10.1.0")
    g2, b = gateway(lab, "g2", "10.2.0")
    lab.link(g1, internet, ip="192.0.2.2/25", peer_ip="192.0.2.1/25")
    lab.link(g2, internet, ip="192.0.2.130/25", peer_ip="192.0.2.129/25")
    for host, gate in ((a, "10.1.0.1"), (b, "10.2.0.1")):
        host.run(["ip", "route", "add", "default", "via", gate])
    (private1, public1), (private2, public2) = key_pair(g1), key_pair(g2)
    bring_up(g1, private1, public2 if trusted else key_pair(g1)[1], "192.0.2.130:51820", "10.2.0.0/24", tmp_path)
    bring_up(g2, private2, public1, "192.0.2.2:51820", "10.1.0.0/24", tmp_path)
    plain = lab.capture(internet.ports[0], "icmp")
    hidden = lab.capture(internet.ports[0], "udp port 51820")
    if trusted:
        assert_reachable(a, b, within="30 s")
        hidden.wait(2)
        assert plain.count == 0
    else:
        with pytest.raises(CheckFailed, match=r"g1-host cannot reach g2-host"):
            assert_reachable(a, b, within="3 s")
