"""The process that holds a kept lab, and how it is started.

The kernel frees a namespace when nobody has a descriptor of it any more, and a guard's processes when nobody has the
other end of its pipe. So what a lab is made of is kept by giving another process copies of those descriptors; and what
the lease has to undo is written into that process's lease before it is crossed off in this one's.

That process ends at SIGTERM, which ``pytest-infra clean`` sends. However it ends, nothing of the lab is left: the
kernel frees what is behind the descriptors, and the reaper of its lease what is in the ledger.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .keep import CannotKeep, Holdings
from .lease import Lease
from .selfrun import module_argv
from .sweep import leases, outstanding

__all__ = ["HOLDER_PID", "hold", "main"]

HOLDER_PID = 0
"""Stands for the holder's process id in what is published of a lab (``/proc/0/fd/5``), as it is not known before."""
_WORD = "holding "
_START_S = 30.0


def hold(holdings: Holdings, lease: Lease, *, lab: str, facts: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Start a process that holds all of it; returns the name by which the lab is known from now on.

    Args:
        holdings: what it is to hold.
        lease: where the entries are now.
        lab: the lab's name; a number is added where a kept lab of that name is there.
        facts: as `Lease.publish` takes them, with `HOLDER_PID`.
        about: why and for whom it is kept, for ``pytest-infra list``; JSON types.

    Raises:
        CannotKeep: the process did not come up; nothing has been handed over.
    """
    items = {item["entry"]: item for item in outstanding(lease.folder) if "kind" in item}
    entries = [[items[number]["kind"], items[number]["facts"]] for number in holdings.entries if number in items]
    order = {"lab": lab, "facts": facts, "entries": entries, "about": about}
    name = _start(json.dumps(order), sorted(set(holdings.descriptors)))
    for number in holdings.entries:
        lease.done(number)
    for callback in holdings.taken:
        callback()
    return name


def _start(order: str, descriptors: Sequence[int]) -> str:
    what = "the process that was to hold it"
    try:
        child = subprocess.Popen(
            module_argv(__name__, *map(str, descriptors)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
            cwd="/",
            text=True,
        )
    except OSError as error:
        raise CannotKeep(f"{what} cannot be started: {error.strerror}") from error
    try:
        said, errors = child.communicate(order, _START_S)  # goes on as a child of its own, which nobody has to wait for
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise CannotKeep(f"{what} did not come up within {_START_S:g} s") from None
    if not said.startswith(_WORD):
        raise CannotKeep(f"{what} did not come up: {(errors.strip().splitlines() or ['it said nothing'])[-1]}")
    return said.removeprefix(_WORD).rstrip("\n")


def main(arguments: Sequence[str]) -> int:
    """Take the lab, say so, and hold it until SIGTERM."""
    order = json.load(sys.stdin)
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    with Lease(about={"kept": order["about"]}) as lease:
        for kind, facts in order["entries"]:
            lease.add(kind, **facts)
        name = _free_name(order["lab"])
        entry = lease.publish(name, _with_own_pid(order["facts"]))
        _say(_WORD + name)
        signal.sigwait({signal.SIGTERM})
        lease.withdraw(entry)
        for word in arguments:
            os.close(int(word))
    return 0


def _free_name(wanted: str) -> str:
    taken = {name for lease in leases() if lease.alive and "kept" in lease.session for name in lease.labs}
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted}.{number}"
    return name


def _with_own_pid(facts: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(facts).replace(f"/proc/{HOLDER_PID}/", f"/proc/{os.getpid()}/"))


def _say(text: str) -> None:
    """Tell whoever waits, and let go of its pipes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)
