"""The built documentation: whole, and readable without a network. ``./try docs`` builds it before these tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pytest_infra import until

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
if not SITE.is_dir():
    pytest.skip("there is no site/; ./try docs builds it and runs these tests", allow_module_level=True)
sys.path[:0] = [str(ROOT / "docs" / "generate"), str(ROOT / "tests" / "plugin")]

import griffe  # noqa: E402
from chromium import browser, chromium  # noqa: E402
from surface import Surface, read_surface  # noqa: E402

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}

SEARCH = """(() => {
    document.querySelector('[data-md-toggle=search]').click();
    const input = document.querySelector('[data-md-component=search-query]');
    input.focus();
    input.value = 'assert_reconverged';
    input.dispatchEvent(new KeyboardEvent('keyup'));
})()"""
FOUND = """[...document.querySelectorAll('.md-search-result__link')].some(
    link => link.href.includes('reference/checks.html'))"""


class Loads(HTMLParser):
    """What a browser fetches by itself when it shows a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in LOADED and named.get("rel") != "canonical":
            self.found.append(named.get(LOADED[tag]) or "")


def from_elsewhere(path: Path) -> list[str]:
    text = path.read_text("utf-8")
    found = Loads(text).found if path.suffix == ".html" else re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", text)
    return [f"{path.name}: {place}" for place in found if re.match(r"(https?:)?//", place)]


@pytest.fixture(scope="module")
def surface() -> Surface:
    return read_surface()


@pytest.fixture(scope="module")
def reference() -> str:
    pages = sorted((SITE / "reference").glob("*.html"))
    assert pages, "./try docs builds the site"
    return "".join(page.read_text("utf-8") for page in pages)


def test_nothing_is_loaded_from_elsewhere() -> None:
    pages = [*SITE.rglob("*.html"), *SITE.rglob("*.css")]
    assert len(pages) > 30
    assert [fault for page in pages for fault in from_elsewhere(page)] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/x.css">'),
        ("a.css", '@import "https://fonts.example/x.css";'),
        ("a.css", "a{background:url(https://example.org/a.png)}"),
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(from_elsewhere(tmp_path / name)) == 1


def undocumented(item: griffe.Object | griffe.Alias) -> Iterator[str]:
    """The public parts of a public thing that say nothing of themselves, inherited ones included."""
    if not item.docstring:
        yield item.canonical_path
    if item.is_class:
        for name, member in item.all_members.items():
            if not name.startswith("_") and member.is_function and not member.docstring and not _inherits(item, name):
                yield f"{item.canonical_path}.{name}"


def _inherits(item: griffe.Object | griffe.Alias, name: str) -> bool:
    """Whether a class above says it."""
    return isinstance(item, griffe.Class) and any(
        name in above.members and above[name].docstring for above in item.mro()
    )


def test_every_public_name_says_what_it_is(surface: Surface) -> None:
    items = [*surface.exported.values(), *surface.met.values(), *surface.fixtures]
    assert len(items) > 250
    assert [fault for item in items for fault in undocumented(item)] == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f(): pass", "f"),
        ("class f:\n    'Doc.'\n    def g(self): pass", "f.g"),
        ("class a:\n    def g(self): pass\nclass f(a):\n    'Doc.'", "f.g"),
        ("f = 1", "f"),
    ],
)
def test_a_name_that_says_nothing_is_found(source: str, name: str) -> None:
    with griffe.temporary_visited_module(source, module_name="m") as module:
        assert list(undocumented(module["f"])) == [f"m.{name}"]


def test_every_public_name_is_in_the_reference(surface: Surface, reference: str) -> None:
    anchors = set(re.findall(r'id="([\w.]+)"', reference))
    assert [name for name in (*surface.exported, *surface.met) if name not in anchors] == []


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["-m", "pytest", "--help"], r"^  (--infra[a-z-]*)"),
        (["-m", "pytest", "--markers"], r"^@pytest\.mark\.(infra\w*)"),
        (["-m", "pytest", "--fixtures", "-v"], r"^(\w+)(?: \[session scope\])? -- .*pytest_infra/fixtures\.py"),
        (["-m", "pytest_infra", "doctor"], r"^([\w-]+) +(?:present|missing|absent)  "),
        (["-m", "pytest_infra", "--help"], r"^    (\w+)  "),
    ],
)
def test_what_the_programs_tell_is_in_the_reference(reference: str, argv: list[str], pattern: str) -> None:
    told = subprocess.run([sys.executable, *argv], capture_output=True, text=True, cwd=ROOT, check=False).stdout
    names = re.findall(pattern, told, re.MULTILINE)
    assert len(names) >= 3, told
    assert [name for name in names if not re.search(rf"{re.escape(name)}\b", reference)] == []


def test_a_browser_reads_and_searches_it_from_a_folder(tmp_path: Path) -> None:
    """No network is asked, nothing goes wrong in the page, and the search finds a check in the reference."""
    chromium()
    with browser(tmp_path / "profile") as page:
        for name in ("index.html", "tutorial.html", "reference/checks.html"):
            page.open(SITE / name, width=1200, dark=False)
            asked = [event["request"]["url"] for event in page.named("Network.requestWillBeSent")]
            assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
            assert page.named("Runtime.exceptionThrown") == []
        page.value(SEARCH)
        until(lambda: page.value(FOUND), within_s=30, what="a result of the search")
