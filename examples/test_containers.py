"""Containers on a lab switch next to hosts: nginx behind haproxy, a client, limits; and what a container is made of."""

from pathlib import Path

import pytest

from pytest_infra import (
    CheckFailed,
    StartFailed,
    Tmpfs,
    assert_accounted,
    assert_oom_killed,
    assert_reachable,
    measure_usage,
    ready,
)

pytestmark = pytest.mark.infra_requires("docker")

NGINX = """
daemon off;
user root;
error_log stderr;
events {}
http {
    access_log /dev/stdout;
    server { listen 80; location / { return 200 "hello from $hostname\\n"; } }
}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend web
    bind :80
    default_backend servers
backend servers
    balance roundrobin
    server one 192.168.1.11:80
    server two 192.168.1.12:80
"""


@pytest.fixture(scope="session")
def busybox(infra_image):
    return infra_image.scratch(["busybox"], files={"/www/index.html": "hello\n"})


@pytest.fixture(scope="session")
def nginx(infra_image):
    files = {"/etc/nginx.conf": NGINX, "/etc/passwd": "root:x:0:0::/:\n", "/etc/group": "root:x:0:\n"}
    return infra_image.scratch(["nginx"], files=files, cmd=["nginx", "-c", "/etc/nginx.conf"])


@pytest.fixture(scope="session")
def haproxy(infra_image):
    return infra_image.scratch(["haproxy"], files={"/haproxy.cfg": HAPROXY}, cmd=["haproxy", "-f", "/haproxy.cfg"])


@pytest.mark.infra_requires("nginx", "haproxy", "curl")
def test_nginx_behind_haproxy(lab, nginx, haproxy):
    switch, client = lab.bridge(), lab.host("client")
    scratch = {"/var/lib/nginx": Tmpfs(), "/var/log/nginx": Tmpfs(), "/run": Tmpfs()}
    servers = []
    for name, ip in (("one", "192.168.1.11/24"), ("two", "192.168.1.12/24")):
        limits = {"memory": "64 MiB", "pids": 32, "cpus": 0.5}
        servers.append(lab.container(nginx, name=name, volumes=scratch, wait=ready.http(80), **limits))
        lab.link(servers[-1], switch, ip=ip)
    front = lab.container(haproxy, name="front", wait=ready.http(80))
    lab.link(front, switch, ip="192.168.1.10/24")
    lab.link(client, switch, ip="192.168.1.20/24")
    assert_reachable(client, front, protocol="tcp", port=80)
    before = [measure_usage(server) for server in servers]
    answers = {client.run(["curl", "-sf", "http://192.168.1.10/"]).stdout for _ in range(4)}
    assert answers == {"hello from one\n", "hello from two\n"}
    for server, earlier in zip(servers, before, strict=True):
        used = measure_usage(server, since=earlier)
        assert used.memory_max_bytes == 64 << 20
        assert used.memory_peak_bytes < 64 << 20
        assert 0 < used.cpu_s < 0.1, "a request is no work"
        assert used.oom_kills == 0


def test_a_worker_that_needs_too_much_memory(lab, busybox):
    lab.container(busybox, ["tail", "/dev/zero"], name="worker", memory="16 MiB", wait=ready.exited(0))
    with pytest.raises(StartFailed, match=r"(?s)out of memory.*raise memory="):
        lab.up()


def test_a_job_in_a_container_that_is_killed_for_its_memory(infra_container, busybox):
    """The container goes on: only the job that went too far has ended."""
    node = infra_container(busybox, ["sleep", "1000"], memory="16 MiB")
    assert not node.run(["tail", "/dev/zero"], check=False).ok
    assert_oom_killed(node)
    assert node.state.running
    with pytest.raises(CheckFailed, match="no process was killed for want of memory"):
        assert_oom_killed(infra_container(busybox, ["sleep", "1000"], memory="16 MiB"), within="50 ms")


def test_a_container_pays_for_each_process(infra_container, busybox):
    node = infra_container(busybox, ["sleep", "1000"])
    jobs = " & ".join(["sleep 0.2"] * 20)
    node.run(["sh", "-c", f"{jobs} & wait"])
    assert_accounted(node, pids_peak=20 + 1 + 1)  # the jobs, their shell, and the container's first process
    with pytest.raises(CheckFailed, match="peak processes 22"):
        assert_accounted(node, pids_peak=20)


def test_a_closed_port_of_a_container_is_named(lab, busybox):
    web, a = lab.container(busybox, ["httpd", "-f", "-p", "80"], name="web", wait=ready.port(80)), lab.host("a")
    lab.link(web, a)
    assert_reachable(a, web, protocol="tcp", port=80)
    with pytest.raises(CheckFailed, match="nothing listens on TCP port 8080 of web"):
        assert_reachable(a, web, protocol="tcp", port=8080)


def test_a_commit_is_a_layer(infra_container, infra_image):
    base = infra_image.scratch(["busybox"], files={"/data": "base"})
    node = infra_container(base, ["sleep", "1000"])
    node.run(["sh", "-c", "echo -n layer >/data"])
    layered = node.commit("layered")
    assert layered.layers[:-1] == base.layers
    assert [step.comment for step in layered.history if step.comment][:1] != []
    upper = infra_container(layered, ["cat", "/data"], wait=ready.exited())
    lower = infra_container(base, ["cat", "/data"], wait=ready.exited())
    assert (upper.logs(), lower.logs()) == ("layer", "base")


def test_two_services_reached_through_published_ports(lab, infra_container, busybox):
    httpd = ["httpd", "-f", "-p", "80", "-h", "/www"]
    services = [infra_container(busybox, httpd, network="bridge", ports=[80], wait=ready.port(80)) for _ in range(2)]
    outside = lab.docker_host()
    for service in services:
        assert_reachable(outside, "127.0.0.1", protocol="tcp", port=service.published(80))
    assert services[0].published(80) != services[1].published(80)


def test_a_log_does_not_fill_the_disk(infra_container, busybox):
    chatty = ["sh", "-c", "yes a long line that says nothing | head -n 50000"]
    node = infra_container(busybox, chatty, log_limit="200 kB", wait=ready.exited())
    assert 0 < len(node.logs()) < 200_000


@pytest.mark.infra_requires("testinfra")
def test_what_is_in_it(infra_container, infra_host, busybox):
    host = infra_host(infra_container(busybox, ["httpd", "-f", "-p", "80"], wait=ready.port(80)))
    assert host.file("/www/index.html").content_string == "hello\n"
    assert not host.file(str(Path(__file__))).exists
