"""The program of `checks.generator`: sends or receives as fast as it can, or at a rate, on a socket that it is given.

It is one file of plain Python, run as a process of its own so that its CPU time can be told; it prints one JSON object.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

__all__ = ["main", "tcp_receive", "tcp_send", "udp_receive", "udp_send"]

_CHUNK = 1 << 18
_TCP_INFO_BYTES = 232
_SO_MEMINFO, _DROPS = 55, 8
_PR_SET_PDEATHSIG = 1
_SIOCGSTAMPNS = 0x8907
_BATCH = 32  # datagrams between two looks at the clock
_MOST_BEHIND_S = 0.1
_SPARE_S = 20


def _clocks() -> dict[str, float]:
    """CPU time used, and time waited for a CPU (schedstat of the kernel's documentation), in seconds."""
    with open("/proc/self/schedstat", encoding="ascii") as file:
        return {"cpu_s": time.process_time(), "waited_s": int(file.read().split()[1]) / 1e9}


def _since(before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in _clocks().items()}


def _tcp_info(sock: socket.socket) -> dict[str, int]:
    """What the kernel knows of a connection (struct tcp_info of linux/tcp.h).

    ``network_us`` is how long data was under way and neither the receiver's window nor the sender's buffer was short.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES).ljust(_TCP_INFO_BYTES, b"\0")
    (options,) = struct.unpack_from("=B", info, 5)
    (mss,) = struct.unpack_from("=I", info, 16)
    (rtt_us,) = struct.unpack_from("=I", info, 68)
    (retransmits,) = struct.unpack_from("=I", info, 100)
    segments, _ = struct.unpack_from("=II", info, 136)
    busy_us, receiver_us, buffer_us = struct.unpack_from("=QQQ", info, 168)
    facts = {"network_us": busy_us - receiver_us - buffer_us, "timestamps": options & 1}
    return {
        **facts,
        "mss": mss,
        "retransmits": retransmits,
        "segments": segments,
        "rtt_us": rtt_us,
    }


def tcp_send(sock: socket.socket, duration_s: float) -> dict[str, object]:
    """Send for this long, then end the connection."""
    chunk = memoryview(bytes(_CHUNK))
    sent, before, began = 0, _clocks(), time.monotonic()
    until = began + duration_s
    while time.monotonic() < until:
        sent += sock.send(chunk)
    took_s, used = time.monotonic() - began, _since(before)
    info = _tcp_info(sock)
    sock.shutdown(socket.SHUT_WR)
    with suppress(OSError):  # until the other end has read it all
        sock.recv(1)
    info = {**info, **{name: _tcp_info(sock)[name] for name in ("retransmits", "segments")}}
    return {"bytes": sent, "took_s": took_s, **used, **info}


def tcp_receive(sock: socket.socket) -> dict[str, object]:
    """Receive until the other end has ended the connection."""
    room = bytearray(_CHUNK)
    got = sock.recv_into(room)
    first, began = got, time.monotonic()
    last, before = began, _clocks()
    while count := sock.recv_into(room):
        got += count
        last = time.monotonic()
    used = _since(before)
    sock.close()
    return {"bytes": got, "first": first, "took_s": last - began, **used}


def _send(sock: socket.socket, payload: bytes, flags: int) -> None:
    """Send a datagram; once more where the kernel reports the ICMP error of an earlier one instead (udp(7))."""
    try:
        sock.send(payload, flags)
    except OSError as error:
        if error.errno not in (errno.ECONNREFUSED, errno.EHOSTUNREACH):
            raise
        sock.send(payload, flags)


def udp_send(sock: socket.socket, duration_s: float, size: int, per_s: float) -> dict[str, object]:
    """Send datagrams of this size, evenly at this many a second (0: as fast as can be), for this long.

    At a rate, what the sender's own link has no room for is not sent later: it counts as refused.
    """
    payload, flags = bytes(size), socket.MSG_DONTWAIT if per_s else 0
    sent = refused = 0
    before, began = _clocks(), time.monotonic()
    until, origin = began + duration_s, began
    while (now := time.monotonic()) < until:
        due = _BATCH if not per_s else int((now - origin) * per_s) + 1 - (sent + refused)
        if per_s and due > per_s * _MOST_BEHIND_S + 1:  # what was missed is not made up for in a burst
            origin += (due - 1) / per_s
            continue
        for _ in range(min(due, _BATCH)):
            try:
                _send(sock, payload, flags)
                sent += 1
            except OSError:  # no buffer, or no way out
                refused += 1
        if per_s and due <= _BATCH:
            wait_s = origin + (sent + refused) / per_s - time.monotonic()
            if wait_s > 0:
                select.select([], [], [], min(wait_s, until - now))
    return {"packets": sent, "refused": refused, "took_s": time.monotonic() - began, **_since(before)}


def _stamp_s(sock: socket.socket) -> float:
    """When the kernel got the datagram that was read last (SIOCGSTAMPNS, socket(7)); 0 where there was none yet."""
    try:
        seconds, nanoseconds = struct.unpack("@ll", fcntl.ioctl(sock, _SIOCGSTAMPNS, bytes(16)))
    except FileNotFoundError:
        return 0.0
    return float(seconds + nanoseconds / 1e9)


def udp_receive(sock: socket.socket, quiet_s: float, late_s: float) -> dict[str, object]:
    """Receive datagrams until told to end (SIGTERM), and then until none has come for `quiet_s`.

    Those that the kernel got more than `late_s` after the first are counted as late, too.
    """
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ending.append(number))
    whole, part = divmod(quiet_s, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(whole), int(part * 1e6)))
    room = bytearray(1 << 16)
    got = packets = late = 0
    first = last = arrived_s = 0.0
    _stamp_s(sock)  # from now on the kernel stamps what arrives
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    before = _clocks()
    while True:
        try:
            got += sock.recv_into(room)
        except BlockingIOError:
            if ending:
                break
            continue
        packets += 1
        last = time.monotonic()
        first = first or last
        arrived_s = arrived_s or _stamp_s(sock)
        late += last - first > late_s and _stamp_s(sock) - arrived_s > late_s
    used = _since(before)
    dropped = struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[_DROPS]
    return {"bytes": got, "packets": packets, "dropped": dropped, "late": late, "took_s": last - first, **used}


def main(arguments: list[str]) -> None:
    """Do one task on the socket behind a descriptor: ``TASK FD NUMBER…``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    task, fd, *numbers = arguments
    longest, values = float(numbers[0]), [float(number) for number in numbers[1:]]
    signal.setitimer(signal.ITIMER_REAL, longest + _SPARE_S)  # whatever happens, it ends
    sock = socket.socket(fileno=int(fd))
    sock.setblocking(True)
    if task == "tcp-send":
        facts = tcp_send(sock, longest)
    elif task == "tcp-receive":
        facts = tcp_receive(sock)
    elif task == "udp-send":
        facts = udp_send(sock, longest, int(values[0]), values[1])
    else:
        facts = udp_receive(sock, values[0], values[1])
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
