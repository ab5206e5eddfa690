"""`Libvirt`: a private libvirtd (libvirtd(8)), in the network namespace of a lab's host and with files of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from xml.etree import ElementTree

from ..core import process
from ..core.errors import BadInput, StartFailed, Unavailable
from ..core.guard import Guard
from ..core.linux import in_child_user_namespace
from ..core.process import Completed, Process
from ..core.requirement import Command
from ..core.resource import Artifact, Resource
from ..core.wait import until

__all__ = ["LIBVIRTD", "VIRSH", "Libvirt"]

LIBVIRTD = Command("libvirt", program="libvirtd", purpose="guests that libvirt runs", packages={
    "apt": "libvirt-daemon-system", "dnf": "libvirt-daemon-kvm", "pacman": "libvirt",
    "apk": "libvirt-daemon"})  # fmt: skip
VIRSH = Command("libvirt", program="virsh", purpose="libvirt's command", packages={
    "apt": "libvirt-clients", "dnf": "libvirt-client", "pacman": "libvirt", "apk": "libvirt-client"})  # fmt: skip

_PRIVATE = ("/run", "/etc/libvirt", "/var/lib/libvirt")
_SOCKETS = "/run/libvirt"
_DAEMON = f'unix_sock_dir = "{_SOCKETS}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_outputs = "3:stderr"\n'
_QEMU = 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nstdio_handler = "file"\nremember_owner = 0\n'
_UP_S = 60.0


class Libvirt(Resource):
    """libvirtd with a database, sockets and guests of its own; all of it goes with this, or with pytest.

    Bridges and taps that its guests use are those of the host. The machine's libvirtd is not asked.

    Args:
        name: for messages.
        namespace: gives the descriptor of the network namespace that it lives in.
    """

    requires = (LIBVIRTD, VIRSH)

    def __init__(self, name: str, namespace: Callable[[], int]) -> None:
        self.name = name
        self._namespace = namespace

    def _start(self, undo: ExitStack) -> None:
        if in_child_user_namespace():
            raise Unavailable("libvirt", "a private libvirtd needs root", "run pytest as root")
        self._guard = undo.enter_context(Guard(f"infra-{self.name}-libvirt", private=_PRIVATE))
        self._write(f"{_SOCKETS}/libvirtd.conf", _DAEMON)
        self._write("/etc/libvirt/qemu.conf", _QEMU)
        argv = [LIBVIRTD.path(), "--config", f"{_SOCKETS}/libvirtd.conf"]
        self._daemon = Process(argv, where=f"libvirtd of {self.name}", popen=self._popen, cwd="/")
        undo.callback(self._daemon.close)
        until(self._answers, within_s=_UP_S, what="libvirtd answers", last_words=lambda: self._daemon.stderr[-500:])

    def _write(self, path: str, content: str) -> None:
        full = self._guard.root + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content)

    def _popen(self, argv: Any, **options: Any) -> Any:
        return self._guard.popen(argv, (self._namespace(),), **options)

    def _answers(self) -> bool:
        if not self._daemon.running:
            raise StartFailed(f"libvirtd has ended: {self._daemon.stderr[-500:]}")
        return os.path.exists(f"{self._guard.root}{_SOCKETS}/libvirt-sock") and self.virsh("version", check=False).ok

    def virsh(self, *arguments: str, check: bool = True) -> Completed:
        """Run one of the commands of virsh.

        Raises:
            CommandFailed: libvirt refused it (with `check`); the text has what it said.
        """
        argv = [VIRSH.path(), "--connect", "qemu:///system", *arguments]
        return process.run(argv, check=check, where=f"libvirt of {self.name}", popen=self._popen, cwd="/")

    def define(self, xml: str) -> str:
        """Define a guest from its XML, and return its name.

        Raises:
            BadInput: this is no XML of a domain with a name.
            CommandFailed: libvirt refuses it.
        """
        try:
            name = ElementTree.fromstring(xml).findtext("name")  # noqa: S314 - the test's own text
        except ElementTree.ParseError as error:
            raise BadInput(f"this is no XML: {error}") from None
        if not name:
            raise BadInput("this is no domain of libvirt: it has no <name>")
        self._write(f"{_SOCKETS}/define.xml", xml)
        self.virsh("define", f"{_SOCKETS}/define.xml")
        return name

    def start_guest(self, name: str) -> None:
        """Start a guest that was defined."""
        self.virsh("start", name)

    def destroy(self, name: str) -> None:
        """End a guest at once, as pulling its plug would; it stays defined."""
        self.virsh("destroy", name)

    def state(self, name: str) -> str:
        """What it is doing: ``running``, ``shut off``, ``paused``, or another word of virsh(1)."""
        return self.virsh("domstate", name).stdout.strip()

    def diagnose(self) -> Iterator[Artifact]:
        """What the daemon says, and its guests."""
        if self.started:
            yield Artifact("libvirtd.txt", self._daemon.stderr)
            yield Artifact("guests.txt", self.virsh("list", "--all", check=False).stdout)
