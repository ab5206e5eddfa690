"""OpenFlow as methods of a switch: flows, groups, meters, checked before they are sent (ovs-ofctl(8))."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.caller import caller_line
from ..core.errors import BadInput
from ..core.units import rate_bps, size_bytes
from .ovs_check import check_described, numbered, sent

if TYPE_CHECKING:
    from .ovs_instance import OvsInstance
    from .port import Port

__all__ = ["Bucket", "GroupCounters", "GroupKind", "MeterCounters", "OvsOpenFlow", "parse_groups", "parse_meters"]

GroupKind = Literal["all", "select", "indirect", "fast_failover"]
_KINDS = {"all": "all", "select": "select", "indirect": "indirect", "fast_failover": "ff"}
_LAST_GROUP, _LAST_METER = 0xFFFFFF00, 0xFFFF0000


@dataclass(frozen=True)
class Bucket:
    """What a group does with a packet, where it chooses this bucket (OpenFlow 1.5, section 5.10)."""

    actions: str
    """As in a flow: ``"output:sw1-p2"``."""
    weight: int | None = None
    """The share of a ``select`` group's packets: 1 where none is given."""
    watch_port: str | None = None
    """The port that has to be up, in a ``fast_failover`` group; the one that it outputs to by default."""


@dataclass(frozen=True)
class GroupCounters:
    """What a group and its buckets have counted."""

    number: int
    packets: int
    bytes: int
    buckets: tuple[int, ...]
    """Packets of each bucket, in order."""


@dataclass(frozen=True)
class MeterCounters:
    """What a meter has counted."""

    number: int
    packets: int
    """Those that came to it."""
    bytes: int
    dropped_packets: int
    """Those above the rate."""
    dropped_bytes: int


_OWN_ARGUMENT = re.compile(r"\b(priority|table|cookie|idle_timeout|hard_timeout)\s*=")


class OvsOpenFlow:
    """The part of an Open vSwitch bridge that speaks OpenFlow."""

    name: str
    ports: list[Port]
    instance: OvsInstance
    metered: Mapping[int, str] = {}  # replaced, never changed
    """The meters that were added, with their rates as they were asked for."""
    _settle: Callable[[], None]
    _openflow: Callable[..., str]
    _numbers: Callable[[], dict[str, int]]
    _versions: str

    def flow(
        self,
        match: str,
        actions: str,
        *,
        priority: int = 32768,
        table: int = 0,
        idle_timeout_s: int = 0,
        hard_timeout_s: int = 0,
        cookie: int = 0,
    ) -> None:
        """Add a flow, checked first: ``sw1.flow("tcp,tcp_dst=80", "output:sw1-p2", priority=100)``.

        Args:
            match: the fields (ovs-fields(7)), ports by name; an empty string for every packet.
            actions: what happens to such a packet (ovs-actions(7)).
            priority: 0 to 65535; of two flows that match, the higher one decides.
            table: 0 to 254.
            idle_timeout_s: it goes after so many seconds without a packet; 0 for never.
            hard_timeout_s: it goes after so many seconds; 0 for never.
            cookie: a number that `flows` shows.

        Raises:
            BadInput: the text names the part that is wrong, and the line that declared it.
        """
        what = f"flow {match!r} of {self.name} (declared at {caller_line()})"
        if own := _OWN_ARGUMENT.search(match):
            raise BadInput(f"{what}: {own[1]} is no part of the match, it has an argument of its own")
        if not actions.strip(" ,"):
            raise BadInput(f"{what} has no actions; write 'drop' where it shall drop packets")
        head = [f"table={table}", f"priority={priority}"]
        head += [f"cookie={cookie:#x}"] if cookie else []
        head += [f"idle_timeout={idle_timeout_s}"] if idle_timeout_s else []
        head += [f"hard_timeout={hard_timeout_s}"] if hard_timeout_s else []
        text = ",".join([*head, *([match] if match else []), f"actions={actions}"])
        self._add("flow", f"{match or 'any packet'} -> {actions}", text)

    def group(self, number: int, kind: GroupKind, buckets: Sequence[Bucket | str], *, hash: str = "") -> None:
        """Add a group, which a flow names as ``group:NUMBER``.

        Args:
            number: 0 to 4294967040.
            kind: ``all`` (a copy to each bucket), ``select`` (one of them, by a hash of the flow), ``indirect`` (the
                only one), ``fast_failover`` (the first whose port is up).
            buckets: actions, or `Bucket` where there is more to say.
            hash: the fields that a ``select`` group hashes, ``"ip_src,tcp_src"``; Open vSwitch's choice by default.

        Raises:
            BadInput: the text names the part that is wrong, and the line that declared it.
        """
        if kind not in _KINDS:
            raise BadInput(f"no kind of group {kind!r}; there are {', '.join(_KINDS)}")
        _in_range("group", number, 0, _LAST_GROUP)
        if isinstance(buckets, str) or not buckets:
            raise BadInput(f"a group needs a list of buckets; got {buckets!r}")
        chosen = [Bucket(item) if isinstance(item, str) else item for item in buckets]
        parts = [f"group_id={number}", f"type={_KINDS[kind]}"]
        parts += [f"selection_method=hash,fields({hash})"] if hash else []
        parts += [_bucket(kind, item) for item in chosen]
        self._add("group", f"{number} ({kind})", ",".join(parts))

    def meter(self, number: int, rate: str | float, *, burst: str | int | None = None) -> None:
        """Add a meter that drops what is above a rate, which a flow names as ``meter:NUMBER``.

        Args:
            number: 1 to 4294901760.
            rate: ``"10 Mbit/s"`` or bit/s of the frames (L2, without preamble and gap), or ``"1000 packets/s"``.
            burst: what may pass at once: ``"64 KiB"`` or bytes, packets where the rate is in packets; a tenth of a
                second's worth by default.

        Raises:
            BadInput: a number, rate or burst that cannot be used.
        """
        _in_range("meter", number, 1, _LAST_METER)
        packets = re.fullmatch(r"\s*(\d+)\s*(?:packets?/s|pps)\s*", rate) if isinstance(rate, str) else None
        if packets:
            unit, value = "pktps", int(packets[1])
            size = max(1, value // 10) if burst is None else int(burst)
        else:
            bits = rate_bps(rate)
            unit, value = "kbps", round(bits / 1000)
            size = max(1, round(bits / 10_000)) if burst is None else max(1, round(size_bytes(burst) * 8 / 1000))
        if value < 1:
            raise BadInput(f"meter {number}: rate {rate!r} is below 1 kbit/s, the least that a meter has")
        text = f"meter={number},{unit},burst,stats,bands=type=drop,rate={value},burst_size={size}"
        self._add("meter", f"{number} ({rate})", text)
        self.metered = {**self.metered, number: str(rate)}

    def _add(self, kind: str, shown: str, text: str) -> None:
        what = f"{kind} {shown!r} of {self.name} (declared at {caller_line()})"
        self._settle()
        numbers = self._numbers()
        text = numbered(text, numbers)
        if kind != "meter":  # ovs-ofctl parses none without a switch
            command = ["-O", "OpenFlow15", f"parse-{kind}", text]
            check_described(what, text, numbers, lambda: self.instance.tool("ovs-ofctl", command, check=False))
        sent(what, numbers, lambda: self._openflow(f"add-{kind}", text))
        self.instance.settle_datapath()

    @property
    def groups(self) -> list[GroupCounters]:
        """The groups and what they have counted so far."""
        self._settle()
        self.instance.settle_datapath()
        return parse_groups(self._openflow("dump-group-stats"))

    @property
    def meters(self) -> list[MeterCounters]:
        """The meters and what they have counted so far."""
        self._settle()
        self.instance.settle_datapath()
        return parse_meters(self._openflow("meter-stats"))


def _in_range(what: str, number: int, first: int, last: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not first <= number <= last:
        raise BadInput(f"{what} {number!r} cannot be used; allowed are {first} to {last}")


def _bucket(kind: str, bucket: Bucket) -> str:
    parts = ["bucket=" + (f"weight:{bucket.weight}" if bucket.weight is not None else "")]
    if kind == "fast_failover":
        output = re.search(r"\boutput:\"?([^,\"\s]+)", bucket.actions)
        watched = bucket.watch_port or (output[1] if output else None)
        if watched is None:
            raise BadInput(f"the bucket {bucket.actions!r} outputs to no port: name the one it watches, watch_port=")
        parts.append(f"watch_port:{watched}")
    parts.append(f"actions={bucket.actions}")
    return parts[0] + ",".join(parts[1:]) if parts[0] == "bucket=" else ",".join(parts)


def parse_groups(text: str) -> list[GroupCounters]:
    """Groups from the output of ``ovs-ofctl dump-group-stats``."""
    found = []
    for line in text.splitlines():
        if head := re.search(r"group_id=(\d+).*?packet_count=(\d+),byte_count=(\d+)", line):
            buckets = tuple(int(count) for count in re.findall(r"bucket\d+:packet_count=(\d+)", line))
            found.append(GroupCounters(int(head[1]), int(head[2]), int(head[3]), buckets))
    return found


def parse_meters(text: str) -> list[MeterCounters]:
    """Meters from the output of ``ovs-ofctl meter-stats``."""
    found = []
    for block in re.split(r"(?=meter:\d)", text)[1:]:
        head = re.match(r"meter:(\d+).*?packet_in_count:(\d+) byte_in_count:(\d+)", block, re.DOTALL)
        bands = re.findall(r"\d+: packet_count:(\d+) byte_count:(\d+)", block)
        if head:
            packets, size = sum(int(band[0]) for band in bands), sum(int(band[1]) for band in bands)
            found.append(MeterCounters(int(head[1]), int(head[2]), int(head[3]), packets, size))
    return found
