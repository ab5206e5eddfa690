"""Conditions of containers that cannot be are refused when they are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_infra import BadInput, ready

BAD: dict[str, Callable[[], Any]] = {
    "no condition at all": ready.any_of,
    "none of them": ready.all_of,
    "what is no condition": lambda: ready.all_of(ready.port(80), "x"),  # type: ignore[arg-type]
    "a line that is seen no time": lambda: ready.log("x", times=0),
    "a line that is no text": lambda: ready.log(5),  # type: ignore[arg-type]
    "a path with a space": lambda: ready.http(80, "/a b\r\nX: y"),
    "a path that is no text": lambda: ready.http(80, 5),  # type: ignore[arg-type]
    "a status as text": lambda: ready.http(80, status="200"),  # type: ignore[arg-type]
    "an exit status above 255": lambda: ready.exited(999),
    "an exit status as text": lambda: ready.exited("x"),  # type: ignore[arg-type]
    "port 0": lambda: ready.port(0),
}


@pytest.mark.parametrize("name", BAD)
def test_a_condition_that_cannot_be(name: str) -> None:
    with pytest.raises(BadInput):
        BAD[name]()
