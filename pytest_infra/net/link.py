"""`Link`: a wire between two ports."""

from __future__ import annotations

from ..core.resource import Facts
from .port import Port

__all__ = ["Link"]


class Link:
    """A wire between two ports: a veth pair (veth(4)).

    Args:
        a: one end.
        b: the other end.
        switch_ports: the ends that are a switch's: `down` takes only these down, as a pulled plug does, and the
            host sees the carrier go while its own interface stays up.
    """

    def __init__(self, a: Port, b: Port, switch_ports: tuple[Port, ...]) -> None:
        self.a = a
        self.b = b
        self._taken_down = switch_ports or (a, b)
        a.link = b.link = self

    def __repr__(self) -> str:
        return f"<Link {self}>"

    def __str__(self) -> str:
        return f"{self.a} -- {self.b}"

    @property
    def ports(self) -> tuple[Port, Port]:
        """Both ends."""
        return self.a, self.b

    @property
    def declared_at(self) -> str:
        """The line of the test that made it."""
        return self.a.declared_at

    @property
    def carrier(self) -> bool:
        """Whether both ends have a signal now."""
        return self.a.carrier and self.b.carrier

    def down(self) -> None:
        """Cut the wire: the switch's end goes down, between two hosts both ends."""
        for port in self._taken_down:
            port.down()

    def up(self) -> None:
        """Mend the wire: every end is up and has its addresses and routes again when this returns."""
        for port in self.ports:
            port.set_state(True)
        for port in self.ports:
            port.restore(port)

    def describe(self) -> Facts:
        """Both ends as the lab planned them."""
        ends = [
            {
                "node": port.node.name,
                "port": port.name,
                "mac": port.mac,
                "mtu": port.mtu,
                "addresses": [str(ip) for ip in port.planned or ()],
            }
            for port in self.ports
        ]
        return {"a": str(self.a), "b": str(self.b), "ends": ends, "declared_at": self.declared_at}
