"""An interrupt (Ctrl-C, a test's time limit) at any moment of a lab's life leaves nothing behind.

Python raises it in the main thread between any two steps, so each round runs in a process of its own, with a timer that
strikes at a moment that differs from round to round.
"""

from __future__ import annotations

import pytest

HARNESS = """
import random, signal, sys, threading, time, os, re, warnings
from collections import Counter
from contextlib import contextmanager
from pytest_infra.core.guard import Guard
from pytest_infra.session import Infra
from pytest_infra.core.wait import until

def census():
    found = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            found["file " + re.sub(r":.*", "", os.readlink(f"/proc/self/fd/{name}"))] += 1
        except FileNotFoundError:
            continue
    # Python goes on listing a thread whose start was interrupted before there was one: that has no number
    found.update(f"thread {thread.name}" for thread in threading.enumerate() if thread.ident is not None)
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as children:
                found["children"] += len(children.read().split())
        except FileNotFoundError:
            continue
    return found

class Late(BaseException):
    pass

@contextmanager
def tidy(resource):
    "Python itself can be interrupted on the first step into __exit__, which then does nothing."
    try:
        yield
    finally:
        resource.stop()

armed = False

def strike(number, frame):
    global armed
    if armed:
        armed = False
        raise Late

signal.signal(signal.SIGALRM, strike)
sys.unraisablehook = lambda error: None  # Python drops an interrupt that strikes in the callback of a weak reference
random.seed(int(sys.argv[1]))
rounds, struck, longest_s = int(sys.argv[2]), 0, 0.05

def attempt(body):
    global armed, struck, longest_s
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, longest_s))
        body()
        longest_s *= 0.7
    except Late:
        struck += 1
        longest_s *= 1.1  # so that most rounds are struck, and those late in the lab's life, too
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

def check(before, what):
    until(lambda: not census() - before, within_s=5, what=what, last_words=lambda: str(dict(census() - before)))
"""

LAB = """
with Infra() as infra:
    def settle():
        lab = infra.lab()
        with tidy(lab), lab:
            sw, r = lab.bridge(), lab.router()
            for kinds in ((), (), ("pid", "user")):
                lab.link(lab.host(isolate=kinds), sw)
            lab.link(r, sw)
            lab.link(r, lab.host("far"))
            lab.up()
            lab.node("far").ports[0].down()
            lab.node("far").interfaces
            lab.node("h1").call(int)
            lab.node("h1").run(["true"])
    settle()
    before = census()
    for number in range(rounds):
        attempt(settle)
        check(before, f"round {number}: nothing is left")
    with infra.lab() as lab:
        a, b = lab.host(), lab.host()
        lab.link(a, b)
        a.run(["ping", "-c1", str(b.ports[0].addresses[0].ip)])
print(struck)
"""

SINGLE = """
def one():
    guard = Guard("test")
    with tidy(guard), guard:
        pass
def session():
    infra = Infra()
    with tidy(infra), infra:
        lab = infra.lab()
        with tidy(lab), lab:
            lab.host().observe()
for body in (one, session):
    body()
    before = census()
    for number in range(rounds):
        attempt(body)
        check(before, f"{body.__name__} {number}: nothing is left")
print(struck)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_lab_that_is_interrupted_anywhere_leaves_nothing(infra, script, seed):
    assert int(script(HARNESS + LAB, str(seed), "60")) >= 30


@pytest.mark.parametrize("seed", range(2))
def test_a_resource_that_is_interrupted_anywhere_leaves_nothing(infra, script, seed):
    assert int(script(HARNESS + SINGLE, str(seed), "60")) >= 30


def test_control_c_ends_a_run_at_once_and_the_lab_in_order(infra, script):
    said = script(
        """
import os, signal, threading, time
from pytest_infra.session import Infra
from pytest_infra.core.wait import until
with Infra() as infra:
    try:
        with infra.lab() as lab:
            a = lab.host("a")
            a.run(["true"])
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            a.run(["sleep", "60"])
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 5, lab.started, a.started)
"""
    )
    assert said == "interrupted True False False\n"


def test_control_c_ends_a_call_at_once(infra, script):
    said = script(
        """
import os, signal, threading, time
from pytest_infra.session import Infra
with Infra() as infra:
    try:
        with infra.lab() as lab:
            a = lab.host("a")
            a.call(int)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            a.call(threading.Event().wait)
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 5, lab.started)
"""
    )
    assert said == "interrupted True False\n"
