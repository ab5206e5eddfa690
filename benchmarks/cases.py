"""The cases: each measures its things side by side, in turns, and returns a row for each."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autopsy import autopsy
from containers import containers, postgresql, redis
from dpdk import dpdk
from labs import Ours, first_ping_s, make
from measure import Row, progress, rest, seconds
from measurements import measurements
from namespaces import namespaces
from packets import packet_rates
from topologies import topologies

from pytest_infra import Infra

HERE = Path(__file__).parent
KINDS = ("yardstick", "pytest-infra")
_MUNET_S = 60  # it takes about one


@dataclass(frozen=True)
class Settings:
    runs: int
    labs: int
    tests: int
    rounds: int
    munet: bool


def child(*arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, HERE / "child.py", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    figures: dict[str, object] = json.loads(done.stdout)
    return figures


def milliseconds(values: list[float]) -> list[float]:
    return [value * 1e3 for value in values]


# -- two hosts on one bridge ------------------------------------------------------------------------------------------


class Munet:
    """A process that makes labs with munet, in a PID namespace and with a /proc of its own, as munet needs here."""

    def __init__(self) -> None:
        python = HERE / ".munet/bin/python"
        if not python.exists():
            progress("installing munet into a virtual environment of its own")
            subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "munet"], check=True)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        self._process = subprocess.Popen(
            [*unshare, python, HERE / "munet_lab.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def lab_s(self) -> float:
        """Set up and take down one lab.

        Raises:
            TimeoutError: it takes longer than a minute: now and then munet waits for ever for a helper of its own.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        if not select.select([self._process.stdout], [], [], _MUNET_S)[0]:
            self._process.kill()
            raise TimeoutError(f"munet has made no lab for {_MUNET_S} s; run it again, or with --no-munet")
        return sum(float(part) for part in self._process.stdout.readline().split())

    def close(self) -> None:
        self._process.communicate()


def two_hosts(settings: Settings) -> list[Row]:
    """Set-up and teardown of two hosts on one bridge, with addresses, both ends up."""
    took: dict[str, list[float]] = {}
    munet = Munet() if settings.munet else None
    with Infra() as infra:
        for kind in KINDS:
            make(kind, infra, 2).close()  # imports
        for _ in range(settings.runs):
            for kind in KINDS:
                rest()
                took.setdefault(kind, []).append(seconds(lambda kind=kind: make(kind, infra, 2).close()))
            if munet:
                rest()
                took.setdefault("munet", []).append(munet.lab_s())
    median = {kind: statistics.median(values) for kind, values in took.items()}
    met = median["pytest-infra"] <= 2 * median["yardstick"]
    rows = [
        Row("two hosts, one bridge: yardstick", "ms", milliseconds(took["yardstick"])),
        Row("two hosts, one bridge: pytest-infra", "ms", milliseconds(took["pytest-infra"]), "2 x yardstick", met),
    ]
    if munet:
        munet.close()
        met = median["munet"] >= 20 * median["pytest-infra"]
        rows.append(Row("two hosts, one bridge: munet", "ms", milliseconds(took["munet"]), "20 x pytest-infra", met))
    return rows


# -- many hosts -------------------------------------------------------------------------------------------------------


def many_hosts(settings: Settings) -> list[Row]:
    """10, 100 and 1,000 hosts on one bridge, each time in a new process."""
    rows = []
    small_s = 0.0
    for hosts in (10, 100, 1000):
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for run in range(settings.runs):
            progress(f"  {hosts} hosts, {run + 1} of {settings.runs}")
            for kind in KINDS:
                found[kind].append(child("big", kind, str(hosts)))  # type: ignore[arg-type]
        ours = found["pytest-infra"]
        setup_s = statistics.median(run["setup_s"] for run in ours)
        small_s = small_s or setup_s
        limit = ("1.3 x 10 x that of 10 hosts", setup_s <= 13 * small_s) if hosts == 100 else ("", None)
        rows += [
            Row(f"{hosts} hosts, set-up: yardstick", "ms", [run["setup_s"] * 1e3 for run in found["yardstick"]]),
            Row(f"{hosts} hosts, set-up: pytest-infra", "ms", [run["setup_s"] * 1e3 for run in ours], *limit),
        ]
        memory = [run["memory_bytes"] / 1e6 for run in ours]
        delay = [run["delay_s"] * 1e3 for run in ours]
        big = hosts == 1000
        rows += [
            Row(f"{hosts} hosts, memory", "MB", memory, *(("60 MB", max(memory) <= 60) if big else ())),
            Row(f"{hosts} hosts, threads", "", [run["threads"] for run in ours], *(("0", max(
                run["threads"] for run in ours) == 0) if big else ())),
            Row(f"{hosts} hosts, delay of the next lab: yardstick", "ms",
                [run["delay_s"] * 1e3 for run in found["yardstick"]]),
            Row(f"{hosts} hosts, delay of the next lab: pytest-infra", "ms", delay,
                *(("1 s", max(delay) <= 1000) if big else ())),
        ]  # fmt: skip
    return rows


# -- one lab after the other ------------------------------------------------------------------------------------------


def _sustained(kind: str, tests: int, processes: int) -> tuple[float, list[float]]:
    """Labs a second, and the set-up of each."""
    command = [sys.executable, str(HERE / "child.py"), "sustained", kind, str(tests // processes)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.perf_counter()
    for process in running:
        print(file=process.stdin, flush=True)
    output = [process.stdout.readline() for process in running if process.stdout]
    took_s = time.perf_counter() - began
    for process in running:
        process.communicate()
    setups_s = [value for line in output for value in json.loads(line)["setups_s"]]
    return len(setups_s) / took_s, setups_s


TEST_FILE = """
import pytest
@pytest.mark.parametrize("number", range({tests}))
def test_lab(lab, number):
    sw, a, b = lab.bridge(), lab.host(), lab.host()
    lab.link(a, sw)
    lab.link(b, sw)
    lab.up()
"""


def _tests_per_second(tests: int, processes: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_labs.py").write_text(TEST_FILE.format(tests=tests), encoding="utf-8")
        workers = ["-n", str(processes)] if processes > 1 else []
        command = [sys.executable, "-m", "pytest", "--infra", "-q", "-p", "no:cacheprovider", "--rootdir", folder]
        return tests / seconds(lambda: subprocess.run([*command, *workers, folder], check=True, capture_output=True))


def sustained(settings: Settings) -> list[Row]:
    """300 tests, each with a two-host lab of its own, in one process and in two."""
    rows = []
    for processes in (1, 2):
        rates: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "pytest")}
        slowest: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for turn in range(settings.rounds):
            progress(f"  {processes} processes, {turn + 1} of {settings.rounds}")
            for kind in KINDS:
                rest(1.0)
                rate, setups_s = _sustained(kind, settings.tests, processes)
                rates[kind].append(rate)
                slowest[kind].append(max(setups_s) * 1e3)
            rest(1.0)
            rates["pytest"].append(_tests_per_second(settings.tests, processes))
        where = f"{settings.tests} labs, {processes} process{'es' * (processes - 1)}"
        names = {"pytest": "pytest-infra, as tests of one pytest run, start included"}
        rows += [Row(f"{where}: {names.get(kind, kind)}", "labs/s", values) for kind, values in rates.items()]
        rows += [Row(f"{where}, slowest set-up: {kind}", "ms", values) for kind, values in slowest.items()]
    return rows


PING_FILE = """
import pytest
from pytest_infra import assert_reachable
@pytest.mark.parametrize("number", range({tests}))
def test_lab(lab, number):
    sw, a, b = lab.bridge(), lab.host(), lab.host()
    lab.link(a, sw)
    lab.link(b, sw)
    assert_reachable(a, b, count=3)
"""


def recording(settings: Settings) -> list[Row]:
    """Passing tests with the latest frames of every interface recorded, and without, in turn: off on on off."""
    took: dict[str, list[float]] = {"off": [], "on-failure": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_labs.py").write_text(PING_FILE.format(tests=settings.tests), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "--infra", "-q", "-p", "no:cacheprovider", "--rootdir", folder]
        for turn in range(settings.rounds):
            progress(f"  recording, {turn + 1} of {settings.rounds}")
            for mode in ("off", "on-failure", "on-failure", "off"):
                argv = [*command, f"--infra-pcap={mode}", folder]
                took[mode].append(seconds(lambda argv=argv: subprocess.run(argv, check=True, capture_output=True)))  # type: ignore[misc]
    ratios = [on / off for on, off in zip(took["on-failure"], took["off"], strict=True)]
    per_test = {mode: [value / settings.tests * 1e3 for value in values] for mode, values in took.items()}
    return [
        Row("a passing test, --infra-pcap=off", "ms", per_test["off"]),
        Row("a passing test, --infra-pcap=on-failure", "ms", per_test["on-failure"]),
        Row("recording, price of", "x", ratios, "1.1", statistics.median(ratios) <= 1.1),
    ]


# -- commands, pings, Open vSwitch, import -----------------------------------------------------------------------------


def commands(settings: Settings) -> list[Row]:
    """A command in a host, and the same command outside."""
    inside, outside = [], []
    with Infra() as infra:
        lab = Ours(infra, 2)
        host = lab.hosts[0]
        host.run(["true"])
        for _ in range(settings.labs):
            outside.append(seconds(lambda: subprocess.run(["true"], capture_output=True, check=True)))
            inside.append(seconds(lambda: host.run(["true"])))
        lab.close()
    met = statistics.median(inside) <= 1.5 * statistics.median(outside)
    return [
        Row("a command outside: subprocess.run", "ms", milliseconds(outside)),
        Row("a command in a host: host.run", "ms", milliseconds(inside), "1.5 x outside", met),
    ]


def first_pings(settings: Settings) -> list[Row]:
    """The first packet after set-up, in labs made one right after the other."""
    took: dict[int, list[float]] = {4: [], 6: []}
    with Infra() as infra:
        for _ in range(settings.labs):
            for version, values in took.items():
                lab = Ours(infra, 2)
                a, b = lab.hosts
                address = next(ip.ip for ip in b.ports[0].addresses if ip.version == version)
                values.append(a.call(first_ping_s, str(address), version))
                lab.close()
    return [
        Row(f"first ping after set-up, IPv{version}", "ms", milliseconds(values), "median 1 ms, max 50 ms",
            statistics.median(values) < 1e-3 and max(values) <= 50e-3)
        for version, values in took.items()
    ]  # fmt: skip


def ovs(settings: Settings) -> list[Row]:
    """The first Open vSwitch bridge of a process, and later labs of two hosts on a bridge of their own."""
    found: dict[str, list[float]] = {"first_s": [], "back_to_back_s": [], "rested_s": []}
    for run in range(settings.runs):
        progress(f"  Open vSwitch, {run + 1} of {settings.runs}")
        figures = child("ovs", "10")
        found["first_s"].append(figures["first_s"])  # type: ignore[arg-type]
        found["back_to_back_s"] += figures["back_to_back_s"]  # type: ignore[operator]
        found["rested_s"] += figures["rested_s"]  # type: ignore[operator]
    names = {
        "first_s": ("first switch of a process", 400),
        "back_to_back_s": ("later lab of two hosts, set-up and teardown, one right after the other", 40),
        "rested_s": ("later lab of two hosts, set-up and teardown, 150 ms after the last", 40),
    }
    return [
        Row(f"Open vSwitch: {name}", "ms", milliseconds(found[key]), f"{limit} ms",
            statistics.median(found[key]) * 1e3 <= limit)
        for key, (name, limit) in names.items()
    ]  # fmt: skip


def _import_ms(log: str) -> float:
    """What the plugin's modules cost with all they pull in, from the output of ``python -X importtime``."""
    total_us, inside = 0, 0
    for line in reversed([line for line in log.splitlines() if line.startswith("import time:")]):
        _, cumulative, name = line.removeprefix("import time:").split("|")
        if not cumulative.strip().isdigit():
            continue
        depth = len(name) - len(name.lstrip())
        if inside and depth > inside:
            continue
        inside = 0
        if name.strip().split(".")[0] == "pytest_infra":
            total_us += int(cumulative)
            inside = depth
    return total_us / 1e3


def imports(settings: Settings) -> list[Row]:
    """What the plugin adds to a ``pytest --co`` without ``--infra``."""
    cost: list[float] = []
    whole: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_one.py").write_text("def test_one(): pass\n", encoding="utf-8")
        tail = ["-m", "pytest", "--co", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        run: Callable[..., subprocess.CompletedProcess[str]] = lambda *words: subprocess.run(  # noqa: E731
            [sys.executable, *words], check=True, capture_output=True, text=True, env=environment
        )
        for _ in range(settings.runs):
            cost.append(_import_ms(run("-X", "importtime", *tail).stderr))
            whole["with"].append(seconds(lambda: run(*tail)))
            whole["without"].append(seconds(lambda: run(*tail, "-p", "no:infra")))
    return [
        Row("import of the plugin in pytest --co", "ms", cost, "20 ms", statistics.median(cost) <= 20),
        Row("pytest --co, plugin loaded", "ms", milliseconds(whole["with"])),
        Row("pytest --co, -p no:infra", "ms", milliseconds(whole["without"])),
    ]


CASES: dict[str, Callable[[Settings], list[Row]]] = {
    "two-hosts": two_hosts,
    "many-hosts": many_hosts,
    "sustained": sustained,
    "recording": recording,
    "autopsy": lambda settings: autopsy(settings.runs),
    "measurements": lambda settings: measurements(settings.runs),
    "command": commands,
    "first-ping": first_pings,
    "ovs": ovs,
    "import": imports,
    "containers": lambda settings: containers(settings.runs),
    "dpdk": lambda settings: dpdk(settings.runs),
    "namespaces": lambda settings: namespaces(settings.runs),
    "postgresql": lambda settings: postgresql(settings.runs),
    "redis": lambda settings: redis(settings.runs),
    "topologies": lambda settings: topologies(min(settings.runs, 5)),
    "packets": lambda settings: packet_rates(min(settings.runs, 5)),
}
