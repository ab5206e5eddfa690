"""``pytest-infra init``: a first test, and a workflow that runs it."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import BadInput

__all__ = ["write_first"]

_TEST = '''\
"""Two hosts on one switch: run `pytest --infra`, then pull the plug of b (below) and read what the failure says."""

from pytest_infra import assert_reachable


def test_two_hosts_on_one_switch(lab):
    sw1 = lab.bridge("sw1")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw1, ip="192.168.1.10/24")
    lab.link(b, sw1, ip="192.168.1.20/24")
    # sw1.ports[1].down()
    assert_reachable(a, b)
'''

_WORKFLOW = """\
name: Labs

on: [push, pull_request]

permissions:
  contents: read

jobs:
  labs:
    runs-on: ubuntu-24.04
    timeout-minutes: 20
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.13"
      - run: python -m pip install 'pytest-infra[report,xdist]'
      - name: What the machine must have
        run: pytest-infra doctor --install ip || test $? = 1
      - name: Tests
        run: >-
          sudo --preserve-env env "PATH=$PATH" python -m pytest
          --infra --infra-require=all --infra-report=infra-artifacts/report.html
      - name: Remove what a cancelled run may have left
        if: always()
        run: sudo env "PATH=$PATH" pytest-infra clean
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: infra-artifacts
          path: infra-artifacts
          if-no-files-found: ignore
"""

_FILES = {"tests/test_first_lab.py": _TEST, ".github/workflows/labs.yml": _WORKFLOW}


def write_first(folder: str) -> list[Path]:
    """Write the files; returns their paths.

    Raises:
        BadInput: one is there already, or cannot be written; none has been written then.
    """
    paths = {Path(folder, name): text for name, text in _FILES.items()}
    if there := [str(path) for path in paths if path.is_symlink() or path.exists()]:
        raise BadInput(f"nothing is overwritten: there is {' and '.join(there)} already")
    written: list[Path] = []
    try:
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
    return written
