"""Making the impairments of links: by netem where the kernel has it, else by token bucket, filter or relay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ..core.errors import BadInput, Unavailable
from ..core.guard import Guard
from ..core.requirement import Absent
from . import messages
from .impairment import Impairment
from .link import Link
from .ovs_requirements import TUN
from .port import Port
from .relay import Relay
from .tc import LOSS_PREFERENCE, NETEM, TC, loss_line, netem_lines, run_tc, tbf_line

__all__ = ["WAYS", "Impairer", "choose_way"]

_NOBODYS = ("", "noqueue", "noop", "mq", "pfifo_fast", "fq_codel")  # what the kernel gives an interface by itself
_SEGMENTS = 65535  # what a new interface has
WAYS = ("netem", "tbf", "bpf", "relay")
"""What can impair a link: ``tbf``, a token bucket, does only a rate; ``bpf``, a filter beside it, also loss."""


def choose_way(impairment: Impairment, netem: bool) -> str:
    """How a direction is impaired: the simplest way that does it all."""
    if not impairment.timed and not impairment.loss:
        return "tbf" if impairment else ""
    if netem:
        return "netem"
    return "relay" if impairment.timed else "bpf"


def _demand(way: str) -> None:
    """Raise `Unavailable` where the machine lacks what a way needs."""
    TC.demand()
    if way == "netem":
        NETEM.demand()
    elif way == "relay" and isinstance(netem := NETEM.probe(), Absent) and isinstance(tun := TUN.probe(), Absent):
        raise Unavailable("netem", f"{netem.why}; and no relay can do it instead: {tun.why}", netem.remedy)


class Impairer:
    """Impairs the links of one lab.

    Args:
        guard: gives the lab's guard.
        stack: ends with the lab.
        links: all links of the lab.
    """

    def __init__(self, guard: Callable[[], Guard], stack: ExitStack, links: Sequence[Link]) -> None:
        self._guard = guard
        self._stack = stack
        self._links = links
        self._relays: dict[Port, Relay] = {}
        self._queued: set[Port] = set()  # those whose root qdisc is ours
        self._filtered: set[Port] = set()  # those whose clsact qdisc is ours
        self._single: set[Port] = set()  # those that send frames one by one

    def apply(self, link: Link) -> None:
        """Make a link, which is up, what its `impairments` say.

        Raises:
            Unavailable: the machine lacks what it takes.
            CommandFailed: the kernel refused it.
        """
        for port in link.ports:
            wanted = link.impairments.get(port, Impairment())
            way = _way(link.way, wanted)
            if way != (before := link.ways.pop(port, "")) and before:
                self._clear(port, before)
            if way:
                _demand(way)
                link.ways[port] = way
                self._make(port, way, wanted)
        self._one_by_one(any(_by_chance(one) for one in self._links))

    def _make(self, port: Port, way: str, wanted: Impairment) -> None:
        if way == "relay":
            if port not in self._relays:
                self._relays[port] = self._stack.enter_context(Relay(port, self._guard))
            self._relays[port].set(wanted)
        elif way == "netem":
            self._take_root(port)
            self._tc(port, netem_lines(port.name, wanted, port.mtu))
        else:
            self._set_rate(port, wanted)
        if way == "bpf":
            self._set_loss(port, wanted.loss)

    def _set_rate(self, port: Port, wanted: Impairment) -> None:
        if wanted.rate_bps is not None:
            self._take_root(port)
            self._tc(port, [tbf_line(port.name, "root", wanted, port.mtu)])
        elif port in self._queued:
            self._tc(port, [f"qdisc del dev {port.name} root"], check=False)
            self._queued.discard(port)

    def _take_root(self, port: Port) -> None:
        """Have the root qdisc for us; one that somebody has made is not replaced."""
        if port not in self._queued and (there := port.interface.qdisc) not in _NOBODYS:
            remedy = f"tc qdisc del dev {port.name} root, in {port.node.name}"
            raise BadInput(
                f"{port} has a queueing discipline that the test made ({there}); take it away first: {remedy}"
            )
        self._queued.add(port)

    def _clear(self, port: Port, way: str) -> None:
        if way == "relay":
            self._relays.pop(port).stop()
            return
        self._set_rate(port, Impairment())
        if way == "bpf":
            self._set_loss(port, 0.0)

    def _tc(self, port: Port, lines: Sequence[str], *, check: bool = True) -> bool:
        return run_tc(self._guard, port.node.namespace, lines, check=check)

    def _set_loss(self, port: Port, loss: float) -> None:
        self._tc(port, [f"filter del dev {port.name} egress prio {LOSS_PREFERENCE}"], check=False)
        if loss:
            if self._tc(port, [f"qdisc add dev {port.name} clsact"], check=False):  # one that is there already will do
                self._filtered.add(port)
            self._tc(port, [loss_line(port.name, loss)])
        elif port in self._filtered:
            self._tc(port, [f"qdisc del dev {port.name} clsact"], check=False)
            self._filtered.discard(port)

    def _one_by_one(self, wanted: bool) -> None:
        """Whether any node may send several frames as one, of which chance would take all or none (GSO)."""
        ports = [port for link in self._links for port in link.ports if port.index]
        for port in (port for port in ports if (port in self._single) is not wanted):
            with port.node.namespace.netlink() as netlink:
                request = messages.set_link(port.index, segments=1 if wanted else _SEGMENTS)
                netlink.request([(request, f"have {port} send frames one by one")])
            (self._single.add if wanted else self._single.discard)(port)


def _by_chance(link: Link) -> bool:
    """Whether chance decides of single frames of a link, where the kernel impairs it."""
    return any(wanted.random and link.ways.get(port) != "relay" for port, wanted in link.impairments.items())


def _way(asked: str, wanted: Impairment) -> str:
    if not wanted:
        return ""
    if not asked:
        return choose_way(wanted, bool(NETEM.probe()))
    if asked in ("tbf", "bpf") and (wanted.timed or (asked == "tbf" and wanted.loss)):
        raise BadInput(f"the way {asked!r} cannot do {wanted}; 'netem' and 'relay' can")
    return asked
