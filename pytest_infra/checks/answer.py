"""`Answer`: what came back for one probe."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Literal

from .icmp import IcmpError

__all__ = ["Answer", "AnswerKind", "Carried", "local_refusal"]

Carried = Literal["request", "reply"] | None
"""What a packet that was seen somewhere has to do with a probe: it is the probe, an answer to it, or nothing."""

AnswerKind = Literal["reply", "reset", "icmp", "local", "silence"]
"""``reply``: the answer that was asked for. ``reset``: a TCP reset (RFC 9293). ``icmp``: an ICMP error. ``local``: the
kernel of the sending node did not even send it. ``silence``: nothing in time."""


@dataclass(frozen=True)
class Answer:
    """What came back for one probe, from whom, and after how long."""

    kind: AnswerKind
    sender: str = ""
    """Who answered, an IP address; empty for ``local`` and ``silence``."""
    rtt_s: float | None = None
    """Seconds from sending the probe to receiving the answer."""
    icmp: IcmpError | None = None
    errno: int = 0
    """The error of a ``local`` refusal (errno(3))."""

    @property
    def replied(self) -> bool:
        """Whether it is the answer that was asked for."""
        return self.kind == "reply"

    @property
    def negative(self) -> bool:
        """Whether it proves that the probe was not answered as asked: waiting longer would change nothing."""
        return self.kind in ("reset", "icmp", "local")

    def __str__(self) -> str:
        if self.kind == "reset":
            return f"connection refused by {self.sender} (TCP reset)"
        if self.icmp is not None:
            return str(self.icmp)
        if self.kind == "local":
            name = errno.errorcode.get(self.errno, self.errno)
            return f"{os.strerror(self.errno)} ({name}) from the sender's own kernel"
        return f"answer from {self.sender}" if self.kind == "reply" else "no answer"


def local_refusal(error: OSError) -> Answer:
    """The answer that a failed system call stands for."""
    return Answer("local", errno=error.errno or 0)
