"""``--infra-kernel``: the tests run on other kernels, in guests that have this machine's files.

The guests are workers of pytest-xdist: it is told of an interpreter for each that starts a guest and speaks to a Python
in it (`vm.interpreter`). So whatever works with ``-n`` works here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from ..core.emulation import EMULATED
from ..core.errors import BadInput, InfraError

if TYPE_CHECKING:
    from ..vm.kernel import Kernel

__all__ = [
    "ACCEL",
    "KERNELS",
    "KernelSchedulers",
    "add_option",
    "announce_workers",
    "name_items",
    "tell_of_guest",
    "use_kernels",
]

KERNELS = pytest.StashKey["list[Kernel]"]()
"""The kernels that a run's tests run on."""

_GUEST = "PYTEST_INFRA_GUEST"
"""The variable with the name of the kernel, in a worker that runs in a guest."""


ACCEL = "infra_guest_accel"
"""What a guest's worker tells at its end: ``kvm`` or ``tcg``."""


def add_option(group: Any) -> None:
    """The option."""
    group.addoption(
        "--infra-kernel",
        dest="infra_kernel",
        action="append",
        metavar="NAME|PATH",
        help="run the tests in a guest with this kernel and this machine's files ('pytest-infra kernel list' shows "
        "names); given several times, every test runs on each; -n says how many guests each kernel gets",
    )


def announce_workers(options: Any) -> None:
    """Say early that there will be workers: pytest-cov decides before anything is configured how it measures."""
    if getattr(options, "infra_kernel", None) and getattr(options, "dist", None) == "no" and not options.collectonly:
        options.dist = "load"


def use_kernels(config: pytest.Config) -> None:
    """Have pytest-xdist start its workers in guests, where the option was given.

    Raises:
        pytest.UsageError: no such kernel, or something that guests need is missing.
    """
    wanted = config.getoption("infra_kernel") or []
    if not wanted or hasattr(config, "workerinput") or config.getoption("collectonly"):
        return
    if not config.pluginmanager.hasplugin("xdist"):
        raise pytest.UsageError("--infra-kernel needs pytest-xdist: pip install 'pytest-infra[xdist]'")
    if config.getoption("usepdb", False):
        raise pytest.UsageError("--infra-kernel cannot be used with --pdb: the tests run in guests, without a terminal")
    kernels = config.stash[KERNELS] = _find(wanted)
    option = config.option
    each = option.numprocesses if isinstance(getattr(option, "numprocesses", None), int) else 0
    option.tx = [_spec(kernel) for kernel in kernels for _ in range(max(1, each))]
    if option.dist == "no":
        option.dist = "load"
    _share_artifacts(config)
    from .guests import Guests

    config.pluginmanager.register(Guests(config), "infra-guests")
    if len(kernels) > 1:
        config.pluginmanager.register(KernelSchedulers(), "infra-kernel-schedulers")


def _find(wanted: Sequence[str]) -> list[Kernel]:
    from ..vm.initramfs import HOST_MODULES, check_kernel
    from ..vm.kernel import find_kernel
    from ..vm.requirement import BUSYBOX, QEMU

    try:
        for requirement in (QEMU, BUSYBOX):
            requirement.demand()
        kernels: dict[str, Kernel] = {}
        for kernel in map(find_kernel, wanted):
            check_kernel(kernel, HOST_MODULES)
            other = kernels.setdefault(kernel.name, kernel)
            if not os.path.samefile(other.image, kernel.image):
                raise BadInput(f"{other.image} and {kernel.image} are both {kernel.name}: results would not tell which")
    except InfraError as error:
        raise pytest.UsageError(f"--infra-kernel: {error}") from None
    return list(kernels.values())


def _spec(kernel: Kernel) -> str:
    from ..vm.interpreter import interpreter_argv

    return f"popen//env:{_GUEST}={kernel.name}//python={shlex.join(interpreter_argv(kernel.image))}"


def _share_artifacts(config: pytest.Config) -> None:
    """Evidence that is written in a guest lands here."""
    from ..vm.interpreter import ARTIFACTS
    from .evidence import read_settings

    settings = read_settings(config)
    if settings.artifacts == settings.pcap == "never":
        return
    folder = str(settings.folder)
    os.makedirs(folder, exist_ok=True)
    os.environ[ARTIFACTS] = folder

    def leave() -> None:
        os.environ.pop(ARTIFACTS, None)
        with suppress(OSError):  # there is evidence in it
            os.rmdir(folder)

    config.add_cleanup(leave)


def name_items(items: Sequence[pytest.Item]) -> None:
    """In a guest: have each test carry the kernel's name, as a parameter would."""
    kernel = os.environ.get(_GUEST)
    for item in items if kernel else ():
        item.name = _with(item.name, str(kernel))
        _rename(item, _with(item.nodeid, str(kernel)))


def tell_of_guest(config: Any) -> None:
    """In a guest, at its end: tell the controller how it ran."""
    if _GUEST in os.environ and hasattr(config, "workeroutput"):
        config.workeroutput[ACCEL] = "tcg" if EMULATED in os.environ else "kvm"


def _rename(item: Any, nodeid: str) -> None:
    """Give a test another node id; pytest keeps it in a structure since 9.1, and as text before."""
    if hasattr(item, "_id"):
        item._id = type(item._id).parse(nodeid)
    else:
        item._nodeid = nodeid


def _with(name: str, kernel: str) -> str:
    return f"{name[:-1]}-{kernel}]" if name.endswith("]") else f"{name}[{kernel}]"


class KernelSchedulers:
    """With several kernels: a scheduler of pytest-xdist for each, as each has its own tests.

    It has the interface of `xdist.scheduler.protocol.Scheduling`.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """One that hands everything on to that of the kernel."""
        from xdist.workermanage import parse_tx_spec_config

        specs = parse_tx_spec_config(config)
        maker = config.pluginmanager.getplugin("dsession").pytest_xdist_make_scheduler
        for kernel in config.stash[KERNELS]:
            mine = [spec for spec in specs if f"{_GUEST}={kernel.name}//" in spec]
            part = maker(config=config, log=log)
            part.numnodes = len(mine)
            self._parts[kernel.name] = part
        return self

    def _of(self, node: Any) -> Any:
        return self._parts[node.gateway.spec.env[_GUEST]]

    @property
    def nodes(self) -> list[Any]:
        """The workers of all kernels."""
        return [node for part in self._parts.values() for node in part.nodes]

    @property
    def collection_is_completed(self) -> bool:
        """Whether the workers of some kernel have collected, so that it can be scheduled."""
        return any(part.collection_is_completed for part in self._parts.values())

    @property
    def tests_finished(self) -> bool:
        """Whether the tests of every kernel have ended."""
        return all(part.collection_is_completed and part.tests_finished for part in self._parts.values())

    @property
    def has_pending(self) -> bool:
        """Whether tests of some kernel have not ended."""
        return any(part.has_pending for part in self._parts.values())

    def schedule(self) -> None:
        """Hand out tests, where the workers have collected."""
        for part in self._parts.values():
            if part.collection_is_completed:
                part.schedule()

    def add_node(self, node: Any) -> None:
        """A worker is there."""
        self._of(node).add_node(node)

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """A worker has collected."""
        self._of(node).add_node_collection(node, collection)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """A test has ended."""
        self._of(node).mark_test_complete(node, item_index, duration)

    def mark_test_pending(self, item: str) -> None:
        """A test shall run again."""
        for part in self._parts.values():
            with suppress(Exception):
                part.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:
        """A worker has given tests back."""
        self._of(node).remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: Any) -> Any:
        """A worker has gone; returns the test that it died of."""
        return self._of(node).remove_node(node)
