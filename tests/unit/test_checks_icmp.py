"""ICMP as bytes and words."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.checks.icmp import (
    IcmpError,
    checksum,
    echo_request,
    ip_header_bytes,
    parse_echo,
    parse_error,
)


def ipv4(protocol: int, payload: bytes, options: bytes = b"") -> bytes:
    return bytes([0x40 | (5 + len(options) // 4)]) + bytes(8) + bytes([protocol]) + bytes(10) + options + payload


def ipv6(following: int, payload: bytes) -> bytes:
    return b"\x60" + bytes(5) + bytes([following]) + bytes(33) + payload


def test_a_checksum_as_rfc_1071_works_it_out() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


@given(st.binary(max_size=200))
def test_a_message_with_its_checksum_sums_to_zero(payload: bytes) -> None:
    assert checksum(echo_request(4, 0x1234, 7, payload)) == 0


@given(st.sampled_from([4, 6]), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=64))
def test_an_echo_request_is_read_back(version: int, identifier: int, sequence: int, payload: bytes) -> None:
    echo = parse_echo(echo_request(version, identifier, sequence, payload))
    assert echo is not None
    assert (echo.type, echo.identifier, echo.sequence, echo.payload) == (
        {4: 8, 6: 128}[version],
        identifier,
        sequence,
        payload,
    )


def test_a_message_that_is_cut_short_is_no_echo() -> None:
    assert parse_echo(echo_request(4, 1, 1, b"")[:7]) is None


@pytest.mark.parametrize(
    ("version", "kind", "code", "words"),
    [
        (4, 3, 0, "net unreachable"),
        (4, 3, 1, "host unreachable"),
        (4, 3, 3, "port unreachable"),
        (4, 3, 13, "administratively prohibited"),
        (4, 3, 99, "type 3 code 99"),
        (4, 11, 0, "time exceeded in transit"),
        (4, 11, 1, "time exceeded in reassembly"),
        (4, 12, 0, "parameter problem"),
        (6, 1, 0, "no route"),
        (6, 1, 3, "address unreachable"),
        (6, 1, 4, "port unreachable"),
        (6, 2, 0, "packet too big"),
        (6, 3, 0, "time exceeded in transit"),
        (6, 4, 0, "parameter problem"),
    ],
)
def test_an_error_says_what_it_means(version: int, kind: int, code: int, words: str) -> None:
    error = IcmpError("192.0.2.1", kind, code, version)
    assert str(error) == f"ICMP {words} from 192.0.2.1"
    assert error.port_unreachable == (words == "port unreachable")
    assert error.time_exceeded == (words == "time exceeded in transit")


def test_an_error_quotes_the_packet_that_it_is_about() -> None:
    quoted = ipv4(1, echo_request(4, 5, 6, b"payload"))
    parsed = parse_error(4, "192.0.2.1", struct.pack("!BBHI", 3, 1, 0, 0) + quoted)
    assert parsed == (IcmpError("192.0.2.1", 3, 1, 4), quoted)
    assert parse_error(4, "192.0.2.1", echo_request(4, 5, 6, b"")) is None


def test_ip_headers_are_measured() -> None:
    assert ip_header_bytes(ipv4(17, b"x")) == (20, 17)
    assert ip_header_bytes(ipv4(6, b"x", options=bytes(8))) == (28, 6)
    assert ip_header_bytes(ipv6(58, b"x")) == (40, 58)


def test_ipv6_extension_headers_are_passed_over() -> None:
    hop_by_hop = bytes([44, 1]) + bytes(14)
    fragment = bytes([58, 0]) + bytes(6)
    assert ip_header_bytes(ipv6(0, hop_by_hop + fragment + b"x")) == (64, 58)


@given(st.binary(max_size=80))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    header = ip_header_bytes(data)
    assert header is None or 20 <= header[0] <= len(data)
    parse_echo(data)
    parse_error(4, "192.0.2.1", data)
    parse_error(6, "2001:db8::1", data)
