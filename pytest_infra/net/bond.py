"""`Bond`: several links between two Open vSwitch bridges that are one (IEEE 802.1AX, ovs-vswitchd.conf.db(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..core.errors import BadInput

if TYPE_CHECKING:
    from .link import Link

__all__ = ["BOND_MODES", "Bond", "BondMode", "BondState", "check_bond", "parse_bond"]

BondMode = Literal["active-backup", "balance-slb", "balance-tcp"]
BOND_MODES = ("active-backup", "balance-slb", "balance-tcp")


@dataclass
class Bond:
    """Several links between two switches that are one.

    A member that fails is left out, its traffic goes by the others.
    """

    number: int
    """Of its lab, from 1 on."""
    mode: BondMode
    lacp: bool
    """Whether both ends negotiate by LACP, with the short timeout (a second); else the carrier alone decides."""
    links: list[Link] = field(default_factory=list)

    def name_at(self, switch: str) -> str:
        """What it is called at one of its ends."""
        return f"{switch}-bond{self.number}"

    def columns(self, members: Sequence[str]) -> dict[str, object]:
        """The columns of table Port at the end that has these members, in the order of the links.

        Without LACP, an end of an active-backup bond drops what does not come by its own active member: both begin
        with the first link.
        """
        settings = [["lacp-time", "fast"]] if self.lacp else [["bond-primary", members[0]]]
        lacp = {"lacp": "active"} if self.lacp else {}
        return {"bond_mode": self.mode, **lacp, "other_config": ["map", settings]}


@dataclass(frozen=True)
class BondState:
    """A bond as one switch has it now."""

    mode: str
    lacp: str
    """``negotiated``, ``configured`` (not negotiated yet) or ``off``."""
    members: dict[str, bool]
    """The interfaces, and whether each of them is used."""
    active: str
    """The member for what is not balanced; empty where none is."""


def check_bond(number: int, mode: BondMode, lacp: bool, links: int) -> Bond:
    """A bond, checked.

    Raises:
        BadInput: an unknown mode, too few links, or ``balance-tcp`` without LACP.
    """
    if mode not in BOND_MODES:
        raise BadInput(f"no bond mode {mode!r}; there are {', '.join(BOND_MODES)}")
    if isinstance(links, bool) or not isinstance(links, int) or not 2 <= links <= 16:
        raise BadInput(f"a bond has 2 to 16 links; got {links!r}")
    if mode == "balance-tcp" and not lacp:
        raise BadInput("the mode balance-tcp needs LACP: both ends must know of the bond (ovs-vswitchd.conf.db(5))")
    return Bond(number, mode, lacp)


def parse_bond(text: str, members: Sequence[str]) -> BondState:
    """The state from the output of ``ovs-appctl bond/show``."""
    mode = re.search(r"^bond_mode: (\S+)", text, re.MULTILINE)
    lacp = re.search(r"^lacp_status: (\S+)", text, re.MULTILINE)
    used = dict(re.findall(r"^(?:member|slave) (\S+): (enabled|disabled)", text, re.MULTILINE))
    active = re.search(r"^(?:member|slave) (\S+): .*\n\s+active (?:member|slave)", text, re.MULTILINE)
    return BondState(
        mode=mode[1] if mode else "",
        lacp=lacp[1] if lacp else "off",
        members={name: used.get(name) == "enabled" for name in members},
        active=active[1] if active else "",
    )
