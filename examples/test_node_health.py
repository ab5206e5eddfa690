"""What a node is like inside, by testinfra: how full its disk is, how its log grows, what runs, how busy it is."""

import sys

import pytest

from pytest_infra import fill_disk, workload

pytestmark = pytest.mark.infra_requires("testinfra")


@pytest.fixture
def node(lab, tmp_path):
    node = lab.host("app", isolate=["mount", "pid"])
    lab.inject(fill_disk(node, tmp_path, size="1 MiB", free="600 KiB"))
    return node


def used_percent(host, folder):
    return int(host.check_output(f"df --output=pcent {folder} | tail -n 1").strip().rstrip("%"))


def test_a_log_grows_and_the_disk_fills(node, infra_host, tmp_path):
    host, log = infra_host(node), tmp_path / "app.log"
    assert host.mount_point(str(tmp_path)).filesystem == "tmpfs"
    before = used_percent(host, tmp_path)
    for size in (0, 100_000, 200_000):
        assert (host.file(str(log)).size if size else 0) == size
        node.run(["sh", "-c", f"yes 'a line' | head -c 100000 >>{log}"])
    assert host.file(str(log)).contains("a line")
    assert 90 > used_percent(host, tmp_path) > before + 20


def test_processes_and_their_limit(node, infra_host):
    host = infra_host(node)
    server = node.spawn([sys.executable, "-c", "import signal; signal.pause()"])
    (found,) = (item for item in host.process.filter(user=host.user().name) if "signal.pause" in item.args)
    assert found.comm.startswith("python")
    assert int(found.rss) < 100_000, "kilobytes"
    server.stop()
    assert not [item for item in host.process.filter() if "signal.pause" in item.args]


def test_a_busy_process_is_told_by_its_cpu_time(node, infra_host):
    host = infra_host(node)
    busy = node.spawn(workload.spin(60))
    busy.wait_for("spinning", within_s=20)
    (found,) = (item for item in host.process.filter() if "spin" in item.args)
    times = host.file(f"/proc/{found.pid}/stat").content_string.rpartition(")")[2].split()[11:13]
    assert all(time.isdigit() for time in times)
    assert float(host.file("/proc/loadavg").content_string.split()[0]) >= 0
    assert found.state.startswith("R")
