"""The GPUs of containers: what an engine is asked for, what it gives, and what is said where it gives none."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_infra import BadInput, Unavailable, ready
from pytest_infra.container.engine import Engine
from pytest_infra.container.gpus import device_requests

pytestmark = pytest.mark.infra_requires("docker")

UUID, MIG = "GPU-00000000-0000-0000-0000-000000000001", "MIG-00000000-0000-0000-0000-000000000002"
NUMBERS = r"\d+(\.\d+)+\S*"
SPECIFICATION = {
    "cdiVersion": "0.5.0",
    "kind": "example.com/thing",
    "devices": [
        {
            "name": "one",
            "containerEdits": {
                "env": ["THING=the first"],
                "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/zero"}],
            },
        }
    ],
}
"""A device of no vendor: a variable, and /dev/zero under another name."""


@pytest.fixture
def busybox(infra_image: Any) -> Any:
    return infra_image.scratch(["busybox"])


@pytest.fixture
def engine(infra: Any) -> Engine:
    """The engine that containers come from; a private one, and Podman's test service, know the device."""
    found: Engine = infra.engine()
    if found.private:
        Path(f"/proc/{found.pid}/root/run/cdi/example.json").write_text(json.dumps(SPECIFICATION))
    return found


def heeds_cdi(engine: Engine) -> bool:
    version = tuple(map(int, re.findall(r"\d+", engine.version)[:2]))
    return version >= ((5, 4) if engine.podman else (25, 0))


def stand_in(podman: bool = False, version: str = "27.0", **info: Any) -> Any:
    return SimpleNamespace(podman=podman, version=version, ask=lambda _: info)


TOOLKIT, WITH_CDI = {"Runtimes": {"nvidia": {}}, "CDISpecDirs": ["/etc/cdi"]}, {"CDISpecDirs": ["/etc/cdi"]}
GPU = {"Driver": "nvidia", "Capabilities": [["gpu"]]}
REQUESTS: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
    "a gpu of infra_gpu": (SimpleNamespace(uuid=UUID), TOOLKIT, [{**GPU, "DeviceIDs": [UUID]}]),
    "several": ((SimpleNamespace(uuid=UUID), MIG), TOOLKIT, [{**GPU, "DeviceIDs": [UUID, MIG]}]),
    "a number": (2, TOOLKIT, [{**GPU, "Count": 2}]),
    "all": ("all", TOOLKIT, [{**GPU, "Count": -1}]),
    "by cdi": (UUID, WITH_CDI, [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={UUID}"]}]),
    "a number by cdi": (2, WITH_CDI, [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}]),
    "all by cdi": ("all", WITH_CDI, [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]),
    "neither": (UUID, {}, [{**GPU, "DeviceIDs": [UUID]}]),
    "a vendor's": (
        [UUID, "example.com/thing=one"],
        TOOLKIT,
        [{"Driver": "cdi", "DeviceIDs": ["example.com/thing=one"]}, {**GPU, "DeviceIDs": [UUID]}],
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_docker_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_infra.container.gpus.find_program", lambda _: None)
    gpus, info, requests = REQUESTS[name]
    assert device_requests(gpus, stand_in(**info)) == {"device_requests": requests}


def test_the_toolkit_is_known_by_its_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_infra.container.gpus.find_program", lambda name: f"/usr/bin/{name}")
    assert device_requests(1, stand_in(**WITH_CDI)) == {"device_requests": [{**GPU, "Count": 1}]}


def test_podman_is_asked_by_cdi_and_an_old_one_not_at_all() -> None:
    requests = device_requests(UUID, stand_in(podman=True, version="5.4.2"))
    assert requests == {"device_requests": [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={UUID}"]}]}
    with pytest.raises(Unavailable, match=r"Podman 5\.3\.9 .* would start the container without; Podman 5\.4 or newer"):
        device_requests(UUID, stand_in(podman=True, version="5.3.9"))
    assert device_requests(None, stand_in(podman=True, version="4.3.1")) == {}


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (0, "gpus 0 is no number of GPUs; give a number, 'all', GPUs of infra_gpu"),
        (-1, "gpus -1 is no number"),
        (True, "gpus True is no number"),
        ([], "names no GPU"),
        ("", "names no GPU"),
        (["all"], "names no GPU"),
        ("GPU", "gpus 'GPU' names no GPU"),
        ("vendor.com/class", "or CDI names such as 'vendor.com/class=name'"),
        ([UUID, object()], "names no GPU"),
        (SimpleNamespace(uuid="opencl-pocl-0"), r"opencl-pocl-0 is a device of OpenCL.*infra_gpu\(backend='cuda'\)"),
    ],
)
def test_what_names_no_gpu(lab: Any, gpus: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        lab.container("image", gpus=gpus)


def test_a_device_by_cdi(lab: Any, busybox: Any, engine: Engine) -> None:
    argv = ["sh", "-c", "echo $THING; head -c 3 /dev/thing | wc -c"]
    c = lab.container(busybox, argv, name="c", gpus="example.com/thing=one", wait=ready.exited(0))
    if heeds_cdi(engine):
        assert c.logs().split() == ["the", "first", "3"]
        return
    refusal = rf"Docker {NUMBERS} gives container c none: could not select device driver \"cdi\".*; Docker 25 or newer"
    with pytest.raises(Unavailable, match=r"Podman 5\.4 or newer, or Docker" if engine.podman else refusal):
        lab.up()


def test_a_device_that_no_specification_has(lab: Any, busybox: Any, engine: Engine) -> None:
    lab.container(busybox, ["sleep", "1000"], name="c", gpus=["example.com/thing=two"])
    words = r"gives container c none: .*example.com/thing=two.*; put its specification into /etc/cdi"
    with pytest.raises(Unavailable, match=words if heeds_cdi(engine) else "gpu"):
        lab.up()


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="the machine has a GPU")
def test_an_engine_without_the_toolkit_is_quoted(lab: Any, busybox: Any, engine: Engine) -> None:
    lab.container(busybox, ["sleep", "1000"], name="c", gpus=UUID)
    if heeds_cdi(engine):
        words = rf"gives container c none: .*unresolvable CDI devices nvidia.com/gpu={UUID}.*nvidia-ctk cdi generate"
    elif engine.podman:
        words = "it would start the container without"
    else:
        words = r"could not select device driver \"nvidia\" with capabilities: \[\[gpu\]\]; install nvidia-container-to"
    with pytest.raises(Unavailable, match=words):
        lab.up()
