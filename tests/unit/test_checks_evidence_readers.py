"""What the autopsy reads of other formats: tracepoints, listings of nft, VLANs of ports."""

from __future__ import annotations

import pytest

from pytest_infra.checks.drop_reason import parse_format
from pytest_infra.checks.rule_trace import RuleTrace, _rule
from pytest_infra.net.port_vlans import PortVlans, _ovs_vlans

FORMAT = """name: kfree_skb
ID: 2310
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned short protocol;\toffset:32;\tsize:2;\tsigned:0;
\tfield:enum skb_drop_reason reason;\toffset:36;\tsize:4;\tsigned:0;

print fmt: "reason: %s", __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 12, "NETFILTER_DROP" })
"""

LISTING = """table inet t { # handle 1
\tchain c { # handle 12
\t\ttype filter hook forward priority filter; policy accept;
\t\tcounter packets 1 bytes 84 drop # handle 2
\t\ttcp dport 22 accept # handle 122
\t}
}
"""


def test_a_tracepoint_tells_its_fields_and_the_names_of_the_reasons() -> None:
    event, layout, names = parse_format(FORMAT)
    assert event == 2310
    assert (layout["protocol"], layout["reason"]) == ((32, 2), (36, 4))
    assert names == {2: "NOT_SPECIFIED", 12: "NETFILTER_DROP"}


def test_a_kernel_without_reasons_is_told_from_one_with() -> None:
    with pytest.raises(OSError, match="no reasons"):
        parse_format(FORMAT.replace(" reason;", " nothing;"))


@pytest.mark.parametrize(
    ("handle", "rule"), [(2, "counter packets 1 bytes 84 drop"), (122, "tcp dport 22 accept"), (12, ""), (22, "")]
)
def test_a_rule_is_found_by_its_handle(handle: int, rule: str) -> None:
    assert _rule(LISTING, handle) == rule


def test_a_node_whose_rules_cannot_be_traced_is_told_and_hides_nothing() -> None:
    class Elsewhere:
        name = "guest"

        def call(self, *_: object) -> None:
            raise TypeError("sockets cannot be sent")

    with RuleTrace([Elsewhere()], lambda packet: None) as trace:  # type: ignore[list-item]
        assert not trace.watching
        assert trace.drops() == []
    assert trace.blind == ["the firewall rules of guest: sockets cannot be sent"]


ACCESS_10 = _ovs_vlans([10], [], [])
TRUNK = _ovs_vlans([], [10, 20], [])
ALL = _ovs_vlans([], [], [])
NATIVE_UNTAGGED = _ovs_vlans([10], [20], "native-untagged")
NATIVE_TAGGED = _ovs_vlans([10], [20], "native-tagged")


@pytest.mark.parametrize(
    ("into", "tag", "inside"),
    [
        (ACCESS_10, None, 10),
        (ACCESS_10, 10, None),
        (TRUNK, None, None),
        (TRUNK, 20, 20),
        (TRUNK, 30, None),
        (ALL, None, 0),
        (ALL, 30, 30),
        (NATIVE_UNTAGGED, None, 10),
        (NATIVE_UNTAGGED, 20, 20),
    ],
)
def test_the_vlan_that_a_frame_comes_into(into: PortVlans, tag: int | None, inside: int | None) -> None:
    assert into.enters(tag) == inside


@pytest.mark.parametrize(
    ("out", "vlan", "passes", "tag"),
    [
        (ACCESS_10, 10, True, None),
        (ACCESS_10, 20, False, 20),
        (TRUNK, 20, True, 20),
        (ALL, 0, True, None),
        (NATIVE_UNTAGGED, 10, True, None),
        (NATIVE_TAGGED, 10, True, 10),
    ],
)
def test_how_a_frame_of_a_vlan_leaves(out: PortVlans, vlan: int, passes: bool, tag: int | None) -> None:
    assert out.passes(vlan) == passes
    assert out.leaves(vlan) == tag
