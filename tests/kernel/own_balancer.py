"""A load balancer as a user may write one: takes frames from the first interface, hands them to the others by a hash.

``own_balancer.py FAULT CLIENT WORKER…``; it prints ``ready``. Faults: ``none``, ``forgets`` (asks a die instead of the
hash), ``overtakes`` (keeps every tenth frame until the next one has gone), ``leaves-out`` (the last worker), ``loses``
(the frames of every hundredth flow).
"""

from __future__ import annotations

import random
import socket
import sys
import zlib


def opened(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind((name, 0))
    return sock


def main(fault: str, client: str, *workers: str) -> None:
    entrance, exits = opened(client), [opened(name) for name in workers]
    if fault == "leaves-out":
        exits.pop()
    print("ready", flush=True)
    kept: list[tuple[socket.socket, bytes]] = []
    taken = 0
    while True:
        frame, (_, _, kind, _, _) = entrance.recvfrom(4096)
        if kind == socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00":
            continue
        number = zlib.crc32(frame[26:38])  # addresses and ports
        if fault == "loses" and number % 100 < 3:
            continue
        out = exits[(random.getrandbits(32) if fault == "forgets" else number) % len(exits)]
        taken += 1
        if fault == "overtakes" and taken % 10 == 3:
            kept.append((out, frame))
            continue
        out.send(frame)
        while kept:
            late, held = kept.pop()
            late.send(held)


if __name__ == "__main__":
    main(*sys.argv[1:])
