"""The same controller as an application of os-ken (``pip install os-ken``), the successor of Ryu.

Run it with the address and port that it shall listen on.
"""

from __future__ import annotations

import sys

from os_ken.lib import hub

hub.patch()  # before anything else is imported that uses sockets

from os_ken import cfg  # noqa: E402
from os_ken.base.app_manager import AppManager, OSKenApp  # noqa: E402
from os_ken.controller import ofp_event  # noqa: E402
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls  # noqa: E402
from os_ken.ofproto import ofproto_v1_3  # noqa: E402


class LearningSwitch(OSKenApp):
    OFP_VERSIONS = (ofproto_v1_3.OFP_VERSION,)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.places = {}

    def flow(self, switch, match, port, priority):
        parser, protocol = switch.ofproto_parser, switch.ofproto
        actions = [parser.OFPActionOutput(port, protocol.OFPCML_NO_BUFFER)]
        instructions = [parser.OFPInstructionActions(protocol.OFPIT_APPLY_ACTIONS, actions)]
        switch.send_msg(parser.OFPFlowMod(switch, priority=priority, match=match, instructions=instructions))

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def joined(self, event):
        switch = event.msg.datapath
        self.flow(switch, switch.ofproto_parser.OFPMatch(), switch.ofproto.OFPP_CONTROLLER, priority=0)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event):
        message = event.msg
        switch, in_port = message.datapath, message.match["in_port"]
        parser, protocol = switch.ofproto_parser, switch.ofproto
        target, source = (message.data[at : at + 6].hex(":") for at in (0, 6))
        self.places[switch.id, source] = in_port
        port = self.places.get((switch.id, target), protocol.OFPP_FLOOD)
        if port != protocol.OFPP_FLOOD:
            self.flow(switch, parser.OFPMatch(in_port=in_port, eth_dst=target), port, priority=10)
        actions = [parser.OFPActionOutput(port)]
        switch.send_msg(parser.OFPPacketOut(switch, protocol.OFP_NO_BUFFER, in_port, actions, message.data))


if __name__ == "__main__":
    address, port = sys.argv[1:]
    cfg.CONF(args=["--ofp-listen-host", address, "--ofp-tcp-listen-port", port], project="os_ken")
    applications = AppManager.get_instance()
    applications.load_apps(["os_ken.controller.ofp_handler"])
    applications.applications_cls["LearningSwitch"] = LearningSwitch
    hub.joinall(applications.instantiate_apps(**applications.create_contexts()))
