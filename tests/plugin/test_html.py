"""The HTML report: what is in it, on one process and on several, and how a browser shows it."""

from __future__ import annotations

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from .chromium import browser, chromium

pytestmark = pytest.mark.timeout(300)

SUITE = """
    import sys
    import pytest
    from pytest_infra import Unavailable, assert_reachable, ping

    @pytest.fixture
    def office(lab):
        alice, bob, sw1 = lab.host("alice"), lab.host("bob"), lab.bridge("sw1")
        lab.link(alice, sw1, ip="192.168.1.10/24")
        lab.link(bob, sw1, ip="192.168.1.20/24")
        bob.spawn(["sleep", "60"])
        return lab

    def test_answers(office):
        report = ping(office.node("alice"), office.node("bob"), count=20, interval="1 ms")
        office.node("alice").run(["echo", "</script><b>&'\\""])
        assert report.loss == 0

    def test_pulled(office):
        office.node("bob").run(["sh", "-c", "exit 3"], check=False)
        office.links[1].down()
        assert_reachable(office.node("alice"), office.node("bob"))

    @pytest.fixture
    def broken(office):
        office.node("alice").run(["cat", "/no/such/file"])

    def test_set_up(broken): pass

    @pytest.fixture
    def breaks_later(office):
        office.up()
        yield
        raise ValueError("in the teardown")

    def test_teardown(breaks_later): pass

    def test_dead(infra):
        with infra.lab("kiosk") as lab:
            lab.link(lab.host("till"), lab.host("safe"))
            lab.up()
            raise ValueError("the lab is gone when this is told")

    def test_lack(lab):
        raise Unavailable("netem", "the kernel lacks <it>", "use a stock kernel")

    @pytest.mark.xfail
    def test_expected(lab): assert 0

    def test_plain(): pass
"""


class Page(HTMLParser):
    """The report as tests: by name, the tags and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tests: dict[str, list[tuple[str, dict[str, str | None]]]] = {}
        self.text: dict[str, str] = {}
        self.links: list[str] = []
        self._name = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "data-name" in found:
            self._name = str(found["data-name"]).partition("::")[2]
            self.tests[self._name], self.text[self._name] = [], ""
        if self._name:
            self.tests[self._name].append((tag, found))
        self.links += [str(value) for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        if self._name:
            self.text[self._name] += data

    def classes(self, name: str) -> list[str]:
        """The classes of a test's elements."""
        return [str(found.get("class")) for _, found in self.tests[name]]


def outcome(page: Page, name: str) -> str | None:
    return page.tests[name][0][1]["data-outcome"]


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_everything_is_in_one_file(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makepyfile(test_it=SUITE)
    result = pytester.runpytest_subprocess("--infra", "--infra-report=out/report.html", *workers)
    result.assert_outcomes(passed=3, failed=2, errors=2, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["infra: report of 8 tests: out/report.html"])
    text = (pytester.path / "out/report.html").read_text()
    page = Page(text)
    assert {name: outcome(page, name) for name in page.tests} == {
        "test_answers": "passed", "test_pulled": "failed", "test_set_up": "error", "test_teardown": "error",
        "test_dead": "failed", "test_lack": "skipped", "test_expected": "xfailed", "test_plain": "passed",
    }  # fmt: skip
    for name in ("test_answers", "test_pulled", "test_set_up", "test_teardown", "test_dead"):
        classes = page.classes(name)
        assert "timeline" in classes, name
        assert "wire" in classes, f"{name} has no picture"
        assert any(word.startswith("phase") for word in classes)
    assert "wire bad" in page.classes("test_pulled")
    assert "NO CARRIER" in page.text["test_pulled"]
    assert "cause      " in page.text["test_pulled"]
    assert "command bad" in page.classes("test_pulled")
    assert "sh -c 'exit 3'" in page.text["test_pulled"]
    assert "cat /no/such/file" in page.text["test_set_up"]
    assert "Lab kiosk" in page.text["test_dead"]
    assert "in the teardown" in page.text["test_teardown"]
    assert "plot" in page.classes("test_answers"), "the round-trip times are drawn"
    assert "20 in" in page.text["test_answers"] or "in \u00b7" in page.text["test_answers"]
    assert "echo '</script><b>&" in page.text["test_answers"], "text is escaped"
    assert "the kernel lacks &lt;it&gt;" in text
    assert "<code>use a stock kernel</code>" in text
    folders = [link for link in page.links if "infra-artifacts" in link]
    assert folders
    assert all((pytester.path / "out" / link).is_dir() for link in folders)
    assert [link for link in page.links if link not in folders] == ["data:,"], "it needs no other file"


def test_pytest_html_gets_the_same(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_html")
    pytester.makepyfile(test_it=SUITE)
    pytester.runpytest_subprocess("--infra", "--html=theirs.html", "--self-contained-html", "-k", "answers or pulled")
    text = (pytester.path / "theirs.html").read_text()
    (data,) = re.findall(r'data-jsonblob="([^"]*)"', text)
    assert data.count("timeline") >= 2
    assert "192.168.1.20/24" in data


def test_pytest_html_gets_each_phase(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_html")
    pytester.makepyfile(test_it=SUITE)
    pytester.runpytest_subprocess("--infra", "--html=theirs.html", "--self-contained-html", "-k", "set_up or teardown")
    (data,) = re.findall(r'data-jsonblob="([^"]*)"', (pytester.path / "theirs.html").read_text())
    tests = json.loads(html.unescape(data))["tests"]
    pieces = {
        (name.rpartition("::")[2], row["result"]): [extra["content"] for extra in row["extras"]]
        for name, rows in tests.items()
        for row in rows
    }
    (set_up,) = next(found for (name, _), found in pieces.items() if name in ("setup", "test_set_up"))
    assert "setup: failed" in set_up
    assert "cat /no/such/file" in set_up
    call, teardown = next(found for (_, result), found in pieces.items() if result == "Error" and len(found) == 2)
    assert "call: passed" in call
    assert "teardown: failed" in teardown
    assert "192.168.1.20/24" in teardown


def test_without_jinja_the_option_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    code = "import sys; import importlib.util as u; f = u.find_spec; "
    code += "u.find_spec = lambda name, *a: None if name == 'jinja2' else f(name, *a); "
    code += "import pytest; sys.exit(pytest.main(['--infra', '--infra-report=x.html']))"
    result = pytester.run(sys.executable, "-c", code)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--infra-report: jinja2 (*; pip install 'pytest-infra?report?')"])


def test_junit_properties(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    pytester.runpytest_subprocess("--infra", "--junitxml=junit.xml", "-n2", "-k", "answers or pulled or plain")
    cases = {case.get("name"): case for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")}
    found: dict[Any, dict[Any, Any]] = {
        name: {item.get("name"): item.get("value") for item in case.iter("property")} for name, case in cases.items()
    }
    assert found["test_plain"] == {}
    assert found["test_answers"]["infra_lab"] == "test_answers"
    assert found["test_answers"]["infra_kernel"]
    assert found["test_answers"]["infra_ping.received"] == "20"
    assert found["test_pulled"]["infra_reach.loss"] == "1.0"
    assert found["test_pulled"]["infra_evidence"].endswith("test_pulled/call")
    assert all(len(values) <= 31 for values in found.values())


FIT = "document.documentElement.scrollWidth <= window.innerWidth"
CONTRAST = """
(() => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.startsWith("rgba(") || !colour.endsWith(" 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("h1,h2,h3,p,td,th,dt,dd,pre,summary,button,span,code,svg text")) {
    if (!element.textContent.trim() || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    if (element.classList.contains("inside")) continue;
    const ink = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 80)];
  }
  return JSON.stringify(worst);
})()
"""


@pytest.mark.infra
def test_a_browser_shows_it(pytester: pytest.Pytester, tmp_path: Path) -> None:
    chromium()
    pytester.makepyfile(test_it=SUITE)
    pytester.runpytest_subprocess("--infra", "--infra-report=report.html")
    with browser(tmp_path / "profile") as page:
        for width, dark in ((1200, False), (1200, True), (420, False)):
            page.open(pytester.path / "report.html", width=width, dark=dark)
            assert page.named("Runtime.exceptionThrown") == []
            assert page.named("Log.entryAdded") == []
            asked = [event["request"]["url"] for event in page.named("Network.requestWillBeSent")]
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], "it works offline"
            assert page.value(FIT), f"wider than {width} pixels"
            ratio, what = json.loads(page.value(CONTRAST))
            assert ratio >= 4.5, f"{what} is hard to read (WCAG 2.1, 1.4.3): {ratio:.2f}, dark: {dark}"
        seen = "[...document.querySelectorAll('.test')].filter(test => !test.hidden).length"
        assert page.value(seen) == 8
        page.value("document.querySelector('button[data-show=failed]').click()")
        assert page.value(seen) == 2
        page.value("""(() => { const input = document.querySelector('.bar input'); input.value = 'KIOSK';
            input.dispatchEvent(new Event('input')); })()""")
        assert page.value(seen) == 0
        assert page.value("!document.getElementById('none').hidden")
        assert len(page.screenshot()) > 3000


def test_the_check_of_the_page_finds_what_is_wrong(tmp_path: Path) -> None:
    """The failing twin of the test above: a page that has all of its faults."""
    chromium()
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        "<body style='background:rgb(255,255,255)'><p style='color:#ccc;width:3000px'>faint</p>"
        "<script>throw new Error('no')</script><img src='http://127.0.0.1:9/x.png'>"
    )
    with browser(tmp_path / "profile") as page:
        page.open(wrong, width=800, dark=False)
        assert page.named("Runtime.exceptionThrown") != []
        asked = [event["request"]["url"] for event in page.named("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == ["http://127.0.0.1:9/x.png"]
        assert not page.value(FIT)
        assert json.loads(page.value(CONTRAST))[0] < 2


def test_a_report_that_cannot_be_written_is_refused_at_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_never(): raise AssertionError")
    (pytester.path / "folder").mkdir()
    (pytester.path / "file").touch()
    for given, why in [
        ("folder", "*--infra-report: *folder is a folder, and the name of a file is wanted"),
        ("file/report.html", "*--infra-report: *file/report.html cannot be made: *file is no folder"),
    ]:
        result = pytester.runpytest_subprocess("--infra", f"--infra-report={given}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([why])
        assert "1 failed" not in result.stdout.str()


def test_faults_are_in_the_timeline_and_those_that_last_in_the_picture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from pytest_infra import blackhole, partition

        def test_it(lab):
            a, b, sw = lab.host("a"), lab.host("b"), lab.bridge()
            lab.link(a, sw), lab.link(b, sw)
            with partition([a], [b]):
                pass
            lab.inject(blackhole(a, "203.0.113.0/24"))
        """
    )
    pytester.runpytest_subprocess("--infra", "--infra-report=r.html").assert_outcomes(passed=1)
    page = (pytester.path / "r.html").read_text("utf-8")
    timeline = page.partition('<svg class="timeline"')[2].partition("</svg>")[0]
    assert timeline.count('class="fault"') == 2
    assert "<title>partition a | b\n" in timeline
    picture = page.partition("<svg xmlns")[2].partition("</svg>")[0]
    assert "blackhole 203.0.113.0/24 in a" in picture
    assert "partition" not in picture
    assert picture.count('broken"') == 1
