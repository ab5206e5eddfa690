"""A classifier as the access control list of DPDK's librte_acl, the library that DPDK applications classify with."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ctypes.util import find_library
from typing import Any

from ..core.errors import StartFailed, Unavailable
from ..core.requirement import Absent, Present, Requirement
from ..core.resource import Resource
from ..core.selfrun import module_argv
from .box import Box
from .classifier import DEFAULT, Classifier, Verdict
from .device import demand_matches
from .fields import FIELDS, FLAGS
from .packet import Packet
from .rule import SETTABLE
from .strategies import VOCABULARY

__all__ = ["LIBRTE_ACL", "RteAcl", "acl_rules", "key"]

_MASK, _RANGE, _BITMASK = 0, 1, 2  # RTE_ACL_FIELD_TYPE_…
# Field of the key, type, size, offset; each group of 4 bytes is one input word, and the first field has one byte.
_LAYOUT: tuple[tuple[str, int, int, int], ...] = (
    ("proto", _RANGE, 1, 0),
    ("eth_type", _RANGE, 2, 4),
    ("vlan", _RANGE, 2, 6),
    ("in_port", _RANGE, 2, 8),
    ("dscp", _RANGE, 1, 10),
    ("pcp", _RANGE, 1, 11),
    ("sport", _RANGE, 2, 12),
    ("dport", _RANGE, 2, 14),
    ("flags", _BITMASK, 1, 16),
    ("icmp_type", _RANGE, 1, 17),
    ("icmp_code", _RANGE, 1, 18),
    ("unused", _RANGE, 1, 19),
    ("tunnel_id", _RANGE, 4, 20),
    ("ip4_src", _MASK, 4, 24),
    ("ip4_dst", _MASK, 4, 28),
    *((f"ip6_src.{word}", _MASK, 4, 32 + 4 * word) for word in range(4)),
    *((f"ip6_dst.{word}", _MASK, 4, 48 + 4 * word) for word in range(4)),
    ("eth_src.0", _MASK, 4, 64),
    ("eth_src.1", _MASK, 2, 68),
    ("eth_dst.0", _MASK, 2, 70),
    ("eth_dst.1", _MASK, 4, 72),
)
_SIZE = 76
_PARTS: Mapping[str, tuple[tuple[int, int], ...]] = {  # the lowest bit and the bits of each part
    "ip6_src": ((96, 32), (64, 32), (32, 32), (0, 32)),
    "ip6_dst": ((96, 32), (64, 32), (32, 32), (0, 32)),
    "eth_src": ((16, 32), (0, 16)),
    "eth_dst": ((32, 16), (0, 32)),
}
_KEY = struct.Struct("!BxxxHHHBBHHBBBxIII4I4IIHHI")
_ANSWER_BYTES = 1 << 16


class _Library(Requirement):
    def probe(self) -> Present | Absent:
        """Look for the shared library."""
        if find_library("rte_acl") or os.path.exists("/usr/lib/x86_64-linux-gnu/librte_acl.so.23"):
            return Present("librte_acl.so.23")
        return Absent("librte_acl.so.23 is not installed", "apt-get install librte-acl23")


LIBRTE_ACL = _Library("librte_acl", purpose="DPDK's packet classifier as a device", packages={"apt": "librte-acl23"})


class RteAcl(Resource):
    """DPDK's librte_acl as a device: rules become its rules, verdicts its matches.

    It classifies keys and not frames: the key of a packet is made here, and what a DPDK application would do with
    the matching rule's number is taken from the rule.

    Args:
        outputs: where its rules may send packets.
        ports: where packets come in.
    """

    requires = (LIBRTE_ACL,)
    name = "librte_acl"
    matches = VOCABULARY
    shows = ("rule",)

    def __init__(self, outputs: Sequence[str] = ("a", "b"), ports: Sequence[str] = ()) -> None:
        self.outputs = tuple(outputs)
        self.ports = tuple(ports)
        self.installed: Classifier | None = None

    def _start(self, undo: ExitStack) -> None:
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="pytest-infra-acl-"))
        self._child = subprocess.Popen(
            module_argv("pytest_infra.packet.acl_child", folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        undo.callback(self._end)
        self._ask(fields=[(kind, size, offset // 4, offset) for _, kind, size, offset in _LAYOUT])

    def _end(self) -> None:
        self._child.communicate()  # closes its standard input, at which it ends

    def _ask(self, **request: Any) -> list[int]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # it has said why
        line = self._child.stdout.readline()
        if not line:
            assert self._child.stderr is not None
            raise StartFailed(f"the process of librte_acl has ended: {self._child.stderr.read().strip()[-500:]}")
        reply = json.loads(line)
        if "error" in reply:
            raise Unavailable(self.name, reply["error"], "use fewer or simpler rules")
        results: list[int] = reply["results"]
        return results

    def install(self, classifier: Classifier) -> None:
        """Replace the rules.

        Raises:
            Unavailable: librte_acl refuses them.
        """
        self.start()
        demand_matches(self.name, classifier, self.matches, ("queue", "mark"), SETTABLE)
        self._ask(rules=acl_rules(classifier))
        self.installed = classifier

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        """Which rule librte_acl finds for each packet, and where that rule sends it."""
        policy = self.installed
        assert policy is not None, "install rules first"
        keys = b"".join(key(policy.values(packet)) for packet in packets)
        numbers = self._ask(keys=b64encode(keys).decode(), size=_SIZE)
        return [_verdict(policy, number) for number in numbers]


def _verdict(policy: Classifier, number: int) -> Verdict:
    evidence = f"userdata {number} of {len(policy.rules)} rules"
    if number == 0:
        return Verdict((), None, evidence=evidence + ": no match, not even the default")
    if number == len(policy.rules) + 1:
        return Verdict(() if policy.default == "drop" else (policy.default,), DEFAULT, evidence=evidence)
    rule = policy.rules[number - 1]
    return Verdict((rule.to,) if rule.to else (), rule.name, evidence=evidence)


def key(values: Mapping[str, int]) -> bytes:
    """A packet's values as the bytes that librte_acl looks at, in network order."""
    flags = sum(values.get(name, 0) << bit for bit, name in enumerate(FLAGS))
    parts = {name: _split(name, values.get(name, 0)) for name in _PARTS}
    get = values.get
    return _KEY.pack(
        *(get("proto", 0), get("eth_type", 0), get("vlan", -1) + 1, get("in_port", 0), get("dscp", 0), get("pcp", 0)),
        *(get("sport", 0), get("dport", 0), flags, get("icmp_type", 0), get("icmp_code", 0), get("tunnel_id", 0)),
        *(get("ip4_src", 0), get("ip4_dst", 0), *parts["ip6_src"], *parts["ip6_dst"]),
        *(*parts["eth_src"], *parts["eth_dst"]),
    )


def _split(name: str, value: int) -> list[int]:
    return [value >> low & ((1 << bits) - 1) for low, bits in _PARTS[name]]


def acl_rules(classifier: Classifier) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """The rules of a classifier as librte_acl takes them: priority, number from 1, and the fields' values.

    The default is the last rule, which matches everything.
    """
    count = len(classifier.rules) + 1
    rules = [(count - place, place + 1, _fields(box)) for place, boxes in enumerate(classifier.boxes) for box in boxes]
    return [*rules, (1, count, _fields({}))]


def _fields(box: Box) -> list[tuple[int, int]]:
    found = []
    for name, kind, size, _ in _LAYOUT:
        field, _, part = name.partition(".")
        if kind == _BITMASK:
            mask = sum(1 << bit for bit, flag in enumerate(FLAGS) if flag in box)
            found.append((sum(1 << bit for bit, flag in enumerate(FLAGS) if box.get(flag, (0, 0))[0]), mask))
        elif kind == _MASK:
            found.append(_masked(field, box, int(part or 0)))
        else:
            found.append(_range(field, box, size))
    return found


def _range(field: str, box: Box, size: int) -> tuple[int, int]:
    if field not in box:
        return 0, (1 << 8 * size) - 1
    shift = 1 if field == "vlan" else 0  # without a tag is 0, and the identifier 0 is 1
    return box[field][0] + shift, box[field][1] + shift


def _masked(field: str, box: Box, part: int) -> tuple[int, int]:
    """A part of a prefix: its value, and how many of its bits count."""
    low, bits = _PARTS.get(field, ((0, 32),))[part]
    if field not in box:
        return 0, 0
    first, last = box[field]
    total = FIELDS[field][1].bit_length()
    length = total - (last - first).bit_length()
    above = total - low - bits  # bits of the field above this part
    return first >> low & ((1 << bits) - 1), max(0, min(bits, length - above))
