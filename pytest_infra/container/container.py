"""`Container`: a node of the lab whose processes a container engine runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from ..core import process
from ..core.errors import CommandFailed, InfraError, StartFailed
from ..core.process import Completed, Process
from ..core.report import explain
from ..core.resource import Artifact, Facts, Resource
from ..core.wait import until
from .content import Content
from .engine import Engine, EngineError
from .execute import ContainerProcess, Exec, check_found
from .gpus import device_requests, raise_refusal
from .image import Image
from .networked import Networked
from .options import ContainerOptions
from .ready import ENDED, Condition, why_not
from .requirement import DOCKER
from .sandbox import Sandbox
from .state import State, hint, read_state
from .volume import Volume

__all__ = ["Container", "ContainerLab"]

T = TypeVar("T")

_LOG_LINES = 10
_HELD = ("mnt", "pid", "uts", "ipc")


class ContainerLab(Protocol):
    """What a container needs of its lab."""

    name: str
    journal: Any  # remembers commands (`net.diagnosis.Journal`)

    def up(self) -> None:
        """Settle what has been declared."""

    def engine(self) -> Engine:
        """The session's engine, started."""

    def adopt(self, child: Process) -> Process:
        """End this process with the lab."""


class Container(Networked, Content, Resource):
    """A container: a node like any other (it implements `core.node.Node`).

    Its network is a lab host's, in which links, addresses and routes are there before its first process starts, and
    which outlives a restart; or it is one of Docker's own, and then the lab's links cannot end at it.

    Args:
        name: the node's name.
        image: what it is made from.
        command: its first process; the image's by default.
        options: the rest.
        lab: what it needs of its lab.
        network: the host whose network namespace it lives in.
        sandbox: how it gets there.
        docker_network: the name of Docker's network (``bridge``, ``host``, ``none`` …) instead; None for the lab's.
        ready: what to wait for when it starts.
        within_s: for how long, seconds.
        declared_at: the line of the test that made it.
    """

    requires = (DOCKER,)
    kind = "container"

    def __init__(
        self,
        name: str,
        image: Image | str,
        command: Sequence[str] | None,
        options: ContainerOptions,
        *,
        lab: ContainerLab,
        network: Any,
        sandbox: Sandbox,
        docker_network: str | None,
        ready: Sequence[Condition],
        within_s: float,
        declared_at: str,
    ) -> None:
        self.name = name
        self.image = image
        self.command = None if command is None else list(process.check_argv(command))
        self.options = options
        self.declared_at = declared_at
        self.docker_network = docker_network
        self.id = ""
        """The engine's id of it, while it is up."""
        self._lab = lab
        self._network = network
        self._sandbox = sandbox
        self.hostname = sandbox.hostname = options.hostname or name
        """What it calls itself (uname(2))."""
        self._ready = tuple(ready)
        self.left_s = 0.0
        """How long a condition that is waited for may take to look, seconds."""
        self._within_s = within_s
        self._held: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Container {self.name} of {self.image}>"

    def observe(self) -> None:
        """Settle what the lab has declared."""
        self._lab.up()

    # -- life --------------------------------------------------------------------------------------------------

    def _start(self, undo: ExitStack) -> None:
        self.engine = engine = self._lab.engine()
        undo.callback(self._let_go)
        try:
            self.id = self._create(engine)
            undo.callback(self._remove, engine)
            if self.docker_network is None and engine.private:
                undo.callback(engine.join(self.id, self.namespace.fd))
            engine.ask("start", self.id)
        except EngineError as error:
            raise_refusal(self.options.gpus, engine, error, self.name)
            raise self._failed("cannot be started", str(error)) from error
        self._look_again()

    def _create(self, engine: Engine) -> str:
        outside = self.docker_network
        network = self._sandbox.network(engine) if outside is None else {"network_mode": outside}
        config = self.options.config()
        shared = ("host",) if engine.podman else ("host", "container:")  # the name there is another one's
        if not str(network["network_mode"]).startswith(shared):
            config["hostname"] = self.hostname
        host_config = {**self.options.host_config(self._scope(engine)), **network}
        host_config |= device_requests(self.options.gpus, engine)
        return str(
            engine.ask(
                "create_container",
                str(self.image),
                self.command,
                labels={**self._scope(engine), "pytest-infra.node": self.name},
                host_config=engine.ask("create_host_config", **host_config),
                runtime=network.get("runtime"),
                **config,
            )["Id"]
        )

    def _scope(self, engine: Engine) -> dict[str, str]:
        return {**engine.labels, "pytest-infra.lab": self._lab.name}

    def _remove(self, engine: Engine) -> None:
        container, self.id = self.id, ""
        with suppress(EngineError):  # it has gone, or its engine has
            engine.ask("remove_container", container, v=True, force=True)
        for mount in self.options.volumes.values():
            with suppress(EngineError):  # another container has it
                if isinstance(mount, Volume):
                    engine.ask("remove_volume", mount.full_name(self._scope(engine)))

    def _look_again(self) -> None:
        """Take hold of the namespaces of the first process that it has now."""
        self._let_go()
        pid = self.state.pid
        with suppress(InfraError):  # it has ended already
            if self.docker_network is not None and pid:
                fd = self.engine.namespace(pid, "net", self.id)
                try:
                    if self.docker_network != "host":
                        self.namespace.replace(fd)
                finally:
                    os.close(fd)
            for kind in _HELD if pid else ():
                self._held[kind] = self.engine.namespace(pid, kind, self.id)

    def _let_go(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    def await_ready(self) -> None:
        """Wait for the conditions it was declared with, each in turn.

        Raises:
            StartFailed: one did not come true in time, or it ended before; the text has its state and its last words.
        """
        for condition in self._ready:
            self.wait_for(condition, within_s=self._within_s)

    def wait_for(self, condition: Condition, within_s: float = 30.0) -> None:
        """Wait for a condition of `pytest_infra.ready`.

        Raises:
            StartFailed: it did not come true in time, or the container ended; with its state and its last words.
        """
        if why := why_not(self, condition, within_s):
            raise self._failed("is not ready", why)

    def _failed(self, what: str, why: str) -> StartFailed:
        rows = [("why", why)]
        if self.id:
            state = self.state
            lines = self.logs(tail=_LOG_LINES).splitlines()
            if state.status == "created":  # the engine has refused, and why is told already
                told = replace(state, error=state.error or why)
                rows.append(("next", hint(told) or "correct what the engine refuses"))
            else:
                more = f"look at the whole log: {self.name}.logs()" if lines else "have it write what it does"
                log = "\n".join(lines) or "it wrote nothing"
                rows += [("state", str(state)), ("log", log), ("next", hint(state) or more)]
        elif "no such image" in why.lower():
            rows.append(("next", "make it with infra_image, or pull it: infra_image.pull(NAME)"))
        return StartFailed(explain(f"container {self.name} (declared at {self.declared_at}) {what}", rows))

    @property
    def state(self) -> State:
        """What it is doing, as the engine has it now."""
        return read_state(self._inspect())

    def _demand(self) -> None:
        if not self.id:
            self.observe()
        if not self.id:
            raise InfraError(f"container {self.name} is not there: its lab has ended, or it is being started")

    def wait(self, within_s: float = 30.0) -> int:
        """Wait for its end, and return its exit status.

        Raises:
            WaitTimeout: it still runs.
        """
        self._demand()
        until(lambda: self.state.status in ENDED, within_s=within_s, what=f"the end of {self.name}")
        return self.state.exit_code

    def shut_down(self, grace_s: float = 10.0) -> int:
        """End its first process: SIGTERM (or the image's signal), and SIGKILL after `grace_s` seconds.

        Returns its exit status.
        """
        self._demand()
        self.engine.ask("stop", self.id, timeout=round(grace_s))
        return self.state.exit_code

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal to its first process."""
        self._demand()
        self.engine.ask("kill", self.id, signal=signal)

    def restart(self, grace_s: float = 10.0) -> None:
        """End it and start it again, and wait until it is ready: with the same files, links and addresses."""
        self._demand()
        self.engine.ask("restart", self.id, timeout=round(grace_s))
        self._look_again()
        self.await_ready()

    def pause(self) -> None:
        """Freeze all its processes."""
        self._demand()
        self.engine.ask("pause", self.id)

    def unpause(self) -> None:
        """Let its processes go on."""
        self._demand()
        self.engine.ask("unpause", self.id)

    # -- commands ----------------------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        timeout_s: float = 30.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
    ) -> Completed:
        """Run a program of the image in the container, with its user, environment and limits (``docker exec``).

        Args:
            argv: the program and its arguments; never a shell string.
            check: whether an exit status other than 0 is an error.
            timeout_s: seconds after which the command and its process group are killed.
            input: given to it as standard input; nothing by default.
            env: variables added to the container's.
            cwd: the folder in the container to run in; its own by default.
            user: another user than the container's.

        Raises:
            BadInput: `argv` is a string, empty, or not made of strings.
            CommandFailed: another exit status than 0 (with `check`), no such program, or out of time.
        """
        popen = self._popen(argv, env, cwd, user)
        options: dict[str, Any] = {"where": self.name, "popen": popen, "input": input, "kind": self._start_process}
        done = process.run(argv, check=False, timeout_s=timeout_s, **options)
        check_found(done)
        if check and not done.ok:
            raise CommandFailed(done.argv, done.where, done.returncode, done.stdout, done.stderr)
        return done

    def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
    ) -> Process:
        """Start a program of the image in the container in the background; it ends with the container at the latest.

        Raises:
            BadInput: `argv` is a string, empty, or not made of strings.
        """
        popen = self._popen(argv, env, cwd, user)
        return self._lab.adopt(self._start_process(process.check_argv(argv), where=self.name, popen=popen, input=input))

    def _start_process(self, argv: Sequence[str], **options: Any) -> Any:
        return self._lab.journal.process(argv, kind=ContainerProcess, **options)

    def _popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        user: str,
    ) -> process.Popen:
        process.check_argv(argv)
        self._demand()
        folder = None if cwd is None else os.fspath(cwd)
        start = partial(Exec, self.engine, self.id)

        def popen(argv: Sequence[str], *, stdin: int, stdout: int, stderr: int, **_of_the_machine: Any) -> Any:
            try:
                return start(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=folder, user=user)
            except EngineError as error:
                if not self.state.running:
                    raise self._failed("does not run, so nothing can be run in it", str(error)) from error
                raise

        return popen

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a Python function of this machine in a thread that lives in the container's network namespace."""
        self._demand()
        return self.enter(function, *args, **kwargs)

    def enter(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As `call`, also while the lab is still being settled."""
        value: T = self.namespace.call(function, *args, **kwargs)
        return value

    def namespaces(self) -> dict[str, int]:
        """The descriptors of its namespaces, by their names under /proc/PID/ns."""
        return {**self._held, **self._network.namespaces()}

    @property
    def pid(self) -> int:
        """The id of its first process as the machine sees it.

        Raises:
            InfraError: it does not run.
        """
        if not (pid := self.state.pid):
            raise InfraError(f"container {self.name} does not run: {self.state}")
        return self.engine.machine_pid(pid)

    @property
    def control_group(self) -> int:
        """The id of its first process, whose control groups are the container's."""
        return self.pid

    def describe(self) -> Facts:
        """The container and its ports."""
        return {**self._network.describe(), "kind": self.kind, "image": str(self.image)}

    def diagnose(self) -> Iterator[Artifact]:
        """Its log, and what the engine says of it."""
        import json

        if not self.id:  # it could not be made; to ask for its log would make the lab try again
            return
        yield Artifact(f"{self.name}-log.txt", self.logs())
        yield Artifact(f"{self.name}-inspect.json", json.dumps(self._inspect(), indent=2))
