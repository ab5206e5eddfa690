"""An OpenFlow controller: it learns where each MAC address is, and gives its switches a flow for each (OpenFlow 1.3).

Run it with the address and port that it shall listen on.
"""

from __future__ import annotations

import socketserver
import struct
import sys

VERSION = 4
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, FEATURES_REQUEST, PACKET_IN, PACKET_OUT, FLOW_MOD = 0, 1, 2, 3, 5, 10, 13, 14
FLOOD, CONTROLLER, ANY = 0xFFFFFFFB, 0xFFFFFFFD, 0xFFFFFFFF
NOT_BUFFERED = 0xFFFFFFFF
IN_PORT, ETH_DST = 0x8000_0004, 0x8000_0606  # headers of match fields: class, field and length
IDLE_S = 60


def message(kind: int, body: bytes = b"", xid: int = 0) -> bytes:
    return struct.pack("!BBHI", VERSION, kind, 8 + len(body), xid) + body


def output(port: int) -> bytes:
    return struct.pack("!HHIH6x", 0, 16, port, 0xFFFF)


def flow(match: bytes, port: int, *, priority: int, idle_s: int = 0) -> bytes:
    actions = output(port)
    body = struct.pack("!QQBBHHHIIIH2x", 0, 0, 0, 0, idle_s, 0, priority, NOT_BUFFERED, ANY, ANY, 0)
    length = 4 + len(match)
    body += struct.pack("!HH", 1, length) + match + bytes(-length % 8)
    body += struct.pack("!HH4x", 4, 8 + len(actions)) + actions
    return message(FLOW_MOD, body)


def packet_out(port: int, in_port: int, frame: bytes) -> bytes:
    actions = output(port)
    return message(PACKET_OUT, struct.pack("!IIH6x", NOT_BUFFERED, in_port, len(actions)) + actions + frame)


def in_port_of(fields: bytes) -> int:
    """The value of the field IN_PORT of a match."""
    while fields:
        (header,) = struct.unpack_from("!I", fields)
        size = header & 0xFF
        if header == IN_PORT:
            return int.from_bytes(fields[4 : 4 + size], "big")
        fields = fields[4 + size :]
    raise ValueError("a packet without the port that it came by")


class Switch(socketserver.StreamRequestHandler):
    """The connection with one switch."""

    def handle(self) -> None:
        self.places: dict[bytes, int] = {}
        self.wfile.write(message(HELLO))
        self.wfile.write(message(FEATURES_REQUEST))
        self.wfile.write(flow(b"", CONTROLLER, priority=0))  # what no flow knows is asked here
        while header := self.rfile.read(8):
            _, kind, length, xid = struct.unpack("!BBHI", header)
            body = self.rfile.read(length - 8)
            if kind == ECHO_REQUEST:
                self.wfile.write(message(ECHO_REPLY, body, xid))
            elif kind == PACKET_IN:
                self.packet_in(body)
            elif kind == ERROR:
                print(f"the switch refuses a message: type {body[:2].hex()}, code {body[2:4].hex()}", file=sys.stderr)

    def packet_in(self, body: bytes) -> None:
        (length,) = struct.unpack_from("!H", body, 18)
        in_port = in_port_of(body[20 : 16 + length])
        frame = body[16 + length + -length % 8 + 2 :]
        target, source = frame[:6], frame[6:12]
        self.places[source] = in_port
        port = self.places.get(target, FLOOD)
        if port != FLOOD:
            match = struct.pack("!II", IN_PORT, in_port) + struct.pack("!I", ETH_DST) + target
            self.wfile.write(flow(match, port, priority=10, idle_s=IDLE_S))
        self.wfile.write(packet_out(port, in_port, frame))


class Controller(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Controller((sys.argv[1], int(sys.argv[2])), Switch) as controller:
        controller.serve_forever()
