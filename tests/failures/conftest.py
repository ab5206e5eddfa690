"""A lab for texts: not the plugin's, whose name is the test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_infra.lab import Lab
from pytest_infra.session import Infra

pytest.register_assert_rewrite("breaking")


@pytest.fixture
def lab(session: Infra, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Its name, the module's `LAB`, decides which addresses its nodes get."""
    with session.lab(getattr(request.module, "LAB", "texts")) as started:
        yield started
