"""What a container is doing, as the engine has it now."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["State", "hint", "read_state"]


@dataclass(frozen=True)
class State:
    """The state of a container."""

    status: str
    """``created``, ``running``, ``paused``, ``restarting``, ``exited``, ``dead``."""
    exit_code: int
    oom_killed: bool
    """Whether the kernel killed a process of it because it had reached its memory limit."""
    health: str
    """``starting``, ``healthy``, ``unhealthy``; empty where nobody asks."""
    health_log: str
    """What the last health command wrote."""
    restarts: int
    error: str
    """Why the engine could not start it."""
    pid: int
    """Its first process, as the engine sees it; 0 where there is none."""

    @property
    def running(self) -> bool:
        """Whether it runs and is not about to be started again."""
        return self.status == "running"

    def __str__(self) -> str:
        words = [self.status]
        if self.status in ("exited", "dead", "restarting"):
            words.append(f"with status {self.exit_code}{_signal_name(self.exit_code)}")
        if self.oom_killed:
            words.append("(out of memory)")
        if self.health:
            words.append(f"({self.health})")
        if self.restarts:
            words.append(f"after {self.restarts} restarts")
        return " ".join(words) + (f": {self.error}" if self.error else "")


def read_state(found: Mapping[str, Any]) -> State:
    """The state from the engine's description of a container."""
    state = found["State"]
    health = state.get("Health") or {}
    log = health.get("Log") or []
    return State(
        status=state.get("Status", "running" if state["Running"] else "exited"),
        exit_code=state["ExitCode"],
        oom_killed=bool(state.get("OOMKilled")),
        health=health.get("Status") or "",
        health_log=log[-1]["Output"].strip() if log else "",
        restarts=found.get("RestartCount", 0),
        error=state.get("Error") or "",
        pid=state["Pid"],
    )


def _signal_name(code: int) -> str:
    """A shell's convention: 128 and the number of the signal that ended it."""
    with suppress(ValueError):
        if code > 128:
            return f" ({signal.Signals(code - 128).name})"
    return ""


_NOT_RUN = "its command cannot be run: see that the program is in the image, and executable there"
_ENDED = {
    0: "its command has done its work and ended; a service must stay in the foreground",
    126: _NOT_RUN,
    127: _NOT_RUN,
    128 + signal.SIGKILL: "it got SIGKILL: from somebody, or for want of memory (memory=), which engines may miss",
}


def hint(state: State) -> str:
    """What to look at first when a container is not what it should be; empty where nothing stands out."""
    if state.oom_killed:
        return "its memory limit is too small for it: raise memory=, or look for what it needs so much for"
    if state.status in ("exited", "dead", "restarting"):
        return _ENDED.get(state.exit_code, "its command ended by itself: its log says why")
    if state.status == "created":
        return _NOT_RUN if state.exit_code in (126, 127) or "not found" in state.error else ""
    if state.health == "unhealthy":
        return f"its health command fails: {state.health_log or 'it wrote nothing'}"
    return ""
