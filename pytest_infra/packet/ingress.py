"""What devices have in common that classify at the ingress of a node's interfaces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.errors import BadInput
from .classifier import Classifier
from .device import demand_matches

__all__ = ["IngressDevice"]


class IngressDevice:
    """A node whose interfaces are the ports of a classifier; a packet's verdict is seen by sending it.

    Args:
        node: the node.
        outputs: the ports that classes stand for; a port stands for itself.

    Raises:
        BadInput: a class stands for a port that the node lacks.
    """

    what: ClassVar[str]
    """What classifies there."""
    actions: ClassVar[tuple[str, ...]] = ()
    """Which of ``queue``, ``mark`` and ``police`` its rules can do."""
    sets: ClassVar[tuple[str, ...]] = ()
    """The header fields that its rules can set."""
    matches: ClassVar[tuple[str, ...]] = (
        *("in_port", "eth_src", "eth_dst", "eth_type", "vlan", "pcp", "src", "dst", "proto", "dscp"),
        *("sport", "dport", "tcp_flags", "icmp_type", "icmp_code"),
    )
    window = 512

    def __init__(self, node: Any, outputs: Mapping[str, str] | None = None) -> None:
        self.node = node
        self.name = f"{self.what} of {node.name}"
        self.wires = {port.name: port.peer for port in node.ports}
        self.ports = tuple(self.wires)
        self._outputs = {**{name: name for name in self.ports}, **(outputs or {})}
        self.outputs = tuple(outputs or self.ports)
        self.classes = {port: name for name, port in self._outputs.items()}
        self.installed: Classifier | None = None
        if unknown := [port for port in self._outputs.values() if port not in self.ports]:
            raise BadInput(f"{node.name} has no port {', '.join(unknown)}; it has {', '.join(self.ports)}")

    def install(self, classifier: Classifier) -> None:
        """Replace the rules.

        Raises:
            Unavailable: a rule needs what it cannot do exactly; nothing has been changed.
            BadInput: a rule sends packets to no port or class of the node.
        """
        demand_matches(self.name, classifier, self.matches, self.actions, self.sets)
        self._write(classifier)
        self.installed = classifier

    @abstractmethod
    def _write(self, classifier: Classifier) -> None:
        """Put the rules where packets come in."""
