"""Images: from folders, archives, programs and Dockerfiles; layers, copy on write, a registry."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_infra import BadInput, ready
from pytest_infra.container.engine import EngineError
from pytest_infra.container.image import Images

pytestmark = pytest.mark.infra_requires("docker")


@pytest.fixture(scope="module")
def busybox(infra_image: Any) -> Any:
    return infra_image.scratch(["busybox"])


def output(infra_container: Any, image: Any, *command: str) -> str:
    text: str = infra_container(image, list(command) or None, wait=ready.exited()).logs()
    return text


def test_from_a_folder(infra_image: Any, infra_container: Any, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "bin" / "busybox").chmod(0o755)
    (tmp_path / "data").write_text("mine")
    config: dict[str, Any] = {"name": "Some Name", "entrypoint": ["/bin/busybox", "cat"], "cmd": ["/data"]}
    image = infra_image.from_directory(tmp_path, **config)
    assert str(image).startswith("localhost/pytest-infra/some-name:")
    assert output(infra_container, image) == "mine"
    assert infra_image.from_directory(tmp_path, **config).id == image.id
    (tmp_path / "data").write_text("changed")
    changed = infra_image.from_directory(tmp_path, **config)
    assert changed.id != image.id
    assert output(infra_container, changed) == "changed"
    assert infra_image.from_directory(tmp_path, env={"A": "b c"}, **config).id != changed.id


def test_from_an_archive(infra_image: Any, infra_container: Any, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", "/", "usr/bin/busybox"], check=True)
    image = infra_image.from_tar(archive, cmd=["/usr/bin/busybox", "echo", "hello"])
    assert output(infra_container, image) == "hello\n"
    with pytest.raises(BadInput, match=r"no file .*nosuch.tar"):
        infra_image.from_tar(tmp_path / "nosuch.tar")


def test_programs_with_their_libraries(infra_image: Any, infra_container: Any) -> None:
    image = infra_image.scratch(["/usr/bin/env"], env={"ONLY": "this one"})
    assert "ONLY=this one" in output(infra_container, image, "/usr/bin/env")
    with pytest.raises(BadInput, match=r"no program 'nosuch' on this machine"):
        infra_image.scratch(["nosuch"])
    with pytest.raises(BadInput, match=r"an image has no setting 'colour'; there are env, cmd"):
        infra_image.scratch(["busybox"], colour="red")


def test_a_dockerfile(infra_image: Any, infra_container: Any, busybox: Any) -> None:
    dockerfile = f"FROM {busybox}\nARG WHO\nCOPY greeting /\nRUN echo $WHO >>/greeting\nCMD cat /greeting\n"
    image = infra_image.build({"Dockerfile": dockerfile, "greeting": "hello "}, args={"WHO": "you"}, name="greeter")
    assert output(infra_container, image) == "hello you\n"
    assert image.layers[: len(busybox.layers)] == busybox.layers
    assert len(image.layers) == len(busybox.layers) + 2
    made = [layer.created_by for layer in image.history]
    assert next(number for number, text in enumerate(made) if "COPY" in text) < len(made) - 1
    assert any("CMD" in text for text in made[-2:])
    with pytest.raises(EngineError, match=r"(?s)returned a non-zero code: 3.*Step 2/"):
        infra_image.build({"Dockerfile": f"FROM {busybox}\nRUN exit 3\n"})
    with pytest.raises(BadInput, match=r"no 'Dockerfile' in the build context; there are a"):
        infra_image.build({"a": ""})


def test_what_was_built_is_kept_for_the_next_engine(infra: Any, busybox: Any, tmp_path: Path) -> None:
    images = Images(infra.engine, cache=str(tmp_path / "cache"))
    context = {"Dockerfile": f"FROM {busybox}\nRUN echo {tmp_path} >/built\n"}
    first = images.build(context)
    identity = first.id
    first.remove()
    with pytest.raises(EngineError, match="No such image"):
        _ = first.id
    assert images.build(context).id == identity, "built again, it would be another one"


def test_a_commit_is_a_layer_and_writes_are_copies(infra_container: Any, infra_image: Any) -> None:
    base = infra_image.scratch(["busybox"], files={"/data": "base"})
    node = infra_container(base, ["sleep", "1000"])
    node.run(["sh", "-c", "echo -n layer >/data; echo new >/new"])
    image = node.commit("layered", cmd=["cat", "/data"])
    assert image.layers[:-1] == base.layers
    assert output(infra_container, image) == "layer", "the upper layer hides the lower one"
    assert output(infra_container, base, "cat", "/data") == "base", "the lower one is as it was"
    assert node.changes() == {"/data": "changed", "/new": "added"}


@pytest.mark.infra_requires("docker-registry")
def test_push_and_pull(lab: Any, infra_image: Any, infra_container: Any, busybox: Any, tmp_path: Path) -> None:
    config, store = tmp_path / "registry.yml", tmp_path / "store"
    storage = f"storage:\n  filesystem:\n    rootdirectory: {store}\n"
    config.write_text(f"version: 0.1\n{storage}http:\n  addr: 127.0.0.1:5005\n")
    registry = lab.docker_host("registry").spawn(["docker-registry", "serve", config])
    registry.wait_for("listening on", within_s=10)
    name = busybox.push("127.0.0.1:5005", name="some/busybox:1")
    infra_image.pull(name).remove()
    assert output(infra_container, infra_image.pull(name), "/bin/echo", "pulled") == "pulled\n"
    with pytest.raises(EngineError, match="not found"):
        infra_image.pull("127.0.0.1:5005/nosuch:1")
