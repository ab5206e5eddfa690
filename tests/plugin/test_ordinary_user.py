"""Without root: the plugin moves pytest into a user namespace, and everything else stays as usual."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pytest_infra.vm.kernel import KERNEL, find_kernel

SUITE = """
    import os, subprocess, sys
    import pytest

    @pytest.mark.parametrize("make", ["bridge", "ovs"])
    def test_two_hosts(lab, make):
        a, b, switch = lab.host("a"), lab.host("b"), getattr(lab, make)("sw1")
        lab.link(a, switch, ip="192.168.1.10/24")
        lab.link(b, switch, ip="192.168.1.20/24")
        assert a.interfaces["eth0"].carrier
        with b.spawn([sys.executable, "-m", "http.server", "--bind", "192.168.1.20", "8000"]) as server:
            fetch = "import socket; socket.create_connection(('192.168.1.20', 8000), 5)"
            for _ in range(50):
                if a.run([sys.executable, "-c", fetch], check=False).ok:
                    break
            else:
                raise AssertionError(server.stderr)

    def test_shell(lab):
        lab.host("a")
        lab.up()
        argv = [sys.executable, "-m", "pytest_infra", "shell", "test_shell", "a", "--", "cat", "/proc/net/dev"]
        done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "HOME": "/"})
        assert done.returncode == 0, done.stderr
        assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]] == ["lo"]

    def test_bad(infra):
        raise AssertionError("wanted")

    def test_file(tmp_path):
        (tmp_path / "x").write_text("mine")
        open("made-by-the-test", "w").close()
"""


def write(user: Any, name: str, text: str) -> None:
    (user.folder / name).write_text(textwrap.dedent(text))


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_everything_is_as_usual(ordinary_user: Any, workers: tuple[str, ...]) -> None:
    write(ordinary_user, "test_suite.py", SUITE)
    arguments = ["--infra", "--junitxml=junit.xml", "--basetemp=tmp", "--cov=.", "--cov-report=xml", *workers]
    result = ordinary_user.pytest(*arguments)
    assert "4 passed" in result.stdout, result.stdout + result.stderr
    assert "1 failed" in result.stdout
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "infra: user namespace, kernel " in result.stdout
    assert "E       AssertionError: wanted" in result.stdout
    owners = {path.name: path.stat().st_uid for path in ordinary_user.folder.rglob("*")}
    assert {"junit.xml", "coverage.xml", ".coverage", "lastfailed", "made-by-the-test", "x"} <= owners.keys()
    assert set(owners.values()) == {ordinary_user.folder.stat().st_uid}
    again = ordinary_user.pytest("--infra", "--lf", *workers)
    assert "1 failed" in again.stdout
    assert "passed" not in again.stdout


def test_a_process_with_threads_is_started_again_inside(ordinary_user: Any) -> None:
    write(
        ordinary_user,
        "early.py",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    )
    write(ordinary_user, "test_it.py", "def test_it(netns): assert list(netns.interfaces) == ['lo']")
    env = f"PYTHONPATH={ordinary_user.folder}"
    result = ordinary_user.run("env", env, sys.executable, "-m", "pytest", "-p", "early", "--infra", "-q")
    assert result.stdout.count("1 passed") == 1, result.stdout + result.stderr
    assert result.returncode == 0


def test_where_user_namespaces_are_off_the_setting_is_named(ordinary_user: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("the setting can be changed by root only")
    write(ordinary_user, "test_it.py", "def test_it(lab): pass")
    # user.max_user_namespaces belongs to each user namespace: one in which it is 0, and all users exist
    inside = ordinary_user.argv(
        [sys.executable, "-m", "pytest", "--infra", "-n2"], "echo 0 >/proc/sys/user/max_user_namespaces"
    )
    result = ordinary_user.in_user_namespace(inside)
    assert "1 skipped" in result.stdout, result.stdout + result.stderr
    assert "infra: no privilege, kernel " in result.stdout
    assert (
        "infra: 1 test skipped: privilege (no user namespace for ordinary users: user.max_user_namespaces is 0; "
        "sysctl -w user.max_user_namespaces=10000, or run as root: sudo "
    ) in result.stdout


def test_a_user_who_is_nobody_in_the_password_file_and_has_no_name(ordinary_user: Any) -> None:
    write(ordinary_user, "test_it.py", "def test_it(netns, tmp_path): assert tmp_path.exists()")
    result = ordinary_user.run("env", "-u", "USER", "-u", "LOGNAME", sys.executable, "-m", "pytest", "--infra")
    assert "1 passed" in result.stdout, result.stdout + result.stderr


def test_the_doctor_looks_from_inside_the_user_namespace(ordinary_user: Any) -> None:
    result = ordinary_user.run(sys.executable, "-m", "pytest_infra", "doctor")
    assert any(line.split() == ["privilege", "present", "user", "namespace"] for line in result.stdout.splitlines()), (
        result.stdout + result.stderr
    )


def test_nothing_is_left_behind(ordinary_user: Any) -> None:
    write(
        ordinary_user,
        "test_it.py",
        "import os\ndef test_it(lab):\n    lab.host().run(['true'])\n    os.kill(os.getpid(), 9)",
    )
    result = ordinary_user.pytest("--infra")
    assert result.returncode in (-9, 137)
    from pytest_infra.core.wait import until

    uid = ordinary_user.folder.stat().st_uid
    until(
        lambda: not os.path.exists(f"/tmp/pytest-infra-{uid}"),
        within_s=5,
        what="clean-up after the death of a user's pytest",
    )


def test_control_groups_that_nobody_delegated_are_a_skip_that_says_so(ordinary_user: Any) -> None:
    write(ordinary_user, "test_it.py", "def test_it(infra_cgroup): infra_cgroup(memory_max='64 MiB')")
    result = ordinary_user.pytest("--infra")
    assert "1 skipped" in result.stdout, result.stdout + result.stderr
    assert "infra: 1 test skipped: cgroup (a user namespace may make no group in " in result.stdout
    assert "it was not delegated; run it as root, or in a delegated group: systemd-run --user" in result.stdout


def test_a_kept_lab(ordinary_user: Any) -> None:
    write(ordinary_user, "test_kept.py", """
        def test_kept_by_a_user(lab):
            a, b = lab.host("a"), lab.host("b")
            lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
            b.spawn(["sleep", "3600"])
            raise AssertionError("wanted")
    """)  # fmt: skip
    python = f"{sys.executable} -m"
    script = f"""
        {python} pytest --infra --infra-keep=on-failure -q -p no:cacheprovider
        {python} pytest_infra list
        {python} pytest_infra shell test_kept_by_a_user a -- cat /proc/net/fib_trie
        {python} pytest_infra shell test_kept_by_a_user b -- sh -c 'cat /proc/[0-9]*/cmdline' | tr '\\0' ' '
        {python} pytest_infra clean
        {python} pytest_infra list
        echo the end
    """
    done = ordinary_user.run("sh", "-c", script)
    assert "infra: kept the lab test_kept_by_a_user: pytest-infra shell test_kept_by_a_user a|b" in done.stdout, done
    assert "  lab test_kept_by_a_user: a, b\n" in done.stdout
    assert "10.0.0.1" in done.stdout
    assert "sleep 3600" in done.stdout
    assert done.stdout.endswith("ended the kept lab test_kept_by_a_user\nthe end\n")


GUESTS = """
    import os, platform
    import pytest
    from pytest_infra import Unavailable, assert_reachable

    pytestmark = pytest.mark.timeout(900)

    @pytest.mark.infra
    def test_here_or_there():
        assert platform.release() == os.environ.get("PYTEST_INFRA_GUEST", platform.release())

    def test_a_guest_on_a_switch(lab):
        vm, a, sw1 = lab.vm("vm1"), lab.host("a"), lab.bridge("sw1")
        lab.link(vm, sw1)
        lab.link(a, sw1)
        assert_reachable(a, vm, within="60 s")
        assert vm.run(["id", "-u"]).stdout == "0\\n"

    def test_what_needs_root_says_so(lab):
        with pytest.raises(Unavailable, match="KSM"):
            lab.merge_memory()
        with pytest.raises(Unavailable, match="libvirt .*root"):
            lab.libvirt(lab.host("hv"))
"""


def give_kernel(folder: Path) -> str:
    """Put what guests need of a kernel into the user's cache; returns its name."""
    KERNEL.demand()
    kernel = find_kernel()
    tree = folder / ".cache" / "pytest-infra" / "kernels" / kernel.name
    modules = tree / "lib" / "modules" / kernel.name
    (tree / "boot").mkdir(parents=True)
    shutil.copy(kernel.image, tree / "boot" / f"vmlinuz-{kernel.name}")
    (modules / "kernel").mkdir(parents=True)
    shutil.copy(os.path.join(kernel.modules_folder, "modules.builtin"), modules)
    wanted = ("virtio_pci", "virtio_console", "virtio_net", "9p", "9pnet_virtio", "overlay", "af_packet")
    for name, content in kernel.modules.load_order(wanted):
        (modules / "kernel" / f"{name}.ko").write_bytes(content)
    return kernel.name


@pytest.mark.guests
@pytest.mark.timeout(1800)
def test_guests_run_and_tests_run_in_guests(ordinary_user: Any) -> None:
    name = give_kernel(ordinary_user.folder)
    write(ordinary_user, "test_suite.py", GUESTS)
    here = ordinary_user.pytest("--infra", timeout_s=900)
    assert "3 passed" in here.stdout, here.stdout + here.stderr
    there = ordinary_user.pytest("--infra", f"--infra-kernel={name}", "-v", "-k", "here_or_there", timeout_s=900)
    assert f"PASSED test_suite.py::test_here_or_there[{name}]" in there.stdout, there.stdout + there.stderr
