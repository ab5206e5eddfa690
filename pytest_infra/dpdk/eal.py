"""The arguments of DPDK's environment abstraction layer (EAL), as data (DPDK's Getting Started Guide for Linux)."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import BadInput

__all__ = ["EalArguments", "eal_words"]

_OURS = {
    "-l": "cores=", "-c": "cores=", "--lcores": "cores=", "--main-lcore": "cores=", "--vdev": "ports= or vdev=",
    "--no-huge": "hugepages=", "--huge-dir": "hugepages=", "--in-memory": "hugepages=", "--file-prefix": "name=",
    "-m": "memory=", "--no-telemetry": "nothing: the lab needs telemetry",
}  # fmt: skip


def eal_words(words: object) -> tuple[str, ...]:
    """More arguments of the EAL, checked: those that the lab itself gives are not among them.

    Raises:
        BadInput: it is no list of strings, or one of them is the lab's.
    """
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):  # type: ignore[attr-defined]
        raise BadInput(f"eal= is a list of arguments, as ['--log-level=8']; got {words!r}")
    found: tuple[str, ...] = tuple(words)  # type: ignore[arg-type]
    for word in found:
        if instead := _OURS.get(word.partition("=")[0]):
            raise BadInput(f"eal= cannot hold {word!r}, which the lab works out itself; use {instead}")
    return found


@dataclass(frozen=True)
class EalArguments:
    """What the EAL is told; `argv` renders it."""

    cpus: tuple[int, ...]
    """The CPU of each logical core: the main one first. Two logical cores may share a CPU."""
    file_prefix: str
    """Keeps the files of one process apart from those of others."""
    vdevs: tuple[str, ...] = ()
    memory_mib: int = 128
    huge_folder: str = ""
    """Where huge pages are mounted; empty for none."""
    more: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        """The arguments, in the EAL's own words."""
        lcores = ",".join(f"{number}@{cpu}" for number, cpu in enumerate(self.cpus))
        memory = [f"--huge-dir={self.huge_folder}"] if self.huge_folder else ["--no-huge"]
        devices = [word for vdev in self.vdevs for word in ("--vdev", vdev)]
        return [
            f"--lcores={lcores}",
            "--main-lcore=0",
            "--no-pci",
            *memory,
            "-m",
            str(self.memory_mib),
            f"--file-prefix={self.file_prefix}",
            *devices,
            *self.more,
        ]
