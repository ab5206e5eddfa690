"""What must be measured in a process of its own; prints its figures as JSON on one line."""

from __future__ import annotations

import gc
import json
import sys
import threading

from labs import Ours, allow_many_files, make, memory_bytes
from measure import rest, seconds

from pytest_infra import Infra


def big(infra: Infra, kind: str, hosts: str) -> dict[str, object]:
    """Many hosts on one bridge: set-up, memory, and what the next lab waits for."""
    for _ in range(3):  # everything imported and warm
        make(kind, infra, 2).close()
    rest()
    usual = []
    usual_s = seconds(lambda: usual.append(make(kind, infra, 2)))
    usual.pop().close()
    rest()
    gc.collect()
    before, threads = memory_bytes(), threading.active_count()
    labs = []
    setup_s = seconds(lambda: labs.append(make(kind, infra, int(hosts))))
    gc.collect()
    memory = memory_bytes() - before
    threads = threading.active_count() - threads
    close_s = seconds(lambda: labs.pop().close())
    next_s = seconds(lambda: labs.append(make(kind, infra, 2)))
    labs.pop().close()
    delay_s = close_s + next_s - usual_s
    return {"setup_s": setup_s, "memory_bytes": memory, "threads": threads, "close_s": close_s, "delay_s": delay_s}


def sustained(infra: Infra, kind: str, count: str) -> dict[str, object]:
    """One lab after the other, as tests make them; begins when a line comes in."""
    make(kind, infra, 2).close()
    rest()
    print("ready", flush=True)
    sys.stdin.readline()
    setups_s = []
    for _ in range(int(count)):
        labs = []
        setups_s.append(seconds(lambda labs=labs: labs.append(make(kind, infra, 2))))
        labs.pop().close()
    return {"setups_s": setups_s}


def ovs(infra: Infra, later: str) -> dict[str, object]:
    """The first Open vSwitch bridge of a process, and later labs of two hosts on a bridge of their own."""
    with infra.lab() as lab:

        def first_switch() -> None:
            lab.ovs("sw1")
            lab.up()

        first_s = seconds(first_switch)
    back_to_back_s = [seconds(lambda: Ours(infra, 2, "ovs").close()) for _ in range(int(later))]
    rested_s = []
    for _ in range(int(later)):
        rest()
        rested_s.append(seconds(lambda: Ours(infra, 2, "ovs").close()))
    return {"first_s": first_s, "back_to_back_s": back_to_back_s, "rested_s": rested_s}


if __name__ == "__main__":
    allow_many_files()
    with Infra() as session:
        print(json.dumps({"big": big, "sustained": sustained, "ovs": ovs}[sys.argv[1]](session, *sys.argv[2:])))
