"""A half-started resource cannot leak: each step of each start fails in turn, and nothing is left each time.

A step is a call into the kernel or to a new thread, which fails instead of being made, or the registration of an undo,
after which something else fails. Each resource of the package needs a recipe here; a new one without fails a test.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import importlib
import os
import pkgutil
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import pytest

import pytest_infra
from pytest_infra.cgroup.group import Group
from pytest_infra.container.container import Container
from pytest_infra.container.dockerd import Dockerd
from pytest_infra.container.engine import Engine
from pytest_infra.container.image import Image, Images
from pytest_infra.container.sandbox import Sandbox
from pytest_infra.core import linux
from pytest_infra.core.errors import InfraError, WaitTimeout
from pytest_infra.core.guard import Guard
from pytest_infra.core.lease import Lease
from pytest_infra.core.resource import Resource
from pytest_infra.dpdk.hugepages import HugePages
from pytest_infra.dpdk.process import DpdkProcess
from pytest_infra.gpu.cuda import CudaCompute
from pytest_infra.gpu.device import Gpu, Gpus
from pytest_infra.gpu.opencl import OpenClCompute, find_opencl
from pytest_infra.lab import Lab
from pytest_infra.lab.base import LabBase
from pytest_infra.lab.dpdk_node import DpdkNode
from pytest_infra.net.borrowed import BorrowedHost
from pytest_infra.net.bridge import LinuxBridge
from pytest_infra.net.capture import Capture
from pytest_infra.net.dock import Dock
from pytest_infra.net.frr import FrrRouter
from pytest_infra.net.host import Host
from pytest_infra.net.isolated import ISOLATIONS, IsolatedHost
from pytest_infra.net.namespace import Entrance, NetNamespace
from pytest_infra.net.netlink import NetlinkError, NetlinkSocket
from pytest_infra.net.ovs import OvsBridge
from pytest_infra.net.ovs_instance import OvsInstance
from pytest_infra.net.ovs_pool import OvsPool
from pytest_infra.net.port import Port
from pytest_infra.net.recorder import Recorder
from pytest_infra.net.relay import Relay
from pytest_infra.net.rootfs import RootedHost
from pytest_infra.net.router import Router
from pytest_infra.net.switch import Switch
from pytest_infra.net.uplink import Uplink
from pytest_infra.net.virtual_service import VirtualService
from pytest_infra.packet.install_acl import RteAcl
from pytest_infra.packet.install_bpf import BpfIngress, TcBpf, XdpIngress
from pytest_infra.packet.meter_ovs import OvsMeterDevice, _VirtualOvs
from pytest_infra.packet.probe import Bench
from pytest_infra.packet.probed import External, Probed
from pytest_infra.packet.red import RedQueue
from pytest_infra.session import Infra
from pytest_infra.vm.console import Console
from pytest_infra.vm.emulator import Emulator
from pytest_infra.vm.guest import Guest
from pytest_infra.vm.hosted import HostedGuest
from pytest_infra.vm.kernel import KERNEL, find_kernel
from pytest_infra.vm.ksm import MergedPages
from pytest_infra.vm.libvirt import Libvirt
from pytest_infra.vm.migrate import _Target
from pytest_infra.vm.qemu import Machine
from pytest_infra.vm.requirement import QEMU
from pytest_infra.vm.vm import VirtualMachine

PACKAGE = os.path.dirname(pytest_infra.__file__)


def way_here(name: str) -> tuple[str, ...]:
    """The lines of the package that lead to a step; none where the standard library takes it on the way of another."""
    frame: FrameType | None = sys._getframe(3)
    passed = {"after a registration": contextlib.__file__, "Popen._execute_child": subprocess.__file__}.get(name)
    while frame is not None and frame.f_code.co_filename == passed:
        frame = frame.f_back
    lines: list[str] = []
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        lines.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(lines)


class Faults:
    """Notes down the steps that are taken, and makes one of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch, spared: Callable[..., bool], number: int) -> None:
        self.active = True
        self.steps: list[tuple[str, ...]] = []
        self.failed: tuple[str, ...] = ()
        self._spared = spared
        self._number = number
        for owner, names in {
            builtins: ["open"],
            os: ["open", "pipe2", "mkdir", "makedirs", "memfd_create", "pidfd_open", "dup2"],
            linux: ["setns", "unshare", "mount", "open_namespace"],
            subprocess.Popen: ["_execute_child"],
            threading.Thread: ["start"],
            socket.socket: ["__init__", "recvmsg", "connect"],
            socket: ["socketpair"],
            NetlinkSocket: ["_exchange"],
        }.items():
            for name in names:
                patch.setattr(owner, name, self._refusing(getattr(owner, name), f"{owner.__name__}.{name}"))
        patch.setattr(ExitStack, "_push_exit_callback", self._failing_after(ExitStack._push_exit_callback))

    def _strikes(self, name: str) -> bool:
        if not self.active or not (way := way_here(name)):
            return False
        self.steps.append((name, *way))
        if len(self.steps) == self._number:
            self.active, self.failed = False, self.steps[-1]
        return not self.active

    def _refusing(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if not self._spared(name, *args) and self._strikes(name):
                raise self._error(name)
            return function(*args, **kwargs)

        return step

    @staticmethod
    def _error(name: str) -> Exception:
        if name == "Thread.start":
            return RuntimeError("can't start new thread")
        if name == "NetlinkSocket._exchange":
            return NetlinkError(errno.ENOBUFS, "a request")
        return OSError(errno.ENOMEM, f"{name} was made to fail")

    def _failing_after(self, function: Callable[..., None]) -> Callable[..., None]:
        def register(*args: Any, **kwargs: Any) -> None:
            function(*args, **kwargs)
            if self._strikes("after a registration"):
                raise OSError(errno.ENOMEM, "the step after a registration was made to fail")

        return register


@contextmanager
def faults(infra: Infra, number: int = 0) -> Iterator[Faults]:
    """Has the step of that number fail."""
    home = infra._services.entrance._home

    def spared(name: str, *args: Any) -> bool:
        """Going back to where one has come from does not fail."""
        return name == "pytest_infra.core.linux.setns" and args[0] == home

    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, spared, number)
        try:
            yield faults
        finally:
            faults.active = False


def worth_trying(steps: list[tuple[str, ...]]) -> list[int]:
    """The numbers of the steps, of those that are taken again and again on the same way the first and the last."""
    first = {step: number for number, step in reversed([*enumerate(steps, 1)])}
    last = {step: number for number, step in enumerate(steps, 1)}
    return sorted({*first.values(), *last.values()})


Step = Callable[[], None]
Recipe = Callable[[Infra], "tuple[Step, Step]"]
"""How to begin a thing, and how to end it."""


def plainly(make: Callable[[Infra], Resource]) -> Recipe:
    def recipe(infra: Infra) -> tuple[Step, Step]:
        resource = make(infra)
        return (lambda: resource.start() and None), resource.stop

    return recipe


def in_lab(declare: Callable[[Lab], object]) -> Recipe:
    """Begins with the first look at what is declared in a lab."""

    def recipe(infra: Infra) -> tuple[Step, Step]:
        lab = infra.lab()

        def begin() -> None:
            lab.start()
            declare(lab)
            lab.up()

        return begin, lab.stop

    return recipe


def on_a_wire(make: Callable[[Lab], Resource]) -> Recipe:
    """Begins a resource of its own beside a lab that is up."""

    def recipe(infra: Infra) -> tuple[Step, Step]:
        lab = infra.lab().start()
        lab.link(lab.host("a"), lab.host("b"), ip=[], peer_ip=[])
        lab.up()
        resource = make(lab)

        def end() -> None:
            resource.stop()
            lab.stop()

        return (lambda: resource.start() and None), end

    return recipe


def in_a_guest(recipe: Recipe) -> Recipe:
    """With a program that speaks as QEMU and the agent in a guest do; a real one would take seconds for each step."""

    def made(infra: Infra) -> tuple[Step, Step]:
        KERNEL.demand()
        begin, end = recipe(infra)
        folder = tempfile.mkdtemp()
        program = os.path.join(folder, os.path.basename(QEMU.program))
        with open(program, "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} -I -S {os.path.dirname(__file__)}/fake_qemu.py "$@"\n')
        os.chmod(program, 0o755)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}:{before}"

        def last() -> None:
            try:
                end()
            finally:
                os.environ["PATH"] = before
                shutil.rmtree(folder)

        return begin, last

    return made


def moving(infra: Infra) -> tuple[Step, Step]:
    """Begins the process that a guest is to move to."""
    lab = infra.lab().start()
    vm, targets = lab.vm(accel="tcg"), []
    lab.link(vm, lab.host())

    def begin() -> None:
        lab.up()
        targets.append(_Target(vm.guest, vm.cards, vm.outside))
        targets[-1].start()

    def end() -> None:
        for target in targets:
            target.stop()
        lab.stop()

    return begin, end


def wires(lab: Lab) -> dict[str, Port]:
    return {"p1": lab.nodes["a"].ports[0], "p2": lab.nodes["b"].ports[0]}


def whole_lab(lab: Lab) -> None:
    sw, r = lab.bridge(), lab.router()
    a, b, far = lab.host("a"), lab.host("b", isolate=["pid", "user", "mount"]), lab.host("far")
    for node in (a, b, r):
        lab.link(node, sw)
    lab.link(r, far)
    lab.up()
    lab.link(far, lab.host("late"))


def used_lab(lab: Lab) -> None:
    a, b, far = lab.host("a"), lab.host("b", isolate=["pid", "user", "mount"]), lab.host("far")
    lab.link(a, b)
    lab.link(b, far)
    a.run(["true"])
    b.spawn(["sleep", "60"])
    far.call(int)
    lab.links[0].down()
    lab.links[0].up()
    assert a.routes
    a.sysctl["net.ipv4.ip_forward"] = "1"


def two_on(switch: Callable[[Lab], Switch]) -> Callable[[Lab], None]:
    def declare(lab: Lab) -> None:
        sw = switch(lab)
        for name in ("a", "b"):
            lab.link(lab.host(name), sw)
        lab.up()

    return declare


def machines_with_a_tunnel(lab: Lab) -> None:
    m1, m2 = lab.host("m1"), lab.host("m2")
    lab.link(m1, m2)
    lab.tunnel(lab.bridge("br1", host=m1), lab.bridge("br2", host=m2))


def busybox(lab: Lab) -> Image:
    return Images(lab.engine).scratch(["busybox"])


def entrance(infra: Infra) -> Entrance:
    return infra._services.entrance


MACHINE = Machine("/nowhere/kernel", "/nowhere/initrd", 256 << 20, 1, "tcg")

RECIPES: dict[type[Resource], list[Recipe]] = {
    Guard: [plainly(lambda infra: Guard("test", private=("/run",)))],
    Lease: [plainly(lambda infra: Lease())],
    Entrance: [plainly(lambda infra: Entrance())],
    NetNamespace: [plainly(lambda infra: NetNamespace("x", entrance(infra), {"net.ipv4.ip_forward": "1"}))],
    Switch: [in_lab(two_on(lambda lab: lab.bridge()))],
    LinuxBridge: [in_lab(two_on(lambda lab: lab.bridge()))],
    Host: [in_lab(lambda lab: lab.host())],
    Router: [in_lab(lambda lab: lab.router())],
    VirtualService: [in_lab(lambda lab: lab.service("web", [], port=80, on=[lab.host()]))],
    FrrRouter: [in_lab(lambda lab: lab.router(daemons=["staticd"], config="ip route 10.0.0.0/8 blackhole\n"))],
    IsolatedHost: [in_lab(lambda lab: lab.host(isolate=[*ISOLATIONS])), in_lab(lambda lab: lab.host(isolate=["uts"]))],
    Lab: [in_lab(whole_lab), in_lab(used_lab), in_lab(machines_with_a_tunnel)],
    LabBase: [],  # what all labs are
    OvsInstance: [
        plainly(lambda infra: OvsInstance("test", entrance(infra))),
        plainly(lambda infra: OvsInstance("test", entrance(infra), "dpdk")),
    ],
    OvsBridge: [in_lab(two_on(lambda lab: lab.ovs(private=True)))],
    DpdkNode: [in_lab(lambda lab: lab.dpdk(ports=2, vdev="null", start=False))],
    DpdkProcess: [],  # started in the lab above
    HugePages: [plainly(lambda infra: HugePages("4 MiB", infra.lease))],
    OvsPool: [plainly(lambda infra: OvsPool(entrance(infra)))],
    Infra: [plainly(lambda infra: Infra())],
    BorrowedHost: [in_lab(lambda lab: lab.docker_host())],
    RootedHost: [in_lab(lambda lab: lab.host(rootfs="/", isolate=["pid"]))],
    Container: [in_lab(lambda lab: lab.container(busybox(lab), ["sleep", "60"]))],
    Sandbox: [in_lab(lambda lab: lab.container(busybox(lab), ["sleep", "60"]))],
    Engine: [plainly(lambda infra: Engine(os.urandom(4).hex(), "s"))],
    Dockerd: [plainly(lambda infra: Dockerd())],
    Group: [plainly(lambda infra: Group("x", lease=infra.lease, pids_max=10))],
    Capture: [on_a_wire(lambda lab: Capture(lab.nodes["a"].ports[0]))],
    Relay: [on_a_wire(lambda lab: Relay(lab.nodes["a"].ports[0], lab.guard))],
    Dock: [in_lab(lambda lab: Dock("d", **lab._of_hosts()))],
    Emulator: [in_a_guest(plainly(lambda infra: Emulator(MACHINE, subprocess.Popen, Console())))],
    Guest: [in_a_guest(plainly(lambda infra: Guest("x", MACHINE, subprocess.Popen, ready_s=30, snapshot=False)))],
    HostedGuest: [in_a_guest(plainly(lambda infra: HostedGuest(find_kernel(), accel="tcg")))],
    _Target: [in_a_guest(moving)],
    Libvirt: [on_a_wire(lambda lab: Libvirt("a", lambda: lab.nodes["a"].namespace.fd))],
    VirtualMachine: [in_a_guest(in_lab(lambda lab: lab.link(lab.vm(accel="tcg"), lab.host())))],
    Uplink: [in_lab(lambda lab: lab.uplink(lab.host("a"), outside=lab.host("b"), via="masquerade"))],
    Recorder: [plainly(lambda infra: Recorder())],
    Bench: [on_a_wire(lambda lab: Bench(wires(lab), None, quiet_s=0.1))],
    Probed: [on_a_wire(lambda lab: Probed(External("device", wires(lab), quiet_s=0.1)))],
    BpfIngress: [on_a_wire(lambda lab: XdpIngress(lab.nodes["a"]))],
    XdpIngress: [on_a_wire(lambda lab: XdpIngress(lab.nodes["a"]))],
    TcBpf: [on_a_wire(lambda lab: TcBpf(lab.nodes["a"]))],
    RedQueue: [on_a_wire(lambda lab: RedQueue(lab.nodes["a"].ports[0]))],
    RteAcl: [plainly(lambda infra: RteAcl())],
    MergedPages: [plainly(lambda infra: MergedPages(infra.lease))],
    _VirtualOvs: [plainly(lambda infra: _VirtualOvs("test", entrance(infra)))],
    OvsMeterDevice: [plainly(lambda infra: OvsMeterDevice(entrance(infra)))],
    OpenClCompute: [plainly(lambda infra: OpenClCompute(find_opencl()[0]))],
    CudaCompute: [],  # in test_gpu_cuda.py, where a stand-in of the driver lets each call fail
    Gpu: [plainly(lambda infra: Gpu(find_opencl()[0]))],
    Gpus: [plainly(lambda infra: infra.gpus(backend="opencl"))],
}


def resources() -> list[type[Resource]]:
    for module in pkgutil.walk_packages(pytest_infra.__path__, "pytest_infra."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(kind: type[Resource]) -> Iterator[type[Resource]]:
        for child in kind.__subclasses__():
            if child.__module__.startswith("pytest_infra."):
                yield child
                yield from below(child)

    return [kind for kind in dict.fromkeys(below(Resource)) if kind in RECIPES or "_start" in vars(kind)]


def lab_is_up(end: Step) -> bool:
    """What fails afterwards, in a lab that is up, may be an error of the operating system."""
    resource = getattr(end, "__self__", None)
    return isinstance(resource, Lab) and resource.started and not resource._new


@pytest.fixture(scope="module")
def engine_is_up(infra):
    """The session's engine stays: what belongs to it is no leak."""
    with infra.lab() as lab:
        lab.container(busybox(lab), ["sleep", "60"])
        lab.up()


@pytest.fixture(scope="module")
def opencl_is_warm():
    """OpenCL's packages keep what they have compiled in files that stay open."""
    with OpenClCompute(find_opencl()[0]):
        pass


def test_every_resource_has_a_recipe():
    assert sorted(kind.__qualname__ for kind in resources()) == sorted(kind.__qualname__ for kind in RECIPES)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, id=f"{kind.__name__}-{number}")
        for kind, recipes in RECIPES.items()
        for number, recipe in enumerate(recipes)
    ],
)
@pytest.mark.timeout(300)
def test_each_step_fails_in_turn_and_nothing_is_left(infra, engine_is_up, opencl_is_warm, nothing_left, recipe):
    assert len(fail_each_step(infra, nothing_left, recipe)) >= 2


def test_a_leak_is_found(infra, nothing_left):
    opened = []

    class Leaky(Resource):
        def _start(self, undo: ExitStack) -> None:
            opened.append(os.open("/dev/null", os.O_RDONLY))
            undo.enter_context(NetNamespace("x", entrance(infra)))
            undo.callback(os.close, opened.pop())

    with pytest.raises(AssertionError, match=r"^step \d+, \('\S+unshare', 'namespace.py:\d+', "):
        fail_each_step(infra, nothing_left, plainly(lambda infra: Leaky()))
    for fd in opened:
        os.close(fd)


def fail_each_step(infra: Infra, nothing_left: Step, recipe: Recipe) -> list[Any]:
    """The steps that were made to fail, one after the other."""
    begin, end = recipe(infra)  # once without a fault: modules are imported, caches filled
    begin()
    end()
    nothing_left()
    begin, end = recipe(infra)
    with faults(infra) as whole:
        begin()
    end()
    failed = []
    for number in worth_trying(whole.steps):
        begin, end = recipe(infra)
        with faults(infra, number) as one:
            error = attempt(begin)
        assert error is None or one.failed, f"an error of its own: {error!r}"
        assert isinstance(error, InfraError | None) or lab_is_up(end), f"{one.failed}: {error!r}"
        end()
        try:
            nothing_left()
        except WaitTimeout as left:
            raise AssertionError(f"step {number}, {one.failed}") from left
        failed.append(one.failed)
    return failed


def attempt(begin: Step) -> Exception | None:
    try:
        begin()
    except (InfraError, OSError) as error:
        return error
    return None
