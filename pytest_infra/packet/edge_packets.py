"""`edges`: for every rule the packets on its edges and just outside them; exact, not random."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .auditing import packet_in, within_ports
from .box import Box, witness
from .classifier import Classifier
from .fields import FIELDS, IPV4, IPV6
from .packet import Packet

__all__ = ["edges", "values_on_edges"]

_FAMILY = {"ip4_src": IPV4, "ip4_dst": IPV4, "ip6_src": IPV6, "ip6_dst": IPV6}
_NEAR_TYPES = (IPV4, IPV6, 0x0806, 0x88B5)


def edges(classifier: Classifier) -> list[Packet]:
    """The packets that tell a classifier from one that is off by one anywhere.

    For every rule, every field that it names, and each end of its range, there is a packet just inside and one just
    outside that no earlier rule takes, where there are such packets at all.
    """
    boxes = classifier.boxes
    found: dict[Packet, None] = {}
    for place, mine in enumerate(boxes):
        taken = [box for others in boxes[:place] for box in others]
        found |= dict.fromkeys(_untaken(classifier, (moved for box in mine for moved in _around(box)), taken))
    found |= dict.fromkeys(_untaken(classifier, [{}], [box for others in boxes for box in others]))
    return list(found)


def _untaken(classifier: Classifier, boxes: Iterable[Box], taken: Sequence[Box]) -> Iterator[Packet]:
    """A packet in each of the boxes that is in none of those taken, where there is one."""
    for box in boxes:
        possible = within_ports(classifier, box)
        if possible is not None and (left := witness(possible, taken)) is not None:
            yield packet_in(classifier, left)


def _around(box: Box) -> Iterator[Box]:
    yield box
    for name, (low, high) in box.items():
        for value in values_on_edges(name, low, high):
            moved = {**box, name: (value, value)}
            if name == "eth_type":  # the fields of another family are not there
                moved = {field: limits for field, limits in moved.items() if _FAMILY.get(field, value) == value}
            elif name == "proto":
                moved = {field: limits for field, limits in moved.items() if field not in _OF_TRANSPORT}
            yield moved


_OF_TRANSPORT = tuple(FIELDS)[tuple(FIELDS).index("sport") :]


def values_on_edges(name: str, low: int, high: int) -> list[int]:
    """The ends of a range, and the values just outside it that the field can have."""
    if name == "eth_type":  # EtherTypes are names and no scale: another protocol is outside
        return [low, *(value for value in _NEAR_TYPES if value != low)]
    if name == "proto":
        return [low, *(value for value in (17, 6, 253) if value != low)]
    first, last = FIELDS[name]
    return sorted({value for value in (low - 1, low, high, high + 1) if first <= value <= last})
