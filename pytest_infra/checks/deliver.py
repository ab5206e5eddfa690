"""Flows through a load balancer, and which worker got each of their packets or connections."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from ..core.errors import BadInput
from ..core.node import Node
from ..packet.fields import PROTOCOLS
from ..packet.packet import Packet
from ..packet.probe import Bench
from .arguments import check_count
from .balance import NOBODY, Delivery

__all__ = ["connect_flows", "send_flows"]

_ANSWER_S = 5.0
_MOST_ANSWER = 1 << 16


def send_flows(bench: Bench, port: str, flows: Sequence[Packet], *, each: int = 4) -> list[Delivery]:
    """Send some packets of each flow right behind each other; who got each, in the order of arrival.

    Args:
        bench: the wires around the balancer; the workers are its other ports.
        port: the balancer's port to send into.
        flows: a packet of each flow.
        each: how many packets of each flow.

    Raises:
        BadInput: no flows, or a port that the bench has no wire to.
        SentinelLost: the balancer does not deliver the sentinel.
    """
    if not flows:
        raise BadInput("no flows; give a packet of each")
    probes = [(port, packet) for packet in flows for _ in range(check_count(each))]
    fates = bench.send(probes)
    seen = [
        (fate.turn, Delivery(_flow(packet), number, ", ".join(fate.ports) or NOBODY))
        for number, ((_, packet), fate) in enumerate(zip(probes, fates, strict=True))
    ]
    return [delivery for _, delivery in sorted(seen, key=lambda item: item[0])]


def _flow(packet: Packet) -> str:
    protocol = next((name for name, number in PROTOCOLS.items() if number == packet.proto), packet.proto)
    return f"{protocol} {packet.src} {packet.sport} > {packet.dst} {packet.dport}"


def connect_flows(
    client: Node,
    address: str,
    port: int,
    sources: Sequence[str],
    *,
    each: int = 3,
    request: bytes = b"",
    worker: Callable[[bytes], str] = lambda answer: answer.decode(errors="replace").strip(),
) -> list[Delivery]:
    """Open TCP connections to a balancer from several addresses, which are the flows; who answered each.

    Args:
        client: the node that has all of these addresses.
        address: the balancer's address.
        port: its port.
        sources: the addresses to connect from.
        each: how many connections from each, one round after the other.
        request: what is sent first.
        worker: makes a worker's name of all that was answered until the connection ended.

    Raises:
        BadInput: no addresses, or one that the client does not have.
    """
    if not sources:
        raise BadInput("no addresses to connect from; each is a flow")
    rounds = [source for _ in range(check_count(each)) for source in sources]
    answers = client.call(lambda: [_ask(source, (address, port), request) for source in rounds])
    names = [NOBODY if answer is None else worker(answer) for answer in answers]
    return [Delivery(source, number, name) for number, (source, name) in enumerate(zip(rounds, names, strict=True))]


def _ask(source: str, target: tuple[str, int], request: bytes) -> bytes | None:
    """The whole answer; None where there is none."""
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as sock:
        try:
            sock.bind((source, 0))
        except OSError as error:
            raise BadInput(f"cannot connect from {source}: {error.strerror}; the client must have it") from error
        sock.settimeout(_ANSWER_S)
        answer = b""
        try:
            sock.connect(target)
            sock.sendall(request)
            while len(answer) < _MOST_ANSWER and (part := sock.recv(4096)):
                answer += part
        except OSError:
            return None
    return answer or None
