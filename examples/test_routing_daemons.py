"""FRR's OSPF and BGP, and keepalived's VRRP, in networks that lose a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_infra import (
    CheckFailed,
    assert_converged,
    assert_path,
    assert_reachable,
    assert_reconverged,
    assert_unreachable,
)

OSPF = """
interface eth0
 ip ospf area 0
 ip ospf network point-to-point
 ip ospf hello-interval 1
 ip ospf dead-interval 3
interface eth1
 ip ospf area 0
 ip ospf network point-to-point
 ip ospf hello-interval 1
 ip ospf dead-interval 3
interface eth2
 ip ospf area 0
 ip ospf passive
router ospf
 timers throttle spf 10 100 1000
 timers throttle lsa all 0
 timers lsa min-arrival 0
"""


@pytest.fixture
def ospf_ring(lab):
    """Four routers in a ring, each with a host on eth2."""
    return lab.ring(4, router=lambda: lab.router(daemons=["ospfd"], config=OSPF))


@pytest.mark.infra_requires("frr")
def test_ospf_finds_the_other_way(lab, ospf_ring):
    assert_converged(lab, within="60 s")
    neighbours = ospf_ring.routers[0].vtysh("show ip ospf neighbor")["neighbors"]
    assert [one[0]["converged"] for one in neighbours.values()] == ["Full", "Full"]
    report = assert_reconverged(lab, after=ospf_ring.links[0].down, within="10 s")
    print(report.explain())
    a, b = ospf_ring.hosts[:2]
    r1, r2, r3, r4 = ospf_ring.routers
    assert_path(a, b, [r1, r4, r3, r2, b])


@pytest.mark.infra_requires("frr")
def test_a_ring_that_is_cut_twice_stays_apart(lab, ospf_ring):
    """The failing twin."""
    assert_converged(lab, within="60 s")
    ospf_ring.links[2].down()
    assert_converged(lab, within="60 s")
    with pytest.raises(CheckFailed, match=r"stays silent"):
        assert_reconverged(lab, after=ospf_ring.links[0].down, within="2 s")


def bgp(number: int, own: list[str], neighbour: str, their_number: int, *more: str) -> str:
    networks = [f"  network {network}" for network in own]
    session = [f" neighbor {neighbour} remote-as {their_number}", f" neighbor {neighbour} timers 1 3"]
    session += [f" neighbor {neighbour} timers connect 1", f" neighbor {neighbour} advertisement-interval 0"]
    head = [f"router bgp {number}", " no bgp ebgp-requires-policy", *session, " address-family ipv4 unicast"]
    return "\n".join([*head, *networks, *more])


NO_SECRETS = "ip prefix-list NO-SECRETS seq 5 deny 10.3.0.0/24\nip prefix-list NO-SECRETS seq 10 permit any\n"


@pytest.mark.infra_requires("frr")
@pytest.mark.parametrize("filtered", [True, False])
def test_bgp_keeps_what_its_filter_takes_away(lab, filtered):
    """Two autonomous systems; the first does not take a route to 10.3.0.0/24. Without the filter the check fails."""
    use = ["  neighbor 192.0.2.2 prefix-list NO-SECRETS in"] if filtered else []
    r1 = lab.router("r1", daemons=["bgpd"], config=NO_SECRETS + bgp(65001, ["10.1.0.0/24"], "192.0.2.2", 65002, *use))
    theirs = bgp(65002, ["10.2.0.0/24", "10.3.0.0/24"], "192.0.2.1", 65001)
    r2 = lab.router("r2", daemons=["bgpd"], config=theirs)
    a, b, secret = lab.host("a"), lab.host("b"), lab.host("secret")
    lab.link(r1, r2, ip="192.0.2.1/24", peer_ip="192.0.2.2/24")
    lab.link(a, r1, ip="10.1.0.10/24", peer_ip="10.1.0.1/24")
    lab.link(b, r2, ip="10.2.0.10/24", peer_ip="10.2.0.1/24")
    lab.link(secret, r2, ip="10.3.0.10/24", peer_ip="10.3.0.1/24")
    assert_converged([a, b], within="60 s")
    assert r1.vtysh("show bgp summary")["ipv4Unicast"]["peers"]["192.0.2.2"]["state"] == "Established"
    if filtered:
        assert_unreachable(a, secret)
    else:
        assert_reachable(a, secret, within="10 s")
        with pytest.raises(CheckFailed):
            assert_unreachable(a, secret)


KEEPALIVED = """
global_defs {{
  vrrp_version 3
  script_user root
}}
vrrp_sync_group GATEWAY {{
  group {{
    INSIDE
    OUTSIDE
  }}
}}
vrrp_instance INSIDE {{
  interface eth0
  state BACKUP
  virtual_router_id 1
  priority {priority}
  advert_int 0.1
  virtual_ipaddress {{
    10.0.0.1/24
  }}
}}
vrrp_instance OUTSIDE {{
  interface eth1
  state BACKUP
  virtual_router_id 2
  priority {priority}
  advert_int 0.1
  virtual_ipaddress {{
    10.0.1.1/24
  }}
}}
"""


@pytest.mark.infra_requires("keepalived", "ip")
@pytest.mark.parametrize("standby", [True, False])
def test_vrrp_hands_the_gateway_over(lab, tmp_path: Path, standby):
    """Two routers share a gateway's address. The failing twin has no keepalived on the second one."""
    inside, outside = lab.bridge(), lab.bridge()
    a, b = lab.host("a", routes=False), lab.host("b", routes=False)
    lab.link(a, inside, ip="10.0.0.10/24")
    lab.link(b, outside, ip="10.0.1.10/24")
    links = []
    for number in (2, 3):
        router = lab.router(routes=False)
        links.append(lab.link(router, inside, ip=f"10.0.0.{number}/24"))
        lab.link(router, outside, ip=f"10.0.1.{number}/24")
        if number == 2 or standby:
            config = tmp_path / f"keepalived{number}.conf"
            config.write_text(KEEPALIVED.format(priority=200 - number))
            files = [f"--pid={config}.pid", f"--vrrp_pid={config}.vrrp", f"--checkers_pid={config}.checkers"]
            router.spawn(["keepalived", "--dont-fork", "--log-console", f"--use-file={config}", *files])
    a.run(["ip", "route", "add", "default", "via", "10.0.0.1"])
    b.run(["ip", "route", "add", "default", "via", "10.0.1.1"])
    assert_converged([a, b], within="30 s")
    if standby:
        print(assert_reconverged([a, b], after=links[0].down, within="5 s").explain())
    else:
        with pytest.raises(CheckFailed, match=r"stays silent"):
            assert_reconverged([a, b], after=links[0].down, within="2 s")
