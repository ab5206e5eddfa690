"""Socket activation: a server gets its listening sockets from whoever starts it (sd_listen_fds(3))."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..core.errors import BadInput
from ..core.process import Popen

if TYPE_CHECKING:
    from socket import socket

__all__ = ["activating"]

_MOST = 7
_OUT_OF_THE_WAY = 3 + _MOST
_HAND_ON = """
import os, sys
names, numbers, *command = sys.argv[1:]
numbers = [int(number) for number in numbers.split(",")]
for target, number in enumerate(numbers, 3):
    os.dup2(number, target, inheritable=True)
    os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=names)
try:
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
"""


def activating(popen: Popen, sockets: Mapping[str, socket]) -> Popen:
    """A way to start a process as `popen` does, with these sockets handed to it.

    Raises:
        BadInput: too few or too many sockets.
    """
    if not 1 <= len(sockets) <= _MOST:
        raise BadInput(f"from 1 to {_MOST} sockets can be handed on; got {len(sockets)}")

    def start(argv: Sequence[str], **options: Any) -> Any:
        with ExitStack() as undo:
            copies = []
            for item in sockets.values():
                copies.append(fcntl.fcntl(item.fileno(), fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY))
                undo.callback(os.close, copies[-1])
            argv = [sys.executable, "-I", "-S", "-c", _HAND_ON, ":".join(sockets), ",".join(map(str, copies)), *argv]
            return popen(argv, pass_fds=copies, **options)

    return start
