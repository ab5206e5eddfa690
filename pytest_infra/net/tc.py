"""Traffic control (tc(8)): what the kernel has of it, and the lines that shape a port."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from functools import lru_cache

from ..core import linux
from ..core.errors import CommandFailed
from ..core.guard import Guard
from ..core.process import run
from ..core.requirement import Absent, Command, KernelFeature
from ..core.worker import Worker
from .impairment import Impairment
from .namespace import NetNamespace

__all__ = ["LOSS_PREFERENCE", "NETEM", "TC", "loss_line", "netem_lines", "run_tc", "tbf_line"]

TC = Command(
    "tc",
    purpose="the rate, delay and loss of links",
    packages={"apt": "iproute2", "dnf": "iproute-tc", "pacman": "iproute2", "apk": "iproute2-tc"},
)
LOSS_PREFERENCE = 8
"""Of the filter that `loss_line` makes."""

_HEADER_BYTES = 18  # Ethernet, with a VLAN tag
_BURST_S = 0.002  # what may leave at once; less is more than a busy machine's timers can do
_QUEUE_S = 0.1
_LEAST_FRAMES, _BURST_FRAMES = 20, 2
_NETEM_FRAMES = 100_000
_MILLION = 10**6
_SKF_AD_RANDOM = 0xFFFFF000 + 56  # linux/filter.h
_STOLEN, _UNSPEC = 4, 0xFFFFFFFF  # linux/pkt_cls.h


@lru_cache(maxsize=1)
def _netem() -> str:
    """Try it in a network namespace of a thread's own."""

    def try_it() -> str:
        linux.unshare(linux.CLONE_NEWNET)
        argv = [TC.path(), "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        return "" if done.returncode == 0 else f"the kernel lacks CONFIG_NET_SCH_NETEM: {done.stderr.strip()}"

    if isinstance(found := TC.probe(), Absent):
        return found.why
    worker = Worker("infra-netem-probe")
    try:
        return worker.call(try_it)
    except OSError as error:
        return f"it could not be looked for: {error.strerror}"
    finally:
        worker.stop()


NETEM = KernelFeature(
    "netem",
    purpose="delay, loss, reordering, duplication and corruption in the kernel",
    test=_netem,
    remedy="use a kernel with CONFIG_NET_SCH_NETEM; without it a relay in user space does the same",
)


def run_tc(guard: Callable[[], Guard], namespace: NetNamespace, lines: Sequence[str], *, check: bool = True) -> bool:
    """Give lines to ``tc -batch`` in a network namespace; returns whether the kernel took them.

    Raises:
        CommandFailed: the kernel refused a line.
    """
    if not lines:
        return True

    def popen(argv: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        return guard().popen(argv, (namespace.fd,), **options)

    try:
        run([TC.path(), "-batch", "-"], where=namespace.name, popen=popen, input="\n".join(lines) + "\n")
    except CommandFailed:
        if check:
            raise
        return False
    return True


def tbf_line(device: str, parent: str, impairment: Impairment, mtu: int) -> str:
    """A token bucket (tc-tbf(8)) that lets frames leave at the rate, and the queue before it."""
    assert impairment.rate_bps is not None
    frame, per_s = mtu + _HEADER_BYTES, impairment.rate_bps / 8
    burst = max(_BURST_FRAMES * frame, round(per_s * _BURST_S))
    queue = max(_LEAST_FRAMES * frame, round(per_s * (_QUEUE_S + 2 * impairment.delay_s)))
    return (
        f"qdisc replace dev {device} {parent} handle 2: "
        f"tbf rate {round(impairment.rate_bps)}bit burst {burst} limit {queue}"
    )


def netem_lines(device: str, impairment: Impairment, mtu: int) -> list[str]:
    """Netem (tc-netem(8)) at the root, and below it what gives the rate."""
    words = [f"limit {_NETEM_FRAMES}"]
    if impairment.delay_s:
        jitter = f" {impairment.jitter_s * _MILLION:.3f}us" if impairment.jitter_s else ""
        words.append(f"delay {impairment.delay_s * _MILLION:.3f}us{jitter}")
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        if part := getattr(impairment, name):
            words.append(f"{name} {100 * part:.6f}%")
    lines = [f"qdisc replace dev {device} root handle 1: netem {' '.join(words)}"]
    if impairment.rate_bps is not None:
        lines.append(tbf_line(device, "parent 1:1", impairment, mtu))
    return lines


def loss_line(device: str, loss: float) -> str:
    """A filter at the egress (tc-bpf(8)) that draws a number for each frame and takes this part of them.

    What is taken (TC_ACT_STOLEN) counts as sent. The sender does not learn of it, as it would if the filter dropped the
    frame (TC_ACT_SHOT) or redirected it to a device that drops it: TCP would not take that for a loss, and with
    IP_RECVERR a datagram's sender would get ENOBUFS.
    """
    limit = min(round(loss * 2**32), 2**32 - 1)
    take = f"6 0 0 {_STOLEN}"
    program = f"1,{take}" if loss >= 1 else f"4,32 0 0 {_SKF_AD_RANDOM},53 1 0 {limit},{take},6 0 0 {_UNSPEC}"
    return f"filter add dev {device} egress prio {LOSS_PREFERENCE} protocol all bpf direct-action bytecode '{program}'"
