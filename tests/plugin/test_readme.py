"""What the README shows runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_every_code_block_runs_as_printed(pytester: pytest.Pytester) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    for number, block in enumerate(blocks):
        (pytester.path / f"test_block_{number}.py").write_text(block, encoding="utf-8")
    result = pytester.runpytest_subprocess("--infra", "--infra-require=all")
    result.assert_outcomes(passed=len(blocks))
