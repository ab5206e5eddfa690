"""What is said of guests that do not come up, go away, or cannot do what is asked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks.migration import MigrationReport
from pytest_infra.core.errors import BadInput, CheckFailed, InfraError, StartFailed, Unavailable
from pytest_infra.session import Infra
from pytest_infra.vm.cpio import Archive
from pytest_infra.vm.kernel import find_kernel
from pytest_infra.vm.requirement import QEMU

pytestmark = [pytest.mark.infra_requires("vm"), pytest.mark.timeout(900)]


def normal(text: str) -> str:
    text = re.sub(r"\[ *\d+\.\d+\] ", "[<time>] ", text)
    text = re.sub(r"\b\d+ bytes on its", "<n> bytes on its", text)
    text = re.sub(r"\d+\.\d+\.\d+[-\w.+]*", "<kernel>", text)
    text = re.sub(r"(?m)^ {13}(?!the console's last lines).*\n?", "", text)
    text = re.sub(r"(kernel|initramfs) of \d+ MiB", r"\1 of <n> MiB", text)
    text = re.sub(r"(killed by signal 9);.*", r"\1; <console>", text)
    return re.sub(r"exitcode=0x\w+", "exitcode=<n>", text)


def not_up(session: Infra, **options: Any) -> str:
    with session.lab("texts") as lab:
        lab.vm("vm1", accel="tcg", **options)
        with pytest.raises(StartFailed) as failure:
            lab.up()
    return normal(str(failure.value))


def test_a_kernel_that_panics(session: Infra, snapshot: SnapshotAssertion) -> None:
    assert not_up(session, append="rdinit=/missing") == snapshot


def test_too_little_memory(session: Infra, snapshot: SnapshotAssertion) -> None:
    assert not_up(session, memory="96 MiB") == snapshot


def test_a_guest_that_never_says_ready(session: Infra, snapshot: SnapshotAssertion) -> None:
    text = not_up(session, ready_within="0.5 s", append="loglevel=3")
    assert re.sub(r"(?s)(path +step reached: ).*?\n.*", r"\1<step>", text) == snapshot


def test_an_initramfs_whose_first_process_ends(session: Infra, tmp_path: Any, snapshot: SnapshotAssertion) -> None:
    archive = Archive()
    archive.file("init", b"#!/infra/bin/busybox sh\necho this is all there is\nexit 3\n", 0o755)
    (tmp_path / "own.cpio").write_bytes(archive.content())
    assert not_up(session, initrd=tmp_path / "own.cpio") == snapshot


def test_a_console_that_is_flooded(session: Infra, tmp_path: Any, snapshot: SnapshotAssertion) -> None:
    archive = Archive()
    archive.file(
        "infra/init", b"#!/infra/bin/busybox sh\nwhile :; do echo all work and no play > /dev/console; done\n", 0o755
    )
    (tmp_path / "own.cpio").write_bytes(archive.content())
    assert not_up(session, initrd=tmp_path / "own.cpio", ready_within="30 s") == snapshot


@pytest.mark.parametrize(
    ("lacks", "options"),
    [("virtio_console", {}), ("9pnet_virtio", {"rootfs": "host"}), ("9p overlay", {"rootfs": "host"})],
)
def test_a_kernel_that_cannot_be_a_guest(
    session: Infra, tmp_path: Any, lacks: str, options: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    kernel = find_kernel()
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / f"vmlinuz-{kernel.name}").symlink_to(kernel.image)
    modules = tmp_path / "lib" / "modules" / kernel.name
    (modules / "kernel").mkdir(parents=True)
    there = {"virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay"} - set(lacks.split())
    (modules / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in sorted(there)))
    with session.lab("texts") as lab:
        lab.vm("vm1", kernel=tmp_path, **options)
        with pytest.raises(Unavailable) as failure:
            lab.up()
    assert str(failure.value).replace(kernel.name, "<kernel>") == snapshot


def test_a_guest_that_goes_away_and_one_that_cannot_move(session: Infra, snapshot: SnapshotAssertion) -> None:
    with session.lab("texts") as lab:
        vm, a = lab.vm("vm1", accel="tcg"), lab.host("a")
        lab.link(vm, a, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
        lab.up()
        vm.pause()
        with pytest.raises(InfraError) as paused:
            vm.run(["true"])
        assert str(paused.value) == snapshot(name="paused")
        vm.resume()
        with pytest.raises(InfraError) as unknown:
            vm.call(only_here)
        assert "put the function into one" in str(unknown.value)
        vm.guest.emulator.process.kill()
        vm.guest.channel.gone.wait(30)
        with pytest.raises(StartFailed) as gone:
            vm.run(["true"])
        assert normal(str(gone.value)) == snapshot(name="gone")


def only_here() -> int:
    return 1


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, snapshot: SnapshotAssertion) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BadInput) as kernel:
        find_kernel("6.99")
    assert re.sub(r"here: [^)]*", "here: <kernels>", str(kernel.value)) == snapshot(name="kernel")
    monkeypatch.setattr("pytest_infra.core.requirement.find_program", lambda name, *folders: None)
    with pytest.raises(Unavailable) as missing:
        QEMU.demand()
    assert str(missing.value) == snapshot(name="qemu")


@pytest.mark.parametrize("answers", [True, False])
def test_a_migration_that_loses_too_much(answers: bool, snapshot: SnapshotAssertion) -> None:
    report = MigrationReport(
        guest="vm1",
        client="a",
        address="10.0.0.1",
        sent=80,
        lost=12,
        longest_gap_s=0.7,
        downtime_s=0.006,
        total_s=0.43,
        transferred_bytes=62 << 20,
        emulated=not answers,
        answers_after=answers,
        lost_at_most=2,
    )
    with pytest.raises(CheckFailed) as failure:
        report.demand()
    assert str(failure.value) == snapshot
