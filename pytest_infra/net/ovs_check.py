"""Whether a flow, group or meter is what its author meant, found out before it is sent to a switch.

ovs-ofctl(8) parses it. What it takes without a word and means something else is refused here: a field without the
protocol that has it (then the flow matches everything), an octet above 255 (it keeps the low bits), a VLAN above 4095.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping

from ..core.errors import BadInput, CommandFailed
from ..core.process import Completed
from ..core.suggest import did_you_mean

__all__ = ["check_described", "numbered", "refusal", "sent"]

_KEYWORDS = (
    "in_port", "dl_vlan", "dl_vlan_pcp", "vlan_tci", "vlan_vid", "vlan_pcp", "dl_src", "dl_dst", "eth_src", "eth_dst",
    "dl_type", "eth_type", "ip", "ipv6", "icmp", "icmp6", "tcp", "tcp6", "udp", "udp6", "sctp", "arp", "rarp", "mpls",
    "nw_src", "nw_dst", "ip_src", "ip_dst", "ipv6_src", "ipv6_dst", "nw_proto", "ip_proto", "nw_tos", "ip_dscp",
    "nw_ecn", "nw_ttl", "ip_frag", "tp_src", "tp_dst", "tcp_src", "tcp_dst", "udp_src", "udp_dst", "tcp_flags",
    "icmp_type", "icmp_code", "arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha", "nd_target", "nd_sll", "nd_tll",
    "tun_id", "tun_src", "tun_dst", "metadata", "reg0", "ct_state", "ct_zone", "ct_mark", "priority", "table",
    "cookie", "idle_timeout", "hard_timeout", "output", "enqueue", "normal", "flood", "all", "local", "drop",
    "controller", "group", "meter", "resubmit", "goto_table", "set_field", "set_queue", "pop_queue", "push_vlan",
    "pop_vlan", "strip_vlan", "mod_vlan_vid", "mod_dl_src", "mod_dl_dst", "mod_nw_src", "mod_nw_dst", "mod_tp_src",
    "mod_tp_dst", "dec_ttl", "move", "load", "learn", "ct", "nat", "note", "write_actions", "clear_actions",
)  # fmt: skip
_IPV4_FIELDS = re.compile(r"\b(?:nw_src|nw_dst|ip_src|ip_dst|arp_spa|arp_tpa|tun_src|tun_dst)=([0-9.]+)")
_IPV4_ACTIONS = re.compile(r"\b(?:mod_nw_src|mod_nw_dst|set_field):([0-9]+(?:\.[0-9]+){3})")
_VLAN_FIELDS = re.compile(r"\b(?:dl_vlan=|vlan_vid=|mod_vlan_vid:)(\d+)")
_LAST_VID = 4095
_ERRORS = {
    "OFPBAC_BAD_OUT_GROUP": "it names a group that the switch does not have: add it first, with group()",
    "OFPMMFC_INVALID_METER": "it names a meter that the switch does not have: add it first, with meter()",
    "OFPBAC_BAD_METER": "it names a meter that the switch does not have: add it first, with meter()",
    "OFPMMFC_UNKNOWN_METER": "it names a meter that the switch does not have: add it first, with meter()",
    "OFPMMFC_BAD_BAND": "the switch's datapath has no such band",
    "OFPGMFC_GROUP_EXISTS": "there is a group of that number",
    "OFPMMFC_METER_EXISTS": "there is a meter of that number",
    "OFPBAC_MATCH_INCONSISTENT": "an action needs a protocol that the match does not ask for",
    "OFPBIC_BAD_TABLE_ID": "it goes on to a table that is not behind its own",
}


def numbered(text: str, ports: Mapping[str, int]) -> str:
    """The same with OpenFlow numbers where ports are named."""
    for name in sorted(ports, key=len, reverse=True):
        text = re.sub(rf'(?<![\w.~-])"?{re.escape(name)}"?(?![\w.~-])', str(ports[name]), text)
    return text


def check_described(what: str, text: str, ports: Iterable[str], parse: Callable[[], Completed]) -> None:
    """Refuse what ovs-ofctl does not understand, or understands as something else.

    Args:
        what: the flow, group or meter for messages, with the line that declared it.
        text: the same as ovs-ofctl takes it.
        ports: the switch's, for messages.
        parse: has ovs-ofctl parse it.

    Raises:
        BadInput: names the part that is wrong.
    """
    for found in (*_IPV4_FIELDS.findall(text), *_IPV4_ACTIONS.findall(text)):
        try:
            ipaddress.IPv4Address(found)
        except ValueError as error:
            raise BadInput(f"{what}: {found!r} is no IPv4 address: {error}") from error
    for found in _VLAN_FIELDS.findall(text):
        if int(found) > _LAST_VID:
            raise BadInput(f"{what}: VLAN {found} does not exist; 0 to {_LAST_VID} are allowed")
    if text.count("(") != text.count(")"):
        raise BadInput(f"{what}: its parentheses do not match: {text.count('(')} open, {text.count(')')} close")
    if wrong := _other_transport(text.partition("actions=")[0]):
        raise BadInput(f"{what}: {wrong}")
    done = parse()
    if not done.ok:
        raise BadInput(f"{what}: {refusal(done.stderr, ports)}")
    if lost := re.search(r"\bpre: (.*)\n.*\bpost: (.*)", done.stderr):
        before, after = (set(part.strip().split(",")) for part in lost.groups())
        fields = ", ".join(sorted(before - after)) or "a field"
        raise BadInput(
            f"{what}: {fields} has no effect, because the match does not ask for the protocol that has it: "
            "write it in front, as in 'tcp,tcp_dst=80' or 'ip,nw_dst=192.0.2.1'"
        )


def _other_transport(match: str) -> str:
    """What is wrong where a match names a port of one protocol, and asks for another one; empty where nothing is."""
    asked = re.findall(r"(?:^|[\s,])(tcp|udp|sctp)6?(?=[\s,]|$)", match)
    for field, protocol in re.findall(r"\b((tcp|udp|sctp)_(?:src|dst))=", match):
        if asked and protocol not in asked:
            return f"{field} is a field of {protocol.upper()}, and the match asks for {asked[0].upper()}"
    return ""


def refusal(said: str, ports: Iterable[str]) -> str:
    """What ovs-ofctl or the switch said, in one line, with the word that was probably meant."""
    for code, meaning in _ERRORS.items():
        if code in said:
            return f"{meaning} ({code})"
    line = next((line for line in said.splitlines() if line.startswith("ovs-ofctl: ")), said.strip().partition("\n")[0])
    text = line.removeprefix("ovs-ofctl: ")
    if text.startswith(": output to unknown port"):
        return f"output names no port; it has {', '.join(ports) or 'none'}"
    if text.startswith("no usable protocol"):
        return "an action needs a protocol that the match does not ask for: write it in front, as in 'ip'"
    if unknown := re.match(r"unknown (keyword|action) (\S+)", text):
        return text + did_you_mean(unknown[2].lower(), _KEYWORDS)
    if "unknown port" in text:
        return f"{text}; it has {', '.join(ports) or 'none'}"
    return text


def sent(what: str, ports: Iterable[str], send: Callable[[], object]) -> None:
    """Send it; what the switch refuses is told in the same words.

    Raises:
        BadInput: the switch refuses it.
    """
    try:
        send()
    except CommandFailed as error:
        raise BadInput(f"{what}: {refusal(error.stderr, ports)}") from error
