"""Rule sets of nftables (nft(8)) of a node: loaded from text, read as data."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput, CommandFailed
from ..core.requirement import Command
from ..core.text import text_or_file

__all__ = ["NFT", "OwnTables", "Rule", "load_ruleset", "read_rules"]

NFT = Command("nft", purpose="firewalls and address translation", packages={
    "apt": "nftables", "dnf": "nftables", "pacman": "nftables", "apk": "nftables"})  # fmt: skip

_WHERE = re.compile(r"^/dev/stdin:(\d+):(\d+)-(\d+): (?:Error: )?(.*)$", re.MULTILINE)
_MEANINGS = {
    "No such file or directory": "there is no such table, chain, set or object",
    "Operation not supported": "the kernel has nothing of this kind, such as this type of chain at this hook",
}
_FLUSH = re.compile(r"^[^#]*\bflush\s+ruleset\b", re.MULTILINE)
_Run = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """A rule as the kernel has it now."""

    family: str
    table: str
    chain: str
    handle: int
    text: str
    """The rule in the language of nft(8)."""
    packets: int | None = None
    """What its counter has counted; None where it has none."""
    bytes: int | None = None
    comment: str = ""


class OwnTables:
    """The tables that the lab itself has in a node: those of services, faults, uplinks.

    Args:
        run: the `run` of the node.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._contents: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._contents

    def keep(self, name: str, content: str) -> None:
        """Load a table, in the place of one that has this name, and load it again whenever a test flushes all rules.

        Args:
            name: with its family, such as ``inet infra-uplink``.
            content: the whole table in the language of nft(8).
        """
        load_ruleset(self._run, _replacing(name, content))
        self._contents[name] = content

    def drop(self, name: str) -> None:
        """Take a table away; one that is gone already is no error."""
        self._contents.pop(name, None)
        load_ruleset(self._run, _replacing(name, ""))

    def load(self, ruleset: str | os.PathLike[str]) -> None:
        """Load a test's rule set, as `load_ruleset` does; ``flush ruleset`` in it does not take the own tables away."""
        text = text_or_file("rule set", ruleset)
        if self._contents and _FLUSH.search(text):
            load_ruleset(self._run, text, dry=True)  # so that an error is one of its own lines
            text += "\n" + "".join(_replacing(name, content) for name, content in self._contents.items())
        load_ruleset(self._run, text)


def _replacing(name: str, content: str) -> str:
    return f"table {name}\ndelete table {name}\n{content}"


def load_ruleset(run: _Run, ruleset: str | os.PathLike[str], *, dry: bool = False) -> None:
    """Load a rule set, all of it or nothing (``nft -f``).

    Args:
        run: the `run` of a node.
        ruleset: the text, or a path of a file that has it.
        dry: only look whether it could be loaded.

    Raises:
        BadInput: nft does not understand it; the text names the line.
        Unavailable: nft is not installed.
    """
    text = text_or_file("rule set", ruleset)
    try:
        run([NFT.path(), *(["--check"] if dry else []), "-f", "/dev/stdin"], input=text)
    except CommandFailed as error:
        raise BadInput(f"nft refuses the rule set{_explain(text, error.stderr)}") from error


def _explain(text: str, stderr: str) -> str:
    """The first complaint, with the line of the rule set that it is about."""
    lines = text.splitlines()
    if found := _WHERE.search(stderr):
        number, first, last = (int(found[group]) for group in (1, 2, 3))
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        marked = line[first - 1 : last].strip()
        at = f", at {marked!r}" if marked and marked != line.strip() else ""
        meaning = next((text for words, text in _MEANINGS.items() if found[4].endswith(f"process rule: {words}")), "")
        said = f"{found[4]} ({meaning})" if meaning else found[4]
        return (
            f" in line {number}, {line.strip()!r}{at}: {said}"
            if line.strip()
            else f" at its end, line {number}: {said}"
        )
    return f": {stderr.strip()[:500]}"


def read_rules(run: _Run) -> list[Rule]:
    """All rules of a node, in the order in which nft lists them."""
    listing = json.loads(run([NFT.path(), "--json", "list", "ruleset"]).stdout)["nftables"]
    texts = _texts(run([NFT.path(), "--handle", "list", "ruleset"]).stdout)
    return [_rule(item["rule"], texts) for item in listing if "rule" in item]


def _rule(item: Mapping[str, Any], texts: Mapping[tuple[str, str, int], str]) -> Rule:
    counter: dict[str, Any] = next(
        (part["counter"] for part in item.get("expr", []) if isinstance(part.get("counter"), dict)), {}
    )
    handle = int(item["handle"])
    text = texts.get((f"{item['family']} {item['table']}", item["chain"], handle), "")
    return Rule(
        item["family"], item["table"], item["chain"], handle, text,
        counter.get("packets"), counter.get("bytes"), item.get("comment", ""),
    )  # fmt: skip


def _texts(listing: str) -> dict[tuple[str, str, int], str]:
    """The rules of ``nft --handle list ruleset`` by table, chain and handle."""
    found: dict[tuple[str, str, int], str] = {}
    table = chain = ""
    for line in map(str.strip, listing.splitlines()):
        text, _, handle = line.rpartition(" # handle ")
        if line.startswith("table "):
            table = line.removeprefix("table ").partition(" {")[0]
        elif line.startswith("chain "):
            chain = line.split()[1]
        elif handle.isdigit() and text and not text.endswith("{"):
            found[table, chain, int(handle)] = text
    return found
