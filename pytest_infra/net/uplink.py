"""`Uplink`: a node's way to the outside of the lab, made on request only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from ipaddress import ip_interface, ip_network
from typing import Any

from ..core import linux
from ..core.errors import BadInput, StartFailed, Unavailable
from ..core.guard import Guard
from ..core.lease import Lease
from ..core.process import Process
from ..core.requirement import PRIVILEGE, Command
from ..core.resource import Facts, Resource
from ..core.wait import until
from . import masquerade, messages
from .host import Host
from .namespace import Entrance
from .nft import NFT

__all__ = ["PASTA", "SLIRP", "WAYS", "Uplink", "check_outside", "choose_way"]

PASTA = Command("pasta", purpose="uplinks without root, for TCP, UDP and ICMP", packages={
    "apt": "passt", "dnf": "passt", "pacman": "passt", "apk": "passt"})  # fmt: skip
SLIRP = Command("slirp4netns", purpose="uplinks without root, where pasta is not installed", packages={
    "apt": "slirp4netns", "dnf": "slirp4netns", "pacman": "slirp4netns", "apk": "slirp4netns"})  # fmt: skip

WAYS = ("pasta", "slirp4netns", "masquerade")
"""How a node can reach the outside: by a process that opens sockets there for it, or by translated addresses."""

_INTERFACE = "uplink"
_START_S = 10.0
_REMEDY = "apt-get install passt, which needs no root"
_ONLY_ITS_OWN = f"""table inet infra-uplink {{
  chain forward {{
    type filter hook forward priority 0
    oifname "{_INTERFACE}" counter drop comment "an uplink is for the node itself"
  }}
}}
"""


def check_outside(outside: Any) -> None:
    """Look whether this can be the outside: a host, the path of a network namespace, or None for the machine.

    Raises:
        BadInput: it cannot.
    """
    if outside is None or isinstance(outside, Host):
        return
    if not isinstance(outside, str | os.PathLike) or not os.path.exists(outside):
        raise BadInput(f"outside {outside!r} is neither a host nor the path of a network namespace (/run/netns/NAME)")


def choose_way(via: str | None) -> str:
    """The way that is asked for, or the first one that is installed.

    Raises:
        BadInput: there is no such way.
        Unavailable: its program is not installed.
    """
    if via is None:
        installed = [name for name, program in (("pasta", PASTA), ("slirp4netns", SLIRP)) if program.probe()]
        return installed[0] if installed else "masquerade"
    if via not in WAYS:
        raise BadInput(f"no uplink via {via!r}; there are {', '.join(WAYS)}")
    {"pasta": PASTA, "slirp4netns": SLIRP, "masquerade": NFT}[via].demand()
    return via


class Uplink(Resource):
    """A node's interface ``uplink``, by which it reaches what is outside of its lab.

    Args:
        node: the node.
        outside: a host, the path of a network namespace, or None for the machine's.
        way: of `WAYS`.
        entrance: steps into namespaces.
        lease: where what it changes outside is written down.
        networks: gives the networks of the lab.
        declared_at: the line of the test that asked for it.
    """

    requires = (PRIVILEGE, NFT)
    kind = "uplink"

    def __init__(
        self,
        node: Host,
        outside: Any,
        way: str,
        *,
        entrance: Entrance,
        lease: Lease,
        networks: Callable[[], Iterable[Any]] = tuple,
        declared_at: str = "",
    ) -> None:
        self.node = node
        self.way = way
        self.declared_at = declared_at
        self._outside = outside
        self._entrance = entrance
        self._lease = lease
        self._networks = networks

    def __repr__(self) -> str:
        return f"<Uplink of {self.node.name} by {self.way}>"

    def describe(self) -> Facts:
        """Whose it is, and how it is done."""
        return {"name": self.node.name, "kind": self.kind, "way": self.way}

    def await_ready(self) -> None:
        """It is when it has been made."""

    def _start(self, undo: ExitStack) -> None:
        self.node.own_tables.keep("inet infra-uplink", _ONLY_ITS_OWN)
        outside = self._open(undo)
        if outside is not None and masquerade.number_of(outside) == masquerade.number_of(self.node.namespace.fd):
            raise BadInput(f"{self.node.name} cannot be its own outside (declared at {self.declared_at})")
        if self.way == "masquerade":
            self._masquerade(undo, outside)
        else:
            self._start_process(undo, outside)

    def _open(self, undo: ExitStack) -> int | None:
        """A descriptor of the namespace outside; None for the machine's, which this process is in."""
        if self._outside is None:
            return None
        if isinstance(self._outside, Host):
            self._outside.observe()
            path = f"/proc/self/fd/{self._outside.namespace.fd}"
        else:
            path = os.fspath(self._outside)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, fd)
        return fd

    # -- by a process ----------------------------------------------------------------------------------------

    def _start_process(self, undo: ExitStack, outside: int | None) -> None:
        guard = undo.enter_context(Guard(f"uplink-{self.node.name}"))
        target = self.node.namespace.fd

        def popen(argv: Any, **options: Any) -> Any:
            return guard.popen(argv, () if outside is None else (outside,), pass_fds=(target,), **options)

        child = Process(self._argv(target), where=self.node.name, popen=popen, cwd="/")
        undo.callback(child.close)

        def ready() -> bool:
            if not child.running:
                raise StartFailed(f"{self.way} for {self.node.name} ended: {child.stderr.strip()[-500:]}")
            return any(route.interface == _INTERFACE and _is_default(route) for route in self.node.routes)

        until(ready, within_s=_START_S, what=f"{self.node.name} has its uplink", last_words=lambda: child.stderr)

    def _argv(self, target: int) -> list[str]:
        path = f"/proc/self/fd/{target}"
        if self.way == "slirp4netns":
            options = ["--configure", "--mtu=1500", "--disable-host-loopback", "--netns-type=path"]
            return [SLIRP.path(), *options, path, _INTERFACE]
        ports = [word for option in ("-t", "-u", "-T", "-U") for word in (option, "none")]
        root = ["--runas", "0:0"]  # as nobody it could not open the descriptor of the namespace
        options = ["--foreground", "--config-net", "--netns-only", "--no-map-gw", "--ns-ifname", _INTERFACE]
        return [PASTA.path(), *options, *ports, *root, "--netns", path]

    # -- by masquerading ---------------------------------------------------------------------------------------

    def _masquerade(self, undo: ExitStack, outside: int | None) -> None:
        if outside is None:
            outside = linux.open_namespace("net")
            undo.callback(os.close, outside)
        try:
            self._entrance.within(outside, int)
        except PermissionError as error:
            why = "this process may not change the network outside of the lab"
            raise Unavailable("uplink", why, _REMEDY) from error
        name = f"{masquerade.PREFIX}{os.urandom(3).hex()}"
        entry = self._lease.add("uplink", namespace=masquerade.number_of(outside), interface=name)
        undo.callback(self._lease.done, entry)
        undo.callback(masquerade.forget, masquerade.number_of(outside), name)
        with masquerade.inside(outside) as thread:
            taken = [*self._networks(), *self.node.namespace.within(masquerade.known_networks)]
            subnet = thread.call_whole(masquerade.prepare, name, taken)
            index = self._entrance.next_index()
            mine = self._wire(name, index, outside)
            thread.call_whole(masquerade.admit, index, ip_interface((subnet[1], 30)))
        with self.node.namespace.netlink() as netlink:
            address = ip_interface((subnet[2], 30))
            route = messages.add_route(ip_network("0.0.0.0/0"), subnet[1], mine)
            netlink.request([
                (messages.add_address(mine, address), f"give {address} to the uplink of {self.node.name}"),
                (messages.get_link(mine), f"read the uplink of {self.node.name}"),
                (route, f"add the default route of {self.node.name} by its uplink"),
            ])  # fmt: skip

    def _wire(self, name: str, index: int, outside: int) -> int:
        """Make the wire; it goes with the node's namespace."""
        mine, number = self.node.namespace.next_index(), os.urandom(4).hex()
        macs = [":".join(["02", kind, *(number[at : at + 2] for at in (0, 2, 4, 6))]) for kind in ("0a", "0b")]
        pair = messages.add_veth(
            _INTERFACE, index=mine, mac=macs[0], mtu=1500, peer_name=name, peer_index=index, peer_mac=macs[1],
            peer_fd=outside,
        )  # fmt: skip
        with self.node.namespace.netlink() as netlink:
            netlink.request([(pair, f"make the uplink of {self.node.name}")])
        return mine


def _is_default(route: Any) -> bool:
    return route.destination is None or ip_network(str(route.destination)).prefixlen == 0
