"""testinfra's modules on nodes, one after the other: what its own tests look at, where it makes sense for a node.

Left out is what needs an init system, a configuration manager or sudo's set-up (service, ansible, salt, puppet,
supervisor, sudo): a node has none by itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from ipaddress import ip_address
from typing import Any

import pytest

from pytest_infra import Bind, ready

pytestmark = pytest.mark.infra_requires("testinfra")

PASSWD = "root:x:0:0:the superuser:/:/bin/sh\nwww:x:7:8::/www:/bin/sh\n"
SHADOW = "root:!:19000:0:99999:7:::\nwww:!:19000:7:90:7:::\n"
GROUPS = "root:x:0:\nweb:x:8:www\n"


LINKS = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64"}


@pytest.fixture(params=["host", "rootfs", pytest.param("container", marks=pytest.mark.infra_requires("docker"))])
def node(request: pytest.FixtureRequest, lab: Any) -> Any:
    """A node of each kind with a link to another host; the container has this machine's programs, not its users."""
    if request.param == "container":
        files = {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/group": GROUPS}
        image = request.getfixturevalue("infra_image").from_tree(files, name="testinfra", links=LINKS)
        options = {"volumes": {"/usr": Bind("/usr", read_only=True)}, "wait": ready.port(80)}
        made = lab.container(image, ["busybox", "httpd", "-f", "-p", "80"], name="c", **options)
    else:
        made = lab.host("c", **{"host": {}, "rootfs": {"rootfs": "/", "isolate": ["pid", "uts"]}}[request.param])
    lab.link(made, lab.host("peer"), ip="192.168.1.10/24", peer_ip="192.168.1.20/24")
    lab.up()
    return made


@pytest.fixture
def host(node: Any, infra_host: Any) -> Any:
    return infra_host(node)


def test_command(host: Any) -> None:
    assert host.run("true").succeeded
    assert host.run("false").failed
    assert host.run("echo out; echo err >&2; exit 3").stderr == "err\n"
    assert host.check_output("printf ''") == ""
    assert host.run_expect([3], "exit 3").rc == 3
    with pytest.raises(AssertionError):
        host.check_output("false")
    assert host.exists("ls")
    assert not host.exists("no-such-program")


def test_file(host: Any, node: Any, tmp_path: Any) -> None:
    top = "/d" if node.kind == "container" else str(tmp_path)
    host.check_output(f"mkdir -p {top} && printf foo >{top}/f && chmod 600 {top}/f && mkfifo {top}/p")
    host.check_output(f"touch '{top}/f s' && ln -s {top}/f {top}/l && ln {top}/f {top}/h")
    folder, file, link = (host.file(f"{top}{name}") for name in ("", "/f", "/l"))
    assert folder.is_directory
    assert folder != file
    assert sorted(folder.listdir()) == ["f", "f s", "h", "l", "p"]
    assert (file.exists, file.is_file, file.is_directory, file.is_symlink) == (True, True, False, False)
    assert (file.content, file.content_string, file.size, file.mode) == (b"foo", "foo", 3, 0o600)
    assert (file.user, file.uid, file.group, file.gid) == ("root", 0, "root", 0)
    assert file.contains("fo")
    assert file.md5sum == hashlib.md5(b"foo").hexdigest()
    assert file.sha256sum == hashlib.sha256(b"foo").hexdigest()
    assert link.is_symlink
    assert link.linked_to == f"{top}/f"
    assert host.file(f"{top}/h").inode == file.inode
    assert host.file(f"{top}/p").is_pipe
    host.check_output(f"chmod 700 {top}/f")
    assert file.is_executable
    assert not host.file("/no/such/file").exists


def test_interface_and_addr(host: Any) -> None:
    eth0 = host.interface("eth0")
    assert eth0.exists
    assert "192.168.1.10" in eth0.addresses
    assert {ip_address(item).version for item in host.interface("lo").addresses} == {4, 6}
    assert set(host.interface.names()) == {"lo", "eth0"}
    assert not host.interface("eth1").exists
    peer = host.addr("192.168.1.20")
    assert peer.is_resolvable
    assert peer.ipv4_addresses == ["192.168.1.20"]
    assert peer.is_reachable
    assert not host.addr("192.168.1.30").is_reachable


def test_default_route(lab: Any, infra_host: Any) -> None:
    a, router = lab.host("a"), lab.router("r")
    lab.link(a, router)
    lab.link(router, lab.host("b"))
    default = infra_host(a).interface.default()
    assert default.name == "eth0"
    assert default.addresses


def test_process(host: Any, node: Any) -> None:
    child = node.spawn(["sleep", "1000"])
    (found,) = (item for item in host.process.filter(comm="sleep") if item.args == "sleep 1000")
    if node.kind == "container":
        assert host.process.get(pid=1).args == "busybox httpd -f -p 80"
        assert found.user == "root"
    else:
        assert (found.user, found.euid) == ("root", 0)
        assert found.ppid != found.pid
    child.stop()
    assert not [item for item in host.process.filter(comm="sleep") if item.args == "sleep 1000"]


def test_socket(host: Any, node: Any) -> None:
    if node.kind == "container":
        assert host.socket("tcp://80").is_listening
        assert not host.socket("tcp://81").is_listening
        return
    server = node.spawn([sys.executable, "-u", "-m", "http.server", "8000", "--bind", "127.0.0.1"])
    server.wait_for("Serving", within_s=30)
    assert host.socket("tcp://127.0.0.1:8000").is_listening
    assert not host.socket("tcp://0.0.0.0:8000").is_listening
    assert not host.socket("udp://8000").is_listening
    assert host.socket("tcp://127.0.0.1:8000").clients == []
    assert [spec for spec in host.socket.get_listening_sockets() if spec.startswith("tcp")] == ["tcp://127.0.0.1:8000"]
    assert host.addr("127.0.0.1").port(8000).is_reachable
    assert not host.addr("127.0.0.1").port(8001).is_reachable


def test_user_and_group(host: Any, node: Any) -> None:
    root = host.user("root")
    assert (root.exists, root.uid, root.gid, root.group) == (True, 0, 0, "root")
    assert host.user().name == "root"
    assert not host.user("zzzzzzzz").exists
    assert not host.group("zzzzzzzz").exists
    assert host.group("root").gid == 0
    if node.kind == "container":
        www = host.user("www")
        assert (www.uid, www.gid, www.groups, www.home, www.shell) == (7, 8, ["web"], "/www", "/bin/sh")
        assert www.password_max_days == 90
        assert www.password_min_days == 7
        assert set(host.group("root").get_all_groups) == {"root", "web"}
    else:
        assert "nobody" in root.get_all_users
        assert "root" in host.group("root").get_all_groups
        ages = (99999, 0) if os.access("/etc/shadow", os.R_OK) else (None, None)
        assert (root.password_max_days, root.password_min_days) == ages


def test_mount_point(host: Any) -> None:
    root = host.mount_point("/")
    assert root.exists
    assert root.filesystem
    assert isinstance(root.options, list)
    assert host.mount_point("/proc").filesystem == "proc"
    assert not host.mount_point("/no/such/mount").exists
    assert len([item for item in host.mount_point.get_mountpoints() if item.path == "/proc"]) >= 1


def test_environment_and_system(host: Any, node: Any) -> None:
    assert "PATH" in host.environment()
    assert host.system_info.type == "linux"
    if node.kind != "container":
        assert host.system_info.distribution
        assert host.system_info.arch == host.check_output("uname -m")


def test_sysctl(host: Any, node: Any) -> None:
    if node.kind == "container":
        assert host.file("/proc/sys/net/ipv4/ip_forward").content_string == "0\n"
    else:
        assert host.sysctl("net.ipv4.ip_forward") == 0
    assert host.check_output("hostname") == host.file("/proc/sys/kernel/hostname").content_string.strip()


def test_sysctl_is_the_nodes_own(lab: Any, infra_host: Any) -> None:
    router, a = lab.router("r"), lab.host("a")
    lab.link(router, a)
    assert infra_host(router).sysctl("net.ipv4.ip_forward") == 1
    assert infra_host(a).sysctl("net.ipv4.ip_forward") == 0


def test_packages(lab: Any, infra_host: Any) -> None:
    host = infra_host(lab.host("a", rootfs="/"))
    if not host.exists("dpkg-query"):
        pytest.skip("a test of Debian's packages")
    assert host.package("coreutils").is_installed
    assert host.package("coreutils").version[0].isdigit()
    assert not host.package("no-such-package").is_installed


def test_pip(lab: Any, infra_host: Any) -> None:
    pip = shutil.which("pip", path=os.path.dirname(sys.executable)) or shutil.which("pip3")
    if pip is None:
        pytest.skip("a machine with pip")
    host = infra_host(lab.host("a"))
    assert host.pip("pip", pip_path=pip).is_installed
    assert host.pip("pip", pip_path=pip).version[0].isdigit()
    assert not host.pip("no-such-package", pip_path=pip).is_installed


@pytest.mark.infra_requires("iptables")
def test_iptables(lab: Any, infra_host: Any) -> None:
    a, b = infra_host(lab.host("a")), infra_host(lab.host("b"))
    rule = "-A INPUT -p tcp -m tcp --dport 22 -j DROP"
    a.check_output(f"iptables {rule}")
    assert rule in a.iptables.rules()
    assert rule in a.iptables.rules("filter", "INPUT")
    assert rule not in b.iptables.rules()
    assert "-P FORWARD ACCEPT" in a.iptables.rules(version=6)
