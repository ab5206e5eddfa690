"""The fixtures; each only wires a resource to a test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from .core.errors import Unavailable

if TYPE_CHECKING:
    import testinfra.host

    from .cgroup.group import Group
    from .container.container import Container
    from .container.image import Images
    from .core.node import Node
    from .gpu.device import Gpu
    from .lab import Lab
    from .lab.dpdk_node import DpdkNode
    from .net.host import Host
    from .net.ovs import OvsBridge
    from .session import Infra
    from .vm.vm import VirtualMachine

__all__ = [
    "BEFORE_END",
    "RECORD",
    "SESSION",
    "GpuFactory",
    "GroupFactory",
    "LabFactory",
    "demand_run",
    "infra",
    "infra_cgroup",
    "infra_container",
    "infra_dpdk",
    "infra_gpu",
    "infra_host",
    "infra_image",
    "infra_vm",
    "lab",
    "lab_factory",
    "netns",
    "ovs_bridge",
]

SESSION = pytest.StashKey["Infra"]()
"""Where a run keeps its session, for the plugin."""
RECORD = pytest.StashKey[bool]()
"""Whether the latest frames of every lab are kept."""
BEFORE_END = pytest.StashKey[list[Callable[["Lab", BaseException | None], None]]]()
"""Called with a lab, and the error that it ends with, before it ends."""


class GroupFactory(Protocol):
    """Makes control groups that end with the test."""

    def __call__(self, name: str = "group", **limits: Any) -> Group:
        """A control group that is up; the limits are those of `cgroup.limits.parse_limits`."""


class GpuFactory:
    """Holds GPUs until the test ends, and then checks that nothing is left on them.

    ``infra_gpu(memory="2 GiB")`` gives one, ``infra_gpu.several(2)`` as many; the arguments are those of `Infra.gpus`.
    """

    def __init__(self, infra: Infra, until_end: ExitStack, timeout_s: float) -> None:
        self._infra = infra
        self._until_end = until_end
        self._timeout_s = timeout_s

    def __call__(self, *, leftover: int | str = "64 MiB", **wish: Any) -> Gpu:
        """One GPU; `leftover` is how much memory may still be in use at the end."""
        return self.several(1, leftover=leftover, **wish)[0]

    def several(self, count: int, *, leftover: int | str = "64 MiB", **wish: Any) -> tuple[Gpu, ...]:
        """Several GPUs."""
        from .checks.gpu_clean import assert_gpu_clean

        gpus = self._until_end.enter_context(self._infra.gpus(count, timeout=self._timeout_s, **wish)).gpus
        for gpu in gpus:
            self._until_end.callback(assert_gpu_clean, gpu, leftover=leftover)
        return gpus


def demand_run(config: pytest.Config) -> None:
    """Refuse to go on unless the run was given ``--infra``, on Linux.

    Raises:
        Unavailable: it was not, or is not.
    """
    if not config.getoption("infra_enabled"):
        raise Unavailable("opt-in", "--infra is not given", "pytest --infra")
    from .core.requirement import LINUX

    LINUX.demand()


class LabFactory:
    """Makes labs that live longer than one test.

    ``with lab_factory("name") as lab:`` in a fixture of any scope gives a lab that lives as long as that fixture;
    ``lab_factory.make("name")`` gives one that is ended with the session.
    """

    def __init__(self, infra: Infra, until_end: ExitStack) -> None:
        self._infra = infra
        self._until_end = until_end

    def __call__(self, name: str | None = None) -> Lab:
        """A lab, to be used as a context manager."""
        return self._infra.lab(name)

    def make(self, name: str | None = None) -> Lab:
        """A lab that is up until the session ends."""
        return self._until_end.enter_context(self._infra.lab(name))


def _command_of_controller(config: pytest.Config) -> list[str]:
    """In a worker of pytest-xdist, whose own command line says nothing: what was started, and which worker this is."""
    given = getattr(config, "workerinput", {})
    return [*map(str, given["mainargv"]), f"(worker {given['workerid']})"] if "mainargv" in given else []


@pytest.fixture(scope="session")
def infra(pytestconfig: pytest.Config) -> Iterator[Infra]:
    """The session's infrastructure, for labs within a test: ``with infra.lab() as lab:``.

    ``infra.machine`` is the machine's own network, read-only.
    """
    demand_run(pytestconfig)
    from .session import Infra

    def before_end(lab: Lab, error: BaseException | None) -> None:
        for tell in pytestconfig.stash[BEFORE_END]:
            tell(lab, error)

    record, command = pytestconfig.stash.get(RECORD, False), _command_of_controller(pytestconfig)
    with Infra(record=record, before_end=before_end, command=command) as session:
        pytestconfig.stash[SESSION] = session
        yield session
    del pytestconfig.stash[SESSION]


@pytest.fixture(scope="session")
def lab_factory(infra: Infra) -> Iterator[LabFactory]:
    """Makes labs that several tests share, in a fixture of any scope.

    ``with lab_factory("office") as lab: yield lab``, or ``lab_factory.make("office")`` for the rest of the session.
    """
    with ExitStack() as until_end:
        yield LabFactory(infra, until_end)


@pytest.fixture
def lab(infra: Infra, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """An empty lab of the test's own; it ends with the test. ``lab.link(lab.host("a"), lab.host("b"))`` fills it.

    Hosts, routers, switches, links, containers and virtual machines are made at the first look.
    """
    with infra.lab(re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")) as lab:
        yield lab


@pytest.fixture
def netns(lab: Lab) -> Host:
    """A single host, a network namespace: ``netns.run(["ip", "address"])``, ``netns.call(function)``."""
    return lab.host()


@pytest.fixture
def ovs_bridge(lab: Lab) -> OvsBridge:
    """A single Open vSwitch bridge in the test's lab: ``lab.link(host, ovs_bridge)``."""
    return lab.ovs()


@pytest.fixture
def infra_cgroup(infra: Infra) -> Iterator[GroupFactory]:
    """Makes control groups: ``infra_cgroup("worker", memory_max="64 MiB", cpu_max=0.5)``; they end with the test."""
    with ExitStack() as until_end:

        def make(name: str = "group", **limits: Any) -> Group:
            return until_end.enter_context(infra.cgroup(name, **limits))

        yield make


@pytest.fixture
def infra_container(lab: Lab) -> Callable[..., Container]:
    """``infra_container(image, command, ...)``: a container in the test's lab, started and ready when it is returned.

    The arguments are those of ``lab.container``.
    """

    def start(*args: Any, **options: Any) -> Container:
        container = lab.container(*args, **options)
        lab.up()
        return container

    return start


@pytest.fixture
def infra_dpdk(lab: Lab) -> Callable[..., DpdkNode]:
    """``infra_dpdk(app="testpmd", ports=[a, b], vdev="af_packet", …)``: a DPDK process in the test's lab, as a node.

    The arguments are those of ``lab.dpdk``.
    """
    return lab.dpdk


@pytest.fixture
def infra_vm(lab: Lab) -> Callable[..., VirtualMachine]:
    """``infra_vm(name, ...)``: a virtual machine in the test's lab, up and ready when it is returned.

    The arguments are those of ``lab.vm``.
    """

    def start(*args: Any, **options: Any) -> VirtualMachine:
        machine = lab.vm(*args, **options)
        lab.up()
        return machine

    return start


@pytest.fixture(scope="session")
def infra_image(infra: Infra) -> Images:
    """Images without a registry: from folders, archives, programs of this machine, Dockerfiles; each built once."""
    return infra.images


@pytest.fixture(scope="session")
def infra_host(infra: Infra) -> Callable[[Node], testinfra.host.Host]:
    """``infra_host(node)``: a testinfra ``Host`` of any node: files, processes, sockets, users … as seen inside."""
    del infra  # only so that a test which uses this is one of ours
    from .testinfra import host_of

    return host_of


@pytest.fixture
def infra_gpu(infra: Infra, pytestconfig: pytest.Config) -> Iterator[GpuFactory]:
    """``infra_gpu(memory="2 GiB")``: a GPU that is healthy and the test's own, or a CPU through OpenCL.

    What the test leaves on it, memory or processes, fails the test.
    """
    with ExitStack() as until_end:
        yield GpuFactory(infra, until_end, pytestconfig.getoption("infra_lock_timeout"))
