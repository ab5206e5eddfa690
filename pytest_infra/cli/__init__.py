"""The command ``pytest-infra``: doctor, init, list, shell, kernel, clean, completion, schema, version."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

from ..core import userns
from ..core.errors import BadInput, InfraError, Unavailable
from ..core.suggest import not_among
from ..core.sweep import LeaseState, leases, sweep
from ..core.wait import until
from ..version import __version__
from .completion import SHELLS, candidates, script
from .enter import run_inside
from .kernel import add_kernel
from .labs import LabUp, find_lab, find_node, labs_up

__all__ = ["main"]

_END_S = 15.0
_COMMANDS = ("doctor", "init", "list", "shell", "kernel", "clean", "completion", "schema", "version")
_COMPLETE = "complete"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    if words and not words[0].startswith("-") and words[0] not in (*_COMMANDS, _COMPLETE):
        sys.stderr.write(f"pytest-infra: no command {not_among(_COMMANDS, words[0])}\n")
        return 2
    options = _parser().parse_args(words[:end])
    options.after = words[end + 1 :]
    try:
        status: int = options.run(options)
    except InfraError as error:
        sys.stderr.write(f"pytest-infra: {error}\n")
        return 2 if isinstance(error, BadInput) else 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pytest-infra", description="Looks after what pytest-infra needs and leaves.")
    parser.add_argument("--version", action="version", version=f"pytest-infra {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("doctor", help="say what this machine has and lacks")
    command.add_argument("--install", action="store_true", help="install the packages of what is missing")
    command.add_argument("--json", action="store_true", help="as JSON, for programs")
    command.add_argument("names", nargs="*", metavar="NAME", help="look at these only: ovs, nginx, curl, …")
    command.set_defaults(run=_doctor)
    command = commands.add_parser("init", help="write a first test and a GitHub workflow")
    command.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="where; by default here")
    command.set_defaults(run=_init)
    commands.add_parser("list", help="list the labs that are up").set_defaults(run=_list)
    command = commands.add_parser(
        "shell",
        help="a shell, or a command, in a node of a lab that is up",
        usage="pytest-infra shell [-h] [--session PID] [LAB [NODE]] [-- COMMAND ...]",
    )
    command.add_argument("lab", metavar="LAB", nargs="?", help="may be left out where only one is up")
    command.add_argument("node", metavar="NODE", nargs="?", help="may be left out where the lab has only one")
    command.add_argument("--session", type=int, metavar="PID", help="of several labs of that name, the one of this")
    command.set_defaults(run=_shell)
    add_kernel(commands)
    command = commands.add_parser("clean", help="end kept labs, and remove what dead sessions left")
    command.add_argument("labs", nargs="*", metavar="LAB", help="end these kept labs only")
    command.set_defaults(run=_clean)
    command = commands.add_parser("completion", help="print what a shell needs to complete names with the Tab key")
    command.add_argument("shell", choices=SHELLS)
    command.set_defaults(run=_completion)
    commands.add_parser(_COMPLETE).set_defaults(run=_complete)  # what those scripts call
    commands.add_parser("schema", help="print the JSON Schema of the checks' reports").set_defaults(run=_schema)
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from ..doctor import doctor, doctor_json, install, select, table

    if options.install:
        _, missing = table(select(options.names))
        said = sys.stderr if options.json else sys.stdout
        if missing:
            if (status := install(missing, said.write)) != 0:
                return status
            _in_a_new_process("doctor", *(["--json"] if options.json else []), *options.names)
    if userns.needed():
        try:
            userns.enter()
        except Unavailable as error:
            userns.refuse(error)
    return (doctor_json if options.json else doctor)(sys.stdout.write, options.names)


def _in_a_new_process(*words: str) -> None:
    """Go on as another command: libraries that are loaded do not see what has been installed since (OpenCL's)."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest_infra", *words])  # noqa: S606


def _init(options: argparse.Namespace) -> int:
    from .first import write_first

    for path in write_first(options.folder):
        sys.stdout.write(f"wrote {path}\n")
    sys.stdout.write("next: pytest --infra\n")
    return 0


def _list(_: argparse.Namespace) -> int:
    for lease in leases():
        sys.stdout.write(f"{_session(lease)}\n")
        for name, facts in lease.labs.items():
            sys.stdout.write(f"  lab {name}: {_short(list(facts.get('nodes', {})), 20, ', ')}\n")
    return 0


def _session(lease: LeaseState) -> str:
    age_s = time.time() - lease.session.get("started", time.time())
    if kept := lease.session.get("kept"):
        state = f"for {_age(age_s)}; pytest-infra clean ends it" if lease.alive else "and dead"
        return f"kept {state}: {kept.get('test', '')} {kept.get('outcome', '')}".rstrip(": ")
    pid, argv = lease.session.get("pid", "?"), _short(" ".join(lease.session.get("argv", ())).split(), 20, " ")
    state = f"up for {_age(age_s)}" if lease.alive else "dead; pytest-infra clean removes what it left"
    return f"session {pid}, {state}: {argv}"


def _age(seconds: float) -> str:
    for name, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"


def _short(words: Sequence[str], most: int, between: str) -> str:
    """The words on one line; of more than `most`, the first ones and how many there are."""
    rest = f" … ({len(words)} in all)" if len(words) > most else ""
    return between.join(words[:most]) + rest


def _clean(options: argparse.Namespace) -> int:
    kept = [lab for lab in labs_up() if lab.kept is not None]
    for name in options.labs:
        find_lab(kept, name)
    status = 0
    for lab in kept:
        if not options.labs or lab.name in options.labs:
            status |= _end(lab)
    for swept in [] if options.labs else sweep():
        sys.stdout.write(f"cleared {swept.folder}\n")
        for text in swept.undone:
            sys.stdout.write(f"  undone: {text}\n")
        for text in swept.errors:
            sys.stdout.write(f"  left:   {text}\n")
            status = 1
    return status


def _end(lab: LabUp) -> int:
    """End a kept lab: the process that holds it gets SIGTERM, and clears its lease as it ends."""
    try:
        os.kill(lab.pid, signal.SIGTERM)
        until(lambda: not os.path.isdir(lab.lease.folder), within_s=_END_S, what=f"the end of the kept lab {lab.name}")
    except ProcessLookupError:
        return 0  # it has just ended; the sweep does the rest
    except (OSError, InfraError) as error:
        sys.stdout.write(f"left: the kept lab {lab.name}: {error}\n")
        return 1
    sys.stdout.write(f"ended the kept lab {lab.name}\n")
    return 0


def _completion(options: argparse.Namespace) -> int:
    sys.stdout.write(script(options.shell))
    return 0


def _complete(options: argparse.Namespace) -> int:
    sys.stdout.writelines(f"{word}\n" for word in candidates(options.after))
    return 0


def _shell(options: argparse.Namespace) -> int:
    labs = labs_up()
    chosen, node = options.lab, options.node
    if node is None and len(labs) == 1 and chosen in labs[0].nodes and chosen != labs[0].name:
        chosen, node = None, chosen  # only one lab is up: its nodes need no surname
    lab = find_lab(labs, chosen, options.session)
    name = find_node(lab, node)
    return run_inside(name, lab.pid, lab.nodes[name]["namespaces"], options.after)


def _schema(_: argparse.Namespace) -> int:
    from ..core.report import as_json
    from ..reporting.schema import report_schema

    sys.stdout.write(as_json(report_schema()))
    return 0


def _version(_: argparse.Namespace) -> int:
    sys.stdout.write(f"pytest-infra {__version__}\n")
    return 0
