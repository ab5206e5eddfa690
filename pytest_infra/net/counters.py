"""What the kernel has counted in a network namespace (proc_net(5), RFC 4293, RFC 4022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["Counters", "changed", "losses", "read_counters"]

Counters = dict[str, int]
"""By name: ``eth0 rx_packets``, ``Ip InNoRoutes``; those that are 0 are left out."""

_COLUMNS = (
    *("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "rx_fifo", "rx_frame", "rx_compressed", "rx_multicast"),
    *("tx_bytes", "tx_packets", "tx_errors", "tx_dropped", "tx_fifo", "tx_collisions", "tx_carrier", "tx_compressed"),
)
_TELLING = ("dropped", "errors", "Errors", "Discards", "NoRoutes", "NoPorts", "Filter", "Drop", "Fails", "Overflows")
_SETTINGS = ("Ip Forwarding", "Ip DefaultTTL", "Tcp RtoAlgorithm", "Tcp RtoMin", "Tcp RtoMax", "Tcp MaxConn")


def read_counters() -> Counters:
    """The counters of the calling thread's network namespace: of its interfaces and of its protocols."""
    found = {
        **_interfaces(_read("dev")),
        **_pairs(_read("snmp")),
        **_pairs(_read("netstat")),
        **_singles(_read("snmp6")),
    }
    return {name: value for name, value in found.items() if value and name not in _SETTINGS}


def _read(name: str) -> list[str]:
    try:
        with open(f"/proc/thread-self/net/{name}", encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []


def _interfaces(lines: list[str]) -> Counters:
    found = {}
    for line in lines[2:]:
        interface, _, numbers = line.partition(":")
        for column, number in zip(_COLUMNS, numbers.split(), strict=False):
            found[f"{interface.strip()} {column}"] = int(number)
    return found


def _pairs(lines: list[str]) -> Counters:
    """Files in which a line of names is followed by a line of numbers."""
    found = {}
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        group = names.partition(":")[0]
        for name, number in zip(names.split()[1:], numbers.split()[1:], strict=False):
            found[f"{group} {name}"] = int(number)
    return found


def _singles(lines: list[str]) -> Counters:
    return {f"IPv6 {name}": int(number) for name, number in _words(lines)}


def _words(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, number = line.split()
        yield name, number


def changed(before: Mapping[str, int], after: Mapping[str, int]) -> Counters:
    """How much each counter has grown; those that have not are left out."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def losses(counters: Mapping[str, int]) -> Counters:
    """Those that tell of packets that were not taken."""
    return {name: value for name, value in counters.items() if any(word in name for word in _TELLING)}
