"""Which setting keeps a user from a user namespace, and what cures it."""

from __future__ import annotations

import pytest

from pytest_infra.core import userns
from pytest_infra.core.requirement import PRIVILEGE, USERNS_REFUSED, Absent


@pytest.mark.parametrize(
    ("path", "value", "setting", "cure"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=10000"),
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "kernel.unprivileged_userns_clone is 0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_the_setting_is_named(path: str, value: str, setting: str, cure: str) -> None:
    error = userns.obstacle("unshare: Operation not permitted", {path: value}.get)
    assert error.what == "privilege"
    assert error.why == f"no user namespace for ordinary users: {setting}"
    assert error.remedy.startswith(f"{cure}, or run as root: sudo ")


def test_a_seccomp_filter_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "_has_seccomp_filter", lambda: True)
    error = userns.obstacle("unshare: Operation not permitted", {}.get)
    assert "seccomp filter" in error.why
    assert "--privileged" in error.remedy


def test_otherwise_the_system_calls_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "_has_seccomp_filter", lambda: False)
    error = userns.obstacle("unshare: No space left on device", {}.get)
    assert error.why == "no user namespace: unshare: No space left on device"
    assert error.remedy.startswith("run as root: sudo ")


def test_a_refusal_is_what_privilege_then_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_infra.core.requirement.has_capability", lambda _: False)
    monkeypatch.delenv(USERNS_REFUSED, raising=False)
    assert "CAP_SYS_ADMIN" in getattr(PRIVILEGE.probe(), "why", "")
    monkeypatch.setenv(USERNS_REFUSED, "")
    userns.refuse(userns.obstacle("x", {"user/max_user_namespaces": "0"}.get))
    found = PRIVILEGE.probe()
    assert isinstance(found, Absent)
    assert found.why == "no user namespace for ordinary users: user.max_user_namespaces is 0"
    assert found.remedy.startswith("sysctl -w ")
