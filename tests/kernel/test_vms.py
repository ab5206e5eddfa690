"""Guests: disks, modules, vhost, merged memory; snapshots that two want at once, damaged ones, a full disk."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_infra import CommandFailed, StartFailed, Unavailable, assert_reachable, until
from pytest_infra.core.programs import PROGRAMS
from pytest_infra.session import Infra
from pytest_infra.vm.requirement import BUSYBOX, cache_directory

pytestmark = [pytest.mark.infra_requires("vm"), pytest.mark.timeout(900)]

MIB = 1 << 20


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with an ext4 file system: a static busybox, and a file."""
    tree, image = tmp_path / "tree", tmp_path / "disk.img"
    for folder in ("bin", "etc", "proc", "sys", "dev", "run"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(BUSYBOX.path(), tree / "bin" / "busybox")
    for name in ("sh", "cat", "mount", "ls"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc" / "whose").write_text("the disk's\n")
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, image, "32M"], check=True)
    return image


def as_it_is(image: Path) -> Path:
    return image


def as_qcow2(image: Path) -> Path:
    PROGRAMS["qemu-img"].demand()
    target = image.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", image, target], check=True)
    return target


def with_partitions(image: Path) -> Path:
    """The same file system in the first partition of a disk."""
    whole = image.with_name("whole.img")
    entry = struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, MIB // 512, image.stat().st_size // 512)
    whole.write_bytes(bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa" + bytes(MIB - 512) + image.read_bytes())
    return whole


@pytest.mark.parametrize("kind", [as_it_is, as_qcow2, with_partitions])
def test_a_guest_runs_what_its_disk_has_and_leaves_that_as_it_is(lab: Any, disk: Path, kind: Any) -> None:
    image = kind(disk)
    before = image.read_bytes()
    vm, a = lab.vm("vm1", disk=image), lab.host("a")
    lab.link(vm, a)
    assert vm.run(["cat", "/etc/whose"]).stdout == "the disk's\n"
    vm.run(["sh", "-c", "echo changed >/etc/whose"])
    assert vm.read_file("/etc/whose") == b"changed\n"
    assert not vm.run(["ls", "/infra"], check=False).ok
    assert vm.describe()["root"] == str(image)
    assert_reachable(a, vm, within="60 s")
    assert image.read_bytes() == before


def test_a_disk_without_a_file_system_says_what_was_tried(tmp_path: Path, lab: Any) -> None:
    (tmp_path / "empty.img").write_bytes(bytes(4 * MIB))
    lab.vm("vm1", disk=tmp_path / "empty.img")
    with pytest.raises(
        StartFailed, match=r"finds no file system on its disk \(vda as ext4: Invalid argument; .*\); modules="
    ):
        lab.up()


# -- modules, vhost, merged memory -------------------------------------------------------------------------------------


def test_modules_are_loaded_on_request(lab: Any) -> None:
    plain, loaded = lab.vm("plain"), lab.vm("loaded", modules=["dummy"])
    add = ["ip", "link", "add", "x0", "type", "dummy"]
    loaded.run(add)
    assert loaded.interfaces["x0"].kind == "dummy"
    with pytest.raises(CommandFailed, match=r"not supported|Unknown"):  # there is nothing that would load it
        plain.run(add)


def test_the_kernel_moves_packets_where_it_can(lab: Any) -> None:
    vm, a = lab.vm("vm1", vhost=True), lab.host("a")
    lab.link(vm, a)
    if os.path.exists("/dev/vhost-net"):
        assert_reachable(a, vm, within="60 s")
        assert vm.cards.all[0].vhost
        assert os.path.realpath("/dev/vhost-net") in open_files(vm.guest.emulator.process.pid)
    else:
        with pytest.raises(Unavailable, match=r"vhost \(there is no /dev/vhost-net; modprobe vhost_net, or leave"):
            lab.up()


def open_files(pid: int) -> set[str]:
    return {os.path.realpath(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def ksm(name: str) -> str:
    return Path("/sys/kernel/mm/ksm", name).read_text().strip()


@pytest.mark.guests
def test_equal_pages_of_guests_are_merged_on_request_only(lab_factory: Any) -> None:
    if not os.access("/sys/kernel/mm/ksm/run", os.W_OK):
        raise Unavailable("ksm", "KSM is not there, or not for this user", "run as root, with CONFIG_KSM")
    before = {name: ksm(name) for name in ("run", "pages_to_scan")}
    with lab_factory("alike") as lab:
        one, other = lab.vm("one"), lab.vm("other")
        lab.up()
        if before["run"] == "0":
            with pytest.raises(Unavailable, match=r"KSM is switched off on this machine; lab.merge_memory\(\)"):
                assert one.merged_bytes
        lab.merge_memory()
        until(lambda: min(one.merged_bytes, other.merged_bytes) > 32 * MIB, within_s=300, what="pages are merged",
              last_words=lambda: f"{one.merged_bytes}, {other.merged_bytes}")  # fmt: skip
        assert one.run(["hostname"]).stdout == "one\n"
    assert {name: ksm(name) for name in before} == before


@pytest.mark.guests
def test_ksm_is_put_back_after_a_death() -> None:
    if not os.access("/sys/kernel/mm/ksm/run", os.W_OK) or ksm("run") != "0":
        raise Unavailable("ksm", "KSM is not there, not for this user, or used by somebody", "run as root")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal\nfrom pytest_infra.session import Infra\nfrom pathlib import Path\n"
            "with Infra() as infra, infra.lab() as lab:\n    lab.merge_memory()\n"
            "    assert Path('/sys/kernel/mm/ksm/run').read_text() == '1\\n'\n    os.kill(os.getpid(), signal.SIGKILL)",
        ],
        timeout=60,
        check=False,
    )
    assert done.returncode == -9
    until(lambda: ksm("run") == "0", within_s=30, what="KSM is off again")


# -- snapshots ---------------------------------------------------------------------------------------------------------


def start_one(name: str) -> tuple[bool, str]:
    """A guest of a session of its own: whether it was restored, and what it says of itself."""
    with Infra() as infra, infra.lab(name) as lab:
        vm = lab.vm(name, accel="tcg")
        lab.up()
        return vm.describe()["restored"], vm.run(["hostname"]).stdout.strip()


def snapshots() -> dict[str, Path]:
    return {path.name: path for path in Path(cache_directory("snapshots")).iterdir() if path.suffix != ".lock"}


@pytest.mark.guests
def test_two_sessions_restore_one_snapshot_at_once() -> None:
    start_one("first")  # makes it where there is none
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(start_one, ["one", "two"])) == [(True, "one"), (True, "two")]


@pytest.mark.guests
def test_a_snapshot_that_cannot_be_read_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest-infra").mkdir()
    for name in ("kernels", "initramfs", "vmlinux", "kvm"):
        (tmp_path / "pytest-infra" / name).symlink_to(cache_directory(name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert start_one("first") == (False, "first")
    assert start_one("second") == (True, "second")
    (made,) = snapshots().values()
    whole = made.stat().st_size
    os.truncate(made, whole // 2)
    assert start_one("third") == (False, "third")
    assert made.stat().st_size > 0.9 * whole
    assert start_one("fourth") == (True, "fourth")


ON_A_SMALL_DISK = """
import os, sys
from pytest_infra.session import Infra
from pytest_infra import InfraError
with Infra() as infra, infra.lab("small") as lab:
    vm = lab.vm("vm1", accel="tcg")
    try:
        lab.up()
        print(vm.describe()["restored"], vm.run(["hostname"]).stdout.strip())
    except InfraError as error:
        print(error)
folder = os.environ["XDG_CACHE_HOME"]
print(*sorted(name for _, _, names in os.walk(folder) for name in names if not name.endswith((".lock", ".vmlinux"))))
"""


@pytest.mark.guests
@pytest.mark.parametrize(
    ("size", "words"), [("180m", "False vm1\n"), ("90m", "cannot be written: No space left on device")]
)
def test_a_full_disk_costs_the_snapshot_and_not_the_guest(tmp_path: Path, size: str, words: str) -> None:
    kernels = cache_directory("kernels")
    mount = f"mount -t tmpfs -o size={size} small {tmp_path} && mkdir {tmp_path}/pytest-infra && "
    mount += f'ln -s {kernels} {tmp_path}/pytest-infra/kernels && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", ON_A_SMALL_DISK]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert words in done.stdout, done.stdout + done.stderr
    assert not [
        name for name in done.stdout.splitlines()[-1].split() if not name.endswith(".cpio") and "amd64" not in name
    ]
