"""A log that fills its disk: what the service does when write(2) says ENOSPC, and that it goes on afterwards."""

import sys

import pytest

from pytest_infra import fill_disk

# A service that logs each job, and must not lose a job because its log is full.
SERVICE = """
import errno, sys
lost = 0
with open(sys.argv[1], "ab", buffering=0) as log:
    for job in range(2000):
        try:
            log.write(f"job {job} done, and this is a long line about it\\n".encode())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            lost += 1
print(2000 - lost, "lines logged,", lost, "lost")
"""

# The same without the care: it dies of its log.
CARELESS = """
import sys
with open(sys.argv[1], "a", buffering=1) as log:
    for job in range(2000):
        log.write(f"job {job} done, and this is a long line about it\\n")
"""


@pytest.fixture
def host(lab, tmp_path):
    host = lab.host("app", isolate=["mount"])
    lab.inject(fill_disk(host, tmp_path, size="256 KiB", free="32 KiB"))
    return host


def test_a_full_disk_costs_lines_and_not_the_service(host, tmp_path):
    done = host.run([sys.executable, "-c", SERVICE, tmp_path / "log"])
    assert "lost" in done.stdout
    assert not done.stdout.endswith(" 0 lost\n")


def test_a_careless_service_dies_of_it(host, tmp_path):
    done = host.run([sys.executable, "-c", CARELESS, tmp_path / "log"], check=False)
    assert "No space left on device" in done.stderr


def test_with_room_nothing_is_lost(lab, tmp_path):
    host = lab.host("app")
    with fill_disk(host, tmp_path, size="1 MiB", free="512 KiB"):
        done = host.run([sys.executable, "-c", SERVICE, tmp_path / "log"])
    assert done.stdout == "2000 lines logged, 0 lost\n"
    assert not (tmp_path / "log").exists()  # it was on the small disk, and is gone with it
