"""assert_http against nginx: addresses, names, both families, TLS, methods, waiting; and arguments that cannot be."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from webserver import start_nginx

from pytest_infra import BadInput, CheckFailed, assert_http
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.session import Infra

pytestmark = [pytest.mark.infra_requires("nginx")]

SERVER = """
{listen}
location / {{ return 200 "$request_method $host $http_x_who $request_uri\\n"; }}
location /old {{ return 301 /; }}
location /large {{ root {folder}; }}
"""
CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=web -addext subjectAltName=DNS:web,IP:10.0.0.2"
)
HOSTS = "127.0.0.1 localhost\n10.0.0.2 web  # and its alias\nfd00::2 web six\n"


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Host]:
    client, web = lab.host("client", files={"/etc/hosts": HOSTS}), lab.host("web")
    lab.link(client, web, ip=["10.0.0.1/24", "fd00::1/64"], peer_ip=["10.0.0.2/24", "fd00::2/64"])
    return client, web


@pytest.fixture
def start(pair: tuple[Host, Host], tmp_path: Path) -> Callable[..., Any]:
    def start(listen: str = "listen 80; listen [::]:80;") -> Any:
        return start_nginx(pair[1], tmp_path, SERVER.format(folder=tmp_path, listen=listen))

    return start


def test_a_request_is_answered(pair: tuple[Host, Host], start: Callable[..., Any], tmp_path: Path) -> None:
    client, _ = pair
    start()
    report = assert_http(client, "http://10.0.0.2/a?b=c", contains="GET 10.0.0.2", within="10 s")
    assert (report.answered.status, report.answered.text) == (200, "GET 10.0.0.2  /a?b=c\n")
    assert report.answered.headers["server"].startswith("nginx")
    assert report.server == "web"
    assert report.explain().startswith("client: GET http://10.0.0.2/a?b=c is answered with 200 OK in ")
    assert_http(client, "http://[fd00::2]/", contains="[fd00::2]")
    assert assert_http(client, "http://web/").address == "10.0.0.2"
    assert assert_http(client, "http://WEB/", family="ipv6").address == "fd00::2"
    assert assert_http(client, "http://six/", contains="six").address == "fd00::2"
    assert_http(client, "http://web/old", status=301)
    assert_http(client, "http://web/", method="POST", body="x" * 10, headers={"X-Who": "me"}, contains="POST web me")
    assert assert_http(client, "http://web/", method="HEAD").answered.text == ""
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    assert len(assert_http(client, "http://web/large").answered.text) == 1 << 20


def test_a_server_that_comes_later_is_waited_for(pair: tuple[Host, Host], start: Callable[..., Any]) -> None:
    client, _ = pair
    with pytest.raises(CheckFailed, match="gets no connection: connection refused"):
        assert_http(client, "http://web/", within="50 ms")
    timer = threading.Timer(0.2, start)
    timer.start()
    assert_http(client, "http://web/", within="20 s")
    timer.join()


def test_tls(pair: tuple[Host, Host], start: Callable[..., Any], tmp_path: Path) -> None:
    client, _ = pair
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [*CERTIFICATE.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    start(f"listen 443 ssl; ssl_certificate {certificate}; ssl_certificate_key {key};")
    assert_http(client, "https://web/", ca=str(certificate), within="10 s")
    assert_http(client, "https://10.0.0.2/", ca=str(certificate))
    with pytest.raises(CheckFailed, match="gets no TLS session"):
        assert_http(client, "https://web/")  # nobody vouches for it
    with pytest.raises(CheckFailed, match="400 Bad Request"):
        assert_http(client, "http://web:443/")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "10.0.0.2"}, "one such as 'http://"),
        ({"url": "ftp://web/"}, "one such as 'http://"),
        ({"url": "http://"}, "one such as 'http://"),
        ({"url": "http://me:secret@web/"}, "one such as 'http://"),
        ({"url": "http://web:99999/"}, "Port out of range"),
        ({"url": "http://web/a b"}, "other than printable ASCII"),
        ({"url": "http://web/\u00e9"}, "other than printable ASCII"),
        ({"url": 5}, "url 5 cannot be used; text is wanted"),
        ({"method": "get"}, "a word in capitals"),
        ({"headers": {"a b": "c"}}, "a name has letters"),
        ({"headers": {"a": "b\r\nc: d"}}, "text of one line"),
        ({"headers": ["a"]}, "a dict of names and values"),
        ({"status": 42}, "from 100 to 599"),
        ({"status": []}, "from 100 to 599"),
        ({"status": True}, "from 100 to 599"),
        ({"url": "http://10.0.0.2/", "family": "ipv6"}, "no address of the family 'ipv6'"),
        ({"family": "ipx"}, "'ipv4', 'ipv6' and None"),
        ({"timeout": 0}, "a duration above 0"),
        ({"ca": "/no/such/file"}, "a file of certificates"),
        ({"body": 5}, "text or bytes"),
        ({"contains": 5}, "contains 5 cannot be used"),
    ],
)
def test_arguments_that_cannot_be(pair: tuple[Host, Host], options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        assert_http(pair[0], **{"url": "http://web/", **options})
