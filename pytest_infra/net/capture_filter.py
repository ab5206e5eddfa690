"""Capture filters in the language of pcap-filter(7), compiled to classic BPF.

The common words are compiled here and need nothing installed: ``arp ip ip6 icmp icmp6 tcp udp sctp vlan host port
ether host``, with ``src``, ``dst``, ``and``, ``or``, ``not`` and parentheses. Everything else is ``tcpdump``'s.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, ip_address

from ..core.errors import BadInput, CommandFailed, Unavailable
from ..core.process import run
from ..core.requirement import Absent, Command
from .bpf import Test, Tree, both, either, negated, program

__all__ = ["TCPDUMP", "compile_filter"]

TCPDUMP = Command("tcpdump", purpose="capture filters beyond the common words", packages={
    "apt": "tcpdump", "dnf": "tcpdump", "pacman": "tcpdump", "apk": "tcpdump"})  # fmt: skip

_IP4, _IP6, _ARP = (Test(2, 12, kind) for kind in (0x0800, 0x86DD, 0x0806))
_SIMPLE: Mapping[str, Tree] = {
    "arp": _ARP,
    "ip": _IP4,
    "ip6": _IP6,
    "icmp": both(_IP4, Test(1, 23, 1)),
    "icmp6": both(_IP6, Test(1, 20, 58)),
}
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_PORT_PROTOCOLS = tuple(_PROTOCOLS.values())
_DIRECTIONS = {"src": (True, False), "dst": (False, True)}
_ANCILLARY = 0xFFFFF000  # SKF_AD_OFF: what the kernel knows of a packet besides its bytes (linux/filter.h)
_VLAN_TAG, _VLAN_PRESENT = _ANCILLARY + 44, _ANCILLARY + 48
_WORD = re.compile(r"\s*(&&|\|\||[()!]|[^\s()!&|]+)")
_MORE_WORDS = {
    *(
        "ah",
        "broadcast",
        "byte",
        "esp",
        "ether",
        "gateway",
        "geneve",
        "greater",
        "igmp",
        "inbound",
        "iso",
        "len",
        "less",
    ),
    *("less", "link", "mask", "mpls", "multicast", "net", "outbound", "pim", "portrange", "pppoed", "pppoes", "proto"),
    *("protochain", "rarp", "stp", "vrrp", "wlan"),
}
"""Words that tcpdump knows and this module does not."""
_LONGEST = 2000


class _NotHereError(Exception):
    """Beyond the common words."""


def compile_filter(text: str, snap_bytes: int) -> bytes:
    """A filter as a classic BPF program (``struct sock_filter``s, linux/filter.h) that keeps the first `snap_bytes`.

    Raises:
        BadInput: it is not understood.
        Unavailable: only tcpdump understands it, and it is not installed.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise BadInput(f"a capture filter is a string such as 'icmp and host 10.0.0.1' (pcap-filter(7)); got {text!r}")
    if not text.strip():
        return program(None, snap_bytes)
    try:
        return program(_Parser(text).parse(), snap_bytes)
    except (_NotHereError, OverflowError):
        return _by_tcpdump(text, snap_bytes)


class _Parser:
    """Recursive descent; ``and`` and ``or`` have the same rank and join from the left, as pcap-filter(7) says."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = []
        self._text, at = text.rstrip(), 0
        while at < len(self._text):
            if not (found := _WORD.match(self._text, at)):
                raise _NotHereError(self._text[at:])  # a single & or |, as in tcp[13] & 2
            self._words.append(found[1])
            at = found.end()

    def _wrong(self, what: str) -> BadInput:
        return BadInput(f"capture filter {self._text!r}: {what!r} is not understood (pcap-filter(7))")

    def _peek(self, ahead: int = 0) -> str:
        return self._words[ahead] if len(self._words) > ahead else ""

    def _take(self) -> str:
        if not self._words:
            raise BadInput(f"capture filter {self._text!r}: it ends too early (pcap-filter(7))")
        return self._words.pop(0)

    def parse(self) -> Tree:
        tree = self._joined()
        if self._words:
            raise self._beyond(self._words[0])
        return tree

    def _joined(self) -> Tree:
        tree = self._term()
        while self._peek() in ("and", "&&", "or", "||"):
            join = both if self._take() in ("and", "&&") else either
            tree = join(tree, self._term())
        return tree

    def _term(self) -> Tree:
        if self._peek() in ("not", "!"):
            self._take()
            return negated(self._term())
        if self._peek() == "(":
            self._take()
            tree = self._joined()
            if self._take() != ")":
                raise self._wrong("(")
            return tree
        return self._primitive()

    def _primitive(self) -> Tree:
        word = self._take()
        if word in _SIMPLE and self._peek() in ("", ")", "and", "or", "&&", "||"):
            return _SIMPLE[word]
        if word in _PROTOCOLS:
            number = _PROTOCOLS[word]
            return self._where((number,)) if self._peek() in ("port", *_DIRECTIONS) else _protocol(number)
        if word == "ether" and self._peek() in ("host", *_DIRECTIONS):
            return self._mac()
        if word == "vlan":
            return self._vlan()
        if word in ("host", "port", *_DIRECTIONS):
            self._words.insert(0, word)
            return self._where(_PORT_PROTOCOLS)
        raise self._beyond(word)

    def _where(self, protocols: Sequence[int]) -> Tree:
        """``[src|dst] port N``, of these protocols, or ``[src|dst] [host] ADDRESS``."""
        directions = self._directions()
        if self._peek() == "port":
            return _ports(protocols, directions, self._port())
        if self._peek() == "host":
            self._take()
        tree = self._host(directions)
        return tree if len(protocols) > 1 else both(_protocol(protocols[0]), tree)

    def _beyond(self, word: str) -> Exception:
        """Whether it is tcpdump's to understand, or nobody's."""
        known = {*_MORE_WORDS, *_SIMPLE, *_PROTOCOLS, *_DIRECTIONS, "host", "port"}
        if re.split(r"[\[=<>]", word)[0] in known or word[:1].isdigit():
            return _NotHereError(word)
        return self._wrong(word)

    def _directions(self) -> tuple[bool, bool]:
        return _DIRECTIONS[self._take()] if self._peek() in _DIRECTIONS else (True, True)

    def _port(self) -> int:
        self._take()
        word = self._take()
        if not word.isdecimal():
            raise _NotHereError(word)  # http
        if int(word) > 65535:
            raise BadInput(f"capture filter {self._text!r}: a port is a number from 0 to 65535, not {word}")
        return int(word)

    def _host(self, directions: tuple[bool, bool]) -> Tree:
        word = self._take()
        try:
            address = ip_address(word)
        except ValueError:
            if word in ("net", "portrange", "and", "or") or "/" in word:
                raise _NotHereError(word) from None
            text = f"capture filter {self._text!r}: {word!r} is no IP address; names are not looked up"
            raise BadInput(text) from None
        if isinstance(address, IPv4Address):
            return either(both(_IP4, _at(address.packed, directions, 26, 30)),
                          both(_ARP, _at(address.packed, directions, 28, 38)))  # fmt: skip
        return both(_IP6, _at(address.packed, directions, 22, 38))

    def _mac(self) -> Tree:
        directions = self._directions()
        if self._peek() == "host":
            self._take()
        word = self._take()
        if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", word):
            raise BadInput(f"capture filter {self._text!r}: {word!r} is no MAC address")
        return _at(bytes.fromhex(word.replace(":", "")), directions, 6, 0)

    def _vlan(self) -> Tree:
        """The kernel keeps the tag beside the packet, so the words after it mean what they mean without a tag."""
        tagged = Test(4, _VLAN_PRESENT, 1)
        if not self._peek().isdecimal():
            return tagged
        return both(tagged, Test(4, _VLAN_TAG, int(self._take()), 0xFFF))


def _at(address: bytes, directions: tuple[bool, bool], *offsets: int) -> Tree:
    """Whether an address stands at the source's or the destination's place."""
    found: list[Tree] = []
    for wanted, offset in zip(directions, offsets, strict=True):
        if wanted:
            sizes = [4] * (len(address) // 4) + [2] * (len(address) % 4 // 2)
            tests: list[Tree] = []
            for place, size in enumerate(sizes):
                chunk = address[4 * place : 4 * place + size]
                tests.append(Test(size, offset + 4 * place, int.from_bytes(chunk, "big")))
            found.append(_all(tests))
    return found[0] if len(found) == 1 else either(*found)


def _all(tests: Sequence[Tree]) -> Tree:
    tree = tests[0]
    for test in tests[1:]:
        tree = both(tree, test)
    return tree


def _any(tests: Sequence[Tree]) -> Tree:
    tree = tests[0]
    for test in tests[1:]:
        tree = either(tree, test)
    return tree


def _protocol(number: int) -> Tree:
    return either(both(_IP4, Test(1, 23, number)), both(_IP6, Test(1, 20, number)))


def _ports(protocols: Sequence[int], directions: tuple[bool, bool], port: int) -> Tree:
    """A port of the transport header: behind the IPv4 header, whose length varies, in the first fragment only."""
    first_fragment = Test(2, 20, 0, 0x1FFF)
    four = [Test(2, 14 + at, port, behind_ipv4=True) for wanted, at in zip(directions, (0, 2), strict=True) if wanted]
    six = [Test(2, 54 + at, port) for wanted, at in zip(directions, (0, 2), strict=True) if wanted]
    return either(
        both(both(_IP4, _any([Test(1, 23, number) for number in protocols])), both(first_fragment, _any(four))),
        both(both(_IP6, _any([Test(1, 20, number) for number in protocols])), _any(six)),
    )


def _by_tcpdump(text: str, snap_bytes: int) -> bytes:
    if re.search(r"\bvlan\b", text):
        raise BadInput(f"capture filter {text!r}: 'vlan' goes together with common words only: 'vlan 5 and icmp'")
    if isinstance(found := TCPDUMP.probe(), Absent):
        raise Unavailable("tcpdump", f"the capture filter {text!r} needs it: {found.why}", found.remedy)
    try:
        # The snapshot length goes into the program, as what it returns for a packet that is kept.
        done = run([TCPDUMP.path(), "-ddd", "-s", str(snap_bytes), "-y", "EN10MB", text], timeout_s=10)
    except CommandFailed as error:
        said = (error.stderr.strip().splitlines() or [error.reason])[-1]
        raise BadInput(f"capture filter {text!r}: {said} (pcap-filter(7))") from error
    rows = [[int(word) for word in line.split()] for line in done.stdout.splitlines()[1:]]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)
