"""Capture filters: the kernel itself runs the programs, on frames that are sent through a pair of local sockets."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.core.errors import BadInput, Unavailable
from pytest_infra.net import capture_filter
from pytest_infra.net.capture_filter import compile_filter
from pytest_infra.net.frame import Frame
from pytest_infra.net.pcapng import pcapng
from pytest_infra.net.ring import attach_filter

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
A6, B6 = "fd00::1", "fd00::2"
MACS = bytes.fromhex("0200000000020200000000aa")[:12]


def ether(kind: int, payload: bytes) -> bytes:
    return MACS + struct.pack("!H", kind) + payload


def ip4(protocol: int, payload: bytes, source: str = A, target: str = B, options: int = 0, offset: int = 0) -> bytes:
    length = 20 + 4 * options
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), 1, offset, 64, protocol, 0)
    head += ip_address(source).packed + ip_address(target).packed + b"\1" * (4 * options)
    return ether(0x0800, head + payload)


def ip6(protocol: int, payload: bytes, source: str = A6, target: str = B6) -> bytes:
    head = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64)
    return ether(0x86DD, head + ip_address(source).packed + ip_address(target).packed + payload)


def ports(source: int, target: int) -> bytes:
    return struct.pack("!HH", source, target) + bytes(16)


FRAMES = {
    "arp": ether(0x0806, struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + MACS[6:] + ip_address(A).packed + bytes(6)
                 + ip_address(B).packed),
    "icmp": ip4(1, bytes(8)),
    "icmp6": ip6(58, bytes(8)),
    "tcp": ip4(6, ports(40000, 80)),
    "tcp back": ip4(6, ports(80, 40000), B, A),
    "tcp6": ip6(6, ports(40000, 80)),
    "udp": ip4(17, ports(53, 5353), A, C),
    "udp6": ip6(17, ports(53, 5353), B6, A6),
    "options": ip4(6, ports(40000, 443), options=3),
    "fragment": ip4(17, ports(53, 53), offset=0x00B9),
    "lldp": ether(0x88CC, bytes(40)),
    "short": ether(0x0800, b"\x45"),
}  # fmt: skip

PICKED = {
    "": set(FRAMES),
    "arp": {"arp"},
    "ip": {"icmp", "tcp", "tcp back", "udp", "options", "fragment", "short"},
    "ip6": {"icmp6", "tcp6", "udp6"},
    "icmp": {"icmp"},
    "icmp6": {"icmp6"},
    "tcp": {"tcp", "tcp back", "tcp6", "options"},
    "udp": {"udp", "udp6", "fragment"},
    "host 10.0.0.3": {"udp"},
    "host 10.0.0.2": {"arp", "icmp", "tcp", "tcp back", "options", "fragment"},
    "src host 10.0.0.2": {"tcp back"},
    "dst 10.0.0.1": {"tcp back"},
    "src fd00::2": {"udp6"},
    "host fd00::2": {"icmp6", "tcp6", "udp6"},
    "port 80": {"tcp", "tcp back", "tcp6"},
    "tcp dst port 80": {"tcp", "tcp6"},
    "udp src port 53": {"udp", "udp6"},
    "tcp port 443": {"options"},
    "tcp dst host 10.0.0.1": {"tcp back"},
    "ether src 02:00:00:00:00:aa": set(FRAMES) - {"nothing"},
    "ether dst 02:00:00:00:00:aa": set(),
    "icmp or arp": {"icmp", "arp"},
    "arp or tcp and src host 10.0.0.2": {"tcp back"},
    "arp or (tcp and src host 10.0.0.2)": {"arp", "tcp back"},
    "not tcp && not udp": {"arp", "icmp", "icmp6", "lldp"},
    "!(ip || ip6)": {"arp", "lldp"},
    "vlan": set(),
    "vlan 5 and icmp": set(),
    "not vlan and icmp": {"icmp"},
}


def picked(text: str) -> set[str]:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setblocking(False)
        attach_filter(receiver, compile_filter(text, 1 << 16))
        found = set()
        for name, frame in FRAMES.items():
            sender.send(frame)
            try:
                assert receiver.recv(2048) == frame
                found.add(name)
            except BlockingIOError:
                continue
        return found


@pytest.mark.parametrize("text", PICKED)
def test_the_kernel_picks_these_frames(text: str) -> None:
    assert picked(text) == PICKED[text]


def test_only_so_many_bytes_are_kept() -> None:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach_filter(receiver, compile_filter("icmp", 20))
        sender.send(FRAMES["icmp"])
        assert receiver.recv(2048) == FRAMES["icmp"][:20]


atoms = st.sampled_from(["arp", "icmp", "tcp", "udp", "host 10.0.0.2", "port 80", "src host 10.0.0.1", "ip6"])
filters = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or", "&&", "||"]), inner).map(" ".join),
        inner.map("not {}".format),
        inner.map("({})".format),
    ),
    max_leaves=6,
)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump (not installed; apt-get install tcpdump)")
@given(filters)
def test_tcpdump_picks_the_same(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "frames.pcapng"
    names = [name for name in FRAMES if name != "short"]
    frames = [Frame(number * 10**9, "a:eth0", False, FRAMES[name], len(FRAMES[name]))
              for number, name in enumerate(names, 1)]  # fmt: skip
    file.write_bytes(pcapng(frames))
    done = subprocess.run(["tcpdump", "-nttr", file, text], check=False, capture_output=True, text=True)
    assert done.returncode == 0 or "expression rejects all packets" in done.stderr
    by_tcpdump = {names[int(line.split(".")[0]) - 1] for line in done.stdout.splitlines() if line[:1].isdigit()}
    assert picked(text) - {"short"} == by_tcpdump


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump (not installed; apt-get install tcpdump)")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("net 10.0.0.0/24 and tcp", {"tcp", "tcp back", "options"}),
        ("ether proto 0x88cc", {"lldp"}),
        ("port 80 or 443", {"tcp", "tcp back", "tcp6", "options"}),
        ("ip[8] = 64 and ip[9] & 1 != 0 and not udp", {"icmp"}),
    ],
)
def test_what_is_beyond_the_common_words_is_tcpdumps(text: str, names: set[str]) -> None:
    assert picked(text) == names


def test_without_tcpdump_it_is_unavailable_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_filter.TCPDUMP.__class__, "probe", lambda self: capture_filter.Absent("gone", "get it"))
    assert picked("icmp") == {"icmp"}
    with pytest.raises(Unavailable, match=r"tcpdump \(the capture filter 'portrange 1-9' needs it: gone; get it\)"):
        compile_filter("portrange 1-9", 100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("icpm", "'icpm' is not understood"),
        ("icmp and", "it ends too early"),
        ("host router", "'router' is no IP address; names are not looked up"),
        ("port 70000", "a port is a number from 0 to 65535, not 70000"),
        ("ether src 02:00", "'02:00' is no MAC address"),
        ("(icmp", "it ends too early"),
        ("vlan and net 10.0.0.0/8", "'vlan' goes together with common words only"),
        (7, "a capture filter is a string"),
        ("x" * 3000, "a capture filter is a string"),
    ],
)
def test_what_cannot_be_used_is_said(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        compile_filter(text, 100)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump (not installed; apt-get install tcpdump)")
def test_what_tcpdump_refuses_is_said_in_its_words() -> None:
    with pytest.raises(BadInput, match=r"capture filter 'tcp port 80 net': .*syntax error"):
        compile_filter("tcp port 80 net", 100)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump (not installed; apt-get install tcpdump)")
def test_a_filter_that_is_too_large_for_the_built_in_compiler() -> None:
    hosts = " or ".join(f"host 10.{number}.0.1" for number in range(70))
    assert picked(f"({hosts}) and ip") == {"icmp", "tcp", "tcp back", "udp", "options", "fragment"}
