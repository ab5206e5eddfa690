"""What this machine has and lacks: the requirements of all resources, probed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

from .core.requirement import LINUX, PRIVILEGE, Absent, Present, Requirement, find_program
from .core.resource import Resource

__all__ = ["doctor", "install", "install_commands", "probe", "requirements", "summary", "table"]

_NOT_DOMAINS = ("plugin", "fixtures", "testinfra", "cli", "doctor", "__main__")

_MANAGERS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "apt": (("apt-get", "update"), ("apt-get", "install", "--yes", "--no-install-recommends")),
    "dnf": (("dnf", "install", "--assumeyes"),),
    "pacman": (("pacman", "-Sy", "--noconfirm", "--needed"),),
    "apk": (("apk", "add"),),
}
"""Each package manager's commands; the packages are added to the last one."""


def _modules() -> Iterator[ModuleType]:
    """Every module of the package that may hold resources."""
    from importlib import import_module
    from pkgutil import walk_packages

    import pytest_infra

    for module in walk_packages(pytest_infra.__path__, "pytest_infra."):
        if module.name.split(".")[1] not in _NOT_DOMAINS:
            yield import_module(module.name)


def _resources(base: type[Resource] = Resource) -> Iterator[type[Resource]]:
    """Every resource class that is known by now, a test suite's own ones too."""
    for kind in base.__subclasses__():
        yield kind
        yield from _resources(kind)


def requirements() -> dict[str, Requirement]:
    """Every requirement of every resource, by name."""
    found: dict[str, Requirement] = {"linux": LINUX, "privilege": PRIVILEGE}
    values = [value for module in _modules() for value in vars(module).values() if isinstance(value, Requirement)]
    for requirement in (*values, *(item for kind in _resources() for item in kind.requires)):
        found.setdefault(requirement.name, requirement)
    return found


def probe(requirement: Requirement) -> Present | Absent:
    """Look whether the machine meets a requirement; one that is not Linux meets none."""
    return LINUX.probe() and requirement.probe()


def table(known: Mapping[str, Requirement]) -> tuple[list[tuple[str, str, str]], list[Requirement]]:
    """The rows (name, state, text) and the requirements that are not met."""
    rows, missing = [], []
    for name, requirement in known.items():
        found = probe(requirement)
        if isinstance(found, Absent):
            missing.append(requirement)
            rows.append((name, "missing", f"{found.why}; {found.remedy}" if found.remedy else found.why))
        else:
            rows.append((name, "present", found.detail or requirement.purpose))
    return rows, missing


def summary() -> str:
    """One line for the head of a test run: privilege, kernel, what is there in which version, what is missing."""
    if isinstance(linux := LINUX.probe(), Absent):
        return f"infra: nothing is available: {linux.why}"
    privilege = PRIVILEGE.probe()
    parts = ["no privilege" if isinstance(privilege, Absent) else privilege.detail, f"kernel {linux.detail}"]
    rows, _ = table({name: item for name, item in requirements().items() if item not in (LINUX, PRIVILEGE)})
    parts += [f"{name} {text}".strip() for name, state, text in rows if state == "present"]
    if isinstance(privilege, Absent):
        parts.append(f"missing: privilege ({privilege.why})")
    parts += [f"no {name}" for name, state, _ in rows if state == "missing"]
    return "infra: " + ", ".join(parts)


def doctor(write: Callable[[str], object], *, repair: bool = False) -> int:
    """Write the table of what is there and what is missing; returns 0 where nothing is missing, and 1 otherwise.

    Args:
        write: takes text.
        repair: install the packages of what is missing, and look again.
    """
    known = requirements()
    rows, missing = table(known)
    if repair and missing:
        status = install(missing, write)
        if status != 0:
            return status
        rows, missing = table(known)
    width = max(len(name) for name, _, _ in rows)
    for name, state, text in rows:
        write(f"{name:<{width}}  {state}  {text}".rstrip() + "\n")
    if missing:
        write(f"{len(missing)} of {len(rows)} missing; tests that need them are skipped, with this reason\n")
    return 1 if missing else 0


def install_commands(
    missing: Sequence[Requirement], find: Callable[[str], str | None] = find_program
) -> tuple[list[list[str]], list[str]]:
    """The commands that install what is missing, and the names of what no package brings.

    Args:
        missing: the requirements that are not met.
        find: looks for a program.
    """
    for manager, commands in _MANAGERS.items():
        if find(commands[0][0]) is None:
            continue
        packages = sorted({item.packages[manager] for item in missing if manager in item.packages})
        rest = [item.name for item in missing if manager not in item.packages]
        if not packages:
            return [], rest
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        words = " ".join(packages).split()
        return [[*sudo, *command, *(words if command is commands[-1] else ())] for command in commands], rest
    return [], [item.name for item in missing]


def install(missing: Sequence[Requirement], write: Callable[[str], object]) -> int:
    """Install the packages of what is missing; each command is shown before it is run. Returns its exit status."""
    commands, rest = install_commands(missing)
    if rest:
        write(f"no package is known for: {', '.join(rest)}\n")
    for command in commands:
        write(f"+ {shlex.join(command)}\n")
        sys.stdout.flush()
        done = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, check=False)
        if done.returncode != 0:
            write(f"{shlex.join(command)}: exit status {done.returncode}\n")
            return done.returncode
    return 0
