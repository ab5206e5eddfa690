"""`FrrRouter`: a router whose routes come from FRR's daemons (https://docs.frrouting.org, zebra(8)).

Each router has daemons, sockets, logs and an /etc/frr of its own, in a guard whose /run nobody else sees: all of it
goes away with the lab, however this process ends. They run as the user who runs the test; FRR wants its user to be in
the group frrvty, which the guard's own /etc/group says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..core import process
from ..core.errors import BadInput, CommandFailed, StartFailed
from ..core.guard import Guard
from ..core.keep import Holdings
from ..core.process import Completed, Process
from ..core.requirement import PRIVILEGE, Command
from ..core.resource import Artifact, Facts
from ..core.text import text_or_file
from ..core.wait import until
from .router import Router

__all__ = ["DAEMONS", "FRR", "Daemons", "FrrRouter", "check_daemons", "config_text"]

DAEMONS = (
    *("babeld", "bfdd", "bgpd", "eigrpd", "fabricd", "isisd", "ldpd", "nhrpd", "ospf6d", "ospfd", "pathd", "pbrd"),
    *("pimd", "ripd", "ripngd", "staticd", "vrrpd"),
)
"""What `daemons` may name; zebra is always there."""

_FOLDERS = ("/usr/lib/frr", "/usr/libexec/frr", "/usr/lib64/frr", "/usr/sbin")
_PACKAGES = {"apt": "frr", "dnf": "frr", "pacman": "frr", "apk": "frr"}


def _program(name: str) -> Command:
    return Command("frr", program=name, folders=_FOLDERS, packages=_PACKAGES, purpose="routing daemons")


_ZEBRA, _VTYSH = _program("zebra"), _program("vtysh")
FRR = (_ZEBRA, _VTYSH)
"""What a router with routing daemons needs."""

_RUN = "/run/frr"
_GROUPS = "root:x:0:\nfrrvty:x:0:root\nfrr:x:0:\n"
_CONFIG = f"{_RUN}/frr.conf"
_START_S = 20.0
_ANSWER_S = 30.0


def check_daemons(names: Iterable[str]) -> tuple[str, ...]:
    """The daemons, each once, zebra left out.

    Raises:
        BadInput: one of them is unknown.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise BadInput(f"daemons is a list, such as ['ospfd']; got {names!r}")
    chosen = tuple(dict.fromkeys(name for name in names if name != "zebra"))
    for name in chosen:
        if name not in DAEMONS:
            raise BadInput(f"no routing daemon {name!r}; FRR has {', '.join(DAEMONS)}")
    return chosen


def config_text(config: str | os.PathLike[str]) -> str:
    """The configuration: the text itself, or that of the file that a path names.

    Raises:
        BadInput: the file cannot be read, or it is neither.
    """
    return text_or_file("config", config)


class FrrRouter(Router):
    """A router with FRR's daemons: zebra and those that are named.

    Args:
        name: its name.
        daemons: of `DAEMONS`.
        config: FRR's integrated configuration, as vtysh(1) reads it.
        options: those of a host.
    """

    requires = (PRIVILEGE, *FRR)

    def __init__(self, name: str, *, daemons: Sequence[str] = (), config: str = "", **options: Any) -> None:
        super().__init__(name, **options)
        self.daemons = ("zebra", *daemons)
        self.config = config
        self.started_daemons: dict[str, Process] = {}
        """The daemons that were started, by name."""

    def _start(self, undo: ExitStack) -> None:
        super()._start(undo)
        self._guard = undo.enter_context(Guard(f"frr-{self.name}", private=("/run", "/etc/frr")))
        os.mkdir(self._outside(_RUN))
        for path, text in {f"{_RUN}/group": _GROUPS, "/etc/frr/vtysh.conf": "", _CONFIG: self.config}.items():
            with open(self._outside(path), "w", encoding="utf-8") as file:
                file.write(text)
        self._tool(["mount", "--bind", f"{_RUN}/group", "/etc/group"])
        undo.callback(self._end_daemons)

    def _end_daemons(self) -> None:
        for child in self.started_daemons.values():
            child.close()

    def hand_over(self, holdings: Holdings) -> None:
        """Its namespace and its guard, and the daemons in it."""
        super().hand_over(holdings)
        holdings.taken += [child.let_go for child in self.started_daemons.values()]

    def _outside(self, path: str) -> str:
        return self._guard.root + path

    def _popen_guarded(self, argv: Sequence[str], **options: Any) -> Any:
        return self._guard.popen(argv, (self.namespace.fd,), **options)

    def _tool(self, argv: Sequence[str], *, check: bool = True) -> Completed:
        return process.run(argv, where=self.name, popen=self._popen_guarded, check=check, timeout_s=_ANSWER_S, cwd="/")

    def launch(self, name: str) -> Callable[[], bool]:
        """Start one daemon; returns what tells whether it answers.

        Raises:
            BadInput: it is none of this router's.
            Unavailable: FRR has come without it.
        """
        if name not in self.daemons:
            raise BadInput(f"the router {self.name} has no daemon {name!r}; it has {', '.join(self.daemons)}")
        program = _program(name).path()
        files = ["-i", f"{_RUN}/{name}.pid", "--vty_socket", _RUN, "-z", f"{_RUN}/zserv.api", "-P", "0"]
        log = ["--log", f"file:{_RUN}/{name}.log"]
        argv = [program, "-u", "root", "-g", "root", *files, *log]
        if name in self.started_daemons:
            self.started_daemons[name].close()
        child = Process(argv, where=self.name, popen=self._popen_guarded, cwd="/")
        self.started_daemons[name] = child
        socket = self._outside(f"{_RUN}/{'zserv.api' if name == 'zebra' else name + '.vty'}")

        def answers() -> bool:
            if not child.running:
                raise StartFailed(f"{name} of {self.name} ended with status {child.returncode}\n{self._words(name)}")
            return os.path.exists(socket)

        return answers

    def await_daemon(self, name: str, answers: Callable[[], bool]) -> None:
        """Wait until a daemon that was launched answers."""
        until(answers, within_s=_START_S, what=f"{name} of {self.name} answers", last_words=lambda: self._words(name))

    def configure(self, config: str | None = None) -> None:
        """Give the daemons their configuration again, or lines that are added to it, also for those started anew.

        Raises:
            BadInput: FRR refuses a line; the text names it.
        """
        text = None if config is None else config_text(config)
        self.observe()
        self.tell(self.config if text is None else text)
        if text is not None:
            self.config = "\n".join(filter(None, [self.config.rstrip("\n"), text]))

    def tell(self, text: str) -> None:
        """Have the daemons, which are up, read lines."""
        with open(self._outside(_CONFIG), "w", encoding="utf-8") as file:
            file.write(text)
        done = self._tool([_VTYSH.path(), "--vty_socket", _RUN, "-f", _CONFIG], check=False)
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("line ", "%"))]
        if not done.ok or complaints:
            said = "\n  ".join(complaints or [f"vtysh ended with status {done.returncode}", done.stderr.strip()])
            where = f" (declared at {self.declared_at})" if self.declared_at else ""
            raise BadInput(f"FRR does not take the configuration of {self.name}{where}:\n  {said}")

    def restart_daemon(self, name: str) -> None:
        """Start a daemon anew: one that has ended, or one that runs, which is killed first. It is configured again."""
        self.kill_daemon(name)
        for left in (f"{name}.vty", *(["zserv.api"] if name == "zebra" else [])):
            if os.path.exists(path := self._outside(f"{_RUN}/{left}")):
                os.unlink(path)
        self.await_daemon(name, self.launch(name))
        self.tell(self.config)

    def kill_daemon(self, name: str) -> None:
        """Kill a daemon (SIGKILL), as a crash does: it says goodbye to nobody, and its routes stay.

        Raises:
            BadInput: it is none of this router's.
        """
        self.observe()
        if name not in self.started_daemons:
            raise BadInput(f"the router {self.name} has no daemon {name!r}; it has {', '.join(self.daemons)}")
        self.started_daemons[name].stop(grace_s=0)

    def vtysh(self, command: str, *, json: bool = True) -> Any:
        """Ask the daemons, as in ``r1.vtysh("show ip ospf neighbor")`` (vtysh(1)).

        Args:
            command: what vtysh takes, without the word ``json``.
            json: whether to ask for JSON and return what it says, as Python values; otherwise the text.

        Raises:
            BadInput: FRR does not understand the command, or has no JSON for it.
        """
        from json import JSONDecodeError, loads

        self.observe()
        asked = f"{command} json" if json else command
        try:
            said = self._tool([_VTYSH.path(), "--vty_socket", _RUN, "-c", asked]).stdout
        except CommandFailed as error:
            why = (error.stdout + error.stderr).strip().splitlines() or ["no answer"]
            raise BadInput(f"vtysh of {self.name} refuses {asked!r}: {why[-1]}") from error
        if not json:
            return said
        try:
            return loads(said or "{}")
        except JSONDecodeError as error:
            raise BadInput(f"{command!r} has no JSON in FRR: pass json=False for its text") from error

    def log(self, name: str) -> str:
        """The log of one daemon; empty where it has written none, or is not there yet."""
        if not hasattr(self, "_guard"):
            return ""
        try:
            with open(self._outside(f"{_RUN}/{name}.log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def _words(self, name: str) -> str:
        text = self.started_daemons[name].stderr + self.log(name)
        return "\n".join(f"  {name}  {line}" for line in text.splitlines()[-10:])

    def describe(self) -> Facts:
        """The router, its ports and its daemons."""
        return {**super().describe(), "daemons": list(self.daemons)}

    def diagnose(self) -> Iterator[Artifact]:
        """The logs of the daemons, what they were told, and what every host has."""
        yield from super().diagnose()
        if self.config:
            yield Artifact(f"{self.name}-frr.conf", self.config)
        for name in self.started_daemons:
            yield Artifact(f"{self.name}-{name}.txt", self.log(name))


class Daemons(AbstractContextManager["Daemons"]):
    """The daemons of some routers, started side by side once the links are up: zebra first, the others look for it."""

    def __init__(self) -> None:
        self.routers: list[FrrRouter] = []

    def __exit__(self, *exc: object) -> None:
        """They end with their routers."""

    def await_ready(self) -> None:
        """Start them, wait until all answer, and give them their configurations."""
        self._launch([(router, "zebra") for router in self.routers])
        self._launch([(router, name) for router in self.routers for name in router.daemons if name != "zebra"])
        for router in self.routers:
            if router.config:
                router.tell(router.config)

    @staticmethod
    def _launch(wanted: Sequence[tuple[FrrRouter, str]]) -> None:
        for router, name, answers in [(router, name, router.launch(name)) for router, name in wanted]:
            router.await_daemon(name, answers)
