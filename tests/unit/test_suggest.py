"""A name that is not there is told with those that are, and with the one that was probably meant."""

from __future__ import annotations

import pickle

import pytest

from pytest_infra.core.suggest import Named, did_you_mean, not_among


def test_what_was_meant() -> None:
    assert did_you_mean("alcie", ["bob", "alice"]) == "; did you mean 'alice'?"
    assert did_you_mean("zzz", ["bob", "alice"]) == ""


def test_what_there_is() -> None:
    assert not_among(["bob", "alice"], "alcie") == "'alcie'; did you mean 'alice'? There are bob, alice"
    assert not_among(["bob"], "x", "y") == "'x', 'y'; there are bob"
    assert not_among([], "x") == "'x'; there are none"


def test_names() -> None:
    nodes: Named[int] = Named("the lab office")
    with pytest.raises(KeyError, match=r"the lab office has no 'a'; there are none"):
        nodes["a"]
    nodes["alice"] = 1
    with pytest.raises(KeyError, match=r"the lab office has no 'alcie'; did you mean 'alice'\? There are alice"):
        nodes["alcie"]
    assert nodes.get("alcie") is None
    assert "alcie" not in nodes
    assert pickle.loads(pickle.dumps(nodes)) == {"alice": 1}
