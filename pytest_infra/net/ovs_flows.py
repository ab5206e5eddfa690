"""Flows and MAC table of an Open vSwitch bridge, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..core.errors import BadInput

__all__ = ["FdbEntry", "Flow", "parse_fdb", "parse_flows", "split_actions"]

_DEFAULT_PRIORITY = 32768  # ovs-ofctl(8): what a flow has that names none; it is not printed then
_FLAGS = {"send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts"}
_COUNTERS = {"cookie", "duration", "table", "n_packets", "n_bytes", "idle_timeout", "hard_timeout", "importance",
             "idle_age", "hard_age"}  # fmt: skip


@dataclass(frozen=True)
class Flow:
    """A flow of an OpenFlow table as the switch has it now (ovs-ofctl(8), ovs-fields(7), ovs-actions(7))."""

    table: int
    priority: int
    match: str
    """The fields it matches, such as ``icmp,in_port="sw1-p1"``; empty where it matches every packet."""
    actions: str
    """What it does, such as ``NORMAL`` or ``drop``."""
    cookie: int = 0
    packets: int = 0
    bytes: int = 0
    duration_s: float = 0.0
    """How long it has been there."""
    idle_timeout_s: int = 0
    """It goes after so many seconds without a packet; 0 for never."""
    hard_timeout_s: int = 0
    """It goes after so many seconds; 0 for never."""

    def __str__(self) -> str:
        """The flow as ovs-ofctl(8) takes it, without its counters."""
        fields = [f"table={self.table}", f"priority={self.priority}"]
        fields += [f"cookie={self.cookie:#x}"] if self.cookie else []
        fields += [f"idle_timeout={self.idle_timeout_s}"] if self.idle_timeout_s else []
        fields += [f"hard_timeout={self.hard_timeout_s}"] if self.hard_timeout_s else []
        fields += [self.match] if self.match else []
        return ",".join([*fields, f"actions={self.actions}"])


@dataclass(frozen=True)
class FdbEntry:
    """A MAC address that a switch has learned, and where."""

    port: str
    """The interface's name, or its OpenFlow port number where it has none."""
    vlan: int
    mac: str
    age_s: int | None
    """Seconds since the last frame from there; None for an entry that does not age."""


def parse_flows(text: str) -> list[Flow]:
    """Flows from the output of ``ovs-ofctl dump-flows``.

    Raises:
        BadInput: a line is not one.
    """
    return [_flow(line.strip()) for line in text.splitlines() if "actions=" in line]


def _flow(line: str) -> Flow:
    head, _, actions = line.partition("actions=")
    counters: dict[str, str] = {}
    match: list[str] = []
    for word in head.split():
        key, _, value = word.rstrip(",").partition("=")
        if key in _COUNTERS and "," not in value:
            counters[key] = value
        elif key not in _FLAGS:
            match += word.rstrip(",").split(",")
    try:
        return _made_of(counters, [item for item in match if item], actions)
    except ValueError as error:
        raise BadInput(f"not a flow as ovs-ofctl writes it: {line!r} ({error})") from error


def _made_of(counters: Mapping[str, str], match: Iterable[str], actions: str) -> Flow:
    fields = list(match)
    priority = next((int(item[9:]) for item in fields if item.startswith("priority=")), _DEFAULT_PRIORITY)
    return Flow(
        table=int(counters.get("table", "0")),
        priority=priority,
        match=",".join(item for item in fields if not item.startswith("priority=")),
        actions=actions,
        cookie=int(counters.get("cookie", "0"), 16),
        packets=int(counters.get("n_packets", "0")),
        bytes=int(counters.get("n_bytes", "0")),
        duration_s=float(counters.get("duration", "0").rstrip("s")),
        idle_timeout_s=int(counters.get("idle_timeout", "0")),
        hard_timeout_s=int(counters.get("hard_timeout", "0")),
    )


_FDB_LINE = re.compile(r"^\s*(\S+)\s+(\d+)\s+([0-9a-f:]{17})\s+(\S+)\s*$")


def parse_fdb(text: str, names: Mapping[str, str]) -> list[FdbEntry]:
    """The MAC table from the output of ``ovs-appctl fdb/show``; `names` maps OpenFlow port numbers to names."""
    found = []
    for line in text.splitlines():
        if item := _FDB_LINE.match(line):
            port, vlan, mac, age = item.groups()
            found.append(FdbEntry(names.get(port, port), int(vlan), mac, int(age) if age.isdigit() else None))
    return found


def split_actions(line: str) -> Iterator[str]:
    """The actions of a list that are parted by commas outside brackets; those in brackets beside the outer ones."""
    depth, start = 0, 0
    for at, sign in enumerate(f"{line},"):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            yield line[start:at].strip()
            start = at + 1
