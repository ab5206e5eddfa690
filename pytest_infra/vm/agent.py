"""The agent: runs in a guest, and does there what frames ask for: commands, Python functions, files.

It is started by the guest's first process (see `vm.initramfs`), with ``/infra`` as its root; commands run in
the guest's own root.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..core import linux
from ..core.errors import InfraError
from ..core.worker import Worker
from .wire import Frame, read_frame, to_bytes

__all__ = ["Agent", "main", "open_port"]

_PORTS = "/sys/class/virtio-ports"
_PORT = "pytest-infra.agent"
_CLONE_FS = 0x200
_CHUNK_BYTES = 1 << 16
_IDLE_MS = 20
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207


def open_port(name: str) -> int:
    """Open a virtio-serial port by its name; each can be opened once (virtio specification, "Console Device")."""
    for entry in os.scandir(_PORTS):
        with open(os.path.join(entry.path, "name"), encoding="ascii") as file:
            if file.read().strip() == name:
                return os.open(f"/dev/{entry.name}", os.O_RDWR | os.O_CLOEXEC)
    raise InfraError(f"the guest has no port {name}")


class Agent:
    """Answers frames; requests are worked on at the same time.

    Args:
        fd: the port that the frames come and go through.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._writing = threading.Lock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._objects: dict[int, Any] = {}
        self.root = os.open("/proc/1/root", os.O_PATH | os.O_CLOEXEC)
        self._spawner = Worker("spawner", self._enter_root)

    def _enter_root(self) -> None:
        linux.unshare(_CLONE_FS)
        os.fchdir(self.root)
        os.chroot(".")

    def new_root(self) -> None:
        """Start commands from the file system that this process has now as its root."""
        os.close(self.root)
        self.root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        self.restart_spawner()

    def restart_spawner(self) -> None:
        """Start commands from `root` as it is now."""
        self._spawner.stop()
        self._spawner = Worker("spawner", self._enter_root)

    def _read(self, length: int) -> bytes:
        """Up to so many bytes; a port whose other end is not connected gives none, and then it is tried again."""
        pause = select.poll()
        while not (content := os.read(self._fd, min(length, _CHUNK_BYTES))):
            pause.poll(_IDLE_MS)
        return content

    def send(self, number: int, kind: str, content: Any) -> None:
        """Send a frame."""
        try:
            data = to_bytes((number, kind, content))
        except Exception as error:  # noqa: BLE001 - whatever cannot be sent, the other end waits for an answer
            data = to_bytes((number, "error", (InfraError(f"the result cannot leave the guest: {error}"), "")))
        with self._writing:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]

    def serve(self, imports: Sequence[str]) -> None:
        """Answer frames until the guest ends; import meanwhile what will be needed, and say when that is done."""
        self.send(0, "ready", {"kernel": os.uname().release, "uptime_s": time.monotonic(), "python": sys.version})
        threading.Thread(target=self._warm, args=(imports,), daemon=True).start()
        while (frame := read_frame(self._read)) is not None:
            threading.Thread(target=self._answer, args=(frame,), daemon=True).start()

    def _warm(self, imports: Sequence[str]) -> None:
        for name in imports:
            importlib.import_module(name)
        self.send(0, "warm", time.monotonic())

    def _answer(self, frame: Frame) -> None:
        number, kind, content = frame
        try:
            getattr(self, f"_do_{kind}")(number, *content)
        except BaseException as error:  # noqa: BLE001 - handed to the other end, whatever it is
            self.send(number, "error", (_portable(error), traceback.format_exc()))

    def _do_hello(self, number: int, now_ns: int, seed: bytes, hostname: str) -> None:
        """A guest that was restored has the clock and the random numbers of the time of its snapshot."""
        time.clock_settime_ns(time.CLOCK_REALTIME, now_ns)
        with open("/dev/urandom", "wb", buffering=0) as urandom:
            urandom.write(seed)
            with suppress(OSError):
                fcntl.ioctl(urandom, _RNDRESEEDCRNG)
        with open("/proc/sys/kernel/hostname", "w", encoding="ascii") as file:
            file.write(hostname)
        self.send(number, "value", os.uname().release)

    def _do_call(self, number: int, pickled: bytes) -> None:
        function, args, kwargs = pickle.loads(pickled)  # noqa: S301 - the guest does what the test says
        value = function(*args, **kwargs)
        try:
            pickle.dumps(value)
        except Exception:  # noqa: BLE001 - a socket, a generator …: it stays here, and is used from afar
            self._objects[number] = value
            self.send(number, "remote", type(value).__name__)
            return
        self.send(number, "value", value)

    def _do_use(self, number: int, item: int, name: str, pickled: bytes) -> None:
        """Call a method of an object that stayed here, or read an attribute."""
        args, kwargs = pickle.loads(pickled)  # noqa: S301 - as above
        attribute = getattr(self._objects[item], name)
        self.send(number, "value", attribute(*args, **kwargs) if callable(attribute) else attribute)

    def _do_drop(self, number: int, item: int) -> None:
        self._objects.pop(item, None)
        self.send(number, "value", None)

    def _do_agent(self, number: int, pickled: bytes) -> None:
        """Call a function with the agent itself, for what concerns it."""
        function, args = pickle.loads(pickled)  # noqa: S301 - as above
        self.send(number, "value", function(self, *args))

    def _do_spawn(
        self, number: int, argv: Sequence[str], env: dict[str, str], cwd: str | None, stdin: bytes | None
    ) -> None:
        child = self._spawner.call(_start, argv, env, cwd, stdin is not None)
        self._processes[number] = child
        self.send(number, "pid", child.pid)
        readers = [
            threading.Thread(target=self._pump, args=(number, name, stream), daemon=True)
            for name, stream in (("out", child.stdout), ("err", child.stderr))
        ]
        for reader in readers:
            reader.start()
        if stdin is not None and child.stdin is not None:
            with suppress(BrokenPipeError):
                child.stdin.write(stdin)
            with suppress(BrokenPipeError):
                child.stdin.close()
        child.wait()
        for reader in readers:
            reader.join(0.2)  # a child of it may hold its output
        del self._processes[number]
        self.send(number, "end", child.returncode)

    def _pump(self, number: int, name: str, stream: Any) -> None:
        while content := os.read(stream.fileno(), _CHUNK_BYTES):
            self.send(number, name, content)
        stream.close()

    def _do_signal(self, number: int, process: int, signal_number: int) -> None:
        child = self._processes.get(process)
        if child is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal_number)
        self.send(number, "value", None)

    def _do_write(self, number: int, path: str, content: bytes, mode: int) -> None:
        self._spawner.call(_write, path, content, mode)
        self.send(number, "value", None)

    def _do_read(self, number: int, path: str) -> None:
        self.send(number, "value", self._spawner.call(_read, path))

    def _do_module(self, number: int, content: bytes) -> None:
        """Load a kernel module (init_module(2))."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(175, content, ctypes.c_ulong(len(content)), b"") != 0 and ctypes.get_errno() != 17:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self.send(number, "value", None)


def _start(argv: Sequence[str], env: dict[str, str], cwd: str | None, with_stdin: bool) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv,
        stdin=pipe if with_stdin else subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        env=env,
        cwd=cwd or "/",
        start_new_session=True,
    )


def _write(path: str, content: bytes, mode: int) -> None:
    os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _portable(error: BaseException) -> BaseException:
    """The error itself where it can be sent, else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - errors with arguments of their own, mostly
        return InfraError(f"{type(error).__name__}: {error}")
    return error


def main(imports: Sequence[str] = ()) -> None:
    """Serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Agent(open_port(_PORT)).serve(imports)
