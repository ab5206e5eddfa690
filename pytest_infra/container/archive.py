"""Tar archives with nothing accidental in them: the same content gives the same bytes, whenever it is packed."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..core.errors import BadInput
from ..core.requirement import find_program

__all__ = ["Tree", "fingerprint", "names_in", "pack", "program_tree", "tree_of"]

Tree = Mapping[str, "str | bytes | Path"]
"""What an archive holds: the path in it, and a file or folder (a `Path`), or a file's content (text or bytes)."""


def tree_of(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Everything in a folder, as an archive holds it.

    Raises:
        BadInput: it is no folder.
    """
    top = Path(folder)
    if not top.is_dir():
        raise BadInput(f"no folder {os.fspath(folder)!r}")
    return {path.name: path for path in sorted(top.iterdir())}


def names_in(tree: Tree) -> list[str]:
    """The paths of all files and folders that an archive of the tree has."""
    return [name for name, _ in _entries(tree)]


def _entries(tree: Tree) -> Iterator[tuple[str, str | bytes | Path]]:
    """The tree with its folders unrolled, in order."""
    for path, source in sorted(tree.items()):
        name = os.path.normpath(path).lstrip("/")
        yield name, source
        if isinstance(source, Path) and source.is_dir() and not source.is_symlink():
            for inner in sorted(source.rglob("*")):
                yield f"{name}/{inner.relative_to(source).as_posix()}", inner


def fingerprint(tree: Tree, *further: object) -> str:
    """A hash of what a tree holds. A file on disk is told by its size and the time of its last change."""
    digest = hashlib.sha256(repr(further).encode())
    for name, source in _entries(tree):
        facts: object = source
        if isinstance(source, Path):
            try:
                status = source.lstat()
            except OSError as error:
                raise BadInput(f"no file {os.fspath(source)!r}: {error.strerror}") from None
            link = os.readlink(source) if stat.S_ISLNK(status.st_mode) else ""
            facts = (status.st_mode, status.st_size if not stat.S_ISDIR(status.st_mode) else 0, link)
            facts += () if stat.S_ISDIR(status.st_mode) else (status.st_mtime_ns,)
        digest.update(repr((name, facts)).encode())
    return digest.hexdigest()


def pack(tree: Tree, links: Mapping[str, str] | None = None) -> bytes:
    """The tree as a tar archive, owned by root; content given as text or bytes may be executed by everybody.

    Args:
        tree: the files.
        links: symbolic links, by their path in the archive.
    """
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, source in _entries(tree):
            if isinstance(source, Path):
                archive.add(source, name, recursive=False, filter=_owned_by_root)
                continue
            content = source.encode() if isinstance(source, str) else source
            item = tarfile.TarInfo(name)
            item.size, item.mode = len(content), 0o755
            archive.addfile(item, io.BytesIO(content))
        for name, target in sorted((links or {}).items()):
            item = tarfile.TarInfo(os.path.normpath(name).lstrip("/"))
            item.type, item.linkname = tarfile.SYMTYPE, target
            archive.addfile(item)
    return output.getvalue()


def _owned_by_root(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = "root"
    return item


def program_tree(programs: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """Programs, each at its own path, with the shared libraries that they are linked with (ldd(1)).

    Raises:
        BadInput: there is no such program.
    """
    tree: dict[str, Path] = {}
    for program in programs:
        name = os.fspath(program)
        path = name if os.path.isabs(name) and os.access(name, os.X_OK) else find_program(name)
        if path is None:
            raise BadInput(f"no program {name!r} on this machine")
        tree[path] = Path(path).resolve()
        tree.update({library: Path(library).resolve() for library in _libraries(path)})
    return tree


def _libraries(program: str) -> Iterable[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():  # "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", or a path alone
        words = line.split()
        yield from (word for word in words[:3] if word.startswith("/"))
