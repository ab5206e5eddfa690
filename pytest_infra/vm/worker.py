"""Inside a guest: a Python whose standard input and output are the guest's second port, for pytest-xdist's workers."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Mapping, Sequence

from .agent import Agent, open_port

__all__ = ["IO_PORT", "start_python"]

IO_PORT = "pytest-infra.io"


def start_python(
    agent: Agent, code: str, argv: Sequence[str], path: Sequence[str], cwd: str, env: Mapping[str, str]
) -> int:
    """Run code in a copy of this process, which has imported much of what it will need; returns its process id.

    Args:
        agent: of no use here.
        code: what ``python -c`` would be given.
        argv: ``sys.argv``.
        path: ``sys.path``.
        cwd: the present folder.
        env: the environment.
    """
    del agent
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _become(argv, path, cwd, env)
        exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))  # noqa: S102 - what python -c does
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - told on the console, whatever it is
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _become(argv: Sequence[str], path: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
    """Be a program of one's own: session, streams, folder, variables, an empty main module."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    port = open_port(IO_PORT)
    os.dup2(port, 0)
    os.dup2(port, 1)
    os.close(port)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv, sys.path[:] = list(argv), list(path)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - as above
    for name, module in sys.modules.items():  # pytest would warn that it cannot rewrite their assertions any more
        if "." not in name and name not in sys.stdlib_module_names:
            module.__doc__ = f"{module.__doc__ or ''}\nPYTEST_DONT_REWRITE"
    sys.modules["__main__"] = types.ModuleType("__main__")
