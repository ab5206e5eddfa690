"""PostgreSQL from the distribution's packages, fresh for each test: what a test writes goes to a layer of its own."""

from pathlib import Path

import pytest

from pytest_infra import BadInput, CommandFailed, assert_reachable

pytestmark = pytest.mark.infra_requires("postgresql")

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/bin"))
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]  # it refuses to run as root
DATA = "/srv/cluster"
SERVER = [*AS_POSTGRES, BIN / "postgres", "-D", DATA, "-c", "listen_addresses=*", "-c", "unix_socket_directories="]
PSQL = ["psql", "--host=192.168.1.10", "--username=postgres", "--no-psqlrc", "--tuples-only", "--no-align", "--command"]


@pytest.fixture(scope="session")
def cluster(infra, tmp_path_factory):
    """An empty database, made once (initdb takes a second). A host gets it as a layer, which is never written to."""
    layer = tmp_path_factory.mktemp("layer")
    (layer / "srv").mkdir()
    with infra.lab() as lab:
        lab.host(rootfs="/").run(["true"])  # where that cannot be, nothing is made
        maker = lab.host(isolate=["mount"])
        maker.run(["mount", "--bind", layer / "srv", "/srv"])
        maker.run(["install", "--directory", "--owner=postgres", "--mode=700", DATA])
        initdb = [BIN / "initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D", DATA]
        maker.run([*AS_POSTGRES, *initdb], cwd="/", timeout_s=120)
    with (layer / "srv/cluster/pg_hba.conf").open("a") as file:
        file.write("host all all 192.168.1.0/24 trust\n")
    return layer


@pytest.fixture
def database(lab, cluster):
    """A running server; it ends with the test, and all that was written to it."""
    host = lab.host("database", rootfs="/", layers=[cluster], isolate=["pid", "ipc"])
    lab.link(host, lab.host("client"), ip="192.168.1.10/24", peer_ip="192.168.1.20/24")
    host.spawn(SERVER).wait_for("ready to accept connections", within_s=30)
    return host


@pytest.mark.parametrize("test", ["one", "another"])
def test_each_finds_an_empty_database(lab, database, cluster, test):
    client = lab.nodes["client"]
    assert_reachable(client, database, protocol="tcp", port=5432)
    client.run([*PSQL, "create table seen (by text)"])  # would fail if the other test had left its own
    client.run([*PSQL, f"insert into seen values ('{test}'); checkpoint"])
    assert client.run([*PSQL, "select * from seen"]).stdout == f"{test}\n"
    assert f"{DATA}/pg_wal/000000010000000000000001" in database.changes()
    assert not (cluster / "srv/cluster/postmaster.pid").exists(), "the layer below stays as it is"


def test_without_the_layer_there_is_no_database(lab):
    host = lab.host(rootfs="/")
    with pytest.raises(CommandFailed, match="No such file or directory"):
        host.run(SERVER, timeout_s=10)


def test_a_layer_that_is_not_there_is_refused(lab, tmp_path):
    with pytest.raises(BadInput, match="no folder"):
        lab.host(rootfs="/", layers=[tmp_path / "none"])
