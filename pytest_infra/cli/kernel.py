"""``pytest-infra kernel``: list, fetch, and run a command on a kernel."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from typing import Any

from ..core import userns
from ..core.errors import BadInput, InfraError
from ..core.progress import PROGRESS

__all__ = ["add_kernel"]


def add_kernel(commands: Any) -> None:
    """Add the command and its actions."""
    parser = commands.add_parser("kernel", help="kernels for guests: list, fetch, and run a command on one")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    action = actions.add_parser("list", help="list the kernels that are here, and those that can be fetched")
    action.set_defaults(run=_list)
    action = actions.add_parser("fetch", help="have a kernel of the distribution here, without installing it")
    action.add_argument("name", metavar="NAME", help="a release, or 'amd64' for the distribution's stock kernel")
    action.set_defaults(run=_fetch)
    action = actions.add_parser(
        "run",
        help="run a command on a kernel, with this machine's files",
        usage="pytest-infra kernel run [-h] NAME|PATH -- COMMAND ...",
    )
    action.add_argument("name", metavar="NAME|PATH")
    action.set_defaults(run=_run)


def _list(_: argparse.Namespace) -> int:
    from ..vm.kernel import kernels
    from ..vm.package import available

    here = {kernel.name: kernel for kernel in kernels()}
    for name, kernel in here.items():
        sys.stdout.write(f"{name}  here  {kernel.image}\n")
    with suppress(InfraError):  # another distribution
        for name in available():
            if name not in here:
                sys.stdout.write(f"{name}  can be fetched\n")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from ..vm.package import fetch

    logging.basicConfig(format="%(message)s")
    PROGRESS.setLevel(logging.INFO)
    kernel = fetch(options.name)
    sys.stdout.write(f"{kernel.name}  here  {kernel.image}\n")
    return 0


def _run(options: argparse.Namespace) -> int:
    from ..vm.hosted import HostedGuest
    from ..vm.kernel import find_kernel

    if not options.after:
        raise BadInput("what is to be run? pytest-infra kernel run NAME -- COMMAND …")
    kernel = find_kernel(options.name)
    if userns.needed():
        userns.enter()
    with HostedGuest(kernel) as hosted:
        try:
            return hosted.run(options.after, cwd=os.getcwd(), env=os.environ, out=1, err=2)
        except FileNotFoundError:
            raise BadInput(f"no program {options.after[0]!r} there") from None
