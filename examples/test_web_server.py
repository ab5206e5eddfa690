"""nginx in one host, curl in another: somebody else's software on a lab of one's own."""

import pytest

from pytest_infra import CheckFailed, CommandFailed, assert_reachable

CONFIG = """
user root;
daemon off;
pid "{folder}/nginx.pid";
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    server {{
        listen {listen};
        location / {{ return 200 "hello from $hostname\\n"; }}
    }}
}}
"""


@pytest.fixture
def shop(lab):
    server, client, switch = lab.host("server"), lab.host("client"), lab.bridge()
    lab.link(server, switch, ip="192.168.1.10/24")
    lab.link(client, switch, ip="192.168.1.20/24")
    return server, client


@pytest.fixture
def serve(shop, tmp_path):
    """Start nginx on an address; it ends with the lab."""

    def start(listen):
        config = tmp_path / "nginx.conf"
        config.write_text(CONFIG.format(folder=tmp_path, listen=listen))
        return shop[0].spawn(["nginx", "-c", config, "-e", "stderr"])

    return start


@pytest.mark.infra_requires("nginx", "curl")
def test_curl_gets_the_page(shop, serve):
    server, client = shop
    serve("80")
    assert_reachable(client, server, protocol="tcp", port=80, within="5 s")
    done = client.run(["curl", "--silent", "--fail", "http://192.168.1.10/"])
    assert done.stdout.startswith("hello from")


@pytest.mark.infra_requires("nginx", "curl")
def test_a_server_on_loopback_only_is_named(shop, serve):
    server, client = shop
    nginx = serve("127.0.0.1:80")
    assert_reachable(server, "127.0.0.1", protocol="tcp", port=80, within="5 s")
    with pytest.raises(CheckFailed, match="loopback"):
        assert_reachable(client, server, protocol="tcp", port=80)
    assert nginx.running


@pytest.mark.infra_requires("curl")
def test_without_a_server_the_port_is_closed(shop):
    server, client = shop
    with pytest.raises(CheckFailed, match="closed"):
        assert_reachable(client, server, protocol="tcp", port=80)
    with pytest.raises(CommandFailed, match="exit status 7"):
        client.run(["curl", "--silent", "--show-error", "http://192.168.1.10/"])
