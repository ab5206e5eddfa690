"""What Open vSwitch needs of the machine, as data."""

from __future__ import annotations

import os
import socket

from ..core.requirement import Command, KernelFeature

__all__ = ["OVS", "OVSDB_SERVER", "OVSDB_TOOL", "OVS_DPDK", "OVS_KERNEL_DATAPATH", "OVS_VSWITCHD", "TUN", "ovs_tool"]

_FOLDERS = ("/usr/lib/openvswitch-switch", "/usr/sbin", "/usr/local/sbin", "/usr/share/openvswitch/scripts")
_PACKAGES = {"apt": "openvswitch-switch", "dnf": "openvswitch", "pacman": "openvswitch", "apk": "openvswitch"}


def ovs_tool(program: str) -> Command:
    """A program of Open vSwitch, as a requirement."""
    return Command("ovs", program=program, folders=_FOLDERS, packages=_PACKAGES, purpose="Open vSwitch labs")


OVS_VSWITCHD = ovs_tool("ovs-vswitchd")
OVSDB_SERVER = ovs_tool("ovsdb-server")
OVSDB_TOOL = ovs_tool("ovsdb-tool")

OVS = (OVS_VSWITCHD, OVSDB_SERVER, OVSDB_TOOL)
"""What every Open vSwitch switch needs."""

OVS_DPDK = Command(
    "ovs-dpdk",
    program="ovs-vswitchd-dpdk",
    folders=("/usr/lib/openvswitch-switch-dpdk", *_FOLDERS),
    packages={
        **_PACKAGES,
        "apt": "openvswitch-switch-dpdk librte-meta-net librte-meta-mempool librte-meta-bus",
        "dnf": "openvswitch-dpdk",
    },
    purpose="Open vSwitch with DPDK's poll mode drivers, lab.ovs(dpdk=True)",
)
"""The ovs-vswitchd that is built with DPDK, under the name that Debian gives it."""


def _kernel_datapath() -> str:
    from pyroute2.netlink import NLM_F_REQUEST, ctrlmsg, nlmsg

    question = ctrlmsg()
    question["cmd"], question["version"] = 3, 1  # CTRL_CMD_GETFAMILY
    question["attrs"] = [["CTRL_ATTR_FAMILY_NAME", "ovs_datapath"]]
    question["header"]["type"], question["header"]["flags"] = 16, NLM_F_REQUEST  # GENL_ID_CTRL
    question.encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 16) as netlink:  # NETLINK_GENERIC
        netlink.settimeout(10)  # the kernel may load the module before it answers
        netlink.send(question.data)
        answer = nlmsg(netlink.recv(65536))
    answer.decode()
    if answer["header"]["type"] == 2:  # NLMSG_ERROR
        return "the kernel has no Open vSwitch datapath: no generic netlink family ovs_datapath"
    return ""


OVS_KERNEL_DATAPATH = KernelFeature(
    "ovs-kernel",
    purpose="Open vSwitch's kernel datapath, lab.ovs(datapath='system')",
    test=_kernel_datapath,
    remedy="modprobe openvswitch; or use the userspace datapath, datapath='netdev'",
)


def _tun() -> str:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/net/tun cannot be opened: {error.strerror}"
    return ""


TUN = KernelFeature(
    "tun",
    purpose="TAP devices: the local interface of a bridge of Open vSwitch's userspace datapath",
    test=_tun,
    remedy="modprobe tun; chmod 0666 /dev/net/tun; in a container: --device /dev/net/tun",
)
