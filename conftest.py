"""What the project's own tests share: pytester, how long hypothesis may look, and a file on a disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pytest_infra.session import Infra

pytest_plugins = ["pytester"]

# A busy machine is no failure. CI looks at the same examples each time; "thorough" looks at more.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", patient)
settings.register_profile("ci", patient, derandomize=True)
settings.register_profile("thorough", patient, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="module")
def session() -> Iterator[Infra]:
    """A session of one module's own, which does without ``--infra``."""
    from pytest_infra.session import Infra

    with Infra() as started:
        yield started


@pytest.fixture
def disk_folder(tmp_path: Path) -> str:
    """A folder on a disk: its reads and writes are counted for a block device."""
    from pytest_infra.core.errors import Unavailable

    if not os.major(tmp_path.stat().st_dev):
        raise Unavailable("disk", f"{tmp_path} is on no block device", "pytest --basetemp on a disk")
    return str(tmp_path)


@pytest.fixture
def disk_file(tmp_path: Path) -> str:
    """A file on a disk; where the temporary folder is on none, a RAM disk of the kernel, if there is one (brd)."""
    from pytest_infra.core.errors import Unavailable

    if os.major(tmp_path.stat().st_dev):
        return str(tmp_path / "file")
    if "PYTEST_INFRA_GUEST" in os.environ:
        subprocess.run(["modprobe", "brd", "rd_nr=1", f"rd_size={128 << 10}"], check=False)
    if os.path.exists("/dev/ram0"):
        return "/dev/ram0"
    raise Unavailable("disk", f"{tmp_path} is on no block device, and there is no /dev/ram0", "modprobe brd")
