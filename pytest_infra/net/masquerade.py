"""What an uplink changes in the namespace outside of the lab: an address, rules, forwarding; and how it is undone.

Where several uplinks, of several sessions, lead into one namespace, the last one to end turns forwarding off again.
They take turns by a lock on the namespace itself (flock(2)), which a process that dies gives back.
"""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network
from typing import Any

from ..core import linux, process
from ..core.errors import StartFailed
from ..core.worker import Worker
from . import messages
from .netlink import NetlinkSocket
from .nft import NFT
from .reading import read_addresses, read_interfaces, read_routes
from .sysctl import read_sysctl, write_sysctl

__all__ = ["PREFIX", "admit", "forget", "inside", "known_networks", "number_of", "prepare", "rules"]

PREFIX = "infra-up"
"""What the names of the interfaces and tables of uplinks begin with."""

_FORWARDED = "infra-forwarding-was-off"
_FORWARD = "net.ipv4.ip_forward"
_POOLS = IPv4Network("100.64.0.0/18"), IPv4Network("100.127.192.0/18")
"""Parts of the shared address space (RFC 6598), which no public host has."""


def number_of(fd: int) -> int:
    """The number of a namespace, as /proc shows it."""
    return os.fstat(fd).st_ino


@contextmanager
def inside(fd: int) -> Iterator[Worker]:
    """A thread in the network namespace behind `fd`, while no other uplink changes anything there."""
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # a lock belongs to what has been opened
    try:
        fcntl.flock(own, fcntl.LOCK_EX)
        worker = Worker("infra-outside", lambda: linux.setns(own, linux.CLONE_NEWNET))
        try:
            yield worker
        finally:
            worker.stop()
    finally:
        os.close(own)


def rules(interface: str, address: str) -> str:
    """The rules in the language of nft(8): what the node sends from its own address is masqueraded, all else dropped.

    Args:
        interface: the end of the uplink's wire outside; its table has the same name.
        address: the node's.
    """
    forward = f'type filter hook forward priority 0; iifname "{interface}" ip saddr != {address} drop'
    translate = f'type nat hook postrouting priority 100; ip saddr {address} oifname != "{interface}" masquerade'
    chains = f"chain forward {{\n    {forward}\n  }}\n  chain postrouting {{\n    {translate}\n  }}"
    return f"table ip {interface} {{\n  {chains}\n}}\n"


def prepare(interface: str, taken: Iterable[Any] = ()) -> IPv4Network:
    """Choose a subnet of four addresses, load the rules, turn forwarding on; runs in the namespace.

    Args:
        interface: the end of the uplink's wire outside.
        taken: networks that are in use elsewhere, besides those that are known here.

    Returns:
        The subnet: its first address is for the outside, the second one the node's.

    Raises:
        StartFailed: no subnet is free.
    """
    subnet = _free_subnet([*taken, *known_networks()])
    _load(rules(interface, str(subnet[2])))
    if read_sysctl(_FORWARD) == "0":
        _load(f"table ip {_FORWARDED} {{\n}}\n")
        write_sysctl(_FORWARD, "1")
    return subnet


def admit(index: int, address: Any) -> None:
    """Give the end of the wire its address, and set it up; runs in the namespace."""
    with NetlinkSocket() as netlink:
        up = messages.set_link(index, up=True), "set the uplink up outside"
        netlink.request([up, (messages.add_address(index, address), f"give {address} to the uplink outside")])


def known_networks() -> list[Any]:
    """The networks of the addresses and routes of the calling thread's namespace, but the default routes."""
    with NetlinkSocket() as netlink:
        known = [item.ip.network for item in read_addresses(netlink)]
        known += [route.destination for route in read_routes(netlink)]
    return [network for network in known if network.prefixlen]


def _free_subnet(taken: Iterable[Any]) -> IPv4Network:
    others = {network for network in taken if isinstance(network, IPv4Network)}
    for pool in _POOLS:
        for subnet in pool.subnets(new_prefix=30):
            if not any(subnet.overlaps(other) for other in others):
                return subnet
    words = " or ".join(map(str, _POOLS))
    raise StartFailed(
        f"no subnet of {words} is free for the uplink: the outside, the node or its lab knows all of them"
    )


def _load(ruleset: str) -> None:
    process.run([NFT.path(), "-f", "/dev/stdin"], input=ruleset)


def _undo(interface: str) -> None:
    """Take away what `prepare` and `admit` made; runs in the namespace."""
    with NetlinkSocket() as netlink:
        if there := read_interfaces(netlink, fresh=False).get(interface):  # the wire may be ending
            with suppress(OSError):  # the node's namespace may be ending, and the wire with it
                netlink.request([(messages.delete_link(there.index), f"delete {interface}")])
    listed = process.run([NFT.path(), "list", "tables", "ip"]).stdout.split()
    if interface in listed:
        _load(f"delete table ip {interface}\n")
        listed.remove(interface)
    if _FORWARDED in listed and not any(name.startswith(PREFIX) for name in listed):
        write_sysctl(_FORWARD, "0")
        _load(f"delete table ip {_FORWARDED}\n")


def forget(namespace: int, interface: str) -> None:
    """Undo an uplink's changes, be it in another process than made them; nothing where the namespace is gone.

    Args:
        namespace: its number.
        interface: the uplink's end there.
    """
    fd = _find(namespace)
    if fd is None:
        return
    try:
        with inside(fd) as outside:
            outside.call_whole(_undo, interface)
    finally:
        os.close(fd)


def _find(number: int) -> int | None:
    """A descriptor of a network namespace, by its number: this thread's own, one with a name, one of a process."""
    own = [f"/proc/{os.getpid()}/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    for path in ["/proc/thread-self/ns/net", *own, *glob.glob("/run/netns/*"), *glob.glob("/proc/[0-9]*/ns/net")]:
        try:
            if os.stat(path).st_ino == number and _is_namespace(path):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return None


def _is_namespace(path: str) -> bool:
    return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
