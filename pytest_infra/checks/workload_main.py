"""A program that does exactly what it says, to hold a kernel's accounting against. It is run by path, with -I -S.

It imports nothing of the project and little of Python, so that what it costs beside its task is small and known.
Each task prints one line of JSON that says what was done, by the process's own clock and counts.
"""

import errno
import mmap
import os
import resource
import signal
import sys
import time
from contextlib import suppress

__all__ = ["burn", "fork", "main", "open_device", "read", "spin", "touch", "write"]

_PAGE = mmap.PAGESIZE
_BLOCK = 1 << 20
_CHUNK = 200


def _say(**facts: object) -> None:
    pairs = (f'"{name}": {"null" if value is None else value}' for name, value in facts.items())
    os.write(1, ("{" + ", ".join(pairs) + "}\n").encode())


def _work() -> None:
    for _ in range(_CHUNK):
        pass


def _pin(cpu: str) -> None:
    if cpu != "any":
        os.sched_setaffinity(0, {int(cpu)})


def _in_each(processes: int, task: "object") -> None:
    """Run a task in that many processes, this one being the first, and wait for all."""
    children = []
    for _ in range(processes - 1):
        pid = os.fork()
        if pid == 0:
            task()  # type: ignore[operator]
            os._exit(0)
        children.append(pid)
    task()  # type: ignore[operator]
    for pid in children:
        os.waitpid(pid, 0)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def burn(seconds: str, processes: str, cpu: str) -> None:
    """Use CPU time until the process's own clock shows `seconds`, its start included, in each of the processes."""
    _pin(cpu)
    wanted = float(seconds)

    def task() -> None:
        while time.process_time() < wanted:
            _work()

    _in_each(int(processes), task)
    _say(cpu_s=time.process_time() + _children_s())


def spin(seconds: str, processes: str, cpu: str) -> None:
    """Use as much CPU time as there is for `seconds` of wall time, in each of the processes."""
    _pin(cpu)
    os.write(1, b"spinning\n")
    began = time.monotonic()

    def task() -> None:
        while time.monotonic() - began < float(seconds):
            _work()

    _in_each(int(processes), task)
    _say(cpu_s=time.process_time() + _children_s(), wall_s=time.monotonic() - began)


def _anonymous() -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def touch(size: str, hold: str) -> None:
    """Write to each page of `size` bytes of new memory; then hold it until killed, if asked to."""
    base = _anonymous()
    count = int(size)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # the kernel has none
            memory.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page would bring pages that were not asked for
    for offset in range(0, count, _PAGE):
        memory[offset] = 1
    _say(touched_bytes=-(-count // _PAGE) * _PAGE, base_bytes=base)
    if hold == "hold":
        signal.pause()


def _blocks(size: int) -> "list[int]":
    return [_BLOCK] * (size // _BLOCK) + ([size % _BLOCK] if size % _BLOCK else [])


def write(path: str, size: str, how: str) -> None:
    """Write to a file: past the page cache (direct), through it and then synced (sync), or only into it (buffered)."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if how == "direct" else 0)
    fd = os.open(path, flags, 0o600)
    data = mmap.mmap(-1, _BLOCK)
    data.write(b"\xa5" * _BLOCK)
    began = time.monotonic()
    written = 0
    for block in _blocks(int(size)):
        written += os.write(fd, memoryview(data)[:block])
    if how == "sync":
        os.fsync(fd)
    _say(written_bytes=written, wall_s=time.monotonic() - began)


def read(path: str, size: str) -> None:
    """Read `size` bytes from the beginning of a file, past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    data = mmap.mmap(-1, _BLOCK)
    began = time.monotonic()
    count = 0
    for block in _blocks(int(size)):
        count += os.readv(fd, [memoryview(data)[:block]])
    _say(read_bytes=count, wall_s=time.monotonic() - began)


def fork(count: str, hold: str) -> None:
    """Make `count` processes that wait; say how many came to be, this one not counted; then end them all."""
    children = []
    refused = None
    for _ in range(int(count)):
        try:
            pid = os.fork()
        except OSError as error:
            refused = error.errno
            break
        if pid == 0:
            signal.pause()
            os._exit(0)
        children.append(pid)
    _say(forked=len(children), errno=refused)
    if hold == "hold":
        signal.pause()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def open_device(path: str, access: str) -> None:
    """Open a device node for reading (r), writing (w) or both (rw); say which error came, if one did."""
    flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[access]
    number = None
    try:
        os.open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        number = error.errno
    _say(errno=number, denied="true" if number in (errno.EPERM, errno.EACCES) else "false")


def main() -> None:
    """Do what the arguments say."""
    tasks = {task.__name__: task for task in (burn, spin, touch, write, read, fork, open_device)}
    tasks[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
