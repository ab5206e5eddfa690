"""Network cards that are no link of the lab: what they are, and how QEMU is told (QEMU's `-netdev`, qemu(1))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.naming import ip_interface

__all__ = ["MODELS", "Nic", "SocketNic", "UserNic", "VdeNic", "check_nics"]

MODELS = {"virtio-net": "virtio-net-pci", "e1000": "e1000"}
"""The cards that a guest can have, and what QEMU calls them."""
_MOST_PORT = 65535


@dataclass(frozen=True)
class Nic:
    """A network card whose other side is not a link of the lab.

    Args:
        ip: its address with its prefix length; none by default.
        model: ``"virtio-net"`` or ``"e1000"``.
    """

    kind: ClassVar[str] = "nic"
    ip: str | None = field(default=None, kw_only=True)
    model: str = field(default="virtio-net", kw_only=True)

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise BadInput(f"no network card {self.model!r}; there are {', '.join(MODELS)}")
        if self.ip is not None:
            ip_interface(self.ip)


@dataclass(frozen=True)
class UserNic(Nic):
    """QEMU's own small network: the guest reaches what the machine's side of it (``vm.outside``) reaches.

    TCP and UDP pass; ICMP does only where the emulator may open ping sockets, so do not expect a ping to come back.
    Nothing can reach the guest but by `forwards`.

    Args:
        forwards: TCP ports of 127.0.0.1 in ``vm.outside``, and the guest's ports that they lead to.
    """

    kind: ClassVar[str] = "user"
    forwards: Mapping[int, int] = field(default_factory=dict)
    ip: str | None = field(default="10.0.2.15/24", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for port in (*self.forwards.keys(), *self.forwards.values()):
            if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= _MOST_PORT:
                raise BadInput(f"port {port!r} cannot be forwarded; allowed are 1 to {_MOST_PORT}")

    def netdev(self) -> dict[str, Any]:
        """What QEMU is told."""
        forwards = [{"str": f"tcp:127.0.0.1:{outer}-:{inner}"} for outer, inner in self.forwards.items()]
        return {"type": "user", "net": "10.0.2.0/24", "ipv6": False, "hostfwd": forwards}


@dataclass(frozen=True)
class SocketNic(Nic):
    """A wire between two guests, each emulator holding one end of a socket pair: no switch, no host, no privilege.

    Only two guests can share one, and nothing else of the lab can see or join it.

    Args:
        wire: its name; the two guests that name the same one are connected.
    """

    kind: ClassVar[str] = "socket"
    wire: str = "wire"


@dataclass(frozen=True)
class VdeNic(Nic):
    """A port of a VDE switch (vde_switch(1)) of the lab's own: any number of guests can share it, but no host.

    Args:
        switch: its name; guests that name the same one are connected.
    """

    kind: ClassVar[str] = "vde"
    switch: str = "vde"


def check_nics(nics: Any) -> tuple[Nic, ...]:
    """The cards as a tuple.

    Raises:
        BadInput: one of them is none.
    """
    found = (nics,) if isinstance(nics, Nic) else tuple(nics)
    for nic in found:
        if not isinstance(nic, Nic):
            raise BadInput(f"{nic!r} is no network card; give UserNic, SocketNic or VdeNic; links come by lab.link")
    return found
