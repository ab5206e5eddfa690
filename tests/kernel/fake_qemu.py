"""Speaks as QEMU and as the agent of a guest do, for tests in which each step of starting a guest fails in turn."""

from __future__ import annotations

import json
import pickle
import socket
import struct
import sys
import threading
from typing import Any


def monitor(channel: socket.socket) -> None:
    greeting: Any = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2}}, "capabilities": []}}
    channel.sendall(json.dumps(greeting).encode() + b"\n")
    decoder, text = json.JSONDecoder(), ""
    while data := channel.recv(65536):
        text += data.decode()
        while text:
            request, end = decoder.raw_decode(text)
            text = text[end:]
            answers = {
                "query-status": {"status": "running"},
                "query-migrate": {"status": "failed"},
                "query-balloon": {"actual": 1 << 29},
            }
            channel.sendall(json.dumps({"return": answers.get(request["execute"], {})}).encode() + b"\n")


def agent(channel: socket.socket) -> None:
    def send(*frame: Any) -> None:
        content = pickle.dumps(frame)
        channel.sendall(struct.pack("!I", len(content)) + content)

    send(0, "ready", {})
    send(0, "warm", 0.0)
    file = channel.makefile("rb")
    while header := file.read(4):
        number, _, _ = pickle.loads(file.read(struct.unpack("!I", header)[0]))
        send(number, "value", None)


def main() -> None:
    words = " ".join(sys.argv)
    fds = [int(words.split(f"socket,id={name},fd=")[1].split()[0]) for name in ("qmp", "agent")]
    threading.Thread(target=agent, args=(socket.socket(fileno=fds[1]),), daemon=True).start()
    monitor(socket.socket(fileno=fds[0]))


main()
