"""``--infra-kernel``, in the controller: how the guests ran, and why one went away with the test that it ran."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from typing import Any

import pytest

from ..vm.interpreter import GUEST, LAST_WORDS
from .kernels import ACCEL

__all__ = ["Guests"]

_HOW = {"kvm": "under KVM", "tcg": "emulated (TCG): nothing is said of time and throughput"}


class Guests:
    """The hooks.

    The interpreter of a guest that fails writes its last words into a memory file of this process: one line of JSON
    with its process id.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._accels: dict[str, str] = {}
        self._last_words = os.memfd_create("infra-last-words", os.MFD_CLOEXEC)
        os.environ[LAST_WORDS] = f"/proc/{os.getpid()}/fd/{self._last_words}"
        config.add_cleanup(self._end)

    def _end(self) -> None:
        os.environ.pop(LAST_WORDS, None)
        os.close(self._last_words)

    def _words(self) -> dict[int, str]:
        """What interpreters that failed have said, by process id."""
        content = os.pread(self._last_words, os.fstat(self._last_words).st_size, 0)
        lines = [json.loads(line) for line in content.splitlines()]
        return {line["pid"]: line["words"] for line in lines}

    def _words_of(self, node: Any) -> str:
        process = getattr(getattr(node.gateway, "_io", None), "popen", None)
        return self._words().get(process.pid, "") if process else ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self) -> Generator[None, None, None]:
        """A guest that does not come up ends the run, with what it says."""
        try:
            return (yield)
        except Exception as error:
            for words in self._words().values():
                raise pytest.UsageError(f"--infra-kernel: {words}") from error
            raise

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: Any) -> None:
        """A test whose guest went away says why."""
        if words := self._words_of(report.node):
            report.longrepr = f"{report.longrepr}\n{words}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A guest has ended: with its tests, or before."""
        if accel := (getattr(node, "workeroutput", None) or {}).get(ACCEL):
            self._accels[node.gateway.spec.env[GUEST]] = accel
        if error and (words := self._words_of(node)):
            reporter = node.config.pluginmanager.getplugin("terminalreporter")
            reporter.write_line(f"\ninfra: {node.gateway.id}: {words}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Whether the guests were emulated."""
        for kernel, accel in sorted(self._accels.items()):
            terminalreporter.write_line(f"infra: the guests with the kernel {kernel} ran {_HOW[accel]}")
