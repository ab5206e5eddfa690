"""`LabDpdk`: the part of a lab that declares DPDK processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..core.caller import caller_line
from ..core.errors import BadInput
from ..core.guard import Guard
from ..core.requirement import find_program
from ..core.units import size_bytes
from .base import LabBase

if TYPE_CHECKING:
    from ..dpdk.process import Application, DpdkProcess
    from ..dpdk.vdev import Vdev
    from .dpdk_node import DpdkNode

__all__ = ["LabDpdk"]

_HUGE_BY_DEFAULT = "256 MiB"
_SMALLEST_BYTES = 64 << 20


class LabDpdk(LabBase):
    """The part of a lab that declares DPDK processes."""

    _dpdk_guard: Guard | None = None
    _dpdk_wires: dict[str, list[tuple[DpdkNode, int]]]

    def dpdk(
        self,
        name: str | None = None,
        *,
        app: str | os.PathLike[str] = "testpmd",
        ports: int | Sequence[Any] = (),
        vdev: Vdev | str = "af_packet",
        hugepages: bool | str | int = "auto",
        memory: str | int = "128 MiB",
        cores: int | Sequence[int] | str = "auto",
        eal: Sequence[str] = (),
        arguments: Sequence[str] = (),
        ready: str = "",
        **testpmd: Any,
    ) -> DpdkNode:
        """Declare a DPDK process: a node that forwards frames between its links, in poll mode, outside the kernel.

        Links are declared as for any node; each gets a port, in order. It needs neither hugepages nor a network card.

        Args:
            name: at most 15 characters; ``d1``, ``d2``, … by default.
            app: ``"testpmd"``, or the path of a DPDK application.
            ports: nodes that it is linked with at once; or devices, for ports of different kinds (``Memif("wire")``,
                ``Null()``, ``"af_xdp"``, …); or how many ports of the kind `vdev` it has.
            vdev: the device of each link: ``af_packet``, ``af_xdp``, ``tap`` or ``pcap``, or one with settings
                (`pytest_infra.dpdk`); with ``ports=2``, also ``memif``, ``ring`` and ``null``, which need no link.
            hugepages: whether its memory is huge pages, and how much: ``"256 MiB"``. They are set aside for it. With
                ``"auto"`` it has none.
            memory: how much memory it has otherwise.
            cores: how many workers, or the CPUs: the main thread's first. Others of this machine's sessions leave
                them alone where that can be; `DpdkNode.show` says where not.
            eal: more arguments of the EAL.
            arguments: what the application is told besides.
            ready: what an application writes when it is ready; by default it is when its ports are started.
            testpmd: for testpmd: ``forward`` (``"io"``, ``"macswap"``, ``"txonly"``, ``"rxonly"``, …), ``buffers``,
                ``burst``, ``start``.

        Raises:
            BadInput: a name, device, core, size or argument that cannot be used.
        """
        from ..dpdk.cores import check_cores
        from ..dpdk.eal import eal_words
        from ..dpdk.hugepages import HugePages
        from ..dpdk.vdev import vdev_of

        chosen, default = self._name(name, "d"), vdev_of(vdev)
        amount = _HUGE_BY_DEFAULT if hugepages is True else 0 if hugepages in (False, "auto") else hugepages
        parts: dict[str, Any] = {
            "application": _application(app, arguments, ready, testpmd),
            "memory_mib": _memory_mib(memory),
            "more_eal": eal_words(eal),
            "cores": check_cores(cores),
            "huge": HugePages(amount, self._services.lease) if amount else None,
        }
        return self._declare_dpdk(chosen, default, *self._ports_of(ports, default), parts)

    def _declare_dpdk(
        self, name: str, default: Vdev, nodes: list[Any], devices: list[Vdev], parts: dict[str, Any]
    ) -> DpdkNode:
        from .dpdk_node import DpdkNode

        node = DpdkNode(
            name,
            devices=devices,
            default=default if default.on_link else None,
            lab=self,
            guard=self._guard_of_dpdk,
            entrance=self._services.entrance,
            process=lambda node: _process(node, self._guard_of_dpdk, parts),
            wires=self._wires(),
            declared_at=caller_line(),
        )
        self._add_switch(node)
        self._new_late.append(node.process)
        for other in nodes:
            self.link(other, node)  # type: ignore[attr-defined]
        return node

    def _ports_of(self, ports: int | Sequence[Any], default: Vdev) -> tuple[list[Any], list[Vdev]]:
        from ..dpdk.vdev import Vdev, vdev_of

        if isinstance(ports, int) and not isinstance(ports, bool):
            if not 0 <= ports <= 32:
                raise BadInput(f"ports={ports} cannot be used: 0 to 32 can be asked for")
            return [], [default] * ports
        if isinstance(ports, str | bool) or not isinstance(ports, Sequence):
            raise BadInput(f"ports= is a list of nodes or devices, or a number; got {ports!r}")
        devices = [vdev_of(item) for item in ports if isinstance(item, str | Vdev)]
        nodes = [item for item in ports if not isinstance(item, str | Vdev)]
        for node in nodes:
            self._check_mine(node)
        if nodes and not default.on_link:
            raise BadInput(f"a {default.kind} device sits on no link: ports= cannot hold {nodes[0].name} with it")
        return nodes, devices

    def _wires(self) -> dict[str, list[tuple[DpdkNode, int]]]:
        """The ends of each shared memory interface: a node, and the number of its port."""
        if not hasattr(self, "_dpdk_wires"):
            self._dpdk_wires = {}
        return self._dpdk_wires

    def _guard_of_dpdk(self) -> Guard:
        """The guard of all DPDK processes of the lab: its /run, with their sockets and huge pages, is its own."""
        return self._dpdk_guard or self._services.entrance.call(self._make_dpdk_guard)

    def _make_dpdk_guard(self) -> Guard:
        self._alive()
        if self._dpdk_guard is None:
            self._dpdk_guard = self._stack.enter_context(Guard(f"infra-{self.name}-dpdk", private=("/run",)))
        return self._dpdk_guard


def _process(node: DpdkNode, guard: Callable[[], Guard], parts: dict[str, Any]) -> DpdkProcess:
    from ..dpdk.process import DpdkProcess

    def popen(argv: Sequence[str], **options: Any) -> Any:
        return guard().popen(argv, (node.namespace.fd,), **options)

    hooks: dict[str, Any] = {"vdevs": node.arguments, "wire": node.join_taps, "waits_for": node.waits_for}
    hooks["kernel_sources"] = node.kernel_sources
    return DpdkProcess(node.name, guard=guard, popen=popen, **hooks, **parts)


def _memory_mib(memory: str | int) -> int:
    found = size_bytes(memory)
    if found < _SMALLEST_BYTES:
        raise BadInput(f"memory={memory!r} cannot be used: a DPDK process needs at least 64 MiB")
    return found >> 20


def _application(
    app: str | os.PathLike[str], arguments: Sequence[str], ready: str, testpmd: dict[str, Any]
) -> Application:
    from ..dpdk.process import Application, TestPmd

    if isinstance(arguments, str) or not all(isinstance(word, str) for word in arguments):
        raise BadInput(f"arguments= is a list of strings; got {arguments!r}")
    if app == "testpmd":
        known = ("forward", "buffers", "burst", "start")
        if unknown := [name for name in testpmd if name not in known]:
            raise BadInput(f"testpmd has no setting {', '.join(unknown)}; there are {', '.join(known)}")
        return TestPmd(arguments=tuple(arguments), ready=ready, **testpmd)
    if testpmd:
        raise BadInput(f"{', '.join(testpmd)}: only testpmd has these settings; give arguments= to {os.fspath(app)}")
    if (path := find_program(os.fspath(app))) is None:
        raise BadInput(f"no program {os.fspath(app)!r}; app= is 'testpmd', or the path of a DPDK application")
    return Application(os.path.abspath(path), tuple(arguments), ready)
