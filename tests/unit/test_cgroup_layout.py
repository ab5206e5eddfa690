"""Which controller is where, from what real machines show in /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_infra.cgroup.layout import Layout, folders_of, read_layout
from pytest_infra.cgroup.requirement import v2_home

SYSTEMD_V2 = "35 24 0:30 / {root} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1 = """\
40 39 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
41 39 0:32 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
42 39 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
43 39 0:34 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
44 39 0:35 / /mnt/a\\040b rw,relatime - cgroup cgroup rw,pids
"""
V1_PATHS = "5:pids:/p\n4:memory:/user.slice\n3:blkio:/\n2:cpu,cpuacct:/x/y\n1:name=systemd:/init.scope\n0::/\n"


def v2_machine(tmp_path: Path, own: str) -> Layout:
    """A version 2 hierarchy made of plain files, as systemd has it."""
    for folder, handed_down in (
        ("", "cpu memory pids"),
        ("user.slice", "memory pids"),
        ("user.slice/a", ""),
        ("b", "cpu"),
    ):
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        (path / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")
        (path / "cgroup.subtree_control").write_text(handed_down + "\n")
        (path / "cgroup.procs").write_text("")
    return read_layout(SYSTEMD_V2.format(root=tmp_path), f"0::{own}\n")


def test_version_2_alone(tmp_path: Path) -> None:
    layout = v2_machine(tmp_path, "/user.slice/a")
    assert layout.mode == "v2"
    assert layout.v2_controllers == {"cpuset", "cpu", "io", "memory", "pids"}
    assert layout.own == {str(tmp_path): f"{tmp_path}/user.slice/a"}
    assert [layout.where(name) for name in ("memory", "devices")] == [2, 0]


def test_version_1_with_controllers_that_share_a_mount() -> None:
    layout = read_layout(V1, V1_PATHS)
    assert layout.mode == "v1"
    assert layout.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "io": "/sys/fs/cgroup/blkio",
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/mnt/a b",
    }
    assert layout.own["/sys/fs/cgroup/memory"] == "/sys/fs/cgroup/memory/user.slice"
    assert layout.where("io") == 1


def test_hybrid(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    layout = read_layout(V1 + SYSTEMD_V2.format(root=tmp_path), V1_PATHS)
    assert layout.mode == "hybrid"
    assert (layout.where("memory"), layout.where("hugetlb")) == (1, 2)
    assert layout.describe() == "v1 cpu cpuacct io memory pids, v2 hugetlb"


def test_nothing_mounted() -> None:
    layout = read_layout("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "0::/\n")
    assert (layout.mode, layout.describe()) == ("none", "not mounted")


@pytest.mark.parametrize(
    ("root", "path", "folder"),
    [
        ("/", "/docker/1", "/cg/docker/1"),
        ("/docker/1", "/docker/1", "/cg"),
        ("/docker/1", "/docker/1/inner", "/cg/inner"),
        ("/docker/1", "/docker/12", "/cg/docker/12"),
    ],
)
def test_a_mount_that_shows_a_part_of_the_hierarchy(root: str, path: str, folder: str) -> None:
    layout = read_layout(f"9 8 0:9 {root} /cg rw - cgroup cgroup rw,memory\n", f"1:memory:{path}\n")
    assert layout.own == {"/cg": folder}


def test_root_makes_its_groups_at_the_top(tmp_path: Path) -> None:
    assert v2_home(v2_machine(tmp_path, "/user.slice/a")) == str(tmp_path)


def test_others_make_them_where_it_was_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = v2_machine(tmp_path, "/user.slice/a")
    delegated = {f"{tmp_path}/user.slice", f"{tmp_path}/user.slice/a"}
    monkeypatch.setattr("pytest_infra.cgroup.requirement.can_hold_groups", delegated.__contains__)
    assert v2_home(layout) == f"{tmp_path}/user.slice"  # its own folder hands nothing down
    delegated.discard(f"{tmp_path}/user.slice")
    assert v2_home(layout) == f"{tmp_path}/user.slice/a"
    delegated.clear()
    assert v2_home(layout) == ""


def test_the_folders_of_a_process() -> None:
    assert set(folders_of(1)) >= set(read_layout().v1)
    with pytest.raises(ProcessLookupError, match="no process 4194303"):
        folders_of(4_194_303)
