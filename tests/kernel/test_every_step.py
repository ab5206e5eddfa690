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
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import pytest_infra
from pytest_infra.core import linux
from pytest_infra.core.errors import InfraError, WaitTimeout
from pytest_infra.core.guard import Guard
from pytest_infra.core.lease import Lease
from pytest_infra.core.resource import Resource
from pytest_infra.lab import Lab
from pytest_infra.net.bridge import LinuxBridge
from pytest_infra.net.host import Host
from pytest_infra.net.isolated import ISOLATIONS, IsolatedHost
from pytest_infra.net.namespace import Entrance, NetNamespace
from pytest_infra.net.netlink import NetlinkError, NetlinkSocket
from pytest_infra.net.ovs import OvsBridge
from pytest_infra.net.ovs_instance import OvsInstance
from pytest_infra.net.ovs_pool import OvsPool
from pytest_infra.net.router import Router
from pytest_infra.net.switch import Switch
from pytest_infra.session import Infra

MOST_STEPS = 2000
PACKAGE = os.path.dirname(pytest_infra.__file__)


def ours() -> bool:
    """Whether it is the package that takes the step, and not the standard library on the way of one."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename in (contextlib.__file__, subprocess.__file__):
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(PACKAGE)


class Faults:
    """Counts steps, and makes one of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch, spared: Callable[..., bool]) -> None:
        self.left = 0
        self.failed = ""
        self._spared = spared
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

    def _strikes(self, step: str) -> bool:
        if self.left > 0:
            self.left -= 1
            if self.left == 0:
                self.failed = step
        return self.left == 0 and self.failed == step

    def _refusing(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if self.left and ours() and not self._spared(name, *args) and self._strikes(name):
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
            if self.left and ours() and self._strikes("after a registration"):
                raise OSError(errno.ENOMEM, "the step after a registration was made to fail")

        return register


@contextmanager
def faults(infra: Infra) -> Iterator[Faults]:
    home = infra._services.entrance._home

    def spared(name: str, *args: Any) -> bool:
        """Going back to where one has come from does not fail."""
        return name == "pytest_infra.core.linux.setns" and args[0] == home

    with pytest.MonkeyPatch.context() as patch:
        yield Faults(patch, spared)


Step = Callable[[], None]
Recipe = Callable[[Infra, ExitStack], "tuple[Step, Step]"]
"""Given what is up, how to begin a thing and how to end it."""


def plainly(make: Callable[[Infra], Resource]) -> Recipe:
    def recipe(infra: Infra, until_end: ExitStack) -> tuple[Step, Step]:
        resource = make(infra)
        return (lambda: resource.start() and None), resource.stop

    return recipe


def in_lab(declare: Callable[[Lab], object]) -> Recipe:
    """Begins with the first look at what is declared in a lab."""

    def recipe(infra: Infra, until_end: ExitStack) -> tuple[Step, Step]:
        lab = infra.lab()

        def begin() -> None:
            lab.start()
            declare(lab)
            lab.up()

        return begin, lab.stop

    return recipe


def whole_lab(lab: Lab) -> None:
    sw, r = lab.bridge(), lab.router()
    a, b, far = lab.host("a"), lab.host("b", isolate=["pid", "user", "mount"]), lab.host("far")
    for node in (a, b, r):
        lab.link(node, sw)
    lab.link(r, far)
    lab.up()
    lab.link(far, lab.host("late"))
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


def entrance(infra: Infra) -> Entrance:
    return infra._services.entrance


RECIPES: dict[type[Resource], list[Recipe]] = {
    Guard: [plainly(lambda infra: Guard("test", private=("/run",)))],
    Lease: [plainly(lambda infra: Lease())],
    Entrance: [plainly(lambda infra: Entrance())],
    NetNamespace: [plainly(lambda infra: NetNamespace("x", entrance(infra), {"net.ipv4.ip_forward": "1"}))],
    Switch: [in_lab(two_on(lambda lab: lab.bridge()))],
    LinuxBridge: [in_lab(two_on(lambda lab: lab.bridge()))],
    Host: [in_lab(lambda lab: lab.host())],
    Router: [in_lab(lambda lab: lab.router())],
    IsolatedHost: [in_lab(lambda lab: lab.host(isolate=[*ISOLATIONS])), in_lab(lambda lab: lab.host(isolate=["uts"]))],
    Lab: [in_lab(whole_lab)],
    OvsInstance: [plainly(lambda infra: OvsInstance("test", entrance(infra)))],
    OvsBridge: [in_lab(two_on(lambda lab: lab.ovs(private=True)))],
    OvsPool: [plainly(lambda infra: OvsPool(entrance(infra)))],
    Infra: [plainly(lambda infra: Infra())],
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

    return list(dict.fromkeys(below(Resource)))


def test_every_resource_has_a_recipe():
    assert sorted(kind.__qualname__ for kind in resources()) == sorted(kind.__qualname__ for kind in RECIPES)


@pytest.mark.parametrize(
    ("recipe", "least"),
    [
        pytest.param(recipe, 2, id=f"{kind.__name__}-{number}")
        for kind, recipes in RECIPES.items()
        for number, recipe in enumerate(recipes)
    ],
)
@pytest.mark.timeout(300)
def test_each_step_fails_in_turn_and_nothing_is_left(infra, nothing_left, recipe, least):
    begin, end = recipe(infra, ExitStack())  # once without a fault: modules are imported, caches filled
    begin()
    end()
    nothing_left()
    failed = []
    for number in range(1, MOST_STEPS):
        begin, end = recipe(infra, ExitStack())
        with faults(infra) as step:
            step.left = number
            try:
                begin()
            except InfraError:
                assert step.failed, "an error of its own"
            finally:
                step.left = 0
        end()
        try:
            nothing_left()
        except WaitTimeout as error:
            raise AssertionError(f"step {number}, {step.failed}, after {failed}") from error
        if not step.failed:
            break
        failed.append(step.failed)
    else:
        raise AssertionError(f"more than {MOST_STEPS} steps")
    assert len(failed) >= least, failed
