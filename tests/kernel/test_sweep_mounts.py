"""What a dead session left is removed, but never what is mounted in it, whatever the folder is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, subprocess, sys
from pytest_infra.core.errors import InfraError
from pytest_infra.core.sweep import remove_directory

folder, precious = sys.argv[1:]
inside = os.path.join(folder, "in side")
os.makedirs(inside)
subprocess.run(["mount", "--bind", precious, inside], check=True)
try:
    remove_directory(folder)
except InfraError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.infra_requires("linux")
@pytest.mark.parametrize("name", ["plain", "gr\u00fc\u00dfe", "\u65e5\u672c", "back\\slash", "tab\tnewline\n"])
def test_nothing_is_removed_through_a_mount(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep me")
    argv = ["unshare", "--mount", sys.executable, "-c", PROGRAM, str(tmp_path / name), str(tmp_path / "precious")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "is not removed: " in done.stdout
    assert "in side is a mount point" in done.stdout
    assert (tmp_path / "precious" / "file").read_text() == "keep me"
