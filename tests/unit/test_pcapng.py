"""pcapng files, read back by scapy and by tcpdump."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from scapy.error import Scapy_Exception
from scapy.utils import RawPcapNgReader

from pytest_infra.net.frame import Frame
from pytest_infra.net.pcapng import pcapng

DATA = bytes.fromhex("ffffffffffff0200000000aa0806") + bytes(29)
FRAMES = [
    Frame(1_700_000_000_123_456_789, "a:eth0", True, DATA, len(DATA)),
    Frame(1_700_000_001_000_000_001, "sw1:sw1-p1", False, DATA[:40], 1514),
    Frame(1_700_000_002_000_000_000, "a:eth0", False, DATA, len(DATA)),
]


def read(path: Path) -> list[tuple[bytes, int, str, int, bytes | None]]:
    found = []
    with RawPcapNgReader(str(path)) as reader, suppress(Scapy_Exception):  # some releases end a cut file by this
        for data, meta in reader:
            time_ns = (meta.tshigh << 32) + meta.tslow
            found.append((data, time_ns, meta.ifname.decode(), meta.wirelen, meta.comments))
    return found


def test_everything_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "some.pcapng"
    file.write_bytes(pcapng(FRAMES, comment="test_it", comments={1: "the check failed \N{EM DASH} here"}))
    found = read(file)
    assert [(data, time_ns, name, length) for data, time_ns, name, length, _ in found] == [
        (frame.data, frame.time_ns, frame.interface, frame.length) for frame in FRAMES
    ]
    assert found[1][4] == ["the check failed \N{EM DASH} here".encode()]
    assert not found[0][4]
    assert b"test_it" in file.read_bytes()


def test_no_frames_are_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "none.pcapng"
    file.write_bytes(pcapng([]))
    assert read(file) == []


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump (not installed; apt-get install tcpdump)")
def test_tcpdump_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "some.pcapng"
    file.write_bytes(pcapng(FRAMES))
    done = subprocess.run(["tcpdump", "-nttr", file, "arp"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "1700000000.123456",
        "1700000001.000000",
        "1700000002.000000",
    ]


def test_a_frame_that_is_cut_off_in_the_middle_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "broken.pcapng"
    file.write_bytes(pcapng(FRAMES)[:-20])
    assert len(read(file)) == len(FRAMES) - 1
