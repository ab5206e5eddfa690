"""Kernels of the distribution: listed, and unpacked into the user's cache without being installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from ..core.errors import BadInput, InfraError, Unavailable
from ..core.progress import taking_long
from ..core.requirement import find_program
from .kernel import Kernel, find_kernel, kernels_folder
from .requirement import DEPMOD

__all__ = ["available", "fetch"]

_PREFIX = "linux-image-"
_NAMES = r"^linux-image-[0-9].*-(amd64|generic)$"
_LIMIT_S = 540.0


def _ask(argv: Sequence[str], cwd: str | None = None) -> str:
    if find_program(argv[0]) is None:
        raise Unavailable(
            "kernel-packages",
            f"this machine has no {argv[0]}, and packages of other distributions are not known here",
            "give the path of a kernel image or of a folder with boot/ and lib/modules/",
        )
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=_LIMIT_S, check=False)
    if done.returncode != 0:
        raise InfraError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def available() -> list[str]:
    """The names of the kernels that can be fetched: releases, as the distribution's package lists have them."""
    lines = _ask(["apt-cache", "search", "--names-only", _NAMES]).splitlines()
    names = [line.split(" - ")[0].removeprefix(_PREFIX) for line in lines if "meta-package" not in line]
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _package(name: str) -> str:
    """The package that holds the kernel itself: a meta-package depends on the newest."""
    package = _PREFIX + name.removeprefix(_PREFIX)
    try:
        depends = _ask(["apt-cache", "depends", "--no-recommends", "--no-suggests", package])
    except InfraError:
        raise BadInput(
            f"no package {package} in the package lists; 'pytest-infra kernel list' shows what there is "
            "(are the lists empty or old? apt-get update)"
        ) from None
    found = re.search(rf"Depends: ({_PREFIX}\d\S+)", depends)
    return found.group(1) if found else package


def fetch(name: str) -> Kernel:
    """Have a kernel of the distribution here: download its package and unpack it; one that is here already is kept.

    Args:
        name: a release, or a meta-package's name behind ``linux-image-``: ``amd64`` is the stock kernel.

    Raises:
        BadInput: no such package.
        Unavailable: this is no distribution with apt.
        InfraError: the download failed.
    """
    package = _package(name)
    release = package.removeprefix(_PREFIX)
    folder = os.path.join(kernels_folder(), release)
    if not os.path.isdir(folder):
        depmod = DEPMOD.path()
        scratch_folder = tempfile.TemporaryDirectory(dir=kernels_folder(), prefix=".fetch-")
        with scratch_folder as scratch, taking_long(f"fetching the kernel {release}"):
            _ask(["apt-get", "download", package], cwd=scratch)
            deb = next(os.path.join(scratch, file) for file in os.listdir(scratch) if file.endswith(".deb"))
            tree = os.path.join(scratch, "tree")
            _ask(["dpkg-deb", "--extract", deb, tree])
            _ask([depmod, "--basedir", tree, release])
            try:
                os.rename(tree, folder)
            except OSError:  # another process was first
                shutil.rmtree(tree, ignore_errors=True)
    return find_kernel(release)
