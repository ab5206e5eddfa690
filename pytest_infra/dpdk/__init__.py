"""DPDK applications without network cards or hugepages: what they are told, what they say, what is wrong with them."""

from __future__ import annotations

from .vdev import AfPacket, AfXdp, Memif, Null, Pcap, Ring, Tap, Vdev

__all__ = ["AfPacket", "AfXdp", "Memif", "Null", "Pcap", "Ring", "Tap", "Vdev"]
