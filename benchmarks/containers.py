"""Containers: start to ready against ``docker run``, joining a link, an image that is there, an overlay root."""

from __future__ import annotations

import shutil
import statistics
import subprocess
from typing import Any

from measure import Row, progress, seconds

from pytest_infra import ready
from pytest_infra.session import Infra

SERVER = ["httpd", "-f", "-p", "80"]


def _start(infra: Infra, image: Any, links: int) -> float:
    with infra.lab() as lab:
        node, peer = lab.container(image, SERVER, wait=ready.port(80)), lab.host()
        for _ in range(links):
            lab.link(node, peer)
        return seconds(lab.up)


def _docker_run(address: str, image: Any) -> float:
    docker = [shutil.which("docker") or "docker", "--host", address]
    run = [*docker, "run", "--detach", "--network=none", str(image), *SERVER]
    done: list[str] = []
    took = seconds(lambda: done.append(subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()))
    subprocess.run([*docker, "rm", "--force", done[0]], capture_output=True, check=True)
    return took


def _host(infra: Infra, **options: Any) -> float:
    with infra.lab() as lab:
        host = lab.host(**options)
        return seconds(lambda: host.run(["true"], cwd="/"))


def _ms(values: list[float]) -> list[float]:
    return [value * 1e3 for value in values]


def containers(runs: int) -> list[Row]:
    """Everything about containers, interleaved."""
    found: dict[str, list[float]] = {name: [] for name in ("engine", "again", "run", "alone", "one", "eight")}
    roots: dict[str, list[float]] = {"mount": [], "overlay": []}
    with Infra() as infra:
        found["engine"].append(seconds(infra.engine))
        image = infra.images.scratch(["busybox"])
        for number in range(runs):
            progress(f"  containers, {number + 1} of {runs}")
            found["again"].append(seconds(lambda: infra.images.scratch(["busybox"])))
            if shutil.which("docker"):
                found["run"].append(_docker_run(infra.engine().address, image))
            for name, links in (("alone", 0), ("one", 1), ("eight", 8)):
                found[name].append(_start(infra, image, links))
            roots["mount"].append(_host(infra, isolate=["mount"]))
            roots["overlay"].append(_host(infra, rootfs="/"))
    median = {name: statistics.median(values) * 1e3 for name, values in {**found, **roots}.items() if values}
    of_run = median["alone"] <= 1.2 * median["run"] if "run" in median else None
    per_link = (median["eight"] - median["alone"]) / 8
    rows = [
        Row("a private engine, ready", "ms", _ms(found["engine"])),
        Row("an image that is there", "ms", _ms(found["again"]), "50 ms", median["again"] <= 50),
        Row("docker run --detach --network=none", "ms", _ms(found["run"])) if found["run"] else None,
        Row("lab.container, ready", "ms", _ms(found["alone"]), "1.2 x docker run", of_run),
        Row("lab.container with a link, ready", "ms", _ms(found["one"])),
        Row("each further link of 8", "ms", [per_link], "10 ms", per_link <= 10),
        Row("host with a mount namespace, first command", "ms", _ms(roots["mount"])),
        Row("host with an overlay root, first command", "ms", _ms(roots["overlay"]), "5 ms more",
            median["overlay"] <= median["mount"] + 5),
    ]  # fmt: skip
    return [row for row in rows if row is not None]
