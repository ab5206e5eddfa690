"""A Python interpreter on another kernel, for pytest-xdist: its command line is ``python``'s, behind a kernel's name.

Its standard input and output are those of a Python in a guest, which has this machine's files. It needs nothing of
pytest-xdist but the protocol, so whatever starts an interpreter by a command line can use it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from ..core.emulation import EMULATED
from ..core.errors import InfraError, StartFailed, WaitTimeout
from ..core.linux import die_with_parent
from ..core.selfrun import module_argv
from .hosted import HostedGuest
from .kernel import find_kernel
from .worker import start_python

__all__ = ["ARTIFACTS", "GUEST", "LAST_WORDS", "interpreter_argv", "main"]

ARTIFACTS = "PYTEST_INFRA_GUEST_ARTIFACTS"
"""The variable with the folder that guests can write evidence to."""
GUEST = "PYTEST_INFRA_GUEST"
"""The variable with the name of the kernel, in a guest whose processes were started by this."""
LAST_WORDS = "PYTEST_INFRA_GUEST_LAST_WORDS"
"""The variable with the file that gets, as a line of JSON, why a guest failed; without it standard error does."""
_CHUNK_BYTES = 1 << 16
_ASK_EVERY_S, _ANSWER_S = 30.0, 300.0
_FAILED = 70  # EX_SOFTWARE of sysexits.h


def interpreter_argv(kernel: str) -> list[str]:
    """The command line that stands for ``python`` on a kernel."""
    return module_argv("pytest_infra.vm.interpreter", kernel, *[f"path={entry}" for entry in sys.path if entry])


def main(arguments: Sequence[str]) -> int:
    """Run ``-c CODE`` on the kernel that is the first argument."""
    kernel, *rest = arguments
    path = [word.removeprefix("path=") for word in rest if word.startswith("path=")]
    words = [word for word in rest if not word.startswith("path=")]
    code = words[words.index("-c") + 1]
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a guest ends when whoever asked for it closes its input
    mine, theirs = socket.socketpair()
    try:
        with theirs, HostedGuest(find_kernel(kernel), warm=True, artifacts=os.environ.get(ARTIFACTS, ""),
                                 io=theirs) as hosted:  # fmt: skip
            env = {**os.environ, GUEST: hosted.kernel.name, **({EMULATED: "1"} if hosted.emulated else {})}
            hosted.channel.agent(start_python, code, ["-c"], path, os.getcwd(), env)
            _bridge(mine, hosted)
    except InfraError as error:
        _leave_words(str(error))
        return _FAILED
    return 0


def _leave_words(words: str) -> None:
    try:
        with open(os.environ[LAST_WORDS], "a", encoding="utf-8") as file:
            file.write(json.dumps({"pid": os.getpid(), "words": words}) + "\n")
    except (KeyError, OSError):
        sys.stderr.write(f"pytest-infra: {words}\n")


def _bridge(port: socket.socket, hosted: HostedGuest) -> None:
    """Copy both ways until either side ends.

    Raises:
        StartFailed: the guest has ended, or stands still: no time limit of a test in it ends that.
    """
    over = threading.Event()

    def up() -> None:
        while content := os.read(0, _CHUNK_BYTES):
            port.sendall(content)
        over.set()

    def down() -> None:
        while content := port.recv(_CHUNK_BYTES):
            view = memoryview(content)
            while view:
                view = view[os.write(1, view) :]
        over.set()

    def watch() -> None:
        hosted.channel.gone.wait()
        over.set()

    for function in (up, down, watch):
        threading.Thread(target=function, daemon=True).start()
    while not over.wait(_ASK_EVERY_S):
        _demand_answer(hosted)
    if hosted.channel.gone.is_set():
        raise hosted.channel.lost()


def _demand_answer(hosted: HostedGuest) -> None:
    try:
        hosted.channel.ping(_ANSWER_S)
    except WaitTimeout:
        lines = " | ".join(hosted.guest.console.last_lines(3))
        name = hosted.kernel.name
        raise StartFailed(
            f"the guest {name} stands still: it has not answered for {_ANSWER_S:g} s; the console's last lines: {lines}"
        ) from None
