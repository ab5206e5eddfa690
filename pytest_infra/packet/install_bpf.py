"""A classifier as a BPF program at the ingress of a node's interfaces: in XDP, or in tc's classifier bpf."""

from __future__ import annotations

import os
import struct
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, ClassVar

from ..core import bpf
from ..core.errors import InfraError, Unavailable, reason
from ..core.requirement import KernelFeature
from ..core.resource import Resource
from ..net.netlink import NetlinkSocket
from .bpf_rules import TC, XDP, Hook, Targets, bpf_program
from .classifier import DEFAULT, Classifier
from .ingress import IngressDevice

__all__ = ["BPF", "BpfIngress", "TcBpf", "XdpIngress"]

_ARRAY, _DEVMAP = 2, 14  # linux/bpf.h, enum bpf_map_type
_LINK_CREATE, _LINK_UPDATE = 28, 29
_XDP_ATTACH, _GENERIC = 37, 2  # BPF_XDP, XDP_FLAGS_SKB_MODE: any interface can do that
_RETURN_2 = bpf.instruction(0xB7, value=2) + bpf.instruction(0x95)
_MOST_PORTS = 64


def _try() -> str:
    try:
        os.close(bpf.load(XDP.kind, _RETURN_2))
    except (OSError, Unavailable) as error:
        return f"this process may not load BPF programs: {reason(error)}"
    return ""


BPF = KernelFeature("bpf", _try, "run as root, on a kernel with CONFIG_BPF_SYSCALL", purpose="XDP and tc's bpf")


class BpfIngress(IngressDevice, Resource):
    """A BPF program, compiled here from the rules, at the ingress of a node's interfaces, as a device.

    Each rule counts what it decides. The program drops frames that are cut short or whose lengths do not fit, IPv4
    options and fragments: they have no name in the model.

    Args:
        node: the node whose interfaces are the ports.
        outputs: the ports that classes stand for; a port stands for itself.

    Raises:
        BadInput: a class stands for a port that the node lacks.
        Unavailable: this process may not load BPF programs, or the kernel refuses one.
    """

    requires = (BPF,)
    hook: ClassVar[Hook]
    sets = ("eth_src", "eth_dst")

    def __init__(self, node: Any, outputs: Mapping[str, str] | None = None) -> None:
        super().__init__(node, outputs)
        self._counters = -1

    def _start(self, undo: ExitStack) -> None:
        held: dict[str, int] = {}
        undo.callback(_close_all, held)
        self._held = held
        self._indexes = {name: item.index for name, item in self.node.interfaces.items() if name in self.ports}

    def _write(self, classifier: Classifier) -> None:
        self.start()
        try:
            self._replace(classifier)
        except OSError as error:
            raise Unavailable(self.name, f"the kernel refuses the program: {error}", "use another device") from error

    def _replace(self, classifier: Classifier) -> None:
        with ExitStack() as spare:  # what is not needed after all
            counters = bpf.create_map(_ARRAY, 8 * (len(classifier.rules) + 1), 1)
            spare.callback(os.close, counters)
            targets = Targets(self._indexes, self._outputs, counters, self._everywhere())
            program = bpf.load(self.hook.kind, bpf_program(classifier, self.hook, targets))
            spare.callback(os.close, program)
            for name in self.ports:
                self._attach(name, program)
            spare.pop_all()
        for name, fd in (("counters", counters), ("program", program)):
            before, self._held[name] = self._held.get(name), fd
            if before is not None:
                os.close(before)

    def _everywhere(self) -> int:
        return -1

    @abstractmethod
    def _attach(self, port: str, program: int) -> None:
        """Let the program see what comes in at a port."""

    def counters(self) -> dict[str, int]:
        """How many packets each rule has decided about."""
        assert self.installed is not None, "install rules first"
        names = [*(rule.name for rule in self.installed.rules), DEFAULT]
        values = struct.unpack(f"={len(names)}Q", bpf.lookup(self._held["counters"], 0, 8 * len(names)))
        return dict(zip(names, values, strict=True))


def _close_all(held: dict[str, int]) -> None:
    for fd in held.values():
        os.close(fd)


class XdpIngress(BpfIngress):
    """XDP, in the generic mode that every interface has (SKB mode), as a device. It sets MAC addresses only."""

    what = "XDP"
    hook = XDP

    def _everywhere(self) -> int:
        if "everywhere" not in self._held:
            fd = self._held["everywhere"] = bpf.create_map(_DEVMAP, 4, _MOST_PORTS)
            for place, index in enumerate(self._indexes.values()):
                self.node.call(bpf.update, fd, place, struct.pack("=I", index))
        return self._held["everywhere"]

    def _attach(self, port: str, program: int) -> None:
        name = f"link {port}"
        if name in self._held:
            bpf.call(_LINK_UPDATE, struct.pack("=IIII", self._held[name], program, 0, 0))
            return
        what = struct.pack("=IIII", program, self._indexes[port], _XDP_ATTACH, _GENERIC) + bytes(16)
        self._held[name] = self.node.call(bpf.call, _LINK_CREATE, what)


_NEW_QDISC, _NEW_FILTER = 36, 44  # RTM_…, linux/rtnetlink.h
_DELETE_QDISC = 37
_REQUEST, _ACK, _REPLACE, _CREATE = 0x001, 0x004, 0x100, 0x400
_CLSACT, _INGRESS = 0xFFFFFFF1, 0xFFFFFFF2  # TC_H_CLSACT, and its parent for ingress
_KIND, _OPTIONS = 1, 2  # TCA_…
_BPF_FD, _BPF_NAME, _BPF_FLAGS = 6, 7, 8
_ALL, _PREFERENCE, _HANDLE = 0x0300, 1 << 16, 1  # ETH_P_ALL in network order


class TcBpf(BpfIngress):
    """The classifier bpf of tc(8) at the ingress of a node's interfaces (tc-bpf(8), direct action), as a device.

    It sets MAC addresses and the packet's mark.
    """

    what = "tc bpf"
    hook = TC
    actions = ("mark",)

    def _start(self, undo: ExitStack) -> None:
        super()._start(undo)
        for name, index in self._indexes.items():
            ask = partial(self._ask, f"a queueing discipline clsact for {name}")
            ask(_NEW_QDISC, _CREATE | _REPLACE, index, 0xFFFF0000, _CLSACT, 0, _attribute(_KIND, b"clsact\0"))
            undo.callback(_quietly, partial(ask, _DELETE_QDISC, 0, index, 0xFFFF0000, _CLSACT, 0))

    def _attach(self, port: str, program: int) -> None:
        options = _attribute(_BPF_FD, struct.pack("=I", program)) + _attribute(_BPF_NAME, b"pytest-infra\0")
        options += _attribute(_BPF_FLAGS, struct.pack("=I", 1))  # TCA_BPF_FLAG_ACT_DIRECT
        content = _attribute(_KIND, b"bpf\0") + _attribute(_OPTIONS, options)
        head = self._indexes[port], _HANDLE, _INGRESS, _PREFERENCE | _ALL
        self._ask(f"a filter of tc for {port}", _NEW_FILTER, _CREATE | _REPLACE, *head, content)

    def _ask(
        self, what: str, kind: int, flags: int, index: int, handle: int, parent: int, info: int, content: bytes = b""
    ) -> None:
        body = struct.pack("=BxxxiIII", 0, index, handle, parent, info) + content  # struct tcmsg
        head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 0, 0)
        self.node.call(_request, head + body, what)


def _request(message: bytes, what: str) -> None:
    with NetlinkSocket() as sock:
        sock.request([(message, what)])


def _quietly(undo: Callable[[], None]) -> None:
    """The node may be gone by now, and its interfaces with it."""
    with suppress(InfraError, OSError):
        undo()


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
