"""A small stand-in for GitHub's runner: an action's shell steps really run; what it `uses` is only noted."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")  # docs.github.com: jobs.<id>.steps[*].shell


@dataclass
class Runner:
    """Runs an action's steps one after the other, as the runner does, with `folder` for all of its files."""

    folder: Path
    inputs: Mapping[str, str]
    outputs: dict[str, str] = field(default_factory=dict)
    used: dict[str, dict[str, str]] = field(default_factory=dict)
    """What would have been used, and with what."""
    skipped: list[str] = field(default_factory=list)
    log: str = ""
    failed: str = ""
    """The first step that failed."""

    @property
    def summary(self) -> str:
        """The job's summary."""
        path = self.folder / "summary"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def run(self, action: Path) -> Runner:
        """Run all steps; those after a failed one only where they ask for it by ``always()``."""
        content = yaml.safe_load(action.read_text(encoding="utf-8"))
        defaults = {name: str(item.get("default", "")) for name, item in content["inputs"].items()}
        assert set(self.inputs) <= set(defaults)
        self.inputs = defaults | dict(self.inputs)
        for step in content["runs"]["steps"]:
            if not self._wanted(step.get("if", "")):
                self.skipped.append(step["name"])
            elif "uses" in step:
                self.used[step["uses"]] = {key: self._filled(str(value)) for key, value in step["with"].items()}
            else:
                self._shell(step)
        return self

    def _wanted(self, condition: str) -> bool:
        terms = [term.strip() for term in condition.split("&&") if term.strip()]
        if self.failed and "always()" not in terms:
            return False
        return all(self._holds(term) for term in terms if term != "always()")

    def _holds(self, term: str) -> bool:
        name, operator, value = re.fullmatch(r"inputs\.([\w-]+) (==|!=) '(.*)'", term).groups()  # type: ignore[union-attr]
        return (self.inputs[name] == value) == (operator == "==")

    def _filled(self, text: str) -> str:
        text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: self.inputs[found[1]], text)
        text = re.sub(r"\$\{\{ steps\.\w+\.outputs\.(\w+) \}\}", lambda found: self.outputs[found[1]], text)
        assert "${{" not in text, f"the runner does not know: {text}"
        return text

    def _shell(self, step: Mapping[str, Any]) -> None:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input in a script is read by the shell"
        script, output = self.folder / "script", self.folder / "output"
        script.write_text(step["run"], encoding="utf-8")
        output.write_text("")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
        env |= {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "RUNNER_TEMP": str(self.folder),
            **{name: self._filled(value) for name, value in step.get("env", {}).items()},
        }
        folder = self.folder / self._filled(step.get("working-directory", "."))
        options: dict[str, Any] = {"cwd": folder, "env": env, "stdin": subprocess.DEVNULL, "text": True}
        done = subprocess.run([*BASH, script], capture_output=True, check=False, timeout=100, **options)
        self.log += f"##[group]{step['name']}\n{done.stdout}{done.stderr}"
        self.outputs |= dict(line.split("=", 1) for line in output.read_text().splitlines())
        if done.returncode and not self.failed:
            self.failed = step["name"]
