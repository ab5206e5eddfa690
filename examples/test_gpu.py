"""A GPU of the test's own: copies, a kernel with a checked result, and how much of both a network service gets.

Where there is no GPU, the same tests run on a CPU through OpenCL, and say so.
"""

from __future__ import annotations

import socket
import struct

import pytest

from pytest_infra import Stage, assert_transfer, measure_overlap, measure_pipeline

pytestmark = pytest.mark.infra_requires("opencl")
COUNT = 100_000


@pytest.fixture
def gpu(infra_gpu):
    return infra_gpu(memory="256 MiB", shared=True)


def test_a_kernel_stays_within_the_device_and_computes_what_it_should(gpu):
    compute = gpu.compute
    assert compute.limits.threads_per_block >= 64
    queue, host = compute.queue(), compute.host(4 * COUNT, pinned=True)
    x, y = compute.allocate(4 * COUNT), compute.allocate(4 * COUNT)
    host.view.cast("f")[:] = memoryview(struct.pack(f"{COUNT}f", *range(COUNT))).cast("f")
    for memory in (x, y):
        compute.copy(memory, host, queue)
    compute.saxpy(2.0, x, y, COUNT, queue)
    compute.copy(host, y, queue)
    compute.finish(queue)
    assert list(host.view.cast("f")) == [3.0 * number for number in range(COUNT)]
    compute.release(x, y, host)


@pytest.mark.parametrize("direction", ["h2d", "d2h", "d2d"])
def test_large_copies_use_the_link(gpu, direction):
    share = 0.3 if gpu.device.kind == "gpu" else 0.001  # a CPU's memory is other programs' too
    report = assert_transfer(gpu, direction, size="4 MiB", sizes=["64 KiB", "1 MiB"], at_least=share)
    print(report.explain())


def test_a_copy_beside_a_kernel(gpu):
    report = measure_overlap(gpu, "d2h", size="4 MiB")  # assert_overlap claims it: a GPU can, a CPU cannot
    assert report.on_cpu == (gpu.device.kind == "cpu")
    assert report.together_s > 0


def test_results_of_the_gpu_reach_a_client_over_the_network(lab, gpu):
    service, client = lab.host("service"), lab.host("client")
    lab.link(service, client)
    compute = gpu.compute
    queue, x = compute.queue(), compute.allocate(4 * COUNT)
    results = [compute.allocate(4 * COUNT) for _ in range(4)]  # more than can be under way at once
    hosts = [compute.host(4 * COUNT, pinned=True) for _ in results]
    hosts[0].view.cast("f")[:] = memoryview(struct.pack(f"{COUNT}f", *[1.0] * COUNT)).cast("f")
    compute.copy(x, hosts[0], queue)
    compute.finish(queue)
    listener = client.call(socket.create_server, (str(client.ports[0].addresses[0].ip), 5000))
    sender = service.call(socket.create_connection, listener.getsockname())
    receiver, _ = listener.accept()
    received, seen = bytearray(4 * COUNT), set()

    def calculate(number):
        result = results[number % len(results)]
        compute.copy(result, x, queue)
        compute.saxpy(float(number), x, result, COUNT, queue)
        compute.finish(queue)
        return number

    def copy_back(number):
        compute.copy(hosts[number % len(hosts)], results[number % len(results)], queue)
        compute.finish(queue)
        return number

    def send(number):
        sender.sendall(hosts[number % len(hosts)].view)
        return number

    def receive(number):
        receiver.recv_into(received, len(received), socket.MSG_WAITALL)
        seen.add(number)
        assert struct.unpack_from("f", received) == struct.unpack_from("f", received, 4 * COUNT - 4) == (1.0 + number,)
        return number

    stages = [Stage("compute", calculate), Stage("copy back", copy_back), Stage("send", send)]
    try:
        report = measure_pipeline([*stages, Stage("receive", receive)], items=20)
    finally:
        for end in (sender, receiver, listener):
            end.close()
        compute.release(x, *results, *hosts)
    print(report.explain())
    assert seen == set(range(20))
    assert report.bottleneck in report.alone_per_s
    assert report.together_per_s > 0
