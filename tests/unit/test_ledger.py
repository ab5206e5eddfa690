"""A ledger that is not as a session writes it stops nobody: neither later sessions, nor list and clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_infra.core.lease import Lease
from pytest_infra.core.sweep import leases, sweep

LEDGERS = {
    "no UTF-8": b"\xff\xfe\n",
    "a list": b"[1]\n",
    "a number": b"5\n",
    "half a line": b'{"entry": 1, "ki',
    "a name for a number": b'{"entry": "a", "kind": "file", "facts": {"path": "/no/such"}}\n',
    "a list as what is done": b'{"done": [1]}\n',
    "no facts": b'{"entry": 1, "kind": "file"}\n',
    "facts of another version": b'{"entry": 1, "kind": "file", "facts": {"x": 1}}\n',
    "a kind of another version": b'{"entry": 1, "kind": "zzz", "facts": {}}\n',
}


@pytest.mark.parametrize("name", LEDGERS)
def test_a_ledger_that_is_odd(tmp_path: Path, name: str) -> None:
    base = tmp_path / "run"
    (base / "dead").mkdir(parents=True)
    (base / "dead" / "ledger").write_bytes(LEDGERS[name])
    assert len(leases([str(base)])) == 1
    swept = sweep([str(base)], within_s=0.05)
    kept = "another version" in name
    assert [bool(one.errors) for one in swept] == [kept]
    assert (base / "dead").exists() == kept, "what may still have to be undone is kept and said"
    with Lease(str(base)):
        pass
