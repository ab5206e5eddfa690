"""What this machine has and lacks: the requirements of all resources, probed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

from .core.errors import BadInput, Unavailable
from .core.programs import PROGRAMS
from .core.report import as_json
from .core.requirement import LINUX, PRIVILEGE, Absent, Present, Requirement, find_program
from .core.resource import Resource
from .core.suggest import not_among
from .dpdk.requirement import Bypass

__all__ = [
    "capabilities",
    "demand",
    "doctor",
    "doctor_json",
    "install",
    "install_commands",
    "probe",
    "requirements",
    "select",
    "summary",
    "table",
]

_NOT_DOMAINS = ("plugin", "evidence", "fixtures", "cli", "doctor", "__main__")

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

    for module in walk_packages([os.path.dirname(__file__)], "pytest_infra."):
        if module.name.split(".")[1] not in _NOT_DOMAINS:
            yield import_module(module.name)


def _resources(base: type[Resource] = Resource) -> Iterator[type[Resource]]:
    """Every resource class that is known by now, a test suite's own ones too."""
    for kind in base.__subclasses__():
        yield kind
        yield from _resources(kind)


def requirements() -> dict[str, tuple[Requirement, ...]]:
    """The requirements of all resources, by capability; some capabilities take several things."""
    found: dict[str, tuple[Requirement, ...]] = {}
    values = [value for module in _modules() for value in vars(module).values() if isinstance(value, Requirement)]
    for item in (LINUX, PRIVILEGE, *values, *(item for kind in _resources() for item in kind.requires)):
        if item not in found.get(item.name, ()):
            found[item.name] = (*found.get(item.name, ()), item)
    return found


def capabilities() -> dict[str, tuple[Requirement, ...]]:
    """All that a test may name as needed: what resources require, and the programs of other people, by name."""
    return {**requirements(), **{name: (program,) for name, program in PROGRAMS.items()}}


def select(names: Sequence[str]) -> dict[str, tuple[Requirement, ...]]:
    """The named capabilities; without names, what the project's own resources require.

    Raises:
        BadInput: a name is unknown; the text lists those that there are.
    """
    if not names:
        return requirements()
    known = capabilities()
    if wrong := [name for name in names if name not in known]:
        raise BadInput(f"no capability {not_among(known, *wrong)}")
    return {name: known[name] for name in names}


def probe(items: Sequence[Requirement]) -> Present | Absent:
    """Look whether the machine has a capability: all of these things. One that is not Linux has none."""
    answers = [LINUX.probe() and item.probe() for item in items]
    return next((answer for answer in answers if isinstance(answer, Absent)), answers[0])


def demand(name: str, known: Mapping[str, Sequence[Requirement]]) -> None:
    """Raise `Unavailable` with the reason and the remedy where the machine lacks this capability."""
    if isinstance(answer := probe(known[name]), Absent):
        raise Unavailable(name, answer.why, answer.remedy)


def table(known: Mapping[str, Sequence[Requirement]]) -> tuple[list[tuple[str, str, str]], list[Requirement]]:
    """The rows (name, state, text) and the requirements that are not met; what nothing here needs is only absent."""
    rows, missing = [], []
    for name, items in known.items():
        found = probe(items)
        if isinstance(found, Absent) and isinstance(items[0], Bypass):
            rows.append((name, "absent", f"{found.why}; {found.remedy}"))
        elif isinstance(found, Absent):
            missing += [item for item in items if not probe([item])]
            rows.append((name, "missing", f"{found.why}; {found.remedy}" if found.remedy else found.why))
        else:
            rows.append((name, "present", found.detail or items[0].purpose))
    return rows, missing


def summary() -> str:
    """One line for the head of a test run: privilege, kernel, Open vSwitch, what is missing."""
    if isinstance(linux := LINUX.probe(), Absent):
        return f"infra: nothing is available: {linux.why}"
    known = requirements()
    answers = {name: probe(items) for name, items in known.items() if name not in ("linux", "privilege")}
    privilege = PRIVILEGE.probe()
    parts = [privilege.detail if isinstance(privilege, Present) else "no privilege", f"kernel {linux.detail}"]
    if answers.get("ovs"):
        datapath = "kernel and userspace datapath" if answers.pop("ovs-kernel", None) else "userspace datapath"
        parts.append(f"Open vSwitch {_ovs_version()} ({datapath})".replace("  ", " "))
    lacking = [name for name, answer in answers.items() if not answer and not isinstance(known[name][0], Bypass)]
    return "infra: " + ", ".join([*parts, *(f"no {name}" for name in lacking)])


def _ovs_version() -> str:
    """The version of the Open vSwitch that is installed; empty where it does not say."""
    from .net.ovs_requirements import OVS_VSWITCHD

    done = subprocess.run([OVS_VSWITCHD.path(), "--version"], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found.group() if found else ""


def doctor(write: Callable[[str], object], names: Sequence[str] = ()) -> int:
    """Write the table of what is there and what is missing; returns 0 where nothing is missing, and 1 otherwise.

    Args:
        write: takes text.
        names: the capabilities to look at; without names, what the project's own resources require.

    Raises:
        BadInput: a name is unknown.
    """
    rows, missing = table(select(names))
    width = max(len(name) for name, _, _ in rows)
    for name, state, text in rows:
        write(f"{name:<{width}}  {state}  {text}".rstrip() + "\n")
    if missing:
        absent = sum(state == "missing" for _, state, _ in rows)
        write(f"{absent} of {len(rows)} missing; tests that need them are skipped, with this reason\n")
    return 1 if missing else 0


def doctor_json(write: Callable[[str], object], names: Sequence[str] = ()) -> int:
    """The same as `doctor`, as JSON for programs: of each capability its state, why, remedy and packages.

    Raises:
        BadInput: a name is unknown.
    """
    found: dict[str, dict[str, object]] = {}
    for name, items in select(names).items():
        answer = probe(items)
        facts = {
            "purpose": items[0].purpose,
            "packages": {key: text for item in items for key, text in item.packages.items()},
        }
        if isinstance(answer, Present):
            found[name] = {"state": "present", "detail": answer.detail, **facts}
        else:
            state = "absent" if isinstance(items[0], Bypass) else "missing"
            found[name] = {"state": state, "why": answer.why, "remedy": answer.remedy, **facts}
    missing = [name for name, facts in found.items() if facts["state"] == "missing"]
    write(as_json({"version": 1, "capabilities": found, "missing": missing}))
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
        if find_program(command[0]) is None:
            write(f"there is no {command[0]}: run this as root\n")
            return 127
        done = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, check=False)
        if done.returncode != 0:
            write(f"{shlex.join(command)}: exit status {done.returncode}\n")
            return done.returncode
    return 0
