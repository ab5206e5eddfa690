"""Open vSwitch instances: started and stopped whole, made as good as new between labs, replaced when broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_infra.core import requirement
from pytest_infra.core.errors import StartFailed
from pytest_infra.core.guard import Guard
from pytest_infra.core.wait import until
from pytest_infra.lab import Lab
from pytest_infra.net import ovs_instance, ovs_pool
from pytest_infra.net.namespace import Entrance, NetNamespace
from pytest_infra.net.ovs import OvsBridge
from pytest_infra.net.ovs_flows import parse_flows
from pytest_infra.net.ovs_instance import DirtyInstance, OvsInstance
from pytest_infra.net.ovs_pool import OvsPool
from pytest_infra.net.ovs_rows import make_bridge
from pytest_infra.net.ovs_rpc import transact
from pytest_infra.net.reading import read_interfaces
from pytest_infra.session import Infra

TABLES = ("Open_vSwitch", *ovs_instance._MUST_BE_EMPTY)


@pytest.fixture
def entrance() -> Iterator[Entrance]:
    with Entrance() as started:
        yield started


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def content(instance: OvsInstance) -> dict[str, Any]:
    rows = transact(instance.database, *({"op": "select", "table": table, "where": []} for table in TABLES))
    found = {table: result["rows"] for table, result in zip(TABLES, rows, strict=True)}
    for column in ("next_cfg", "cur_cfg", "_version", "statistics"):
        for row in found["Open_vSwitch"]:
            row.pop(column, None)
    return found


def interfaces(instance: OvsInstance) -> set[str]:
    with instance.namespace.netlink() as netlink:
        return set(read_interfaces(netlink))


def census() -> tuple[int, int, int]:
    me = psutil.Process()
    return len(me.children(recursive=True)), len(os.listdir("/proc/self/fd")), threading.active_count()


def two_hosts(lab: Lab, **options: Any) -> OvsBridge:
    switch = lab.ovs("sw1", **options)
    for name in ("a", "b"):
        lab.link(lab.host(name), switch)
    lab.up()
    return switch


def test_an_instance_ends_whole(entrance: Entrance) -> None:
    with OvsInstance("warm", entrance):
        pass
    before = census()
    with OvsInstance("ovs", entrance) as instance:
        pids = instance.pids
        assert set(pids) == {"ovsdb-server", "ovs-vswitchd"}
        assert not any(map(gone, pids.values()))
        assert interfaces(instance) == {"lo"}
    assert all(map(gone, pids.values()))
    assert census() == before


def test_it_is_as_good_as_new_after_a_reset(entrance: Entrance) -> None:
    with OvsInstance("ovs", entrance) as instance:
        instance.warm_up()
        pristine = content(instance)
        for name in ("one", "two"):
            instance.commit(*make_bridge(name, instance.datapath_type))
        vsctl = [
            "set bridge one fail_mode=secure other_config:mac-table-size=10 external_ids:left=1",
            "set-controller one tcp:127.0.0.1:6653",
            "set-manager ptcp:6640:127.0.0.1",
            "set-ssl /none/key /none/cert /none/ca",
            "set open . external_ids:left=1 system_type=left",
            "-- --id=@q create QoS type=linux-htb queues:0=@z -- --id=@z create Queue other_config:max-rate=1000000",
            "-- --id=@m create Mirror name=m select_all=true -- set bridge one mirrors=@m",
            '-- --id=@n create NetFlow targets="127.0.0.1:2055" -- set bridge one netflow=@n',
            "-- --id=@d create Datapath datapath_version=1 -- set open . datapaths:netdev=@d",
            "add-port one vx -- set interface vx type=vxlan options:remote_ip=192.0.2.1",
            "add-port one patch1 -- set interface patch1 type=patch options:peer=patch2",
        ]
        for words in vsctl:
            instance.tool("ovs-vsctl", ["--no-wait", *words.split()])
        instance.tool("ovs-ofctl", ["add-flow", "one", "priority=9,actions=drop"])
        instance.namespace.call(subprocess.run, ["ip", "link", "add", "left", "type", "veth"], check=True)
        instance.reset()
        assert content(instance) == pristine
        assert interfaces(instance) == {"lo"}
        assert instance.log("ovs-vswitchd") == ""
        instance.commit(*make_bridge("one", instance.datapath_type))
        (flow,) = parse_flows(instance.tool("ovs-ofctl", ["dump-flows", "one"]).stdout)
        assert str(flow) == "table=0,priority=0,actions=NORMAL"


def kill(instance: OvsInstance, daemon: str) -> None:
    os.kill(instance.pids[daemon], signal.SIGKILL)
    until(lambda: not instance.running, within_s=5, what=f"{daemon} is dead")


BREAKS: dict[str, tuple[Callable[[OvsInstance], object], str]] = {
    "vswitchd-dead": (lambda instance: kill(instance, "ovs-vswitchd"), "a daemon has ended"),
    "database-dead": (lambda instance: kill(instance, "ovsdb-server"), "a daemon has ended"),
    "vswitchd-stopped": (
        lambda instance: os.kill(instance.pids["ovs-vswitchd"], signal.SIGSTOP),
        "ovs-vswitchd does not follow its database",
    ),
    "settings": (
        lambda instance: instance.tool("ovs-vsctl", ["set", "open", ".", "other_config:vlan-limit=1"]),
        "'vlan-limit': '1'} may have had effects that stay",
    ),
    "no-row": (
        lambda instance: transact(instance.database, {"op": "delete", "table": "Open_vSwitch", "where": []}),
        "a test has deleted it",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_what_cannot_be_made_good_is_said(how: str, entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovs_instance, "_RESET_S", 0.5)
    breaks, why = BREAKS[how]
    with OvsInstance("ovs", entrance) as instance:
        instance.commit(*make_bridge("one", instance.datapath_type))
        breaks(instance)
        with pytest.raises(DirtyInstance, match=why):
            instance.reset()


def test_a_broken_instance_is_replaced() -> None:
    with Infra() as infra:
        pool = infra._services.ovs_pool
        for broken in range(2):
            with infra.lab() as lab:
                switch = two_hosts(lab)
                assert "sw1-p2" in switch.show()
                first = switch.instance
                switch.appctl(["vlog/set", "dbg"])
            until(lambda count=broken: len(pool.replaced) > count, within_s=5, what="the instance is given up")
            assert not first.running
        assert [why.partition(": ")[2] for why in pool.replaced] == ["ovs-appctl vlog/set dbg cannot be taken back"] * 2


def test_an_instance_whose_daemon_died_between_labs_is_replaced(entrance: Entrance) -> None:
    with OvsPool(entrance) as pool:
        first = pool.acquire("lab1")
        pool.release(first)
        until(lambda: pool._find("netdev", lambda seat: not seat.cleaning), within_s=5, what="it is clean")
        kill(first, "ovs-vswitchd")
        second = pool.acquire("lab2")
        assert second is not first
        assert second.running
        assert pool.replaced == ["ovs1: a daemon has ended"]


def test_labs_at_the_same_time_have_instances_of_their_own_and_surplus_ones_end(entrance: Entrance) -> None:
    with OvsPool(entrance) as pool:
        count = ovs_pool._KEPT + 1
        labs = [object() for _ in range(count)]
        instances = [pool.acquire(lab) for lab in labs]
        assert len(set(instances)) == count
        assert pool.acquire(labs[0]) is instances[0]
        pool.release(instances[0])
        assert pool._seats[0].owner is labs[0]
        for instance in instances:
            pool.release(instance)
        until(lambda: len(pool._seats) == ovs_pool._KEPT, within_s=10, what="the surplus instance is gone")
        until(lambda: sum(item.running for item in instances) == ovs_pool._KEPT, within_s=10, what="its daemons too")
        assert pool.replaced == []
    assert not any(instance.running for instance in instances)


def test_the_pool_ends_with_all_that_it_does_in_the_background(entrance: Entrance) -> None:
    with OvsPool(entrance):
        pass
    before = census()
    for _ in range(2):
        with OvsPool(entrance) as pool:
            for number in range(3):
                instance = pool.acquire(number)
                instance.commit(*make_bridge("one", instance.datapath_type))
                pool.release(instance)
        assert census() == before


def test_instances_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovs_pool, "_PATIENCE_S", 60)
    with Infra() as infra:
        used = set()
        for _ in range(10):
            with infra.lab() as lab:
                switch = two_hosts(lab)
                used.add(switch.instance)
                assert {entry.mac for entry in switch.fdb} <= {port.peer.mac for port in switch.ports}
                assert [str(flow) for flow in switch.flows()] == ["table=0,priority=0,actions=NORMAL"]
                switch.ofctl(["add-flow", "sw1", "priority=9,udp,actions=drop"])
                assert "added interface sw1-p1" in switch.instance.log("ovs-vswitchd")
                assert switch.instance.log("ovs-vswitchd").count("bridge sw1: using datapath ID") == 1
        assert len(used) <= ovs_pool._KEPT
        assert infra._services.ovs_pool.replaced == []


def test_a_private_instance_ends_with_its_lab() -> None:
    with Infra() as infra, infra.lab() as lab:
        shared = two_hosts(lab)
        private = lab.ovs("own", private=True)
        assert private.vsctl(["list-br"]).stdout == "own\n"
        assert shared.vsctl(["list-br"]).stdout == "sw1\n"
        pids = private.instance.pids
        lab.stop()
        assert all(map(gone, pids.values()))
        assert shared.instance.running


def test_a_daemon_that_does_not_come_up_is_quoted(
    entrance: Entrance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "ovs-vswitchd"
    broken.write_text("#!/bin/sh\necho the reason is this >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(ovs_instance, "OVS_VSWITCHD", requirement.Command("ovs", program="ovs-vswitchd", folders=()))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = census()
    with pytest.raises(StartFailed, match=r"(?s)ovs-vswitchd ended with status 3.*the reason is this"):
        OvsInstance("ovs", entrance).start()
    assert census() == before


STEPS = {
    "namespace": (NetNamespace, "_start"),
    "netlink": (NetNamespace, "netlink"),
    "guard": (Guard, "_start"),
    "folder": (ovs_instance.os, "mkdir"),
    "database": (OvsInstance, "run"),
    "first daemon": (OvsInstance, "_daemon"),
    "row": (ovs_instance, "transact"),
    "second daemon": (OvsInstance, "_connect_control"),
}


@pytest.mark.parametrize("step", STEPS)
def test_each_failing_step_is_undone(step: str, entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(5, "a step fails")

    before = census()
    with monkeypatch.context() as patch:
        patch.setattr(*STEPS[step], fail)
        with pytest.raises(StartFailed, match="a step fails"):
            OvsInstance("ovs", entrance).start()
    assert census() == before


def test_a_bridge_that_cannot_be_made_gives_its_instance_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with Infra() as infra:
        with infra.lab() as lab:
            lab.ovs("ovs-netdev")  # the name of an interface that Open vSwitch needs itself
            with pytest.raises(StartFailed, match="does not take ovs-netdev as a port"):
                lab.switches["ovs-netdev"].show()
        with infra.lab() as lab:
            assert "sw1-p1" in two_hosts(lab).show()


PROGRAM = """
import sys
from pytest_infra.session import Infra
with Infra() as infra, infra.lab() as lab:
    shared, private = lab.ovs("sw1"), lab.ovs("sw2", private=True)
    lab.link(lab.host(), shared), lab.link(lab.host(), private)
    lab.up()
    print(*shared.instance.pids.values(), *private.instance.pids.values(), flush=True)
    sys.stdin.read()
"""


def test_daemons_die_with_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        pids = [int(word) for word in child.stdout.readline().split()]
        assert len(pids) == 4
        assert not any(map(gone, pids))
        child.kill()
    until(lambda: all(map(gone, pids)), within_s=5, what="the daemons are dead")
