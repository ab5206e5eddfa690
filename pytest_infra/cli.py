"""The command ``pytest-infra``: doctor, list, shell, kernel, clean, version."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .core import linux, userns
from .core.errors import BadInput, InfraError, Unavailable
from .core.sweep import LeaseState, leases, sweep
from .version import __version__

__all__ = ["main"]

_ORDER = ("time", "cgroup", "ipc", "uts", "net", "pid", "mnt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except InfraError as error:
        sys.stderr.write(f"pytest-infra: {error}\n")
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pytest-infra", description="Looks after what pytest-infra needs and leaves.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("doctor", help="say what this machine has and lacks")
    command.add_argument("--install", action="store_true", help="install the packages of what is missing")
    command.add_argument("names", nargs="*", metavar="NAME", help="look at these only: ovs, nginx, curl, …")
    command.set_defaults(run=_doctor)
    commands.add_parser("list", help="list the labs that are up").set_defaults(run=_list)
    command = commands.add_parser("shell", help="a shell, or a command, in a node of a lab that is up")
    command.add_argument("lab", metavar="LAB")
    command.add_argument("node", metavar="NODE")
    command.add_argument("command", nargs="*", metavar="COMMAND", help="after --: a command instead of a shell")
    command.set_defaults(run=_shell)
    _add_kernel(commands)
    commands.add_parser("clean", help="remove what dead sessions left").set_defaults(run=_clean)
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def _add_kernel(commands: Any) -> None:
    parser = commands.add_parser("kernel", help="kernels for guests: list, fetch, and run a command on one")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    action = actions.add_parser("list", help="list the kernels that are here, and those that can be fetched")
    action.set_defaults(run=_kernel_list)
    action = actions.add_parser("fetch", help="have a kernel of the distribution here, without installing it")
    action.add_argument("name", metavar="NAME", help="a release, or 'amd64' for the distribution's stock kernel")
    action.set_defaults(run=_kernel_fetch)
    action = actions.add_parser("run", help="run a command on a kernel, with this machine's files")
    action.add_argument("name", metavar="NAME|PATH")
    action.add_argument("command", nargs="+", metavar="COMMAND", help="after --: the program and its arguments")
    action.set_defaults(run=_kernel_run)


def _kernel_list(_: argparse.Namespace) -> int:
    from .vm.kernel import kernels
    from .vm.package import available

    here = {kernel.name: kernel for kernel in kernels()}
    for name, kernel in here.items():
        sys.stdout.write(f"{name}  here  {kernel.image}\n")
    with suppress(InfraError):  # another distribution
        for name in available():
            if name not in here:
                sys.stdout.write(f"{name}  can be fetched\n")
    return 0


def _kernel_fetch(options: argparse.Namespace) -> int:
    from .vm.package import fetch

    kernel = fetch(options.name)
    sys.stdout.write(f"{kernel.name}  here  {kernel.image}\n")
    return 0


def _kernel_run(options: argparse.Namespace) -> int:
    from .vm.hosted import HostedGuest
    from .vm.kernel import find_kernel

    kernel = find_kernel(options.name)
    if userns.needed():
        userns.enter()
    with HostedGuest(kernel) as hosted:
        try:
            return hosted.run(options.command, cwd=os.getcwd(), env=os.environ, out=1, err=2)
        except FileNotFoundError:
            raise BadInput(f"no program {options.command[0]!r} there") from None


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import doctor, install, select, table

    if options.install:
        _, missing = table(select(options.names))
        if missing and (status := install(missing, sys.stdout.write)) != 0:
            return status
    if userns.needed():
        try:
            userns.enter()
        except Unavailable as error:
            userns.refuse(error)
    return doctor(sys.stdout.write, options.names)


def _list(_: argparse.Namespace) -> int:
    for lease in leases():
        pid, argv = lease.session.get("pid", "?"), _short(" ".join(lease.session.get("argv", ())).split(), 20, " ")
        age_s = time.time() - lease.session.get("started", time.time())
        state = f"up for {age_s:.0f} s" if lease.alive else "dead; pytest-infra clean removes what it left"
        sys.stdout.write(f"session {pid}, {state}: {argv}\n")
        for name, facts in lease.labs.items():
            sys.stdout.write(f"  lab {name}: {_short(list(facts.get('nodes', {})), 20, ', ')}\n")
    return 0


def _short(words: Sequence[str], most: int, between: str) -> str:
    """The words on one line; of more than `most`, the first ones and how many there are."""
    rest = f" … ({len(words)} in all)" if len(words) > most else ""
    return between.join(words[:most]) + rest


def _clean(_: argparse.Namespace) -> int:
    status = 0
    for swept in sweep():
        sys.stdout.write(f"cleared {swept.folder}\n")
        for text in swept.undone:
            sys.stdout.write(f"  undone: {text}\n")
        for text in swept.errors:
            sys.stdout.write(f"  left:   {text}\n")
            status = 1
    return status


def _version(_: argparse.Namespace) -> int:
    sys.stdout.write(f"pytest-infra {__version__}\n")
    return 0


def _find_node(lab: str, node: str) -> tuple[LeaseState, Mapping[str, Any]]:
    live = [(lease, name, facts) for lease in leases() if lease.alive for name, facts in lease.labs.items()]
    found = [(lease, facts) for lease, name, facts in live if name == lab]
    if not found:
        raise BadInput(f"no lab {lab!r} is up; there are {', '.join(name for _, name, _ in live) or 'none'}")
    if len(found) > 1:
        pids = ", ".join(str(lease.session.get("pid")) for lease, _ in found)
        raise BadInput(f"{len(found)} labs are called {lab!r}, of the sessions {pids}")
    lease, facts = found[0]
    nodes = facts.get("nodes", {})
    if node not in nodes:
        raise BadInput(f"no node {node!r} in the lab {lab}; there are {', '.join(nodes) or 'none'}")
    return lease, nodes[node]


def _shell(options: argparse.Namespace) -> int:
    lease, node = _find_node(options.lab, options.node)
    env = {**os.environ, **node.get("env", {})}
    folder = os.getcwd()
    _enter(lease.session["pid"], node["namespaces"])
    with suppress(OSError):  # a mount namespace is entered at its root; the node may not have this folder
        os.chdir(folder)
    if options.command:
        return _call(options.command, env)
    shell = os.environ.get("SHELL") or "/bin/sh"
    if os.path.basename(shell) == "bash":
        env["PS1"] = f"[{options.node}] \\w \\$ "
        return _call([shell, "--norc", "-i"], env)
    env["PS1"] = f"[{options.node}] $ "
    return _call([shell, "-i"], env)


def _call(argv: Sequence[str], env: Mapping[str, str]) -> int:
    try:
        return subprocess.call(argv, env=env)
    except FileNotFoundError:
        raise BadInput(f"no program {argv[0]!r} there") from None


def _enter(session_pid: int, namespaces: Mapping[str, str]) -> None:
    """Move this process into a node's namespaces.

    The right to enter may come from the session's user namespace, or from the node's own, and going into a user
    namespace may also take it away: so each namespace is entered as soon as that is allowed.
    """
    try:
        pending = [_open(namespaces[kind]) for kind in _ORDER if kind in namespaces]
        users = [path for path in (f"/proc/{session_pid}/ns/user", namespaces.get("user")) if path]
        ways = [_open(path) for path in users if os.stat(path).st_ino != os.stat("/proc/self/ns/user").st_ino]
        for way in (None, *ways):
            if way is not None:
                linux.setns(way, linux.CLONE_NEWUSER)
            pending = [fd for fd in pending if not _try_to_enter(fd)]
        if pending:
            raise PermissionError("not allowed")
    except OSError as error:
        raise InfraError(f"cannot enter the node: {error} (run it as the user whose session it is)") from error


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _try_to_enter(fd: int) -> bool:
    try:
        linux.setns(fd)
    except PermissionError:
        return False
    return True
