"""What was probably meant by an option or a fixture that is not there, where it is like one of ours."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import pytest

__all__ = ["Spelling", "check_options"]

_PREFIX = "--infra"


def check_options(parser: pytest.Parser, words: list[str]) -> None:
    """Refuse an option that begins like ours and is nobody's, before pytest does it without a hint.

    Raises:
        pytest.UsageError: there is one.
    """
    words = words[: words.index("--")] if "--" in words else words
    if not any(word.startswith(_PREFIX) for word in words):
        return
    known, unknown = parser.parse_known_and_unknown_args(words)
    for word in unknown:
        if word.startswith(_PREFIX):
            from ..core.suggest import did_you_mean

            ours = [f"--{name.replace('_', '-')}" for name in vars(known) if name.startswith("infra_")]
            name = word.partition("=")[0]
            raise pytest.UsageError(f"no option {name}{did_you_mean(name, [_PREFIX, *ours])}")


class Spelling:
    """The hook: a fixture that is not there is told with the one of ours that was probably meant.

    Args:
        fixtures: the names of ours.
    """

    def __init__(self, fixtures: Iterable[str]) -> None:
        self._fixtures = fixtures

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add it to the report of the error."""
        report = yield
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, pytest.FixtureLookupError) and isinstance(error.argname, str):
            from ..core.suggest import did_you_mean

            if hint := did_you_mean(error.argname, self._fixtures):
                report.sections.append(("infra", f"there is no fixture {error.argname!r}{hint}"))
        return report
