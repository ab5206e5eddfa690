"""The doctor: every requirement is known, and what is missing can be installed."""

from __future__ import annotations

import os
import sys

import pytest

from pytest_infra import doctor
from pytest_infra.cli import main
from pytest_infra.core.requirement import Absent, Command, Present, Requirement

OVS = Command(
    "ovs", packages={"apt": "openvswitch-switch", "dnf": "openvswitch", "pacman": "openvswitch", "apk": "openvswitch"}
)
IP = Command("ip", packages={"apt": "iproute2"})
KERNEL = Requirement("netem")


@pytest.mark.parametrize(
    ("manager", "commands"),
    [
        (
            "apt-get",
            [
                ["apt-get", "update"],
                ["apt-get", "install", "--yes", "--no-install-recommends", "iproute2", "openvswitch-switch"],
            ],
        ),
        ("dnf", [["dnf", "install", "--assumeyes", "openvswitch"]]),
        ("pacman", [["pacman", "-Sy", "--noconfirm", "--needed", "openvswitch"]]),
        ("apk", [["apk", "add", "openvswitch"]]),
    ],
)
@pytest.mark.parametrize("uid", [0, 1000])
def test_install_commands(monkeypatch: pytest.MonkeyPatch, manager: str, commands: list[list[str]], uid: int) -> None:
    monkeypatch.setattr(doctor.os, "geteuid", lambda: uid)
    sudo = [] if uid == 0 else ["sudo"]
    found, rest = doctor.install_commands([OVS, IP, KERNEL], {manager: f"/usr/bin/{manager}"}.get)
    assert found == [[*sudo, *command] for command in commands]
    assert rest == (["netem"] if manager == "apt-get" else ["ip", "netem"])


def test_no_package_manager_and_nothing_to_install() -> None:
    assert doctor.install_commands([OVS], lambda _: None) == ([], ["ovs"])
    assert doctor.install_commands([KERNEL], lambda name: name) == ([], ["netem"])


def test_install_shows_each_command_first_and_stops_at_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [["true", "first"], ["false", "second"], ["true", "third"]]
    monkeypatch.setattr(doctor, "install_commands", lambda _: (commands, ["netem"]))
    said: list[str] = []
    assert doctor.install([OVS], said.append) == 1
    assert said == [
        "no package is known for: netem\n",
        "+ true first\n",
        "+ false second\n",
        "false second: exit status 1\n",
    ]


def test_install_without_sudo_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "install_commands", lambda _: ([["no-sudo-here", "apt-get", "update"]], []))
    said: list[str] = []
    assert doctor.install([OVS], said.append) == 127
    assert said == ["+ no-sudo-here apt-get update\n", "there is no no-sudo-here: run this as root\n"]


def test_what_has_been_installed_is_looked_at_by_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that was loaded while there was no driver would go on saying so."""
    started: list[list[str]] = []

    def execv(program: str, argv: list[str]) -> None:
        started.append(argv)
        raise SystemExit

    monkeypatch.setattr(doctor, "table", lambda _: ([], [OVS]))
    monkeypatch.setattr(doctor, "install", lambda missing, write: 0)
    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(SystemExit):
        main(["doctor", "--install", "--json", "ovs", "ip"])
    assert started == [[sys.executable, "-m", "pytest_infra", "doctor", "--json", "ovs", "ip"]]


class Thing(Requirement):
    """A requirement whose answer the test chooses."""

    found: Present | Absent = Present()

    def probe(self) -> Present | Absent:
        return self.found


def test_table_and_status(monkeypatch: pytest.MonkeyPatch) -> None:
    there, gone, also = Thing("there", purpose="standing on"), Thing("gone"), Thing("gone")
    object.__setattr__(gone, "found", Absent("it left", "call it back"))
    said: list[str] = []
    object.__setattr__(also, "found", Absent("it left too"))
    monkeypatch.setattr(doctor, "requirements", lambda: {"there": (there,), "gone": (there, gone, also)})
    assert doctor.doctor(said.append) == 1
    assert "".join(said) == (
        "there  present  standing on\n"
        "gone   missing  it left; call it back\n"
        "1 of 2 missing; tests that need them are skipped, with this reason\n"
    )
    monkeypatch.setattr(doctor, "requirements", lambda: {"there": (there,)})
    assert doctor.doctor(said.append) == 0


def test_every_requirement_of_the_package_is_known_and_says_what_it_is_for() -> None:
    known = doctor.requirements()
    assert {"linux", "privilege", "ovs"} <= known.keys()
    package = [item for items in known.values() for item in items if type(item).__module__.startswith("pytest_infra")]
    assert [item.name for item in package if not item.purpose] == []
    commands = [item for item in package if isinstance(item, Command)]
    assert [item.name for item in commands if {"apt", "dnf", "pacman", "apk"} - item.packages.keys()] == []
