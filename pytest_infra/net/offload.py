"""Checksum offload of an interface (ethtool(8), by way of the ioctl SIOCETHTOOL of netdevice(7))."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Callable

__all__ = ["set_transmit_checksum"]

_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17
_IFNAMSIZ = 16


def set_transmit_checksum(call: Callable[..., None], interface: str, on: bool) -> None:
    """Let the device compute the checksums of outgoing packets (`on`), or have the kernel do it before they leave.

    A veth computes none: it passes packets on with a note that the checksum is still to be made, which a switch
    outside the kernel does not see. It must be off at whatever sends to such a switch. Segmentation offload
    depends on it and goes off too.

    Args:
        call: runs a function in the interface's network namespace.
        interface: its name.
        on: whether the device is to compute them.

    Raises:
        OSError: there is no such interface, or it cannot be changed.
    """
    call(_set_transmit_checksum, interface, on)


def _set_transmit_checksum(interface: str, on: bool) -> None:
    import ctypes

    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, on))
    request = struct.pack(f"{_IFNAMSIZ}sP", interface.encode(), ctypes.addressof(value)).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)
