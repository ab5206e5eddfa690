"""Virtual machines without one: kernels, archives, consoles, options, command lines."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_infra.cgroup.group import Group
from pytest_infra.checks.shares import measure_shares
from pytest_infra.core.emulation import EMULATED, demand_real_time
from pytest_infra.core.errors import BadInput, Inconclusive, StartFailed, Unavailable, WaitTimeout
from pytest_infra.core.lease import Lease
from pytest_infra.plugin.kernels import KernelSchedulers, _with
from pytest_infra.vm import kernel as kernel_module
from pytest_infra.vm import snapshot
from pytest_infra.vm.cards import Cards
from pytest_infra.vm.console import Console
from pytest_infra.vm.cpio import Archive
from pytest_infra.vm.image import has_pvh_entry, release_of, uncompressed
from pytest_infra.vm.initramfs import check_kernel
from pytest_infra.vm.interpreter import _demand_answer
from pytest_infra.vm.kernel import Kernel, find_kernel, kernels
from pytest_infra.vm.modules import Modules
from pytest_infra.vm.nic import SocketNic, UserNic
from pytest_infra.vm.options import vm_options
from pytest_infra.vm.qemu import SLOTS, Machine, argv
from pytest_infra.vm.requirement import StaticCommand, cache_directory
from pytest_infra.vm.wire import read_frame, to_bytes

ELF = b"\x7fELF\x02" + b"\0" * 59


def bz_image(release: str, payload: bytes) -> bytes:
    """A file with the parts of a bzImage that count: one setup sector, the version, the payload."""
    image = bytearray(4096)
    image[0x1F1] = 3
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x100)
    image[0x300 : 0x300 + len(release) + 6] = f"{release} (me)".encode()[: len(release) + 5] + b"\0"
    struct.pack_into("<II", image, 0x248, 0x10, len(payload))
    image[4 * 512 + 0x10 : 4 * 512 + 0x10 + len(payload)] = payload
    return bytes(image)


def pvh_kernel(note: int = 18) -> bytes:
    """An ELF file whose only segment is a note of Xen's."""
    header = bytearray(ELF)
    struct.pack_into("<Q", header, 0x20, 64)
    struct.pack_into("<HH", header, 0x36, 56, 1)
    segment = struct.pack("<IIQQQQ", 4, 0, 120, 0, 0, 24).ljust(56, b"\0")
    return bytes(header) + segment + struct.pack("<III", 4, 8, note) + b"Xen\0" + b"\0" * 8


def put_kernel(root: Path, release: str, modules: dict[str, str] | None = None, builtin: str = "") -> None:
    (root / "boot").mkdir(parents=True, exist_ok=True)
    packed = zlib.compressobj(wbits=31)
    content = bz_image(release, packed.compress(pvh_kernel()) + packed.flush())
    (root / "boot" / f"vmlinuz-{release}").write_bytes(content)
    folder = root / "lib" / "modules" / release / "kernel" / "drivers"
    folder.mkdir(parents=True)
    for name, depends in (modules or {}).items():
        (folder / f"{name}.ko").write_bytes(f"\x7fELF\0depends={depends}\0name={name}\0".encode())
    (folder.parent.parent / "modules.builtin").write_text(f"kernel/x/loop.ko\n{builtin}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache with two kernels, and a machine that has none of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "pytest-infra" / "kernels"
    put_kernel(folder / "a", "6.1.0-9-amd64", {"virtio": "", "virtio_pci": "virtio", "virtio_console": "virtio"})
    put_kernel(folder / "b", "6.1.0-10-amd64", {"9p": ""})
    real = kernel_module._in_tree
    monkeypatch.setattr(kernel_module, "_in_tree", lambda root: iter(()) if root == "/" else real(root))
    return folder


def test_of_one_number_the_plainest_kernel_comes_last(cache):
    put_kernel(cache / "c", "6.1.0-10-cloud-amd64")
    assert [kernel.name for kernel in kernels()] == ["6.1.0-9-amd64", "6.1.0-10-cloud-amd64", "6.1.0-10-amd64"]


def test_kernels_are_listed_by_number_and_not_by_letter(cache):
    assert [kernel.name for kernel in kernels()] == ["6.1.0-9-amd64", "6.1.0-10-amd64"]


@pytest.mark.parametrize("wanted", [None, "6.1", "6", "6.1.0-10-amd64"])
def test_a_kernel_is_found_by_the_beginning_of_its_name_the_newest_first(cache, wanted):
    assert find_kernel(wanted).name == "6.1.0-10-amd64"


def test_a_kernel_is_found_by_the_name_that_fetches_it(cache):
    put_kernel(cache / "c", "6.1.0-11-cloud-amd64", {})
    assert find_kernel("amd64").name == "6.1.0-10-amd64"
    assert find_kernel("cloud-amd64").name == "6.1.0-11-cloud-amd64"
    with pytest.raises(BadInput, match="no kernel 'md64' is here"):
        find_kernel("md64")


def test_the_beginning_of_a_name_ends_where_a_number_ends(cache):
    with pytest.raises(BadInput, match=r"no kernel '6.1.0-1' is here \(here: 6.1.0-9-amd64, 6.1.0-10-amd64\); fetch"):
        find_kernel("6.1.0-1")


def test_a_kernel_is_found_by_its_path_and_by_its_folder(cache):
    by_path = find_kernel(cache / "a" / "boot" / "vmlinuz-6.1.0-9-amd64")
    by_folder = find_kernel(f"{cache}/a")
    assert by_path.name == by_folder.name == "6.1.0-9-amd64"
    assert by_path.modules_folder == by_folder.modules_folder == f"{cache}/a/lib/modules/6.1.0-9-amd64"


@pytest.mark.parametrize(("content", "words"), [(b"text", "neither a bzImage nor a vmlinux"), (None, "No such file")])
def test_what_is_no_kernel_is_refused(tmp_path, content, words):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        find_kernel(path)


def test_the_uncompressed_kernel_is_taken_out_and_kept(cache):
    kernel = find_kernel("6.1.0-9-amd64")
    path = kernel.bootable()
    assert Path(path).read_bytes() == pvh_kernel()
    before = os.stat(path).st_ino
    assert kernel.bootable() == path
    assert os.stat(path).st_ino == before  # the same file, only looked at


def test_a_kernel_that_cannot_be_started_directly_is_started_as_it_is(cache):
    image = cache / "a" / "boot" / "vmlinuz-6.1.0-9-amd64"
    image.write_bytes(bz_image("6.1.0-9-amd64", pvh_kernel(note=3)))
    kernel = find_kernel("6.1.0-9-amd64")
    assert kernel.bootable() == str(image)


def test_images():
    assert release_of(bz_image("6.1.0-9-amd64", b""), "x") == "6.1.0-9-amd64"
    assert release_of(ELF + b"Linux version 5.10.1 (gcc)", "x") == "5.10.1"
    assert uncompressed(bz_image("6", b"\x02\x21\x4c\x18 no program for it, or nonsense")) == b""
    assert has_pvh_entry(pvh_kernel())
    assert not has_pvh_entry(pvh_kernel(note=1))
    assert not has_pvh_entry(b"\x7fELF\x01" + b"\0" * 60)


def test_modules_come_after_those_that_they_need(cache):
    modules = find_kernel("6.1.0-9-amd64").modules
    order = [name for name, _ in modules.load_order(["virtio-pci", "virtio_console", "loop"])]
    assert order == ["virtio", "virtio_pci", "virtio_console"]
    assert not modules.lacks("loop")
    assert modules.lacks("9p")
    assert not Modules("").lacks("9p")


def test_a_kernel_that_cannot_be_a_guest_is_told_before_it_is_started(cache):
    with pytest.raises(Unavailable, match=r"10-amd64 has no virtio_pci, virtio_console: .* cannot be spoken to; use"):
        check_kernel(find_kernel("6.1.0-10-amd64"))
    check_kernel(find_kernel("6.1.0-9-amd64"))
    with pytest.raises(Unavailable, match=r"cannot share the machine's files; use a kernel with CONFIG_9P_FS"):
        check_kernel(find_kernel("6.1.0-9-amd64"), ["9p", "overlay"])


def test_an_archive_is_read_by_cpio(tmp_path):
    archive = Archive()
    archive.file("a/b/file", b"content", 0o755, mtime=1_000_000_000)
    archive.file("a/b/file", b"only once")
    archive.link("a/link", "b/file")
    (tmp_path / "archive").write_bytes(archive.content())
    done = subprocess.run(
        ["busybox", "cpio", "-tv", "-F", str(tmp_path / "archive")], capture_output=True, text=True, check=True
    )
    names = [line.split(":")[-1].split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert names == ["a", "a/b", "a/b/file", "a/link -> b/file"]
    assert "rwxr-xr-x" in done.stdout
    assert "2001-09-09" in done.stdout


def test_a_flooded_console_keeps_its_beginning_and_its_end():
    console = Console()
    read_end, write_end = os.pipe()
    console.read_from(read_end)
    with open(write_end, "wb") as file:
        file.write(b"the first line\r\n\x1b[1mbold\x1b[0m\n")
        for _ in range(3000):
            file.write(b"flood\n" * 200)
        file.write(b"the last line\n")
    console.await_end()
    assert console.flood == "flood"
    text = console.text
    assert text.startswith("the first line\nbold\n")
    assert text.endswith("the last line\n")
    assert "bytes left out" in text
    assert len(text) < 2_000_000 < console.written_bytes
    assert console.last_lines(2) == ["flood", "the last line"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rootfs": "/"}, "allowed is 'host'"),
        ({"rootfs": "host", "disk": "x"}, "give rootfs or disk, and not both"),
        ({"cpus": 0}, "allowed are 1 to 255"),
        ({"cpus": True}, "allowed are 1 to 255"),
        ({"accel": "xen"}, "there are auto, kvm, tcg"),
        ({"model": "ne2k"}, "there are virtio-net, e1000"),
        ({"memory": "1 MiB"}, "too little for any kernel"),
        ({"memory": "much"}, "does not begin with a number"),
        ({"disk": "/nowhere"}, "disk '/nowhere' is no file that can be read"),
        ({"initrd": "/nowhere"}, "initrd '/nowhere' is no file"),
        ({"nics": ["user"]}, "is no network card; give UserNic"),
        ({"nics": [UserNic()] * 9}, "takes 8 network cards"),
        ({"modules": ["nonsense"]}, "has no module nonsense"),
        ({"kernel": ""}, "cannot be used; give a path, or a name"),
        ({"ready_within": "soon"}, "does not begin with a number"),
    ],
)
def test_bad_input(cache, options, words):
    with pytest.raises(BadInput, match=words):
        vm_options(**options)


@pytest.mark.parametrize("make", [lambda: UserNic({0: 80}), lambda: UserNic({80: 70000}), lambda: SocketNic(ip="x"),
                                  lambda: UserNic(model="tulip")])  # fmt: skip
def test_bad_cards(make):
    with pytest.raises(BadInput):
        make()


def test_a_guest_that_stands_still_is_told():
    def ping(timeout_s: float) -> None:
        raise WaitTimeout(f"no answer within {timeout_s} s")

    kernel, guest = SimpleNamespace(name="6.1"), SimpleNamespace(console=Console())
    hosted: Any = SimpleNamespace(kernel=kernel, guest=guest, channel=SimpleNamespace(ping=ping))
    with pytest.raises(StartFailed, match=r"the guest 6.1 stands still: it has not answered for 300 s; the console's"):
        _demand_answer(hosted)


def test_a_command_line_is_data(monkeypatch):
    monkeypatch.setattr("pytest_infra.core.requirement.Command.path", lambda self: "/usr/bin/qemu")
    machine = Machine("/k", "/i", 256 << 20, 2, "tcg", shares_root=True, append="quiet")
    words = argv(machine, qmp=5, agent=6, incoming="defer")
    assert words[words.index("-m") + 1] == "256M"
    assert any("fd=6" in word for word in words)
    assert any("path=/,security_model=none,multidevs=remap,readonly=on" in word for word in words)
    assert words[-2:] == ["-incoming", "defer"]
    assert not any("fsdev" in word for word in argv(Machine("/k", "/i", 256 << 20, 2, "tcg"), qmp=5, agent=6))
    assert argv(Machine("/k", "/i", 1 << 28, 1, "kvm"), qmp=5, agent=6)[4] == "host"


def test_frames_survive_being_cut_into_pieces():
    data = to_bytes((7, "value", {"a": [1, 2]})) + to_bytes((8, "end", 0))
    pieces = [data[at : at + 3] for at in range(0, len(data), 3)]
    rest = bytearray()

    def read(length: int) -> bytes:
        if not rest and pieces:
            rest.extend(pieces.pop(0))
        taken = bytes(rest[:length])
        del rest[:length]
        return taken

    assert read_frame(read) == (7, "value", {"a": [1, 2]})
    assert read_frame(read) == (8, "end", 0)
    assert read_frame(read) is None


def test_a_program_that_needs_libraries_is_not_static(tmp_path, monkeypatch):
    program = tmp_path / "busybox"
    program.write_bytes(b"\x7fELF" + b"\0" * 100 + b"/lib64/ld-linux-x86-64.so.2\0")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = StaticCommand("busybox", packages={"apt": "busybox-static"}).probe()
    assert not found
    assert "is not statically linked" in found.why


def test_a_test_carries_the_name_of_its_kernel():
    assert _with("test_x", "6.1") == "test_x[6.1]"
    assert _with("test_x[a-b]", "6.1") == "test_x[a-b-6.1]"


def test_each_kernel_has_a_scheduler_of_its_own():
    class Part:
        def __init__(self) -> None:
            self.nodes: list[object] = []
            self.collection_is_completed = self.tests_finished = self.has_pending = False

        def add_node(self, node: object) -> None:
            self.nodes.append(node)

    class Node:
        def __init__(self, kernel: str) -> None:
            self.gateway = type("G", (), {"spec": type("S", (), {"env": {"PYTEST_INFRA_GUEST": kernel}})})

    both = KernelSchedulers()
    one, two = Part(), Part()
    both._parts = {"one": one, "two": two}
    both.add_node(Node("one"))
    both.add_node(Node("two"))
    assert (len(one.nodes), len(two.nodes), len(both.nodes)) == (1, 1, 2)
    one.collection_is_completed = one.tests_finished = True
    assert both.collection_is_completed
    assert not both.tests_finished
    two.collection_is_completed = two.tests_finished = True
    assert both.tests_finished


def test_a_kernel_without_a_list_of_modules_loads_none():
    assert Kernel("x", "/x", "").modules.load_order(["virtio"]) == []


def test_time_is_not_judged_in_an_emulated_guest(monkeypatch):
    class Node:
        name, emulated = "vm1", True

    demand_real_time("a rate", object())
    with pytest.raises(Inconclusive, match=r"a rate cannot be judged: vm1 is emulated \(no KVM\); run it"):
        demand_real_time("a rate", Node())
    monkeypatch.setenv(EMULATED, "1")
    with pytest.raises(Inconclusive, match="the tests run in an emulated guest"):
        demand_real_time("a rate")
    with pytest.raises(Inconclusive, match="CPU shares cannot be judged"):
        measure_shares({Group(name, lease=Lease()): 1 for name in "ab"})


def test_what_was_used_lately_stays_in_the_cache(cache, monkeypatch):
    monkeypatch.setattr(snapshot, "_MOST_KEPT", {"vmlinux": 2})
    kernel = next(iter(kernels()))
    used = Path(kernel.bootable())
    for number in range(3):
        (used.parent / f"other{number}").touch()
        os.utime(used.parent / f"other{number}", (1000 + number, 1000 + number))
    os.utime(used, (1, 1))
    assert kernel.bootable() == str(used)
    snapshot.prune()
    assert {path.name for path in used.parent.iterdir()} == {used.name, "other2"}


def test_a_snapshot_is_found_again_after_its_files_were_used(cache, monkeypatch):
    monkeypatch.setattr("pytest_infra.core.requirement.Command.path", lambda self: "/bin/sh")
    kernel = next(iter(kernels()))
    before = snapshot.snapshot_path(Machine(kernel.bootable(), kernel.image, 1 << 28, 1, "tcg"))
    os.utime(kernel.bootable(), ns=(0, os.stat(kernel.bootable()).st_mtime_ns))
    assert snapshot.snapshot_path(Machine(kernel.bootable(), kernel.image, 1 << 28, 1, "tcg")) == before
    assert os.stat(kernel.bootable()).st_atime > 0
    os.utime(kernel.bootable(), (0, 0))  # another file at that place is another kernel
    assert snapshot.snapshot_path(Machine(kernel.bootable(), kernel.image, 1 << 28, 1, "tcg")) != before


def test_another_process_that_prunes_meanwhile_is_no_error(cache, monkeypatch):
    folder = Path(cache_directory("snapshots"))
    for number in range(10):
        (folder / f"s{number}").touch()
    real = os.scandir

    def first_gone(path):
        entries = list(real(path))
        Path(entries[0].path).unlink() if path == str(folder) else None
        return entries

    monkeypatch.setattr(os, "scandir", first_gone)
    snapshot.prune()
    monkeypatch.undo()
    assert len(list(folder.iterdir())) == 8


class _Monitor:
    """A QEMU that lets each card go at once."""

    def __init__(self) -> None:
        self.events: deque[dict] = deque()
        self.cards: set[str] = set()
        self.asleep = False

    def ask_with(self, command: str, arguments: dict) -> None:
        if command == "device_add":
            assert arguments["id"] not in self.cards
            self.cards.add(arguments["id"])

    def ask(self, command: str, **arguments: str) -> None:
        if command == "device_del" and not self.asleep:
            self.cards.remove(arguments["id"])
            self.events.append({"event": "DEVICE_DELETED", "data": {"device": arguments["id"]}})


def test_a_card_that_is_unplugged_gives_its_slot_back():
    monitor = _Monitor()
    guest: Any = SimpleNamespace(emulator=SimpleNamespace(qmp=monitor))
    nothing: Any = None
    cards = Cards("g", model="virtio-net", vhost=None, new_mac=lambda: "02:00:00:00:00:01", wire=nothing, vde=nothing,
                  interface=nothing)  # fmt: skip
    for _ in range(2 * SLOTS):
        cards.plug_nic(guest, UserNic())
        cards.unplug(guest, cards.all[0].name, 5)
    for _ in range(SLOTS):
        cards.plug_nic(guest, UserNic())
    with pytest.raises(BadInput, match="no slot left"):
        cards.plug_nic(guest, UserNic())
    monitor.asleep = True
    with pytest.raises(WaitTimeout):  # that another card of this slot has gone says nothing of this one
        cards.unplug(guest, cards.all[0].name, 0.1)
