"""Which VLANs a switch's port carries (IEEE 802.1Q): access, trunk, native; pure data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..core.errors import BadInput

__all__ = ["UNTAGGED", "VlanMembership", "check_vlans"]

UNTAGGED = 0
"""The VLAN of frames that have no tag, at ports to which no VLAN was given."""

_FIRST, _LAST = 1, 4094  # IEEE 802.1Q, section 9.6: 0 is a priority tag, 4095 is reserved


@dataclass(frozen=True)
class VlanMembership:
    """The VLANs of a port."""

    access: int | None = None
    """Frames have no tag on the wire and are in this VLAN inside."""
    trunk: tuple[int, ...] | None = None
    """Frames of these VLANs have a tag on the wire; an empty tuple for all of them, None for no trunk."""
    native: int | None = None
    """The VLAN of a trunk whose frames have no tag on the wire."""

    def inside(self, tag: int) -> int | None:
        """The VLAN inside the switch of a frame that has this tag on the wire (`UNTAGGED` for none); None: dropped."""
        if self.access is not None:
            return self.access if tag == UNTAGGED else None
        assert self.trunk is not None
        if tag == UNTAGGED:
            return self.native if self.native is not None else (None if self.trunk else UNTAGGED)
        if tag == self.native:
            return None
        return tag if not self.trunk or tag in self.trunk else None

    def named(self) -> set[int]:
        """The VLANs that it names."""
        return {vlan for vlan in (self.access, self.native, *(self.trunk or ())) if vlan is not None}

    def __str__(self) -> str:
        if self.access is not None:
            return f"access VLAN {self.access}"
        which = ", ".join(map(str, self.trunk or ())) or "all"
        return f"trunk of VLANs {which}" + (f", native {self.native}" if self.native is not None else "")


def check_vlans(
    vlan: int | None, trunk: Iterable[int] | Literal["all"] | None, native: int | None
) -> VlanMembership | None:
    """What ``lab.link`` takes, checked; None where it names no VLAN.

    Raises:
        BadInput: a VLAN that does not exist, or arguments that contradict each other.
    """
    if vlan is None and trunk is None and native is None:
        return None
    if vlan is not None:
        if trunk is not None or native is not None:
            raise BadInput("a link is either access (vlan=) or a trunk (trunk=, native=), not both")
        return VlanMembership(access=_vlan("vlan", vlan))
    if trunk is None:
        raise BadInput("native= is the VLAN of a trunk whose frames have no tag: name the trunk's VLANs too, trunk=")
    chosen: tuple[int, ...] = ()
    if trunk != "all":
        if isinstance(trunk, str) or not isinstance(trunk, Iterable):
            raise BadInput(f"trunk is a list of VLANs, such as [10, 20], or 'all'; got {trunk!r}")
        chosen = tuple(dict.fromkeys(_vlan("trunk", item) for item in trunk))
        if not chosen:
            raise BadInput("a trunk needs a VLAN at least; 'all' stands for all of them")
    return VlanMembership(trunk=chosen, native=None if native is None else _vlan("native", native))


def _vlan(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not _FIRST <= value <= _LAST:
        raise BadInput(f"{name} {value!r} is no VLAN; allowed are {_FIRST} to {_LAST} (IEEE 802.1Q)")
    return value
