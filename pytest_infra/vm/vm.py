"""`VirtualMachine`: a node of the lab with a kernel of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol, TypeVar

from ..core import process
from ..core.guard import Guard
from ..core.node import Address, Interface, Neighbour, Route
from ..core.process import Completed, Process
from ..core.report import as_json
from ..core.resource import Artifact, Facts, Resource
from .cards import Cards
from .control import Controls
from .guest import Guest
from .initramfs import HOST_MODULES, check_kernel, initramfs
from .kernel import KERNEL
from .kvm import choose_accel
from .options import VmOptions
from .process import GuestPopen, GuestProcess
from .qemu import Machine
from .requirement import BUSYBOX, QEMU
from .share import become_host_root, mount_disk

__all__ = ["VirtualMachine", "VmLab"]

T = TypeVar("T")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
}


class VmLab(Protocol):
    """What a virtual machine needs of its lab."""

    journal: Any

    def up(self) -> None:
        """Settle what has been declared."""

    def guard(self) -> Guard:
        """The guard in which the lab's commands run."""

    def adopt(self, child: Process) -> Process:
        """End this process with the lab."""


class VirtualMachine(Controls, Resource):
    """A guest under QEMU: a node like any other (it implements `core.node.Node`).

    `run` and `spawn` start programs of the guest's root file system; `call` runs importable functions in a Python that
    every guest has. None of it needs a network in the guest.

    Args:
        name: the node's name.
        options: what it is made of.
        lab: what it needs of its lab.
        dock: the machine's side of its network cards.
        cards: its network cards.
        declared_at: the line of the test that made it.
    """

    requires = (QEMU, BUSYBOX, KERNEL)
    kind = "vm"
    configures_itself = True
    remote = True
    """Whether functions run in another kernel: what they return is a copy, or stays there (`vm.channel.Remote`)."""

    def __init__(
        self, name: str, options: VmOptions, *, lab: VmLab, dock: Any, cards: Cards, declared_at: str = ""
    ) -> None:
        self.name = name
        self.options = options
        self.declared_at = declared_at
        self.outside = dock
        """The machine's side: the network namespace in which QEMU runs, as a host."""
        self.cards = cards
        self.guest: Guest
        self._lab = lab
        self._up = False
        self._files: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<VirtualMachine {self.name} with {self.options.kernel.name}>"

    # -- life --------------------------------------------------------------------------------------------------

    def _start(self, undo: ExitStack) -> None:
        options = self.options
        if options.host_root:
            check_kernel(options.kernel, HOST_MODULES)
        accel = choose_accel(options.accel, options.kernel, self._start_qemu)
        machine = Machine(
            kernel=options.kernel.bootable(),
            initrd=self._initrd(undo),
            memory_bytes=options.memory_bytes,
            cpus=options.cpus,
            accel=accel,
            shares_root=options.host_root,
            append=" ".join(filter(None, [options.append, "infra.init=/init" if options.initrd else ""])),
        )
        fresh = not options.initrd
        self._kept = undo
        self.guest = Guest(
            self.name, machine, self._start_qemu, ready_s=options.ready_s, snapshot=fresh, fds=self._files
        )
        undo.enter_context(self.guest)
        undo.callback(self._end)
        self._up = True
        self._prepare()

    def _end(self) -> None:
        self._up = False
        self.cards.forget()

    def _initrd(self, undo: ExitStack) -> str:
        """Our initramfs, and behind it the user's own: the kernel unpacks one after the other."""
        own = self.options.initrd
        ours = initramfs(self.options.kernel, tools=not own)
        if not own:
            return ours
        both = os.memfd_create("initrd")
        undo.callback(os.close, both)
        with open(both, "wb", closefd=False) as target:
            for path in (ours, own):
                with open(path, "rb") as source:
                    target.write(source.read())
        self._files = (both,)
        return f"/proc/self/fd/{both}"

    def _start_qemu(self, argv: Sequence[str], **options: Any) -> Any:
        return self._lab.guard().popen(argv, (self.outside.namespace.fd,), **options)

    def _prepare(self) -> None:
        channel, options = self.guest.channel, self.options
        if options.host_root:
            channel.agent(become_host_root, options.kernel.modules_folder, "")
        for _, content in options.kernel.modules.load_order(options.modules):
            channel.ask("module", content)
        if options.disk:
            self.cards.plug_disk(self.guest, options.disk)
            channel.agent(mount_disk, "vda")
        for nic in options.nics:
            self.cards.plug_nic(self.guest, nic)

    def await_ready(self) -> None:
        """Have the guest configure its network; it answers already."""
        self.follow_plan()

    def follow_plan(self) -> None:
        """Plug in the cards of links that are new, and have the guest configure what the lab has planned by now."""
        if self._up:
            self.cards.plug_links(self.guest, self.outside)
            self.outside.configure(self.enter, self.cards.linked, self.cards.others())

    def observe(self) -> None:
        """Settle what the lab has declared."""
        self._lab.up()

    def _demand(self) -> None:
        if not self._up:
            self.observe()
        self.guest.demand()

    # -- commands ----------------------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        timeout_s: float = 120.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Completed:
        """Run a program of the guest to its end. An emulated guest is some twenty times slower than the machine.

        Args:
            argv: the program and its arguments; never a shell string.
            check: whether an exit status other than 0 is an error.
            timeout_s: seconds after which the command and its process group are killed.
            input: given to it as standard input; nothing by default.
            env: variables added to the environment.
            cwd: the folder in the guest to run in; its root by default.

        Raises:
            BadInput: `argv` is a string, empty, or not made of strings.
            CommandFailed: another exit status than 0 (with `check`), no such program, or out of time.
            StartFailed: the guest has ended, or does not answer.
        """
        popen = self._popen(argv, env, cwd)
        options: dict[str, Any] = {"where": self.name, "popen": popen, "input": input, "kind": self._new_process}
        return process.run(argv, check=check, timeout_s=timeout_s, **options)

    def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Start a program of the guest in the background; it ends with the guest at the latest.

        Raises:
            BadInput: `argv` is a string, empty, or not made of strings.
            CommandFailed: no such program.
        """
        popen = self._popen(argv, env, cwd)
        return self._lab.adopt(self._new_process(argv, where=self.name, popen=popen, input=input))

    def _new_process(self, argv: Any, **options: Any) -> Process:
        """Start a process, and have the lab's journal remember it."""
        started: Process = self._lab.journal.process(argv, kind=GuestProcess, **options)
        return started

    def _popen(self, argv: Any, env: Mapping[str, str] | None, cwd: str | os.PathLike[str] | None) -> process.Popen:
        process.check_argv(argv)
        self._demand()
        environment = {**_ENVIRONMENT, **(env or {})}
        start = partial(GuestPopen, self.guest.channel, env=environment, cwd=None if cwd is None else os.fspath(cwd))

        def popen(argv: Sequence[str], *, stdin: int, stdout: int, stderr: int, **_of_the_machine: Any) -> Any:
            return start(argv, stdin=stdin, stdout=stdout, stderr=stderr)

        return popen

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function of an importable module in the guest, and return its value, or raise its error.

        Function, arguments and value travel as pickles. What cannot (a socket …) stays there, and is used from afar.
        """
        self._demand()
        return self.enter(function, *args, **kwargs)

    def enter(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As `call`, also while the lab is still being settled."""
        return self.guest.channel.call(function, *args, **kwargs)

    def write_file(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of the guest, and the folders above it."""
        self._demand()
        self.guest.channel.ask("write", path, content.encode() if isinstance(content, str) else content, mode)

    def read_file(self, path: str) -> bytes:
        """The content of a file of the guest."""
        self._demand()
        content: bytes = self.guest.channel.ask("read", path)
        return content

    # -- its network -------------------------------------------------------------------------------------------

    @property
    def ports(self) -> list[Any]:
        """The interfaces that the lab gave it, in the order of their links."""
        found: list[Any] = self.outside.ports
        return found

    @property
    def namespace(self) -> Any:
        """The network namespace of the machine's side, where its links end."""
        return self.outside.namespace

    def namespaces(self) -> dict[str, int]:
        """The descriptors of the namespaces on the machine's side."""
        found: dict[str, int] = self.outside.namespaces()
        return found

    @property
    def forwards(self) -> bool:
        """Whether it is a router."""
        return bool(self.outside.forwards)

    @property
    def auto_routes(self) -> bool:
        """Whether the lab works out its routes."""
        return bool(self.outside.auto_routes)

    @property
    def planned_routes(self) -> Any:
        """The routes that the lab gave it."""
        return self.outside.planned_routes

    @planned_routes.setter
    def planned_routes(self, routes: Any) -> None:
        self.outside.planned_routes = routes

    def _network(self) -> Any:
        self._demand()
        return self.outside.network(self.enter)

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The network interfaces in the guest now, by name."""
        found: dict[str, Interface] = self._network().interfaces()
        return found

    @property
    def addresses(self) -> list[Address]:
        """The IP addresses in the guest now."""
        found: list[Address] = self._network().addresses()
        return found

    @property
    def routes(self) -> list[Route]:
        """The routes of the guest's main table now."""
        found: list[Route] = self._network().routes()
        return found

    @property
    def neighbours(self) -> list[Neighbour]:
        """The guest's ARP and neighbour discovery tables now."""
        found: list[Neighbour] = self._network().neighbours()
        return found

    @property
    def sysctl(self) -> Any:
        """The guest's network settings, by dotted name."""
        return self._network().sysctl

    # -- what it tells -----------------------------------------------------------------------------------------

    @property
    def emulated(self) -> bool:
        """Whether its processor is emulated, so that nothing can be said of time and throughput."""
        self._demand()
        return self.guest.machine.accel == "tcg"

    @property
    def console(self) -> str:
        """What the guest has written to its first serial line."""
        self._demand()
        return self.guest.console.text

    def describe(self) -> Facts:
        """The guest and its ports."""
        facts = {"kernel": self.options.kernel.name, "root": self._root()}
        return {**self.outside.describe(), "kind": self.kind, **(self.guest.facts() if self._up else {}), **facts}

    def _root(self) -> str:
        options = self.options
        return "the machine's files" if options.host_root else options.disk or options.initrd or "initramfs"

    def diagnose(self) -> Iterator[Artifact]:
        """Its console, what QEMU said, and what the guest's network has where it answers."""
        if not hasattr(self, "guest"):
            return
        yield Artifact("console.txt", self.guest.console.text)
        if hasattr(self.guest, "emulator") and self.guest.emulator.started and self.guest.emulator.errors:
            yield Artifact("qemu.txt", self.guest.emulator.errors)
        if self._up and not self.guest.paused and not self.guest.channel.gone.is_set():
            network = self.outside.network(self.enter)
            for name in ("interfaces", "addresses", "routes", "neighbours"):
                yield Artifact(f"guest-{name}.json", as_json(getattr(network, name)()))
