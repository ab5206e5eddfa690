"""The pytest plugin: options, markers, the skip policy, hooks.

It is loaded by every pytest run of whoever has it installed, so it imports next to nothing until ``--infra`` is given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest

from ..core.errors import Unavailable
from ..fixtures import (
    BEFORE_END,
    demand_run,
    infra,
    infra_cgroup,
    infra_container,
    infra_dpdk,
    infra_gpu,
    infra_host,
    infra_image,
    infra_vm,
    lab,
    lab_factory,
    netns,
    ovs_bridge,
)
from . import evidence, inconclusive, kernels, options
from .exclusive import give_back, take_exclusive
from .keep import KEEP, Keep
from .options import SETTINGS, Settings, read_settings
from .ownership import give_files_to_user
from .pause import Pause, check_pause
from .signals import InOrder, end_with_controller
from .skips import Skips
from .spelling import Spelling, check_options

__all__ = [
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

_MARKERS = (
    "infra: this test needs real infrastructure; it is skipped without --infra. Tests that use the fixtures lab, "
    "infra, ... need no marker",
    "infra_requires(name, ...): this test needs these capabilities of the machine, such as 'ovs' or 'nginx'; "
    "'pytest-infra doctor' lists them. What is missing is a skip with its remedy, or with --infra-require an error",
    "infra_exclusive(name, count=1, of=count, timeout_s=--infra-lock-timeout): this test holds count of the "
    "machine's things of a name meanwhile, such as 'uplink', or count=1 of=2 'licence', against all other tests "
    "on the machine, of other runs and users too",
)

_TERMINAL = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and ini values."""
    group = parser.getgroup("infra", "infrastructure (pytest-infra)")
    options.add_options(parser, group)
    evidence.add_options(parser, group)
    kernels.add_option(group)
    KEEP.add(parser, group)
    inconclusive.CHOICE.add(parser, group)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, None, None]:
    """Without root, move into a user namespace: before any conftest, and before output is captured."""
    early_config.stash[_TERMINAL] = os.isatty(0)
    kernels.announce_workers(early_config.known_args_namespace)
    settings = read_settings(early_config, early_config.known_args_namespace)
    if (settings.enabled or settings.doctor) and "PYTEST_XDIST_WORKER" not in os.environ:
        _become_privileged(early_config)
    result = yield
    check_options(parser, args)  # now that the conftests have added theirs
    return result


def _become_privileged(config: pytest.Config) -> None:
    from ..core import userns

    if not userns.needed():
        return
    try:
        userns.enter()
    except Unavailable as error:
        userns.refuse(error)
    except RuntimeError as error:
        if list(config.invocation_params.args) == sys.argv[1:]:
            userns.exec_inside(sys.orig_argv)
        userns.refuse(Unavailable("privilege", str(error), "run pytest as root, or as a program of its own"))


def pytest_configure(config: pytest.Config) -> None:
    """Markers, settings, signals; with ``--infra-require``, what is demanded must be there."""
    for line in _MARKERS:
        config.addinivalue_line("markers", line)
    settings = config.stash[SETTINGS] = read_settings(config, config.option)
    config.option.infra_enabled = settings.enabled
    config.option.infra_lock_timeout = settings.lock_timeout_s
    config.pluginmanager.register(Skips(), "infra-skips")
    config.pluginmanager.register(Spelling(__all__), "infra-spelling")
    config.pluginmanager.register(inconclusive.InconclusiveVerdicts(config), "infra-inconclusive")
    if settings.pause:
        check_pause(config, config.stash.get(_TERMINAL, False))
        config.pluginmanager.register(Pause(), "infra-pause")
    if settings.enabled:
        if not hasattr(config, "workerinput"):
            give_files_to_user(config)
        config.stash[BEFORE_END] = []
        evidence.keep_evidence(config)
        from . import html, measured, progress

        progress.show_progress(config)
        config.pluginmanager.register(measured.Measured(config), "infra-measured")
        html.register(config)
        if (when := KEEP.value(config)) != "never":
            config.pluginmanager.register(Keep(config, when), "infra-keep")
        config.pluginmanager.register(InOrder(), "infra-signals")
        if "testinfra" in sys.modules:
            from ..testinfra import register

            register(config.option)
        if not hasattr(config, "workerinput"):
            if kernels.KERNELS not in config.stash and not _runs_elsewhere(config):  # else each of those looks itself
                _check_required(settings)
        elif sys.platform == "linux":
            end_with_controller()


def _runs_elsewhere(config: pytest.Config) -> bool:
    """Whether pytest-xdist has workers on other machines; what this one lacks says nothing of them."""
    return any(kind in spec for spec in config.getoption("tx", None) or () for kind in ("ssh=", "socket=", "via="))


def _check_required(settings: Settings) -> None:
    from ..core.suggest import not_among
    from ..doctor import capabilities, demand

    known = capabilities()
    names = sorted(settings.require - {"all"})
    if wrong := [name for name in names if name not in known]:
        raise pytest.UsageError(f"--infra-require: no capability {not_among(('all', *known), *wrong)}")
    missing = []
    for name in names:
        try:
            demand(name, known)
        except Unavailable as error:
            missing.append(str(error))
    if missing:
        raise pytest.UsageError("--infra-require: this machine lacks " + ", ".join(missing))


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """``--infra-doctor`` prints its table and ends; ``--infra-kernel`` chooses the workers of pytest-xdist."""
    kernels.use_kernels(config)
    if not (config.option.infra_doctor or config.option.infra_doctor_json):
        return None
    from ..doctor import doctor, doctor_json

    return doctor_json(sys.stdout.write) if config.option.infra_doctor_json else doctor(sys.stdout.write)


def pytest_report_header(config: pytest.Config) -> str | None:
    """One line: privilege, kernel, switch, and what is missing; a worker has nobody to tell."""
    if not config.stash[SETTINGS].enabled or hasattr(config, "workerinput"):
        return None
    from ..doctor import summary

    guests = ", ".join(kernel.name for kernel in config.stash.get(kernels.KERNELS, ()))
    return summary() + (f"\ninfra: the tests run in guests with the kernel {guests}" if guests else "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A capability that nobody knows, in a marker, is a mistake and not a skip."""
    kernels.name_items(items)
    if not config.stash[SETTINGS].enabled or not any(item.get_closest_marker("infra_requires") for item in items):
        return
    from ..core.suggest import not_among
    from ..doctor import capabilities

    known = capabilities()
    for item in items:
        if any(not mark.args for mark in item.iter_markers("infra_requires")):
            raise pytest.UsageError(f"{item.nodeid}: infra_requires needs the names of capabilities, such as 'ovs'")
        if wrong := [name for name in _required(item) if name not in known]:
            raise pytest.UsageError(f"{item.nodeid}: infra_requires: no capability {not_among(known, *wrong)}")


def _required(item: pytest.Item) -> list[str]:
    return [name for mark in item.iter_markers("infra_requires") for name in mark.args]


def _uses_plugin(item: pytest.Item) -> bool:
    """Whether a test has one of our markers or uses our `infra` fixture, and not somebody else's of that name."""
    if any(item.get_closest_marker(name) for name in ("infra", "infra_requires", "infra_exclusive")):
        return True
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).get("infra", ())
    for definition in reversed(definitions):
        if definition.func.__module__ == infra.__module__:
            return True
        if "infra" not in definition.argnames:
            return False
    return False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of a test: is it asked for, is what it needs there, is what it must hold alone free?"""
    if not _uses_plugin(item):
        return
    demand_run(item.config)
    if names := _required(item):
        from ..doctor import capabilities, demand

        known = capabilities()
        for name in names:
            demand(name, known)
    take_exclusive(item)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a guest: say how it ran."""
    kernels.tell_of_guest(session.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """What a test held alone is given back after its fixtures have ended."""
    try:
        return (yield)
    finally:
        give_back(item)
