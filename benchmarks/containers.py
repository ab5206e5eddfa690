"""Containers: start to ready beside ``docker run`` and other plugins, links, images, overlay roots, control groups."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measure import Row, progress, rest, seconds

from pytest_infra import assert_reachable, ready
from pytest_infra.session import Infra

HERE = Path(__file__).parent
SERVER = ["sh", "-c", "echo ready; exec httpd -f -p 80"]
REDIS = ["redis-server", "--save", "", "--protected-mode", "no"]
POSTGRESQL = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/bin"))
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
CLUSTER = "/srv/cluster"


class Others:
    """A process that starts containers with another plugin, from a virtual environment of its own."""

    def __init__(self, kind: str, address: str, image: str) -> None:
        python = HERE / ".containers/bin/python"
        if not python.exists():
            progress("installing testcontainers and pytest-docker into a virtual environment of their own")
            subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
            packages = ["testcontainers", "pytest-docker"]
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        self._process = subprocess.Popen(
            [python, HERE / "other_containers.py", kind, image, *SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "DOCKER_HOST": address},
        )

    def start_s(self) -> float:
        """Start one container."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def _start(infra: Infra, image: Any) -> tuple[float, float]:
    """Start a container; then join it to a link. The seconds of each."""
    with infra.lab() as lab:
        node, peer = lab.container(image, SERVER, wait=ready.log("ready")), lab.host()
        start_s = seconds(lab.up)
        lab.link(node, peer)
        return start_s, seconds(lab.up)


def _docker_run(address: str, image: Any) -> float:
    """``docker run``, which waits for nothing."""
    docker = [shutil.which("docker") or "docker", "--host", address]
    began = time.perf_counter()
    run = [*docker, "run", "--detach", "--network=none", str(image), *SERVER]
    done = subprocess.run(run, capture_output=True, check=True)
    took_s = time.perf_counter() - began
    subprocess.run([*docker, "rm", "--force", done.stdout.decode().strip()], capture_output=True, check=True)
    return took_s


def _host(infra: Infra, **options: Any) -> float:
    with infra.lab() as lab:
        host = lab.host(**options)
        return seconds(lambda: host.run(["true"], cwd="/"))


def _group(infra: Infra) -> tuple[float, float]:
    """Make a control group with three limits, and remove it. The seconds of each."""
    group = infra.cgroup(cpu_max=0.5, memory_max="64 MiB", pids_max=20)
    return seconds(group.start), seconds(group.stop)


def _ms(values: list[float]) -> list[float]:
    return [value * 1e3 for value in values]


def containers(runs: int) -> list[Row]:
    """Everything about containers, in turns."""
    found: dict[str, list[float]] = {}
    with Infra() as infra, ExitStack() as undo:
        engine_s = seconds(infra.engine)
        image = infra.images.scratch(["busybox"])
        address = infra.engine().address
        others: dict[str, Others] = {}
        for kind, wanted in (("testcontainers", "python3"), ("pytest-docker", "docker-compose")):
            if shutil.which(wanted):
                others[kind] = Others(kind, address, str(image))
                undo.callback(others[kind].close)
        for number in range(runs):
            progress(f"  containers, {number + 1} of {runs}")
            once = {"image": seconds(lambda: infra.images.scratch(["busybox"]))}
            if shutil.which("docker"):
                once["run"] = _docker_run(address, image)
            once["ours"], once["link"] = _start(infra, image)
            once |= {kind: other.start_s() for kind, other in others.items()}
            once["plain"] = _host(infra)
            once["mount"], once["overlay"] = _host(infra, isolate=["mount"]), _host(infra, rootfs="/")
            once["made"], once["gone"] = _group(infra)
            for name, took_s in once.items():
                found.setdefault(name, []).append(took_s)
    return [Row("a private engine, ready", "ms", [engine_s * 1e3]), *_rows(found)]


def _rows(found: dict[str, list[float]]) -> list[Row]:
    median = {name: statistics.median(values) * 1e3 for name, values in found.items()}
    of_run = median["ours"] <= 1.2 * median["run"] if "run" in median else None
    whats = {
        "image": ("an image that is there", "50 ms", median["image"] <= 50),
        "run": ("docker run --detach --network=none, which returns before it is ready", "", None),
        "ours": ("lab.container, ready", "1.2 x docker run", of_run),
        "link": ("a link joined to it", "10 ms", median["link"] <= 10),
        "testcontainers": ("testcontainers, ready", "", None),
        "pytest-docker": ("pytest-docker, which returns before it is ready", "", None),
        "plain": ("plain host, first command", "", None),
        "mount": ("host with a mount namespace, first command", "", None),
        "overlay": ("host with an overlay root, first command", *_more(median, "mount")),
        "overlay-plain": ("the same, beside a plain host", *_more(median, "plain")),
        "made": ("a control group with three limits, made", "2 ms", median["made"] <= 2),
        "gone": ("a control group, removed", "", None),
    }
    found["overlay-plain"] = found["overlay"]
    return [
        Row(what, "ms", _ms(found[name]), limit, met) for name, (what, limit, met) in whats.items() if name in found
    ]


def _more(median: dict[str, float], without: str) -> tuple[str, bool]:
    return f"5 ms more than with {without}", median["overlay"] <= median[without] + 5


Start = Callable[[Any], object]


def _fresh(name: str, start: Start, runs: int, there: dict[str, Any], fresh: dict[str, Any]) -> list[Row]:
    """A service of its own for each test, in a host with an overlay root: what the host adds to the service's start.

    Args:
        name: the service's.
        start: starts it in a host, and waits until it is reached.
        runs: how often.
        there: how the host is made in which its own start is measured.
        fresh: how the host is made that lives for one test.
    """
    found: dict[str, list[float]] = {"alone": [], "made": [], "whole": [], "gone": []}
    with Infra() as infra:
        for number in range(runs):
            progress(f"  {name}, {number + 1} of {runs}")
            rest()
            with infra.lab() as lab:
                host = lab.host(**there)
                lab.up()
                found["alone"].append(seconds(lambda host=host: start(host)))
            rest()
            lab = infra.lab().start()
            host = lab.host(**fresh)
            made_s = seconds(lab.up)
            found["made"].append(made_s)
            found["whole"].append(made_s + seconds(lambda host=host: start(host)))
            found["gone"].append(seconds(lab.stop))
    cost = statistics.median(found["made"]) + statistics.median(found["gone"])
    return [
        Row(f"{name}'s own start, until it is reached", "ms", _ms(found["alone"])),
        Row("a fresh host with an overlay root, made", "ms", _ms(found["made"])),
        Row(f"that host with {name}, until it is reached", "ms", _ms(found["whole"])),
        Row(f"that host with {name}, gone", "ms", _ms(found["gone"])),
        Row("made and gone together", "ms", [cost * 1e3], "100 ms", cost <= 0.1),
    ]


def redis(runs: int) -> list[Row]:
    """A Redis of its own for each test."""

    def start(host: Any) -> None:
        host.spawn(REDIS)
        assert_reachable(host, "127.0.0.1", protocol="tcp", port=6379, within="10 s")

    return _fresh("Redis", start, runs, {}, {"rootfs": "/"})


def postgresql(runs: int) -> list[Row]:
    """A PostgreSQL of its own for each test, from a cluster that is made once and laid under each host."""

    def start(host: Any) -> None:
        host.spawn([*AS_POSTGRES, POSTGRESQL / "postgres", "-D", CLUSTER]).wait_for("ready to accept", within_s=60)

    with tempfile.TemporaryDirectory() as layer:
        os.mkdir(f"{layer}/srv")
        with Infra() as infra, infra.lab() as lab:
            maker = lab.host(isolate=["mount"])
            maker.run(["mount", "--bind", f"{layer}/srv", "/srv"])
            maker.run(["install", "--directory", "--owner=postgres", "--mode=700", CLUSTER])
            maker.run([*AS_POSTGRES, POSTGRESQL / "initdb", "--no-sync", "-D", CLUSTER], cwd="/", timeout_s=120)
        fresh = {"rootfs": "/", "layers": [layer], "isolate": ["ipc"]}
        return _fresh("PostgreSQL", start, runs, fresh, fresh)
