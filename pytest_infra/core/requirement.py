"""Requirements: what the machine must have, as data.

Each requirement names itself, can be probed, and knows its remedy. The same data makes the reason of a
skip, the doctor's row and the capability table of the documentation.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from .errors import Unavailable
from .linux import has_capability, in_child_user_namespace

__all__ = [
    "LINUX",
    "PRIVILEGE",
    "USERNS_REFUSED",
    "Absent",
    "Command",
    "KernelFeature",
    "Linux",
    "Present",
    "Privilege",
    "PythonModule",
    "Requirement",
    "find_program",
]

USERNS_REFUSED = "PYTEST_INFRA_USERNS_REFUSED"
"""The environment variable that says why no user namespace could be entered: the reason, ``|``, the remedy."""

_EXTRA_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Present:
    """The machine has it; `detail` says which one."""

    detail: str = ""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class Absent:
    """The machine lacks it: why, and what cures it."""

    why: str
    remedy: str = ""

    def __bool__(self) -> bool:
        return False


def find_program(name: str, *folders: str) -> str | None:
    """The path of a program, from PATH, the sbin folders that an ordinary user's PATH lacks, or `folders`."""
    path = os.pathsep.join([os.environ.get("PATH", ""), _EXTRA_PATH, *folders])
    return shutil.which(name, path=path)


@dataclass(frozen=True)
class Requirement:
    """One thing a machine may have or lack."""

    name: str
    """The capability's name, as ``--infra-require`` and the `infra_requires` marker take it."""
    purpose: str = field(default="", kw_only=True)
    """What it is needed for, in a few words."""
    packages: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False)
    """The package that brings it, by package manager: ``{"apt": …, "dnf": …, "pacman": …, "apk": …}``."""

    def probe(self) -> Present | Absent:
        """Look at the machine, now."""
        raise AssertionError(f"{type(self).__name__} has no probe")

    def demand(self) -> None:
        """Raise `Unavailable` with the reason and the remedy where the machine lacks it."""
        found = self.probe()
        if isinstance(found, Absent):
            raise Unavailable(self.name, found.why, found.remedy)


@dataclass(frozen=True)
class Linux(Requirement):
    """The operating system."""

    def probe(self) -> Present | Absent:
        """Linux, or not."""
        if sys.platform.startswith("linux"):
            return Present(os.uname().release)
        return Absent(f"this is {sys.platform}, not Linux", "run it on a Linux machine, or in a Linux virtual machine")


@dataclass(frozen=True)
class Privilege(Requirement):
    """Capabilities that this process must have, be it as root or in a user namespace."""

    capabilities: tuple[str, ...] = ("sys_admin", "net_admin", "net_raw")

    def probe(self) -> Present | Absent:
        """The effective capabilities of this process (capabilities(7))."""
        if not (linux := LINUX.probe()):
            return linux
        missing = [name for name in self.capabilities if not has_capability(name)]
        if not missing:
            return Present("user namespace" if in_child_user_namespace() else "root")
        if refused := os.environ.get(USERNS_REFUSED):
            return Absent(*refused.split("|", 1))
        wanted = ", ".join(f"CAP_{name.upper()}" for name in missing)
        remedy = "run as root, or let the plugin make a user namespace: pytest --infra"
        return Absent(f"this process lacks {wanted}", remedy)


@dataclass(frozen=True)
class Command(Requirement):
    """A program that must be installed."""

    program: str = ""
    folders: tuple[str, ...] = ()

    def probe(self) -> Present | Absent:
        """Look for the program in PATH, the sbin folders and `folders`."""
        program = self.program or self.name
        if path := find_program(program, *self.folders):
            return Present(path)
        package = self.packages.get("apt", program)
        return Absent(f"{program} is not installed", f"pytest-infra doctor --install, or: apt-get install {package}")

    def path(self) -> str:
        """The program's path.

        Raises:
            Unavailable: it is not installed.
        """
        self.demand()
        path = find_program(self.program or self.name, *self.folders)
        assert path is not None
        return path


@dataclass(frozen=True)
class PythonModule(Requirement):
    """A Python package that must be importable."""

    module: str = ""
    extra: str = ""
    """The extra of this project that brings it."""

    def probe(self) -> Present | Absent:
        """Look for the module without importing it."""
        from importlib.util import find_spec

        with suppress(ModuleNotFoundError):  # not even the package that it is a part of
            if find_spec(self.module or self.name) is not None:
                return Present()
        wanted = f"pytest-infra[{self.extra}]" if self.extra else self.name
        return Absent(f"the Python package {self.name} is not installed", f"pip install '{wanted}'")


@dataclass(frozen=True)
class KernelFeature(Requirement):
    """Something the running kernel must do; `test` tries it and returns what is missing, or an empty string."""

    test: Callable[[], str] = str
    remedy: str = "use a kernel that has it"

    def probe(self) -> Present | Absent:
        """Try it, in a namespace of its own where it would change anything."""
        if not (linux := LINUX.probe()):
            return linux
        missing = self.test()
        return Absent(missing, self.remedy) if missing else Present()


LINUX = Linux("linux", purpose="everything")
PRIVILEGE = Privilege("privilege", purpose="namespaces, interfaces, raw sockets")
