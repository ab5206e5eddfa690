"""libvirt, privately: a guest is defined from XML, started on a lab's switch, and destroyed."""

import pytest

from pytest_infra import BadInput, CommandFailed, until

pytestmark = [pytest.mark.infra_requires("libvirt", "vm"), pytest.mark.timeout(300)]

XML = """
<domain type='qemu'>
  <name>web</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
  </devices>
</domain>
"""


def test_a_guest_of_libvirt_on_a_link_of_the_lab(lab):
    sw1, hv = lab.bridge("sw1"), lab.host("hv")
    lab.link(hv, sw1, ip=[])
    for command in ("link add br0 type bridge", "link set eth0 master br0", "link set br0 up"):
        hv.run(["ip", *command.split()])
    virt = lab.libvirt(hv)
    name = virt.define(XML)
    assert virt.state(name) == "shut off"
    virt.start_guest(name)
    assert virt.state(name) == "running"
    card = until(lambda: hv.interfaces.get("vnet0"), within_s=30, what="the guest's card")
    assert card.master == "br0"
    virt.destroy(name)
    assert virt.state(name) == "shut off"
    assert "vnet0" not in hv.interfaces


def test_what_libvirt_cannot_use(lab):
    virt = lab.libvirt(lab.host("hv"))
    with pytest.raises(BadInput, match="this is no XML"):
        virt.define("<domain")
    with pytest.raises(BadInput, match="no <name>"):
        virt.define("<domain/>")
    virt.define(XML)
    with pytest.raises(CommandFailed, match="br0"):
        virt.start_guest("web")
