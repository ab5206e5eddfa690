"""`Images`: images from folders, archives, programs and Dockerfiles; each is built once per machine and content."""

from __future__ import annotations

import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import BadInput
from ..core.lock import exclusive
from ..core.progress import taking_long
from .archive import Tree, fingerprint, names_in, pack, program_tree, tree_of
from .engine import Engine, EngineError

__all__ = ["CONTENT_LABEL", "Image", "Images", "Layer", "changes", "local_name"]

CONTENT_LABEL = "pytest-infra.content"
"""The label of an image that was made here; its value tells its content."""
_PREFIX = "localhost/pytest-infra/"
_KEPT_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Layer:
    """A line of an image's history, the oldest first."""

    created_by: str
    """The instruction that made it."""
    size_bytes: int
    comment: str
    tags: tuple[str, ...]


class Image:
    """An image on an engine.

    Args:
        engine: where it is.
        tag: its name there.
    """

    def __init__(self, engine: Engine, tag: str) -> None:
        self.engine = engine
        self.tag = tag

    def __repr__(self) -> str:
        return f"<Image {self.tag}>"

    def __str__(self) -> str:
        return self.tag

    @property
    def id(self) -> str:
        """The digest of its configuration, ``sha256:…`` (OCI image specification)."""
        return str(self.engine.ask("inspect_image", self.tag)["Id"])

    @property
    def layers(self) -> tuple[str, ...]:
        """The digests of its layers, the lowest first."""
        return tuple(self.engine.ask("inspect_image", self.tag)["RootFS"]["Layers"] or ())

    @property
    def history(self) -> tuple[Layer, ...]:
        """What made it, step by step, the oldest first; a step that changed no file has no size."""
        return tuple(
            Layer(item["CreatedBy"], item["Size"], item["Comment"], tuple(item["Tags"] or ()))
            for item in reversed(self.engine.ask("history", self.tag))
        )

    def push(self, registry: str, *, name: str | None = None) -> str:
        """Push it to a registry that the engine reaches without a login, and return the name it has there.

        Args:
            registry: ``HOST:PORT``; one on the engine's own loopback (``127.0.0.1:5000``) needs no TLS.
            name: the repository and tag there; its own, without the host, by default.

        Raises:
            EngineError: the registry or the engine refused it.
        """
        repository, _, tag = (name or self.tag.removeprefix("localhost/")).rpartition(":")
        self.engine.ask("tag", self.tag, f"{registry}/{repository}", tag)
        _check_stream(self.engine.ask("push", f"{registry}/{repository}", tag, stream=True, decode=True))
        return f"{registry}/{repository}:{tag}"

    def remove(self) -> None:
        """Remove its name, and the image with its last name; it may be gone."""
        with suppress(EngineError):
            self.engine.ask("remove_image", self.tag, force=True)


class Images:
    """The images of a session's engine.

    Args:
        engine: gives the engine, and starts it if need be.
        cache: the folder in which images that took long to build are kept for private engines.
    """

    def __init__(self, engine: Callable[[], Engine], cache: str | None = None) -> None:
        self._engine = engine
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self._cache = cache or os.path.join(base, "pytest-infra", "images")

    def from_directory(self, folder: str | os.PathLike[str], *, name: str = "", **config: Any) -> Image:
        """An image whose files are those of a folder, all owned by root.

        Args:
            folder: becomes the root of the file system.
            name: for people; the folder's name by default.
            config: as `from_tree`.
        """
        return self.from_tree(tree_of(folder), name=name or Path(folder).resolve().name, **config)

    def from_tar(self, archive: str | os.PathLike[str], *, name: str = "", **config: Any) -> Image:
        """An image whose files are those of a tar archive, which may be compressed.

        Args:
            archive: its path.
            name: for people; the file's name by default.
            config: as `from_tree`.

        Raises:
            BadInput: there is no such file.
        """
        path = Path(archive)
        key = fingerprint({"archive": path}, changes(config))
        return self._import(name or path.name.partition(".")[0], key, path.read_bytes, config)

    def scratch(
        self,
        binaries: Sequence[str | os.PathLike[str]],
        *,
        files: Tree | None = None,
        links: Mapping[str, str] | None = None,
        name: str = "",
        **config: Any,
    ) -> Image:
        """An image with nothing but some of this machine's programs, and the shared libraries they need.

        Args:
            binaries: names or paths; each has the same path in the image. ``busybox`` brings all that it can do.
            files: more files, by their path in the image.
            links: symbolic links, by their path in the image.
            name: for people; the first program's name by default.
            config: as `from_tree`.

        Raises:
            BadInput: there is no such program.
        """
        tree: dict[str, str | bytes | Path] = {**program_tree(binaries), **(files or {})}
        chosen = name or os.path.basename(os.fspath(binaries[0]) if binaries else "scratch")
        return self.from_tree(tree, name=chosen, links={**_applets(tree), **(links or {})}, **config)

    def from_tree(self, tree: Tree, *, name: str, links: Mapping[str, str] | None = None, **config: Any) -> Image:
        """An image with these files.

        Args:
            tree: the path in the image, and a file or folder of this machine (a `Path`) or the content of a file.
            name: for people.
            links: symbolic links, by their path in the image.
            config: what a container of it does by default: ``env={…}``, ``cmd=[…]``, ``entrypoint=[…]``,
                ``workdir=…``, ``user=…``, ``expose=[…]``.

        Raises:
            BadInput: an unknown setting, or a file that is not there.
        """
        key = fingerprint(tree, sorted((links or {}).items()), changes(config))
        return self._import(name, key, lambda: pack(tree, links), config)

    def build(
        self,
        context: str | os.PathLike[str] | Tree,
        *,
        dockerfile: str = "Dockerfile",
        args: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Image:
        """Build a Dockerfile (the classic builder). What it starts ``FROM`` must be on the engine, or be ``scratch``.

        Args:
            context: a folder, or the files by their path.
            dockerfile: the file's path in it.
            args: build arguments (``ARG``).
            name: for people.

        Raises:
            EngineError: a step failed; the text has the end of its output.
        """
        tree: Tree = context if isinstance(context, Mapping) else tree_of(context)
        if dockerfile not in (names := names_in(tree)):
            raise BadInput(f"no {dockerfile!r} in the build context; there are {', '.join(names) or 'no files'}")
        key = fingerprint(tree, dockerfile, sorted((args or {}).items()))

        def make(tag: str, labels: Mapping[str, str]) -> None:
            options = {"custom_context": True, "fileobj": io.BytesIO(pack(tree)), "dockerfile": dockerfile}
            options |= {"buildargs": dict(args or {}), "tag": tag, "labels": dict(labels)}
            _check_stream(self._engine().ask("build", rm=True, forcerm=True, decode=True, **options))

        return self._obtain(name or "build", key, make, keep=True)

    def pull(self, name: str) -> Image:
        """An image from a registry, by the engine.

        Raises:
            EngineError: the engine cannot reach it, or there is none.
        """
        repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
        with taking_long(f"pulling the image {name}"):
            _check_stream(self._engine().ask("pull", repository, tag=tag, stream=True, decode=True))
        return Image(self._engine(), f"{repository}:{tag}")

    def _import(self, name: str, key: str, archive: Callable[[], bytes], config: Mapping[str, Any]) -> Image:
        settings = changes(config)

        def make(tag: str, labels: Mapping[str, str]) -> None:
            lines = [*settings, *(f"LABEL {label}={value}" for label, value in labels.items())]
            # Podman 4 wants the tag in the name: it has no eye for tag=
            self._engine().ask("import_image_from_data", archive(), repository=tag, changes=lines)

        return self._obtain(name, key, make)

    def _obtain(self, name: str, key: str, make: Callable[[str, Mapping[str, str]], None], keep: bool = False) -> Image:
        """The image of this content: from the engine, from the cache, or made now; by one process at a time."""
        engine = self._engine()
        image = Image(engine, local_name(name, key[:16]))
        if _is_there(image):
            return image
        with exclusive(f"image-{key[:32]}"):
            if _is_there(image):
                return image
            kept = os.path.join(self._cache, f"{key}.tar")
            if engine.private and keep and os.path.exists(kept):
                os.utime(kept)
                with open(kept, "rb") as file:
                    _check_stream(engine.ask("load_image", file))
                return image
            with taking_long(f"making the image {name}"):
                make(image.tag, {CONTENT_LABEL: key})
            if engine.private and keep:
                self._keep(image, kept)
        return image

    def _keep(self, image: Image, path: str) -> None:
        """Keep an image for the private engines of later sessions, and forget those that nobody used for a month."""
        os.makedirs(self._cache, exist_ok=True)
        for other in os.scandir(self._cache):
            with suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > _KEPT_S:
                    os.unlink(other)
        with _new_file(path) as file:
            for chunk in image.engine.ask("get_image", image.tag):
                file.write(chunk)


@contextmanager
def _new_file(path: str) -> Iterator[Any]:
    """A file that is there as a whole or not at all."""
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(fd, "wb") as file:
            yield file
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _is_there(image: Image) -> bool:
    try:
        return bool(image.id)
    except EngineError:
        return False


def local_name(name: str, tag: str) -> str:
    """The name on an engine of an image made here: of people's words, what Docker allows (lower case, digits, dashes).

    It begins with a host, as Podman looks for names without one in a registry.
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "image"
    return f"{_PREFIX}{words}:{tag}"


def _check_stream(messages: Any) -> None:
    """Read what a long request says while it works, and raise its error with the last things that it said."""
    said: list[str] = []
    for message in messages:
        if error := message.get("error"):
            raise EngineError("\n".join([error, *(f"  {line}" for line in said[-10:])]))
        said += [line for line in (message.get("stream") or "").splitlines() if line.strip()]


def changes(config: Mapping[str, Any]) -> list[str]:
    """The settings of an image as Dockerfile instructions."""
    import json

    lines = []
    for key, value in sorted(config.items()):
        if key == "env":
            lines += [f"ENV {name}={json.dumps(text)}" for name, text in sorted(value.items())]
        elif key in ("cmd", "entrypoint"):
            lines.append(f"{key.upper()} {json.dumps(list(value))}")
        elif key in ("workdir", "user"):
            lines.append(f"{key.upper()} {value}")
        elif key == "expose":
            lines += [f"EXPOSE {port}" for port in value]
        else:
            raise BadInput(f"an image has no setting {key!r}; there are env, cmd, entrypoint, workdir, user, expose")
    return lines


def _applets(tree: Tree) -> dict[str, str]:
    """The links through which a busybox in the tree does what it can."""
    import subprocess

    path = next((name for name in tree if os.path.basename(name) == "busybox"), None)
    if path is None:
        return {}
    listed = subprocess.run([os.fspath(tree[path]), "--list"], capture_output=True, text=True, check=False)
    return {f"/bin/{name}": path for name in listed.stdout.split() if f"/bin/{name}" != path}
