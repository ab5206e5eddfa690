"""A classifier as nftables rules in the forward hook of a Linux bridge (nft(8), family bridge)."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import BadInput, StartFailed
from ..core.process import Completed, run
from ..core.requirement import Command
from ..net.bridge import LinuxBridge
from .classifier import Classifier
from .device import demand_matches
from .ingress import IngressDevice
from .install_nft import NFT, SENTINEL_MATCH, decide_chain, read_counters, table

__all__ = ["FORWARD", "IPROUTE", "NftBridge", "accept_or_drop"]

FORWARD = "forward"
"""The class of the packets that a device lets pass; where to is not the rules' concern."""
IPROUTE = Command(
    "bridge",
    purpose="a Linux bridge as a classifier",
    packages={"apt": "iproute2", "dnf": "iproute", "pacman": "iproute2", "apk": "iproute2"},
)


class NftBridge:
    """A Linux bridge with nftables as a device: a filter, which lets frames pass (the class ``"forward"``) or not.

    Its ports learn no addresses from now on, so that every frame that passes goes to all other ports, and what the
    MAC table knows has no part in a verdict.

    Args:
        bridge: the bridge.

    Raises:
        Unavailable: nft or iproute2 is not installed.
    """

    matches = IngressDevice.matches
    shows = ()
    outputs = (FORWARD,)
    window = 128

    def __init__(self, bridge: LinuxBridge) -> None:
        NFT.demand()
        bridge.observe()
        self.bridge = bridge
        self.name = f"nftables of bridge {bridge.name}"
        self.wires = {port.name: port.peer for port in bridge.ports}
        self.ports = tuple(self.wires)
        self.classes = dict.fromkeys(self.ports, FORWARD)
        self.installed: Classifier | None = None
        for port in self.ports:
            self._run([IPROUTE.path(), "link", "set", "dev", port, "learning", "off", "hairpin", "on"])

    def _run(self, argv: Sequence[str], script: str | None = None) -> Completed:
        done = self.bridge.namespace.call(run, list(argv), input=script, check=False)
        if done.returncode != 0:
            raise StartFailed(f"{' '.join(argv)} in the namespace of {self.bridge.name}: {done.stderr.strip()}")
        return done

    def install(self, classifier: Classifier) -> None:
        """Replace the rules, in one transaction.

        Raises:
            Unavailable: a rule needs what it cannot do.
            BadInput: a rule sends packets to something else than ``"forward"``.
        """
        demand_matches(self.name, classifier, self.matches, ("mark", "police"))
        # A frame comes back by its own port only if it is a sentinel: hairpin mode is on for that.
        back = [f'iifname "{port}" oifname "{port}" drop' for port in self.ports]
        decide = decide_chain(classifier, accept_or_drop, [f"{SENTINEL_MATCH} accept", *back])
        hook = "chain forward { type filter hook forward priority 0; policy drop; goto decide; }"
        self._run([NFT.path(), "-f", "-"], table("bridge", decide, [hook]))
        self.installed = classifier

    def counters(self) -> dict[str, int]:
        """How often each rule has decided: once for each port that the frame would leave by."""
        assert self.installed is not None, "install rules first"
        return read_counters(self._run, "bridge", self.installed)


def accept_or_drop(name: str | None) -> str:
    """The verdict of a filter.

    Raises:
        BadInput: a destination of its own.
    """
    if name not in (None, FORWARD):
        raise BadInput(f"no port or class {name!r} to send packets to; a filter has only {FORWARD!r}")
    return "drop" if name is None else "accept"
