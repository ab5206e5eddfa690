"""The tutorial, done as it is printed: its files are written, its commands run, its outputs compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(
    r'^```(?:python title="(?P<file>[\w.]+)(?P<end>, the end)?"|console)\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.M)


def pattern(printed: str) -> re.Pattern[str]:
    """What an output must match: as printed, but for blanks at ends of lines; ``…`` is anything, alone any lines."""
    lines = []
    for line in printed.splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.compile("".join(lines))


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GITHUB_", "CI"))}
    env |= {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
    argv = ["sh", "-c", f"exec 2>&1; {command}"]
    return subprocess.run(argv, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, timeout=200, check=False).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the reader works; the lab that the tutorial keeps goes, also where the tutorial ends early."""
    yield tmp_path
    run("pytest-infra clean test_the_shop_is_open", tmp_path)


@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(folder: Path) -> None:
    done = 0
    for block in BLOCK.finditer(TUTORIAL.read_text("utf-8")):
        if block["file"]:
            with (folder / block["file"]).open("a" if block["end"] else "w", encoding="utf-8") as file:
                file.write(block["text"])
            continue
        for step in COMMAND.finditer(block["text"]):
            output = run(step["command"], folder)
            assert pattern(step["output"]).fullmatch(output), f"$ {step['command']}\n{output}"
            done += 1
    assert done >= 8


@pytest.mark.parametrize(
    ("printed", "output", "fits"),
    [
        ("1 passed in …\n", "1 passed in 0.2s\n", True),
        ("1 passed in …\n", "1 failed in 0.2s\n", False),
        ("a\n…\nb\n", "a\nx\ny\nb\n", True),
        ("a\n…\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nx\nb\n", False),
        ("a\n", "a\nx\n", False),
        ("a\n", "", False),
        ("", "an error\n", False),
    ],
)
def test_an_output_is_compared(printed: str, output: str, fits: bool) -> None:
    assert bool(pattern(printed).fullmatch(output)) is fits
