"""How a figure is kept, judged and printed."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Measurements of one thing, with the limit that the project has set itself, if there is one."""

    what: str
    unit: str
    values: Sequence[float]
    limit: str = ""
    met: bool | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def cells(self) -> list[str]:
        numbers = [f"{number:.3g}" if number < 100 else f"{number:.0f}" for number in self.spread()]
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return [self.what, *(f"{number} {self.unit}" for number in numbers), str(len(self.values)), self.limit, verdict]

    def spread(self) -> tuple[float, float, float]:
        return self.median, min(self.values), max(self.values)


HEADINGS = ["what", "median", "min", "max", "runs", "limit", "verdict"]


def table(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, ["---", *["---:"] * 4, "---", "---"], *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    python = platform.python_version()
    return f"Linux {platform.release()}, {os.cpu_count()} x {model}, Python {python}, load {load:.1f} at the start"


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def rest(pause_s: float = 0.15) -> None:
    """Let the kernel finish the teardown of what was closed: it goes on in the background for 30 to 80 ms."""
    time.sleep(pause_s)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
