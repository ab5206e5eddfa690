"""What surrounds a test must not change what its lab does: the machine's settings, the present folder, the caller."""

from __future__ import annotations

import pytest

from pytest_infra.core.errors import BadInput, CommandFailed, StartFailed
from pytest_infra.net import namespace


def test_what_the_machine_forwards_is_nothing_to_a_host(lab, monkeypatch):
    # A new namespace has the machine's ip_forward and rp_filter, and those are not ours to change: so see them written.
    written = {}
    write = namespace.write_sysctl

    def note(name, value):
        written.setdefault(name, []).append(value)
        write(name, value)

    monkeypatch.setattr(namespace, "write_sysctl", note)
    a, r = lab.host("a"), lab.router("r")
    lab.up()
    assert sorted(written["net.ipv4.ip_forward"]) == ["0", "1"]
    for host in (a, r):
        assert {host.sysctl[f"net.ipv4.conf.{kind}.rp_filter"] for kind in ("all", "default", "lo")} == {"0"}
    assert written["net.ipv4.conf.all.rp_filter"] == written["net.ipv4.conf.default.rp_filter"] == ["0", "0"]


@pytest.mark.parametrize("isolate", [[], ["mount"]])
def test_a_relative_folder_is_the_present_one_of_the_test(lab, monkeypatch, tmp_path, isolate):
    a = lab.host("a", isolate=isolate)
    a.run(["true"])
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    assert a.run(["pwd"], cwd="below").stdout.strip() == str(tmp_path / "below")


def test_a_present_folder_that_is_gone(lab, monkeypatch, tmp_path):
    a = lab.host("a")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(BadInput, match="the present folder is gone; name an absolute one with cwd="):
        a.run(["true"])
    assert a.run(["pwd"], cwd="/").stdout == "/\n"
    assert lab.host("b", isolate=["mount"]).run(["pwd"], cwd="/").stdout == "/\n"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_link_comes_up_again_where_ipv6_was_turned_off(lab, family):
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    link = lab.link(a, r)
    lab.link(r, b)
    a.sysctl["net.ipv6.conf.all.disable_ipv6"] = "1"
    link.down()
    link.up()
    assert {route.destination.version for route in a.routes} == {4}
    assert a.run(["cat", f"/proc/net/{'route' if family == 'ipv4' else 'if_inet6'}"]).stdout.count("eth0") == (
        2 if family == "ipv4" else 0
    )


def test_settings_as_a_mapping(netns):
    settings = dict(netns.sysctl)
    assert settings["net.ipv4.ip_forward"] == "0"
    assert "net.ipv4.route.flush" not in settings  # it can only be written
    for name in ("net.ipv4.conf", "net.", "net.ipv4.no_such_thing"):
        assert name not in netns.sysctl
        with pytest.raises(KeyError, match="h1 has no setting"):
            netns.sysctl[name] = "1"
    with pytest.raises(BadInput, match=r"h1 does not tell net.ipv4.route.flush: "):
        netns.sysctl["net.ipv4.route.flush"]
    for name in (5, "net.\0"):
        with pytest.raises(BadInput, match="is no setting of h1's network namespace"):
            netns.sysctl[name]


def test_settings_of_an_interface_with_a_dot(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, name="eth0.5")
    assert a.sysctl["net/ipv4/conf/eth0.5/forwarding"] == "0"
    assert "net/ipv4/conf/eth0.5/forwarding" in list(a.sysctl)


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"NAME": "nul \0"}},
        {"env": {"NA=ME": "x"}},
        {"cwd": "/\0"},
        {"argv": ["echo", "\ud800"]},
    ],
)
def test_what_no_program_can_be_given(netns, options):
    with pytest.raises(BadInput, match="cannot be given these arguments, variables and folder: "):
        netns.run(**{"argv": ["true"], **options})


@pytest.mark.parametrize("timeout_s", ["5", None, -1, 0, float("nan"), True])
def test_time_limits_that_are_none(netns, timeout_s):
    with pytest.raises(BadInput, match="cannot be used; a number of seconds above 0 is wanted"):
        netns.run(["true"], timeout_s=timeout_s)


def test_no_time_limit(netns):
    assert netns.run(["sleep", "0.05"], timeout_s=float("inf")).ok


def test_a_long_command_does_not_flood_the_message(netns):
    with pytest.raises(CommandFailed) as caught:
        netns.run(["sh", "-c", "exit 3", "x" * 50_000])
    assert "exit status 3" in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_a_lab_that_has_ended_cannot_begin_again(infra):
    with infra.lab("once") as lab:
        lab.host("a").run(["true"])
    with pytest.raises(StartFailed, match="the lab once has ended, and cannot be used again; make another one"):
        lab.start()
    assert not lab.started


@pytest.mark.parametrize("name", [5, b"x", "a\nb", "a\0b", "\udc80"])
def test_lab_names_that_are_no_text(infra, name):
    with pytest.raises(BadInput, match=r"lab name .* cannot be used: printable text is wanted"):
        infra.lab(name)


def test_what_a_fixture_declared_is_said_to_be_the_fixtures(netns, lab):
    with pytest.raises(BadInput, match=r"\(declared at the fixture netns\)$"):
        lab.host(netns.name)
