"""`Relay`: a process that carries the frames of a link and delays, loses, doubles or corrupts them (without netem).

The port sends as ever. A filter at its egress (tc-bpf(8), clsact) redirects every frame into a TAP device beside it,
which cuts it into what would be on a wire, with checksums. The process reads it there and, when its time has come,
sends it from the same port; a mark (socket(7), SO_MARK) tells those frames from the others. So neither end is changed:
names, addresses, captures stay as they are.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ..core.errors import StartFailed
from ..core.guard import Guard
from ..core.process import Process
from ..core.requirement import PRIVILEGE
from ..core.resource import Facts, Resource
from . import messages, relay_main
from .impairment import Impairment
from .namespace import NetNamespace
from .ovs_requirements import TUN
from .port import Port
from .sysctl import write_sysctl
from .tc import TC, run_tc, tbf_line

__all__ = ["Relay", "divert_line"]

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_MARK = 0x1F4A
_SO_MARK = getattr(socket, "SO_MARK", 36)
_SKF_AD_MARK = 0xFFFFF000 + 20
_QUEUE = 10_000  # frames that may wait for the process
_ANSWER_S = 10.0
_PREFERENCE = 7


def divert_line(port: str, tap: str) -> str:
    """The line for ``tc -batch`` that redirects what a port sends, but for frames with the relay's mark."""
    program = f"4,32 0 0 {_SKF_AD_MARK},21 0 1 {_MARK},6 0 0 0,6 0 0 4294967295"
    return (
        f"filter add dev {port} egress prio {_PREFERENCE} protocol all bpf bytecode '{program}' "
        f"action mirred egress redirect dev {tap}"
    )


class Relay(Resource):
    """The process that carries what one port sends.

    Args:
        port: an end of a link, which is up.
        guard: gives the guard in which it runs.
    """

    requires = (PRIVILEGE, TC, TUN)

    def __init__(self, port: Port, guard: Callable[[], Guard]) -> None:
        self._port = port
        self._guard = guard
        self._child: Process | None = None

    @property
    def tap(self) -> str:
        """The name of the TAP device beside the port."""
        return f"relay{self._port.index}"

    def _start(self, undo: ExitStack) -> None:
        namespace = self._port.node.namespace
        self._control, other = pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(_close_both, *pair)
        with ExitStack() as only_now:
            only_now.callback(other.close)
            self._control.settimeout(_ANSWER_S)
            tap = namespace.within(_open_tap, self.tap)
            only_now.callback(os.close, tap)
            out = namespace.within(_open_port, self._port.name)
            only_now.callback(out.close)
            self._set_up(namespace)
            self._spawn([other.fileno(), tap, out.fileno()], undo)
        self._order(None)
        # The kernel refuses a second clsact, and the first one will do.
        run_tc(self._guard, namespace, [f"qdisc add dev {self._port.name} clsact"], check=False)
        undo.callback(self._let_go, namespace)
        run_tc(self._guard, namespace, [divert_line(self._port.name, self.tap)])

    def _set_up(self, namespace: NetNamespace) -> None:
        index = namespace.within(socket.if_nametoindex, self.tap)
        request = messages.set_link(index, up=True, queue=_QUEUE, mtu=self._port.mtu)
        with namespace.netlink() as netlink:
            netlink.request([(request, f"set up the relay of {self._port}")])

    def _spawn(self, numbers: Sequence[int], undo: ExitStack) -> None:
        def popen(argv: Sequence[str], **options: Any) -> Any:
            return self._guard().popen(argv, pass_fds=numbers, **options)

        argv = [sys.executable, "-I", "-S", relay_main.__file__, *map(str, numbers)]
        self._child = Process(argv, where=f"the relay of {self._port}", popen=popen)
        undo.callback(self._child.close)

    def _let_go(self, namespace: NetNamespace) -> None:
        if namespace.fd >= 0:
            line = f"filter del dev {self._port.name} egress prio {_PREFERENCE}"
            run_tc(self._guard, namespace, [line], check=False)

    def set(self, impairment: Impairment) -> None:
        """Do this from now on; frames that wait already are sent as was decided.

        Raises:
            StartFailed: the process is gone.
        """
        namespace = self._port.node.namespace
        if impairment.rate_bps is None:
            run_tc(self._guard, namespace, [f"qdisc del dev {self.tap} root"], check=False)
        else:
            run_tc(self._guard, namespace, [tbf_line(self.tap, "root", impairment, self._port.mtu)])
        self._order(impairment.describe())

    def counts(self) -> dict[str, int]:
        """What it has done: frames, lost, doubled, corrupted, dropped, and how late the latest was (ns)."""
        return self._order(None)

    def _order(self, wanted: Facts | None) -> dict[str, int]:
        import json

        try:
            self._control.send(json.dumps(wanted).encode())
            answer = self._control.recv(1 << 16)
        except OSError as error:
            raise self._gone(str(error)) from error
        if not answer:
            raise self._gone("it has ended")
        counts: dict[str, int] = json.loads(answer)
        return counts

    def _gone(self, why: str) -> StartFailed:
        said = self._child.stderr.strip().splitlines()[-1:] if self._child is not None else []
        return StartFailed("; ".join([f"the relay of {self._port} does not answer: {why}", *said]))


def _close_both(one: socket.socket, other: socket.socket) -> None:
    one.close()
    other.close()


def _open_tap(name: str) -> int:
    """Make a TAP device, without an address of its own, and return its descriptor; it ends with that."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        with suppress(FileNotFoundError):  # a kernel without IPv6
            write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_port(name: str) -> socket.socket:
    """A packet socket that only sends, from this interface, with the relay's mark."""
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        out.setsockopt(socket.SOL_SOCKET, _SO_MARK, _MARK)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        out.bind((name, 0))
    except BaseException:
        out.close()
        raise
    return out
