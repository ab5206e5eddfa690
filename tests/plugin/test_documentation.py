"""What the README and the pages of docs/ show runs as it is printed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pytest_infra.core.linux import in_child_user_namespace

ROOT = Path(__file__).parents[2]
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # with the kernel for guests
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


BLOCKS = {f"{page.stem}-{number}": text for page in PAGES for number, text in enumerate(blocks(page), 1)}
TESTS = {name: text for name, text in BLOCKS.items() if "def test_" in text}


def test_there_are_blocks() -> None:
    assert sum(name.startswith("README") for name in TESTS) >= 3
    assert len(TESTS) >= 15


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TESTS)
def test_a_block_runs_as_printed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What needs root is skipped for others; nothing may be lacking for root."""
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    (pytester.path / "test_block.py").write_text(TESTS[name], encoding="utf-8")
    required = [] if in_child_user_namespace() else ["--infra-require=all"]
    result = pytester.runpytest_subprocess("--infra", *required)
    outcomes = result.parseoutcomes()
    assert set(outcomes) <= {"passed", "skipped"}, result.stdout.str()
    assert outcomes.get("passed") or not required


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - set(TESTS)))
def test_an_excerpt_is_python(name: str) -> None:
    assert compile(BLOCKS[name], name, "exec").co_code
