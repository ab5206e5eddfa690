"""Runs a test suite, does to it what its caller says, and reports what is left on the machine afterwards.

Usage: ``census.py FOLDER SIGNAL TARGET ARGUMENT...``. It runs pytest with the arguments in FOLDER; once the suite has
written ``FOLDER/ready``, it sends SIGNAL (a name, or ``none``) to the process whose number is in ``FOLDER/TARGET``.
The result is one JSON object on standard output.

This process is the subreaper (prctl(2)) of all that the suite starts: whatever loses its parent becomes its child, so
that what is left can be told from what others do on the machine at the same time. What belongs to no process is
compared before and after; only what is new and stays for the whole time counts.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

WITHIN_S = 5.0
_SUBREAPER = 36
_NOT_CONSTANT = {"kernel/ns_last_pid", "vm/stat_refresh", "kernel/random/urandom_min_reseed_secs"}


def machine() -> set[str]:
    """What the machine has that belongs to no process: each thing as a line of text."""
    found = {f"interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    found |= {f"named namespace {path}" for path in Path("/run/netns").glob("*")}
    found |= {f"mount {line.split()[4]} {line.split(' - ')[1]}" for line in read("/proc/self/mountinfo").splitlines()}
    found |= {f"cgroup {folder}" for folder, _, _ in os.walk("/sys/fs/cgroup")}
    found |= {f"engine data {path}" for path in Path("/var/tmp").glob("pytest-infra-*")}
    found |= {
        f"engine socket {line.split()[-1]}" for line in read("/proc/net/unix").splitlines() if "@pytest-i" in line
    }
    for command in (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"]):
        if shutil.which(command[0]):
            rules = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            found |= {f"rule {command[0]} {line}" for line in rules.splitlines() if not line.startswith(("#", ":"))}
    return found | set(sysctls())


def sysctls() -> Iterator[str]:
    """The kernel settings that can be written; what can only be read are counters."""
    for folder, _, files in os.walk("/proc/sys"):
        for name in files:
            path = Path(folder, name)
            setting = str(path.relative_to("/proc/sys"))
            if setting not in _NOT_CONSTANT and path.stat().st_mode & 0o200:
                yield f"sysctl {setting} = {read(str(path)).strip()}"


def foreign(line: str, folder: Path) -> bool:
    """Whether this is a control group of another session, which comes and goes as it likes."""
    session = re.search(r"^cgroup .*/pytest-infra-(\d+)-", line)
    return bool(session) and not (folder / "pids" / session[1]).exists()


def read(path: str) -> str:
    """A file's content; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def descendants() -> dict[int, str]:
    """All processes below this one, zombies left out, and what they are."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (words := read(f"/proc/{entry}/stat").rpartition(")")[2].split()) and words[0] != "Z":
            parents[int(entry)] = int(words[1])
    found: dict[int, str] = {}
    level = {os.getpid()}
    while level := {pid for pid, parent in parents.items() if parent in level and pid not in found}:
        found |= {
            pid: read(f"/proc/{pid}/cmdline").replace("\0", " ").strip() or read(f"/proc/{pid}/comm") for pid in level
        }
    return found


def files(folder: Path) -> set[str]:
    """Files and sockets of the suite's sessions, below any run directory and in the folder it was told of."""
    pids = {path.name for path in (folder / "pids").glob("*")}
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/run/user"), "pytest-infra")
    bases = [Path("/run/pytest-infra"), runtime, *Path("/tmp").glob("pytest-infra*")]
    leases = [path for base in bases if base.is_dir() for path in base.iterdir() if path.name.partition("-")[0] in pids]
    found = {f"file {path}" for lease in leases for path in (lease, *lease.rglob("*"))}
    found |= {f"leased folder {path}" for path in folder.glob("leased-*")}
    sockets = read("/proc/net/unix").splitlines()
    return found | {f"socket {line.split()[-1]}" for line in sockets if any(str(lease) in line for lease in leases)}


def run(folder: Path, name: str, target: str, arguments: list[str]) -> int:
    """Run the suite and send it the signal; returns its exit status."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--infra", *arguments]
    with (folder / "output").open("w") as output:
        suite = subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    if name != "none":
        deadline = time.monotonic() + 60  # a busy machine takes its time to start an engine
        while not (folder / "ready").exists() and suite.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (folder / "ready").exists(), read(str(folder / "output"))
        os.kill(int(read(str(folder / target))), getattr(signal, name))
    return suite.wait(40)


def main() -> None:
    """Take the census before and after, and report."""
    folder, name, target, *arguments = sys.argv[1:]
    home = Path(folder)
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    before = machine()
    status = run(home, name, target, arguments)
    began_s = time.monotonic()
    left: set[str] | None = None
    while left is None or (left and time.monotonic() - began_s < WITHIN_S):
        time.sleep(0.05 if left else 0)
        own = {f"process {pid} {text}" for pid, text in descendants().items()} | files(home)
        others = {line for line in machine() - before if not foreign(line, home)}
        left = own | (others if left is None else others & left)
    took_s = time.monotonic() - began_s
    print(json.dumps({"status": status, "left": sorted(left), "took_s": took_s, "output": read(f"{home}/output")}))
    for pid in descendants():
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
