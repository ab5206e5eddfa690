"""Running without root: this process moves into a user namespace of its own, where it may make networks.

In the new user namespace the user's own id is 0 and has every capability over what is made in it; outside,
everything still belongs to the user (user_namespaces(7)). The move is made in place, so the process id, the
terminal, the exit status and the owner of every file stay what they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from . import linux
from .errors import Unavailable
from .requirement import LINUX, PRIVILEGE, USERNS_REFUSED
from .selfrun import module_argv

__all__ = ["enter", "exec_inside", "main", "needed", "obstacle", "refuse"]

_SETTINGS = (
    ("user/max_user_namespaces", "0", "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=10000"),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "kernel.unprivileged_userns_clone is 0",
        "sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns is 1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def needed() -> bool:
    """Whether this is Linux and the process lacks the capabilities that labs need."""
    return bool(LINUX.probe()) and not PRIVILEGE.probe()


def enter() -> None:
    """Move this process into a new user namespace and mount namespace, as root there.

    A rehearsal in a child comes first, since some systems allow the first step and refuse the next ones.

    Raises:
        Unavailable: the machine does not let it; the reason names the setting, the remedy cures it.
        RuntimeError: the process has several threads, and the kernel moves only processes that have one.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("a process with several threads cannot enter a user namespace (unshare(2), EINVAL)")
    if failure := _rehearse():
        raise obstacle(failure)
    _keep_user_name()
    _move()


def exec_inside(argv: Sequence[str]) -> None:
    """Replace this process by one that enters a user namespace and then becomes `argv`; for one that has threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, module_argv("pytest_infra.core.userns", *argv))  # noqa: S606


def main(arguments: Sequence[str]) -> int:
    """Enter a user namespace, or note why that failed, and become the command that is given."""
    try:
        enter()
    except Unavailable as error:
        refuse(error)
    os.execvp(arguments[0], list(arguments))  # noqa: S606


def refuse(error: Unavailable) -> None:
    """Keep a refusal in the environment, where `PRIVILEGE` and child processes find it."""
    os.environ[USERNS_REFUSED] = f"{error.why}|{error.remedy}"


def _keep_user_name() -> None:
    """Programs that ask for the user's name (`getpass.getuser`) look here before they look up the user id."""
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        import pwd

        try:
            os.environ["USER"] = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            os.environ["USER"] = f"uid{os.geteuid()}"


def _move() -> None:
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    for name, content in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(content)


def _rehearse() -> str:
    """Make the move in a child that then tries what a lab needs; returns what failed, or an empty string."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _move()
            linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWPID)
            linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
        except OSError as error:
            os.write(write_end, str(error).encode()[:500])
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as result:
        failure = result.read().decode(errors="replace")
    os.waitpid(child, 0)
    return failure


def _read_setting(path: str) -> str:
    try:
        with open(f"/proc/sys/{path}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def obstacle(failure: str, read: Callable[[str], str] = _read_setting) -> Unavailable:
    """What keeps an ordinary user from a user namespace here, and the remedy.

    Args:
        failure: the system call's error.
        read: reads a kernel setting below /proc/sys; an empty string where there is none.
    """
    sudo = f"run as root: sudo {sys.executable} -m pytest --infra"
    for path, value, why, cure in _SETTINGS:
        if read(path) == value:
            return Unavailable("privilege", f"no user namespace for ordinary users: {why}", f"{cure}, or {sudo}")
    if not os.path.exists("/proc/self/ns/user"):
        why, cure = "the kernel has none (CONFIG_USER_NS)", ""
    elif _has_seccomp_filter():
        why = f"a seccomp filter, as containers have, may refuse it ({failure})"
        cure = "start the container with --privileged, or "
    else:
        why, cure = failure, ""
    return Unavailable("privilege", f"no user namespace: {why}", f"{cure}{sudo}")


def _has_seccomp_filter() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return any(line.split() == ["Seccomp:", "2"] for line in status)
