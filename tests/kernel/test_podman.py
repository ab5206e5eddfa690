"""The tests of containers once more, with Podman as the engine that answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .podman_service import SOCKET, PodmanService
from .test_container_gpus import SPECIFICATION

pytestmark = pytest.mark.infra_requires("docker", "podman")

TESTS = Path(__file__).parent
OTHERWISE = [
    "test_waits_that_hold",  # Podman has systemd run health commands, which a machine without it never does
    "test_an_unhealthy_container_says_why",
    "test_out_of_memory_is_named",  # where version 1 and 2 of control groups are mixed, Podman does not see it
    "test_files_and_changes",  # Podman writes /etc/hosts and others into the container itself
]
"""What Podman does in another way."""


@pytest.mark.timeout(400)
def test_podman_is_an_engine(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest", "--infra", "-q", "-p", "no:cacheprovider", "--timeout=120"]
    argv += [str(TESTS / name) for name in ("test_container.py", "test_container_gpus.py")]
    argv += [str(TESTS / "test_image.py::test_from_a_folder")]
    argv += ["-k", " and ".join(f"not {name}" for name in OTHERWISE)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with PodmanService(tmp_path) as podman:
        specification = Path(podman.guard.root, "run/cdi/example.json")
        specification.parent.mkdir()
        specification.write_text(json.dumps(SPECIFICATION))
        inside = ["nsenter", "--target", str(podman.guard.pid), "--pid", "--mount", f"--wd={Path.cwd()}"]
        env["DOCKER_HOST"] = f"unix://{SOCKET}"
        done = subprocess.run([*inside, *argv], capture_output=True, text=True, timeout=380, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
