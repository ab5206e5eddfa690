"""The program of `net.relay`: carries frames from one half of a link to the other, and does to them what was asked.

It is one file of plain Python, run as a process of its own. It reads frames from a TAP device, into which the kernel
diverts what a port sends, and sends them by a packet socket on that port when their time has come.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import socket
import sys
import time
from contextlib import suppress

__all__ = ["Direction", "main"]

_LARGEST_FRAME = 1 << 16
_AT_ONCE = 64  # frames read before those that are due are sent
_MOST_BYTES = 256 << 20  # that wait
_LOW_FD = 3
_PR_SET_TIMERSLACK = 29
_NS = 10**9


class Direction:
    """Where frames come from, where they go to, and those that wait."""

    def __init__(self, tap: int, out: int) -> None:
        self.tap, self.out = tap, out
        self.wanted: dict[str, float] = {}
        self.counts = {"frames": 0, "lost": 0, "doubled": 0, "corrupted": 0, "dropped": 0}
        self.latest_ns = 0
        self._waiting: list[tuple[int, int, bytes]] = []
        self._number = 0
        self._held = 0
        self._random = random.Random()  # noqa: S311

    @property
    def due_ns(self) -> int | None:
        """When the next frame is to be sent; None when none waits."""
        return self._waiting[0][0] if self._waiting else None

    def read(self) -> None:
        """Take the frames that have come, and decide about each."""
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(self.tap, _LARGEST_FRAME)
            except BlockingIOError:
                return
            self.accept(frame, time.monotonic_ns())

    def accept(self, frame: bytes, now_ns: int) -> None:
        """Decide about one frame: how many copies are sent, when, and whether as they came."""
        chance, wanted, counts = self._random.random, self.wanted, self.counts
        counts["frames"] += 1
        copies = 1
        if wanted.get("duplicate") and chance() < wanted["duplicate"]:
            copies += 1
            counts["doubled"] += 1
        if wanted.get("loss") and chance() < wanted["loss"]:
            copies -= 1
            counts["lost"] += 1
        for _ in range(copies):
            if self._held + len(frame) > _MOST_BYTES:
                counts["dropped"] += 1
                continue
            ready = frame
            if wanted.get("corrupt") and chance() < wanted["corrupt"]:
                ready = self._corrupted(frame)
                counts["corrupted"] += 1
            self._number += 1
            self._held += len(ready)
            heapq.heappush(self._waiting, (now_ns + self._delay_ns(), self._number, ready))

    def _delay_ns(self) -> int:
        wanted, chance = self.wanted, self._random.random
        if wanted.get("reorder") and chance() < wanted["reorder"]:
            return 0
        delay = wanted.get("delay_s", 0.0)
        if jitter := wanted.get("jitter_s"):
            delay += jitter * (2 * chance() - 1)
        return int(delay * _NS)

    def _corrupted(self, frame: bytes) -> bytes:
        bit = self._random.randrange(8 * len(frame))
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def send(self) -> None:
        """Send the frames that are due."""
        waiting = self._waiting
        while waiting:
            now_ns = time.monotonic_ns()
            if waiting[0][0] > now_ns:
                return
            due_ns, _, frame = heapq.heappop(waiting)
            self._held -= len(frame)
            self.latest_ns = max(self.latest_ns, now_ns - due_ns)
            try:
                os.write(self.out, frame)
            except OSError:  # the interface is down, or its queue is full: a wire loses the frame too
                self.counts["dropped"] += 1


def _obey(control: socket.socket, direction: Direction) -> bool:
    """Take an order; whether there is one: without one whoever gave them is gone."""
    order = control.recv(1 << 16)
    if not order:
        return False
    wanted = json.loads(order)
    if wanted is not None:
        direction.wanted = wanted
    answer = {**direction.counts, "latest_ns": direction.latest_ns}
    direction.latest_ns = 0
    control.send(json.dumps(answer).encode())
    return True


def _in_time() -> None:
    """Be woken up as exactly as this process may be."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:  # an ordinary user may not
        with suppress(OSError):
            os.nice(-10)


def main(arguments: list[str]) -> None:
    """Carry frames until the control socket ends; the arguments are descriptors: control, TAP device, packet socket."""
    _in_time()
    moved = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, _LOW_FD) for number in arguments]
    for number in arguments:
        os.close(int(number))
    control, tap = socket.socket(fileno=moved[0]), moved[1]
    direction = Direction(tap, moved[2])
    os.set_blocking(tap, False)
    while True:
        direction.send()
        due_ns = direction.due_ns
        wait_s = None if due_ns is None else max(0.0, (due_ns - time.monotonic_ns()) / _NS)
        ready, _, _ = select.select([control.fileno(), tap], [], [], wait_s)
        if tap in ready:
            direction.read()
        if control.fileno() in ready and not _obey(control, direction):
            return


if __name__ == "__main__":
    main(sys.argv[1:])
