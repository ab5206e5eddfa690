"""Makes the pictures of docs/images: runs the tests that they show, and takes what the plugin draws.

    python docs/generate/pictures.py

Needs Open vSwitch and chromium. The pictures are kept in the repository, so building the documentation needs neither.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "plugin"))

from chromium import Page, browser  # noqa: E402

__all__ = ["main"]

_IMAGES = ROOT / "docs" / "images"
_TOPOLOGIES = {
    "tutorial-shop": "test_shop.py-test_the_shop_is_open",
    "pulled-plug": "test_office.py-test_bob_when_his_plug_is_pulled",
    "leaf-spine": "test_office.py-test_leaf_spine",
}
_SCREENSHOTS = {"report-light": ("test_bob", False), "report-dark": ("test_alice", True)}
_SHOW = """(() => {
    const test = [...document.querySelectorAll('.test')].find(test => test.textContent.includes('%s'));
    test.open = true;
    const first = test.querySelector('%s') || test;
    window.scrollTo(0, first.getBoundingClientRect().top + window.scrollY - 100);
})()"""


def main() -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run_tests(folder)
        for picture, test in _TOPOLOGIES.items():
            shutil.copy(folder / "infra-artifacts" / test / "call" / "topology.svg", _IMAGES / f"{picture}.svg")
        with browser(folder / "profile") as page:
            for picture, (test, dark) in _SCREENSHOTS.items():
                (_IMAGES / f"{picture}.png").write_bytes(_screenshot(page, folder / "report.html", test, dark))


def _run_tests(folder: Path) -> None:
    shutil.copy(Path(__file__).with_name("picture_suite.py"), folder / "test_office.py")
    tutorial = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    blocks = re.findall(r'^```python title="test_shop.py.*?"\n(.*?)^```', tutorial, re.MULTILINE | re.DOTALL)
    (folder / "test_shop.py").write_text("".join(blocks), encoding="utf-8")
    options = ["--infra", "--infra-artifacts=always", "--infra-report=report.html", "--infra-require=ovs"]
    subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, check=False)


def _screenshot(page: Page, report: Path, test: str, dark: bool) -> bytes:
    page.open(report, width=1100, dark=dark)
    page.ask("Emulation.setDeviceMetricsOverride", width=1100, height=1180, deviceScaleFactor=1, mobile=False)
    first = ".timeline" if dark else ".name"
    page.value(_SHOW % (test, first))
    return page.screenshot()


if __name__ == "__main__":
    main()
