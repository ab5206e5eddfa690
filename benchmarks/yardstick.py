"""The price of the bare kernel: hosts on one bridge, with unshare(2), setns(2) and rtnetlink(7), and nothing else.

Only the standard library, no checks, no names, no defaults: what it costs is what the kernel costs. Every host has an
IPv4 and an IPv6 address, and the first packet passes when `Yardstick` returns: both ends of every link are up, with the
carrier synchronised, and the addresses can be resolved. `close` closes the descriptors, and the kernel frees the rest.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

CLONE_NEWNET = 0x40000000
REQUEST, ACK, EXCL, CREATE, DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
NEWLINK, GETLINK, NEWADDR, GETMULTICAST = 16, 18, 20, 58
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_EXT_MASK = 1, 3, 10, 18, 28, 29
INFO_KIND, INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02
IFF_UP = 1
SO_RCVBUFFORCE = 33
SKIP_STATISTICS = struct.pack("=I", 8)
ETH0 = 2  # the index of a namespace's first interface after lo

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def link(kind: int, flags: int, index: int, up: bool, attributes: bytes = b"") -> bytes:
    body = struct.pack("=BxHiII", 0, 0, index, IFF_UP * up, IFF_UP * up) + attributes
    return struct.pack("=IHHII", len(body) + 16, kind, REQUEST | flags, 1, 0) + body


def bridge(name: bytes) -> bytes:
    info = attribute(IFLA_LINKINFO, attribute(INFO_KIND, b"bridge"))
    return link(NEWLINK, CREATE | EXCL, ETH0, True, attribute(IFLA_IFNAME, name) + info)


def veth(number: int, namespace: int) -> bytes:
    peer = struct.pack("=BxHiII", 0, 0, ETH0, 0, 0) + attribute(IFLA_IFNAME, b"eth0\0")
    peer += attribute(IFLA_NET_NS_FD, struct.pack("=I", namespace))
    data = attribute(INFO_DATA, attribute(VETH_INFO_PEER, peer))
    attributes = attribute(IFLA_IFNAME, b"p%d\0" % number)
    attributes += attribute(IFLA_MASTER, struct.pack("=I", ETH0))
    attributes += attribute(IFLA_LINKINFO, attribute(INFO_KIND, b"veth") + data)
    return link(NEWLINK, CREATE | EXCL, ETH0 + number, True, attributes)


def address(ip: bytes, length: int) -> bytes:
    family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    body = struct.pack("=BBBBi", family, length, IFA_F_NODAD if len(ip) == 16 else 0, 0, ETH0)
    body += attribute(IFA_LOCAL, ip) + attribute(IFA_ADDRESS, ip)
    return struct.pack("=IHHII", len(body) + 16, NEWADDR, REQUEST | CREATE | EXCL, 1, 0) + body


def synchronise(index: int) -> bytes:
    """Reading a single interface makes the kernel deliver its carrier event now instead of within a second."""
    return link(GETLINK, 0, index, False, attribute(IFLA_EXT_MASK, SKIP_STATISTICS))


def send(netlink: socket.socket, messages: list[bytes]) -> None:
    """One system call for all messages; the last one asks for the acknowledgement."""
    last = messages[-1]
    messages[-1] = last[:6] + struct.pack("=HI", struct.unpack_from("=H", last, 6)[0] | ACK, 2) + last[12:]
    netlink.send(b"".join(messages))
    while True:
        reply = netlink.recv(1 << 16)
        at = 0
        while at < len(reply):
            length, kind, _, sequence = struct.unpack_from("=IHHI", reply, at)
            if kind == 2:  # NLMSG_ERROR
                error = struct.unpack_from("=i", reply, at + 16)[0]
                if error:
                    raise OSError(-error, os.strerror(-error))
                if sequence == 2:
                    return
            at += length + 3 & ~3


def wait_until_resolvable(netlink: socket.socket, ip: bytes) -> None:
    """The kernel joins an address's multicast group in the background; a solicitation before that is lost for 1 s."""
    body = struct.pack("=BBBBi", socket.AF_INET6, 0, 0, 0, 0)
    request = struct.pack("=IHHII", len(body) + 16, GETMULTICAST, REQUEST | DUMP, 3, 0) + body
    group = b"\xff\2" + bytes(9) + b"\1\xff" + ip[13:]  # RFC 4291 section 2.7.1
    joined = False
    while not joined:
        netlink.send(request)
        done = False
        while not done:
            reply = netlink.recv(1 << 16)
            joined = joined or group in reply
            done = reply[-20:-14].endswith(b"\3\0")  # NLMSG_DONE, the last message


def ipv4(number: int) -> bytes:
    return bytes((198, 18, (number + 1) >> 8, (number + 1) & 255))


def ipv6(number: int) -> bytes:
    return b"\xfd\0\0\1" + struct.pack(">QI", 0, number + 1)


class Yardstick:
    """`hosts` hosts on one bridge; entry 0 of `namespaces` is the bridge's."""

    def __init__(self, hosts: int) -> None:
        self.namespaces: list[int] = []
        self.sockets: list[socket.socket] = []
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _ in range(hosts + 1):
                check(libc.unshare(CLONE_NEWNET))
                self.namespaces.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
                self.sockets.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        finally:
            check(libc.setns(home, CLONE_NEWNET))
            os.close(home)
        switch, *others = self.sockets
        send(switch, [bridge(b"sw1\0"), *(veth(at + 1, fd) for at, fd in enumerate(self.namespaces[1:]))])
        up = link(NEWLINK, 0, ETH0, True)
        for at, netlink in enumerate(others):
            send(netlink, [up, address(ipv4(at), 15), address(ipv6(at), 64), synchronise(ETH0)])
        switch.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 5000 * hosts)  # the replies wait there
        send(switch, [synchronise(ETH0 + 1 + at) for at in range(hosts)])
        for at, netlink in enumerate(others):
            wait_until_resolvable(netlink, ipv6(at))

    def close(self) -> None:
        for netlink in self.sockets:
            netlink.close()
        for fd in self.namespaces:
            os.close(fd)
