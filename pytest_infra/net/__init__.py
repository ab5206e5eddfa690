"""Networks: namespaces, hosts, links, switches, routers."""
