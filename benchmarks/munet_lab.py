"""The two-host lab made with munet, for comparison. The runner starts it with the Python of a venv that has munet.

munet reads /proc/1/ns, so the runner gives it a PID namespace and a /proc of its own. Each line on standard input asks
for one lab; the answer is a line with the seconds of its set-up, a space, and those of its teardown.

On a busy machine a set-up of munet's now and then fails (it looks once for a process that is not there yet); it is made
again, and only the lab that came up is reported.

munet does less here than the others: it refuses an IPv6 address beside an IPv4 one on a connection to a network.
"""

import asyncio
import copy
import logging
import sys
import tempfile
import time

from munet.parser import async_build_topology

CONFIG = {
    "topology": {
        "networks": [{"name": "sw1"}],
        "nodes": [
            {"name": "a", "connections": [{"to": "sw1", "ip": "192.168.1.10/24"}]},
            {"name": "b", "connections": [{"to": "sw1", "ip": "192.168.1.20/24"}]},
        ],
    }
}


async def one_lab(check):
    with tempfile.TemporaryDirectory() as folder:
        config = copy.deepcopy(CONFIG) | {"config_pathname": f"{folder}/munet.yaml"}
        began = time.perf_counter()
        lab = await async_build_topology(config=config, rundir=folder)
        built = time.perf_counter()
        try:
            if check:
                lab.hosts["a"].cmd_raises("ping -c1 -w5 192.168.1.20")
        finally:
            used = time.perf_counter()
            await lab.async_delete()
        return built - began, time.perf_counter() - used


def one_that_comes_up(check, attempts=10):
    try:
        return asyncio.run(one_lab(check))
    except Exception:
        if attempts == 1:
            raise
        return one_that_comes_up(check, attempts - 1)


def main():
    logging.disable(logging.CRITICAL)  # its log of every command costs time and helps nobody here
    one_that_comes_up(check=True)  # must carry a ping; it is not reported
    for _ in sys.stdin:
        print(*one_that_comes_up(check=False), flush=True)


main()
