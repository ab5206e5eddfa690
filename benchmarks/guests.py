"""How long guests take to be ready: wall time, and the CPU time of QEMU, which a busy machine changes less.

``python benchmarks/guests.py [RUNS]``: cold (booted), restored from a snapshot, and a command in each; then a whole run
of pytest with one test of two hosts, here and with ``--infra-kernel``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_infra.vm.guest import Guest
from pytest_infra.vm.initramfs import initramfs
from pytest_infra.vm.kernel import find_kernel
from pytest_infra.vm.qemu import Machine
from pytest_infra.vm.snapshot import snapshot_path

SUITE = """
from pytest_infra import assert_reachable

def test_two_hosts(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    assert_reachable(a, b)
"""


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        words = file.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def once(machine: Machine, snapshot: bool) -> tuple[float, float, float]:
    began = time.monotonic()
    with Guest("guest", machine, subprocess.Popen, ready_s=600, snapshot=snapshot) as guest:
        ready_s, used_s = time.monotonic() - began, cpu_s(guest.emulator.process.pid)
        began = time.monotonic()
        guest.channel.call(os.getpid)
        return ready_s, used_s, time.monotonic() - began


def whole_run(*options: str) -> float:
    """Seconds of a run of pytest with one test."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_one.py").write_text(SUITE)
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--infra", *options]
        began = time.monotonic()
        subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    kernel = find_kernel()
    machine = Machine(kernel.bootable(), initramfs(kernel), 512 << 20, 1, "tcg")
    print(f"kernel {kernel.name}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print("| a guest | ready, wall | CPU time of QEMU | a call in it |\n| --- | ---: | ---: | ---: |")
    if not os.path.exists(snapshot_path(machine)):
        once(machine, snapshot=True)
    for name, snapshot in (("restored", True), ("booted", False)):
        found = [
            statistics.median(column) for column in zip(*(once(machine, snapshot) for _ in range(runs)), strict=True)
        ]
        print(f"| {name} | {found[0]:.2f} s | {found[1]:.2f} s | {found[2] * 1000:.0f} ms |", flush=True)
    print("\n| pytest with one test of two hosts | whole run |\n| --- | ---: |")
    on_it = f"--infra-kernel={kernel.name}"
    whole_run(on_it)  # makes the snapshot of the guest that has this machine's files
    for name, options in (("here", ()), (f"`{on_it}`", (on_it,))):
        print(f"| {name} | {statistics.median(whole_run(*options) for _ in range(runs)):.1f} s |", flush=True)


main()
