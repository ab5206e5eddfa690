"""Pictures and texts of a lab, from made-up facts."""

from __future__ import annotations

import html
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_infra.core.errors import BadInput, CheckFailed, StartFailed
from pytest_infra.core.evidence import Artifact, attach, attached, says_something
from pytest_infra.net.counters import changed, losses
from pytest_infra.reporting.artifacts import EvidenceFolder, slug
from pytest_infra.reporting.facts import LabFacts, read_facts
from pytest_infra.reporting.github import Failure, append, cause_line, job_summary
from pytest_infra.reporting.layout import place
from pytest_infra.reporting.reproduce import commands, reproduce
from pytest_infra.reporting.summary import MOST_LINES, summary
from pytest_infra.reporting.topology import mermaid, svg


def end(node: str, port: str, *addresses: str) -> dict[str, object]:
    return {
        "node": node,
        "port": port,
        "mac": f"02:00:00:00:00:{ord(node[0]):02x}",
        "mtu": 1500,
        "addresses": addresses,
    }


def interface(up: bool = True, carrier: bool = True) -> dict[str, object]:
    return {"up": up, "carrier": carrier}


def state(**interfaces: dict[str, object]) -> dict[str, object]:
    return {"interfaces": interfaces, "addresses": [], "routes": [], "neighbours": [], "counters": {}}


def facts(down: bool = False) -> LabFacts:
    lab = {
        "name": "office & <more>",
        "nodes": [{"name": "a", "kind": "host"}, {"name": "r1", "kind": "router"}],
        "switches": [{"name": "sw1", "kind": "bridge"}, {"name": "sw2", "kind": "ovs"}],
        "links": [
            {"ends": [end("a", "eth0", "10.0.0.1/24", "fd00::1/64"), end("sw1", "sw1-p1")]},
            {"ends": [end("r1", "eth0", "10.0.0.2/24"), end("sw1", "sw1-p2")]},
            {"ends": [end("r1", "eth1", "10.0.1.1/24"), end("sw2", "sw2-p1")]},
        ],
        "routes": {"a": [{"destination": "0.0.0.0/0", "gateway": "10.0.0.2", "port": "eth0"}]},
        "settings": {"r1": {"net.ipv4.ip_forward": "1"}},
        "commands": [{"where": "a", "line": "ping -c1 10.0.0.2", "began_s": 0.0, "took_s": 0.1, "status": 0}],
        "processes": [],
    }
    return LabFacts(lab, {
        "a": state(eth0=interface(carrier=not down)),
        "sw1": state(**{"sw1-p1": interface(up=not down), "sw1-p2": interface()}),
    })  # fmt: skip


def test_mermaid() -> None:
    assert (
        mermaid(facts(down=True))
        == """graph LR
  n0["a"]
  n1(("r1 (router)"))
  n2{{"sw1 (bridge)"}}
  n3{{"sw2 (ovs)"}}
  n0 -.-|"eth0 10.0.0.1/24 NO CARRIER / sw1-p1 DOWN"| n2
  n1 ---|"eth0 10.0.0.2/24 / sw1-p2"| n2
  n1 ---|"eth1 10.0.1.1/24 / sw2-p1"| n3
"""
    )


def test_svg_is_well_formed_and_shows_everything() -> None:
    tree = ElementTree.fromstring(svg(facts(down=True)))
    texts = [item.text for kind in ("text", "tspan") for item in tree.iter("{http://www.w3.org/2000/svg}" + kind)]
    for word in ("a", "r1", "sw1", "sw2", "10.0.0.1/24", "sw2-p1", "DOWN", "NO CARRIER"):
        assert word in texts
    hints = [item.text or "" for item in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert any("fd00::1/64" in hint for hint in hints), "what there is no room for is shown by pointing at it"
    lines = list(tree.iter("{http://www.w3.org/2000/svg}path"))
    assert [item.get("class") for item in lines] == ["wire bad", "wire", "wire"]
    assert tree.find("{http://www.w3.org/2000/svg}title").text == "office & <more>"  # type: ignore[union-attr]
    assert "DOWN" not in svg(facts())


def test_the_same_lab_is_the_same_picture_and_no_node_hides_another() -> None:
    names = [f"h{number}" for number in range(12)] + ["sw"]
    links = [(name, "sw") for name in names[:-1]]
    assert place(names, links) == place(names, links)
    spots = list(place(names, links).values())
    nearest = min(abs(complex(*a) - complex(*b)) for a in spots for b in spots if a != b)
    assert nearest > 0.3
    assert place([], []) == {}
    assert len(place([f"h{number}" for number in range(1000)], [])) == 1000


def test_a_lab_without_links_or_nodes_can_be_drawn() -> None:
    empty = LabFacts({"name": "empty", "nodes": [], "switches": [], "links": []}, {})
    ElementTree.fromstring(svg(empty))
    assert mermaid(empty) == "graph LR\n"
    assert "## The lab empty by hand" in reproduce("test_x", "call", [empty])


def test_the_commands_name_everything() -> None:
    lines = list(commands(facts(down=True)))
    for line in (
        "ip netns add a",
        "ip -n sw1 link add sw1 up type bridge",
        "ip -n a link add eth0 address 02:00:00:00:00:61 mtu 1500 type veth peer name sw1-p1 "
        "address 02:00:00:00:00:73 mtu 1500 netns sw1",
        "ip -n sw1 link set sw1-p1 master sw1",
        "ip -n a address add fd00::1/64 dev eth0 nodad",
        "ip -n a route add 0.0.0.0/0 via 10.0.0.2 dev eth0",
        "ip netns exec r1 sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'",
        "ovs-vsctl add-port sw2 sw2-p1",
        "ip -n sw1 link set sw1-p1 down    # as it was at the failure",
    ):
        assert line in lines


def test_the_summary_is_short_and_names_what_stands_out() -> None:
    made = facts(down=True)
    made.state["a"]["counters"] = {"eth0 rx_packets": 5, "Ip InNoRoutes": 3}  # type: ignore[index]
    made.state["sw1"]["counters"] = {"IPv6 Ip6InDiscards": 9, "sw1-p1 rx_dropped": 1}  # type: ignore[index]
    made.state["a"]["neighbours"] = [{"ip": "10.0.0.9", "state": "FAILED"}]  # type: ignore[index]
    lines = summary("kept/x", ["lab.json"], [made]).splitlines()
    assert lines == [
        "lab office & <more>: 2 nodes, 2 switches, 3 links",
        "  link      a:eth0 -- sw1:sw1-p1: a:eth0 NO CARRIER, sw1:sw1-p1 DOWN",
        "  neighbour a: no answer from 10.0.0.9",
        "  counters  a: Ip InNoRoutes 3",
        "  counters  sw1: sw1-p1 rx_dropped 1",
        "1 files in kept/x",
        "begin with kept/x/reproduce.md",
    ]
    made.lab["processes"].extend(  # type: ignore[attr-defined]
        {"where": "a", "argv": ["x"], "ending": "ended with 1", "status": 1, "stdout": "no\n" * 9, "stderr": ""}
        for _ in range(50)
    )
    lines = summary("kept/x", ["lab.json"], [made]).splitlines()
    assert len(lines) == MOST_LINES
    assert lines[-1] == "begin with kept/x/reproduce.md"


def test_facts_are_read_from_artifacts() -> None:
    made = facts()
    artifacts = [Artifact("lab.json", json.dumps(made.lab)), Artifact("a/state.json", json.dumps(made.state["a"]))]
    found = read_facts([*artifacts, Artifact("a/routes.txt", "x")])
    assert found is not None
    assert found.kinds == {"a": "host", "r1": "router", "sw1": "bridge", "sw2": "ovs"}
    assert [wire.state for wire in found.wires] == ["", "", ""]
    assert read_facts([Artifact("x.txt", "")]) is None


def test_folders_never_meet(tmp_path: Path) -> None:
    one, two = (EvidenceFolder(tmp_path / "kept", "tests/test_x.py::test_y[a/b-*]") for _ in range(2))
    assert one.path.name == "tests-test_x.py-test_y[a-b--]"
    assert two.path.name == "tests-test_x.py-test_y[a-b--].2"
    two.discard()
    assert not (tmp_path / "kept" / "tests-test_x.py-test_y[a-b--].2").exists()
    folder, text = one.write("call", [], [Artifact("../../etc/passwd", "x"), Artifact("deep/down.bin", b"\0")])
    one.discard()
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        f"kept/{one.path.name}/call/{name}" for name in ("unnamed/unnamed/etc/passwd", "deep/down.bin", "reproduce.md")
    }
    assert "3 files" in text
    assert folder == one.path / "call"


def test_two_labs_have_a_folder_each(tmp_path: Path) -> None:
    labs = [[Artifact("lab.json", json.dumps({**facts().lab, "name": name}))] for name in ("one", "two")]
    folder, _ = EvidenceFolder(tmp_path, "test_x").write("call", labs)
    assert {path.name for path in folder.iterdir()} == {"one-1", "two-2", "reproduce.md"}
    assert (folder / "two-2" / "topology.svg").exists()


def test_names_of_any_length_can_be_files() -> None:
    assert len(slug("x" * 500)) == 100
    assert slug("//..") == "unnamed"


def test_errors_carry_what_was_taken_first() -> None:
    inner, outer = ValueError("no"), StartFailed("not made")
    outer.__cause__ = inner
    attach(inner, [Artifact("a.txt", "while it was up")])
    attach(outer, [Artifact("a.txt", "later"), Artifact("b.txt", "b")])
    assert {item.name: item.content for item in attached(outer)} == {"a.txt": "while it was up", "b.txt": "b"}
    assert attached(None) == []
    inner.__context__ = outer  # a circle ends
    assert len(attached(outer)) == 2


def test_a_diagnosis_that_fails_does_not_hide_the_error() -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield Artifact("a.txt", "a")
        raise OSError(5, "gone")

    error = ValueError("the real one")
    attach(error, broken())
    assert [item.name for item in attached(error)] == ["a.txt", "diagnosis-failed.txt"]


@pytest.mark.parametrize(
    ("error", "says"), [(ValueError(), True), (BadInput(""), False), (KeyboardInterrupt(), False), (None, False)]
)
def test_which_errors_the_state_of_things_explains(error: BaseException | None, says: bool) -> None:
    assert says_something(error) is says


def test_counters() -> None:
    assert changed({"a": 1, "b": 2}, {"a": 1, "b": 5, "c": 3}) == {"b": 3, "c": 3}
    assert losses({"eth0 rx_packets": 3, "eth0 rx_dropped": 1, "IpExt IPReversePathFilter": 2}) == {
        "eth0 rx_dropped": 1,
        "IpExt IPReversePathFilter": 2,
    }


def test_a_job_summary_that_is_too_long_is_refused_by_us_and_not_by_github(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    append(str(file), "x" * 1000)
    append(str(file), "y" * (1 << 20))
    assert file.read_text() == "x" * 1000 + "\n\nThe rest is too long for this page.\n"
    other = tmp_path / "other.md"
    append(str(other), "a row\n" * (1 << 18))
    assert other.stat().st_size <= 1 << 20
    assert other.read_text().startswith("a row\na row\n")
    assert job_summary([], []) == ""
    assert "<code>a&lt;b&gt;</code>" in job_summary([Failure("a<b>", "why", "kept")], [])


def test_the_summary_does_a_terminal_no_harm() -> None:
    lab = facts()
    ran = {"where": "a", "argv": ["x"], "ending": "ended with 1", "status": 1, "stderr": ""}
    lab.lab["processes"] = [{**ran, "stdout": "\x1b[2J" + "y" * 100_000}]  # type: ignore[index]
    text = summary("folder", ["lab.json"], [lab])
    assert "\x1b" not in text
    assert r"\x1b[2Jyyy" in text
    assert max(map(len, text.splitlines())) <= 201


def test_the_summary_says_what_is_missing() -> None:
    text = summary("folder", ["lab.json", "b/diagnosis-failed.txt"], [facts()], {"lab.json": OSError(28, "No space")})
    assert "  not taken b/: see b/diagnosis-failed.txt" in text
    assert "1 files in folder\n1 could not be written, such as lab.json: [Errno 28] No space" in text


def test_what_is_in_the_way_of_a_file_costs_that_file_only(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path, "test_x")
    parts = [Artifact("lab.json/routes.txt", "r"), Artifact("lab.json", "{}"), Artifact("b/routes.txt", "r")]
    _, text = folder.write("call", [], parts)
    assert "1 could not be written, such as lab.json: " in text
    assert (folder.path / "call/b/routes.txt").read_text("utf-8") == "r"


def test_only_the_facts_of_labs_are_read_as_such() -> None:
    parts = [Artifact("a/other.json", "no JSON"), Artifact("lab.json", json.dumps(facts().lab))]
    assert read_facts(parts) is not None


def test_a_cell_of_the_job_summary_is_only_text() -> None:
    text = job_summary([], [(("![x](http://evil/x.png)", "@everyone", "<b>`a|b`"), 1)])
    row = next(line for line in text.splitlines() if "evil" in line)
    assert not set("![]()@<>`") & set(row)
    assert "![x](http://evil/x.png) | @everyone | <b>`a|b`" in html.unescape(row)


def test_every_failure_has_its_cause_in_the_job_summary_also_without_evidence() -> None:
    failed = Failure("test_x (call)", "a cannot reach b: rule 3 drops it")
    assert "| test_x &#40;call&#41; | a cannot reach b&#58; rule 3 drops it |" in job_summary([failed], [])
    assert cause_line(CheckFailed("a is not b\n  measured   x\n  cause      y\n             z"), "") == "a is not b: y"
    assert cause_line(ValueError(), "") == "ValueError"
    assert cause_line(None, "long\n[XPASS(strict)] no more") == "[XPASS(strict)] no more"
    assert len(cause_line(ValueError("x" * 1000), "")) == 301


def test_a_command_with_a_fence_ends_none() -> None:
    lab = facts()
    lab.lab["commands"] = [{"where": "a", "line": "echo '```'"}]  # type: ignore[index]
    text = reproduce("test_x", "call", [lab])
    assert "````sh\nip netns exec a echo '```'\n````\n" in text
