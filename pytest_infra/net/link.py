"""`Link`: a wire between two ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..core.errors import BadInput, InfraError
from ..core.resource import Facts
from .impairment import Impairment, parse_impairment
from .port import Port

__all__ = ["Impaired", "Link"]


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
        self.impairments: dict[Port, Impairment] = {}
        """What happens to the frames that each end sends; an end that is not here is not impaired."""
        self.way = ""
        """How it is impaired, where a test insists: one of `net.impair.WAYS`."""
        self.ways: dict[Port, str] = {}
        """How each end is impaired now."""
        self.apply: Callable[[Link], None]
        self._asked: dict[Port, dict[str, Any]] = {}
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

    def impair(
        self,
        *,
        rate: str | float | None = None,
        delay: str | float | None = None,
        jitter: str | float | None = None,
        loss: str | float | None = None,
        reorder: str | float | None = None,
        duplicate: str | float | None = None,
        corrupt: str | float | None = None,
        toward: object = None,
        way: str | None = None,
    ) -> Impaired:
        """Impair the link from now on, in both directions; what is not given stays as it is, and 0 takes it away.

        In a ``with`` statement the link is afterwards as it was before.

        Args:
            rate: the most bits per second of layer 2 (``"50 Mbit/s"``): frames without preamble and check sequence.
            delay: how much later each frame arrives, in each direction: a round trip takes twice that.
            jitter: each delay is drawn from `delay` less to plus this, all values alike.
            loss: the part of the frames that is lost (``"5 %"`` or 0.05), each by chance.
            reorder: the part that is not delayed, and so overtakes others.
            duplicate: the part that arrives twice.
            corrupt: the part in which one bit is wrong.
            toward: one end's node: only what goes to it is impaired.
            way: ``"netem"``, ``"tbf"``, ``"bpf"`` or ``"relay"``, for a test that compares them; chosen by default.

        Raises:
            BadInput: a value that cannot be used, or a node that is no end of the link.
            Unavailable: the machine lacks what it takes.
        """
        before = dict(self._asked), self.way
        values = {"rate": rate, "delay": delay, "jitter": jitter, "loss": loss}
        values |= {"reorder": reorder, "duplicate": duplicate, "corrupt": corrupt}
        self.ask(values, toward, way)
        try:
            self.a.node.observe()
            self.apply(self)
        except BaseException:
            with suppress(InfraError):
                self.reset(*before)
            raise
        return Impaired(self, *before)

    def ask(self, values: Mapping[str, Any], toward: object = None, way: str | None = None) -> None:
        """Record an impairment; nothing is recorded when a value cannot be used."""
        if way is not None and way not in (allowed := ("netem", "tbf", "bpf", "relay")):
            raise BadInput(f"way {way!r} is not known; allowed are {', '.join(map(repr, allowed))}")
        ends = [port for port in self.ports if toward is None or port.peer.node is toward]
        if not ends:
            raise BadInput(f"toward {toward!r} is no end of {self}; give one of its two nodes")
        given = {name: value for name, value in values.items() if value is not None}
        asked = {port: {**self._asked.get(port, {}), **given} for port in ends}
        self.impairments |= {port: parse_impairment(mine) for port, mine in asked.items()}
        self._asked |= asked
        self.way = self.way if way is None else way

    def clear(self) -> None:
        """Take all impairments away; frames that wait are lost."""
        self.reset({}, "")

    def reset(self, asked: Mapping[Port, dict[str, Any]], way: str) -> None:
        """Impair the link as was asked for once, and no more."""
        self._asked, self.way = dict(asked), way
        self.impairments = {port: parse_impairment(mine) for port, mine in self._asked.items()}
        self.a.node.observe()
        self.apply(self)

    def describe(self) -> Facts:
        """Both ends as the lab planned them, and what the frames that they send suffer."""
        ends = [
            {
                "node": port.node.name,
                "port": port.name,
                "mac": port.mac,
                "mtu": port.mtu,
                "addresses": [str(ip) for ip in port.planned or ()],
                **self._impairment(port),
            }
            for port in self.ports
        ]
        return {"a": str(self.a), "b": str(self.b), "ends": ends, "declared_at": self.declared_at}

    def _impairment(self, port: Port) -> Facts:
        wanted = self.impairments.get(port)
        if not wanted:
            return {}
        return {"impairment": {**wanted.describe(), "text": str(wanted), "way": self.ways.get(port, "")}}


class Impaired:
    """A link that is impaired, for a ``with`` statement at whose end it is as it was before."""

    def __init__(self, link: Link, asked: Mapping[Port, dict[str, Any]], way: str) -> None:
        self._link, self._asked, self._way = link, asked, way

    def __enter__(self) -> Link:
        return self._link

    def __exit__(self, *exc: object) -> None:
        self._link.reset(self._asked, self._way)
