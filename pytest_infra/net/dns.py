"""`DnsServer`: names that exist only in the lab; and what makes a host ask for them (resolv.conf(5), RFC 1035)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from ..core.errors import BadInput, StartFailed
from ..core.process import Process
from ..core.requirement import PRIVILEGE, Command
from ..core.resource import Artifact, Facts
from ..core.wait import until
from .host import Host

__all__ = ["DNSMASQ", "DnsServer", "check_domain", "is_domain", "resolv_conf"]

DNSMASQ = Command("dnsmasq", purpose="names and addresses by DNS and DHCP in a lab", packages={
    "apt": "dnsmasq-base", "dnf": "dnsmasq", "pacman": "dnsmasq", "apk": "dnsmasq"})  # fmt: skip

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\.?")
_START_S = 10.0


def is_domain(name: str) -> bool:
    """Whether it can be a domain name."""
    return _NAME.fullmatch(name) is not None


def check_domain(name: str, *, wildcard: bool = False) -> str:
    """A domain name, without the dot at its end (RFC 1035 section 2.3.1; underscores as RFC 2782 has them).

    Raises:
        BadInput: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 253 or ("*" in name and not wildcard):
        raise BadInput(f"{name!r} is no domain name: labels of 1 to 63 letters, digits and '-', with dots between them")
    return name.rstrip(".").lower()


def resolv_conf(server: Host | str | None, search: Sequence[str]) -> Callable[[], str]:
    """The text of a host's resolv.conf(5), once addresses are known.

    Args:
        server: the name server, a node or an address; None for none.
        search: domains in which a name is looked for too.

    Raises:
        BadInput: an address or a domain that cannot be.
    """
    if isinstance(search, str):
        raise BadInput(f"search is a list of domains; got {search!r}")
    domains = [check_domain(domain) for domain in search]
    if isinstance(server, str):
        try:
            ip_address(server)
        except ValueError:
            raise BadInput(f"dns {server!r} is neither a node of the lab nor an address") from None

    def text() -> str:
        addresses = [server] if isinstance(server, str) else _addresses_of(server) if server is not None else []
        lines = [f"nameserver {address}" for address in addresses[:3]]
        if domains:
            lines += [f"search {' '.join(domains)}", "options ndots:5"]
        return "\n".join([*lines, "options timeout:1 attempts:2", ""])

    return text


def _addresses_of(node: Any) -> list[str]:
    return [str(ip.ip) for port in node.ports for ip in port.addresses]


class DnsServer(Host):
    """A host with a name server that knows the names it was told, and says of all others that they do not exist.

    Args:
        name: its name.
        records: names with what they stand for: addresses, nodes of the lab, or anything that has an ``address``.
        nodes: further names, as far as they have addresses now.
        options: as of `Host`.
    """

    kind = "dns"
    requires = (PRIVILEGE, DNSMASQ)

    def __init__(
        self, name: str, *, records: Mapping[str, Any], nodes: Callable[[], Mapping[str, Any]] = dict, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self.records: dict[str, tuple[Any, ...]] = {}
        self._nodes = nodes
        self._server: Process | None = None
        self._told: list[str] = []
        self._log = ""
        self.records |= _checked(records)

    def update(self, records: Mapping[str, Any]) -> None:
        """Change or add names; the server knows them when this returns.

        Raises:
            BadInput: a name or a target that cannot be; nothing has changed.
        """
        wanted = self.records | _checked(records)
        if self._server is None:
            self.records = wanted
            return
        arguments = self._arguments(wanted)
        self.records = wanted
        self._serve_anew(arguments)

    def follow(self) -> None:
        """Learn the addresses that nodes of the lab have got since."""
        if self._server is not None and self._server.running:
            arguments = self._arguments(self.records)
            if arguments != self._told:
                self._serve_anew(arguments)

    def _serve_anew(self, arguments: list[str]) -> None:
        assert self._server is not None
        self._log = self.log()
        self._server.close()
        self._server = None
        self._serve(arguments)

    def serve(self) -> None:
        """Start the server; the lab does so once its links are up."""
        if self._server is None:
            self._serve(self._arguments(self.records))

    def _serve(self, arguments: list[str]) -> None:
        argv = [DNSMASQ.path(), "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--log-facility=-"]
        argv += ["--user=", "--group=", "--no-resolv", "--no-hosts", "--no-poll", "--log-queries"]
        self._told = arguments
        self._server = self.spawn([*argv, "--local=/#/", *self._told])
        server = self._server

        def ready() -> bool:
            if not server.running:
                raise StartFailed(f"the name server of {self.name} did not start: {server.stderr.strip()[-500:]}")
            return self.call(_answers)

        until(ready, within_s=_START_S, what=f"the name server of {self.name} answers")

    def _arguments(self, records: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """What dnsmasq is told.

        Raises:
            BadInput: a node among the targets has no address.
        """
        of_nodes = ((name, address) for name, node in self._nodes().items() for address in _addresses_of(node))
        found = [f"--host-record={name},{address}" for name, address in of_nodes]
        for name, targets in records.items():
            addresses = [address for target in targets for address in _resolve(target)]
            if targets and not addresses:
                raise BadInput(f"{name} stands for {', '.join(map(str, targets))}, which has no address")
            option = f"--address=/{name[2:]}/" if name.startswith("*.") else f"--host-record={name},"
            found += [f"{option}{address}" for address in addresses]
        return found

    def log(self) -> str:
        """What it was asked and has answered."""
        return self._log + (self._server.stderr if self._server is not None else "")

    def diagnose(self) -> Iterator[Artifact]:
        """As of a host, and the log."""
        yield from super().diagnose()
        yield Artifact("dnsmasq.log", self.log())

    def describe(self) -> Facts:
        """As of a host, and its names."""
        return {**super().describe(), "records": {name: [*map(str, targets)] for name, targets in self.records.items()}}


def _checked(records: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    if not isinstance(records, Mapping):
        raise BadInput(f"records say which name stands for what: {{'web.test': web}}; got {records!r}")
    found = {}
    for name, target in records.items():
        targets = tuple(target) if isinstance(target, list | tuple) else (target,)
        for one in targets:
            _check_target(name, one)
        found[check_domain(name, wildcard=True)] = targets
    return found


def _check_target(name: str, target: Any) -> None:
    if isinstance(target, str):
        try:
            ip_address(target)
        except ValueError:
            raise BadInput(f"{name} stands for an address or a node, not for {target!r}") from None
    elif not hasattr(target, "address") and not hasattr(target, "ports"):
        raise BadInput(f"{name} stands for an address or a node, not for {target!r}")


def _resolve(target: Any) -> list[str]:
    if isinstance(target, str):
        return [target]
    if hasattr(target, "address"):
        return [str(target.address)]
    return _addresses_of(target)


def _answers() -> bool:
    """Whether something answers a query on port 53 of this namespace's loopback."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        query.settimeout(0.2)
        try:
            query.connect(("127.0.0.1", 53))
            query.send(b"\0\7\1\0\0\1\0\0\0\0\0\0\0\0\2\0\1")  # NS of the root
            return len(query.recv(512)) > 0
        except OSError:
            return False
