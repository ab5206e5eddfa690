"""What MkDocs runs while it builds the site: adds the pages that are made from README, changelog and code."""

from __future__ import annotations

import re
from collections.abc import Iterable

import tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from surface import ROOT, Surface, read_surface

__all__ = ["on_files", "pages"]

_PARTS = {
    "labs": ("Labs", "What makes labs, and what a lab can make.", ("session", "lab", "fixtures")),
    "nodes": (
        "Nodes and wires",
        "Hosts, routers, switches, links, captures, processes.",
        ("net", "core.node", "core.process"),
    ),
    "containers": ("Containers", "Containers, their images, and when they are ready.", ("container",)),
    "groups": ("Control groups", "Groups, their limits, and what they have counted.", ("cgroup",)),
    "guests": ("Virtual machines", "Guests, and the network cards that are no links of the lab.", ("vm",)),
    "dpdk": ("DPDK", "Processes, their devices, and what their telemetry tells.", ("dpdk", "lab.dpdk_node")),
    "gpus": ("GPUs", "Devices, and how to compute on them.", ("gpu",)),
    "checks": (
        "Checks",
        "`assert_…` measures and judges, `measure_…` only measures.",
        ("checks",),
    ),
    "faults": ("Faults", "Each is undone at its end; `lab.inject(fault)` begins one that the lab undoes.", ("faults",)),
    "packets": ("Packets", "The names of `pytest_infra.packet`.", ("packet",)),
    "errors": ("Errors and waiting", "`InfraError` is never an `AssertionError`.", ("core",)),
}
_REPORTS = ("Reports", "What checks return. Units are in the names: `_s`, `_bps`, `_bytes`.")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """The generated pages, by path."""
    surface = read_surface()
    reference = _reference(surface)
    reference["reference/pytest.md"] = tables.plugin(surface)
    reference["reference/command.md"] = tables.command()
    reference["reference/capabilities.md"] = tables.capabilities()
    home = _moved((ROOT / "README.md").read_text("utf-8"))
    return {"index.md": home, "changelog.md": _moved((ROOT / "CHANGELOG.md").read_text("utf-8")), **reference}


def _moved(text: str) -> str:
    """The text of a file of the root folder, with its links as seen from docs/."""
    return re.sub(r"\]\(docs/", "](", text).replace("](CHANGELOG.md)", "](changelog.md)")


def _reference(surface: Surface) -> dict[str, str]:
    by_page: dict[str, list[str]] = {name: [] for name in (*_PARTS, "reports")}
    for name, item in surface.exported.items():
        by_page[_page(item.canonical_path)].append(name)
    for path in surface.met:
        by_page["reports" if path.startswith("pytest_infra.checks.") else _page(path)].append(path)
    made = {f"reference/{page}.md": _listing(*_PARTS[page][:2], by_page[page]) for page in _PARTS}
    made["reference/reports.md"] = _listing(*_REPORTS, by_page["reports"])
    made["reference/index.md"] = _index(by_page)
    return made


def _page(path: str) -> str:
    """The page that describes what is defined there: of those whose part it is, the one that names it most closely."""
    inside = path.removeprefix("pytest_infra.") + "."
    fitting = [
        (part, page) for page, (_, _, parts) in _PARTS.items() for part in parts if inside.startswith(f"{part}.")
    ]
    return max(fitting, key=lambda found: len(found[0]))[1]


def _listing(title: str, text: str, names: Iterable[str]) -> str:
    return "\n".join([f"# {title}\n", f"{text}\n", *(f"::: {name}" for name in names)])


def _index(by_page: dict[str, list[str]]) -> str:
    lines = ["# Reference\n", "Made from the code: docstrings, options, fixtures, requirements.\n"]
    for page, names in by_page.items():
        title = _REPORTS[0] if page == "reports" else _PARTS[page][0]
        links = " · ".join(f"[`{name.rsplit('.', 1)[1]}`][{name}]" for name in sorted(names, key=str.lower))
        lines += [f"## [{title}]({page}.md)\n", f"{links}\n"]
    return "\n".join(lines)
