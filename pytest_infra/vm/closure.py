"""What this interpreter needs to run some modules somewhere else: its files, found by importing them here."""

from __future__ import annotations

import json
import os
import py_compile
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.util import cache_from_source

from ..core.errors import InfraError
from .cpio import Archive

__all__ = ["add_files", "python_files"]

_LOOK = """
import importlib, json, re, sys, sysconfig
for name in sys.argv[1].split(","):
    importlib.import_module(name)
files = [sys.executable, sysconfig.get_paths()["stdlib"] + "/os.py"]
for module in list(sys.modules.values()):
    for name in ("__file__", "__cached__"):
        files.append(getattr(module, name, None))
with open("/proc/self/maps") as maps:
    files += [line.split(None, 5)[5].strip() for line in maps if "/" in line]
print(json.dumps(sorted({file for file in files if file})))
"""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_INTERPRETER = re.compile(rb"(/[\w./+-]*/ld-[\w.+-]*so[\w.]*)\0")
_DEEPEST_LINK = 40


def python_files(modules: Iterable[str]) -> list[str]:
    """The files of this interpreter, the modules, this package and the libraries that they load.

    Raises:
        InfraError: a module cannot be imported.
    """
    argv = [sys.executable, "-c", _LOOK, ",".join(modules)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise InfraError(f"what a guest imports cannot be imported here: {done.stderr.strip().splitlines()[-1]}")
    files = {file for file in json.loads(done.stdout) if os.path.isfile(file)}
    for folder, _, names in os.walk(_PACKAGE):
        files |= {os.path.join(folder, name) for name in names if name.endswith(".py")}
    files |= set(_loader(os.path.realpath(sys.executable)))
    return sorted(files)


def _loader(program: str) -> Iterator[str]:
    """The program that loads shared libraries, and its table of them (ld.so(8))."""
    with open(program, "rb") as file:
        if found := _INTERPRETER.search(file.read(4096)):
            yield found.group(1).decode()
    if os.path.exists("/etc/ld.so.cache"):
        yield "/etc/ld.so.cache"


def add_files(archive: Archive, files: Sequence[str], below: str) -> None:
    """Add files with the symbolic links on the way to them, at the same paths below a folder of the archive."""
    for file in files:
        _add(archive, os.path.abspath(file), below)
        if file.endswith(".py"):
            _add_compiled(archive, os.path.abspath(file), below)
        if ".so" in os.path.basename(file):
            for name in _other_names(file):
                _add(archive, name, below)


def _add_compiled(archive: Archive, source: str, below: str) -> None:
    """Its bytecode, where this machine keeps none: to compile takes an emulated guest twenty times as long."""
    cached = cache_from_source(source)
    if os.path.exists(cached):
        return _add(archive, cached, below)
    if os.path.realpath(source) != source:
        return None
    with tempfile.NamedTemporaryFile(suffix=".pyc") as target, suppress(py_compile.PyCompileError):
        py_compile.compile(source, target.name, doraise=True)
        with open(target.name, "rb") as file:
            archive.file(below + cached, file.read())
    return None


def _other_names(library: str) -> Iterator[str]:
    """The symbolic links beside a shared library that lead to it: its short name is one."""
    folder, name = os.path.split(library)
    stem = name.split(".so")[0]
    for entry in os.scandir(folder):
        if entry.is_symlink() and entry.name.startswith(f"{stem}.so") and os.path.realpath(entry.path) == library:
            yield entry.path


def _add(archive: Archive, path: str, below: str, depth: int = 0) -> None:
    done = ""
    parts = path.strip("/").split("/")
    for number, part in enumerate(parts):
        done = f"{done}/{part}"
        if os.path.islink(done):
            target = os.readlink(done)
            archive.link(below + done, target)
            rest = os.path.join(os.path.dirname(done), target, *parts[number + 1 :])
            if depth < _DEEPEST_LINK:
                _add(archive, os.path.normpath(rest), below, depth + 1)
            return
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode) and (below + path) not in archive:
        with open(path, "rb") as file:
            archive.file(below + path, file.read(), status.st_mode & 0o755, int(status.st_mtime))
