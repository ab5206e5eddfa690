"""Limits: what is accepted, what is refused and how, and which files they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.cgroup import v1, v2
from pytest_infra.cgroup.layout import read_layout
from pytest_infra.cgroup.limits import IoMax, device_rule, parse_limits
from pytest_infra.cgroup.processes import remove_group
from pytest_infra.core.errors import BadInput, InfraError, Unavailable


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"cpu_max": 0}, r"cpu_max 0 is not allowed; give a number of CPUs, at least 0.01"),
        ({"cpu_max": "half"}, r"cpu_max 'half' is not allowed; give a number of CPUs, such as 0.5"),
        ({"cpu_max": True}, r"cpu_max True is not allowed"),
        ({"cpu_max": float("nan")}, r"cpu_max nan is not allowed"),
        ({"cpu_max": 0.5, "cpu_period": "2 s"}, r"cpu_period '2 s' is not allowed; give 1 ms to 1 s"),
        ({"cpu_weight": 0}, r"cpu_weight 0 is not allowed; give a whole number from 1 to 10000"),
        ({"cpu_weight": 1.5}, r"cpu_weight 1.5 is not allowed"),
        ({"cpuset": "0-"}, r"cpuset '0-' is no list of CPUs; write '0-1,3' or \[0, 1, 3\]"),
        ({"memory_max": "64M"}, r"memory_max: size '64M' has the unknown unit 'M'"),
        ({"memory_max": "1 kB"}, r"memory_max '1 kB' is less than one page"),
        ({"pids_max": 0}, r"pids_max 0 is not allowed; give a whole number from 1 to"),
        ({"io_max": {"/nowhere": IoMax(read=8)}}, r"io_max: '/nowhere': No such file or directory"),
        ({"io_max": {"/dev/null": IoMax(read=8)}}, r"io_max: '/dev/null' is a character device"),
        ({"io_max": {"/proc": IoMax(read=8)}}, r"io_max: '/proc' is on no block device"),
        ({"io_max": {"8:0": "8 MiB/s"}}, r"io_max\['8:0'\] is '8 MiB/s'; write IoMax"),
        ({"io_max": {"8:0": IoMax(write=1)}}, r"io_max: 1 is less than 1 byte a second"),
        ({"io_max": "/tmp"}, r"io_max '/tmp' names no devices; write"),
        ({"io_max": {5: IoMax(read=8)}}, r"io_max: 5 is no path; give a device, a path on it, or MAJOR:MINOR"),
        ({"io_max": {"8:0": IoMax()}}, r"io_max\['8:0'\] limits nothing; give at least one of read, write,"),
        ({"io_max": {"8:0": IoMax(write_ops=0)}}, r"io_max: write_ops 0 is not allowed; give a whole number from 1"),
        ({"io_max": {"8:0": IoMax(read_ops=-1)}}, r"io_max: read_ops -1 is not allowed"),
        ({"io_max": {"8:0": IoMax(write_ops="x")}}, r"io_max: write_ops 'x' is not allowed"),
        ({"io_max": {"8:0": IoMax(write=1e30)}}, r"io_max: 1e\+30 is more than the kernel can count"),
        ({"cpuset": 0}, r"cpuset 0 is no list of CPUs"),
        ({"devices": 5}, r"devices 5 is no list of device nodes"),
        ({"devices": [5]}, r"devices: 5 is no rule; write '/dev/null'"),
        ({"hugetlb_max": "x"}, r"hugetlb_max 'x' names no sizes of pages"),
        ({"hugetlb_max": {"3MB": 0}}, r"hugetlb_max: '3MB' is no size of huge pages; give a power of two"),
        ({"hugetlb_max": {"../../x": 1}}, r"hugetlb_max: '../../x' is no size of huge pages"),
        ({"devices": ["null"]}, r"devices: 'null' is no rule; write '/dev/null'"),
        ({"devices": ["/dev/null x"]}, r"devices: '/dev/null x' is no rule"),
        ({"devices": ["/dev/null rr"]}, r"devices: '/dev/null rr' is no rule"),
        ({"devices": ["/"]}, r"devices: '/' is no device node"),
        ({"hugetlb_max": {"2MB": "much"}}, r"hugetlb_max\[2MB\]: size 'much'"),
        ({"net_classid": -1}, r"net_classid -1 is not allowed; give a whole number from 0 to 4294967295"),
    ],
)
def test_what_is_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_limits(**limits)


def files(version: Any, **limits: Any) -> list[tuple[str, str, str]]:
    return [(item.controller, item.file, item.text) for item in version.settings(parse_limits(**limits))]


def test_the_same_limits_in_both_versions() -> None:
    limits: dict[str, Any] = {
        "cpu_max": 0.5,
        "cpu_weight": 300,
        "cpuset": [0, 1],
        "memory_max": "64 MiB",
        "pids_max": 20,
        "io_max": {"8:0": IoMax(read="1 MiB/s", write_ops=50)},
        "hugetlb_max": {"2MB": "4 MiB"},
    }
    assert files(v1, **limits) == [
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.shares", "3072"),
        ("cpuset", "cpuset.cpus", "0,1"),
        ("memory", "memory.memsw.limit_in_bytes", "-1"),
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "67108864"),
        ("pids", "pids.max", "20"),
        ("io", "blkio.throttle.read_bps_device", "8:0 1048576"),
        ("io", "blkio.throttle.write_iops_device", "8:0 50"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
    ]
    assert files(v2, **limits) == [
        ("cpu", "cpu.max", "50000 100000"),
        ("cpu", "cpu.weight", "300"),
        ("cpuset", "cpuset.cpus", "0,1"),
        ("memory", "memory.max", "67108864"),
        ("memory", "memory.swap.max", "0"),
        ("pids", "pids.max", "20"),
        ("io", "io.max", "8:0 rbps=1048576 wiops=50"),
        ("hugetlb", "hugetlb.2MB.max", "4194304"),
    ]


def test_nothing_asked_for_writes_nothing() -> None:
    assert files(v1) == files(v2) == []


def test_swap_can_be_allowed() -> None:
    assert files(v1, memory_max=1 << 20, swap_max=1 << 20)[-1][-1] == str(2 << 20)
    assert files(v2, memory_max=1 << 20, swap_max=1 << 20)[-1] == ("memory", "memory.swap.max", str(1 << 20))
    with pytest.raises(Unavailable, match="give memory_max too"):
        files(v1, swap_max=0)


@pytest.mark.parametrize(
    ("rule", "parsed"),
    [("/dev/null", "c 1:3 rwm"), ("/dev/zero r", "c 1:5 r"), ("c 1:3 rw", "c 1:3 rw"), ("a *:* rwm", "a *:* rwm")],
)
def test_device_rules(rule: str, parsed: str) -> None:
    assert device_rule(rule) == parsed


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_weights_keep_their_ratio_in_version_1(a: int, b: int) -> None:
    shares = [int(files(v1, cpu_weight=weight)[0][2]) for weight in (a, b)]
    assert shares[0] / shares[1] == pytest.approx(a / b, rel=0.06)


@given(st.floats(0.1, 64), st.sampled_from([0.1, 0.05, 1.0]))
def test_the_quota_is_the_same_in_both_versions(cpus: float, period_s: float) -> None:
    (_, _, period_us), (_, _, quota_us) = files(v1, cpu_max=cpus, cpu_period=period_s)
    assert files(v2, cpu_max=cpus, cpu_period=period_s) == [("cpu", "cpu.max", f"{quota_us} {period_us}")]
    assert int(quota_us) / int(period_us) == pytest.approx(cpus, rel=0.001)


V1_FILES = {
    "cpuacct.usage": "1500000000\n",
    "cpuacct.usage_user": "1000000000\n",
    "cpuacct.usage_sys": "500000000\n",
    "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 250000000\n",
    "memory.usage_in_bytes": "8192\n",
    "memory.max_usage_in_bytes": "16384\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.stat": "cache 0\ntotal_rss 4096\ntotal_cache 2048\ntotal_dirty 1\ntotal_writeback 2\ntotal_pgmajfault 3\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
    "pids.current": "3\n",
}
V2_FILES = {
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"
    "nr_periods 10\nnr_throttled 4\nthrottled_usec 250000\n",
    "memory.current": "8192\n",
    "memory.peak": "16384\n",
    "memory.max": "max\n",
    "memory.stat": "anon 4096\nfile 2048\nfile_dirty 1\nfile_writeback 2\npgmajfault 3\n",
    "io.stat": "8:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n",
    "pids.current": "3\n",
}


def made_of(folder: Path, contents: dict[str, str]) -> str:
    for name, content in contents.items():
        (folder / name).write_text(content)
    return str(folder)


def test_the_same_use_reads_the_same_in_both_versions(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one, two = made_of(tmp_path / "1", V1_FILES), made_of(tmp_path / "2", V2_FILES)
    assert v1.cpu({"cpu": one, "cpuacct": one}) == v2.cpu(two)
    assert v1.memory(one) == v2.memory(two)
    assert v1.io(one) == v2.io(two)
    assert v1.pids(one) == v2.pids(two) == {"pids": 3, "pids_peak": None}


def test_files_that_are_not_there_read_as_none(tmp_path: Path) -> None:
    empty = str(tmp_path)
    for values in (v1.memory(empty), v2.memory(empty), v2.cpu(empty), v1.pids(empty), v2.events(empty)):
        assert set(values.values()) == {None}
    assert v1.io(empty) == v2.io(empty) == v2.pressure(empty) == {}


def test_only_control_groups_are_removed(tmp_path: Path) -> None:
    remove_group([str(tmp_path / "gone")])
    with pytest.raises(InfraError, match="is not removed: it is no control group"):
        remove_group([str(tmp_path)])
    assert tmp_path.exists()
    for root in {*read_layout().v1.values(), read_layout().v2} - {""}:
        with pytest.raises(InfraError, match="is not removed"):
            remove_group([root])
