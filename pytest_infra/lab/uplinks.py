"""`LabUplinks`: the part of a lab that leads out of it."""

from __future__ import annotations

import os
from typing import Any

from ..core.caller import caller_line
from ..core.errors import BadInput
from ..core.node import IPNetwork
from ..net.host import Host
from ..net.uplink import Uplink, check_outside, choose_way
from .base import LabBase

__all__ = ["LabUplinks"]


class LabUplinks(LabBase):
    """The part of a lab that leads out of it."""

    def uplink(
        self, node: Host, *, outside: Host | str | os.PathLike[str] | None = None, via: str | None = None
    ) -> None:
        """Let a node reach the outside; without this nothing leaves a lab.

        The node gets an interface ``uplink`` and its default route; its routes in the lab stay. What it forwards for
        others does not go out. By ``masquerade`` a wire, rules of nftables and, where it was off, forwarding are added
        outside: they are written to the lease, and go with the lab, however it ends. The processes change nothing
        outside, and need no root.

        Args:
            node: a host or router of the lab.
            outside: a host, of another lab for instance, or the path of a network namespace; the machine's by default.
            via: ``pasta``, ``slirp4netns`` or ``masquerade`` (IPv4 only); the first one that is installed by default.

        Raises:
            BadInput: the node is not of this lab, is no host, or has an uplink; an outside or a way that cannot be.
            Unavailable: the program is not installed, or this process may not change the outside.
        """
        self._check_mine(node)
        if not isinstance(node, Host):
            raise BadInput(f"{node!r} cannot have an uplink: a host or router is wanted")
        check_outside(outside)
        if outside is node:
            raise BadInput(f"{node.name} cannot be its own outside")
        if node.uplink:
            raise BadInput(f"{node.name} has an uplink already")
        if any(port.name == "uplink" for port in node.ports):
            raise BadInput(f"{node.name} has an interface 'uplink' already; give that one another name")
        node.uplink = choose_way(via)
        options: dict[str, Any] = {"entrance": self._services.entrance, "lease": self._lease}
        options |= {"networks": self._networks, "declared_at": caller_line()}
        self._new_late.append(Uplink(node, outside, node.uplink, **options))

    def _networks(self) -> list[IPNetwork]:
        """The networks of all planned addresses."""
        return [ip.network for link in self.links for port in link.ports for ip in port.planned or ()]
