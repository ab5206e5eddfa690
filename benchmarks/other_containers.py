"""The same container started with testcontainers and with pytest-docker, for comparison.

The runner starts it with the Python of a venv that has both: ``other_containers.py testcontainers|pytest-docker IMAGE
COMMAND...``, with DOCKER_HOST set. Each line on standard input asks for one container; the answer is the seconds until
it was ready.

testcontainers waits for a line of the log, as we do, and looks for it every 10 ms (its own default is a second); its
helper container, which would have to be pulled, is left out. pytest-docker waits for nothing: it has docker-compose
start the container.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path


def with_testcontainers(image, command):
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    container = DockerContainer(image).with_command(command).with_kwargs(network_mode="none")
    began = time.perf_counter()
    with container:
        wait_for_logs(container, "ready", timeout=60, interval=0.01)
        return time.perf_counter() - began


def with_pytest_docker(image, command):
    from pytest_docker.plugin import get_docker_services

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "docker-compose.yml")
        service = {"image": image, "command": command, "network_mode": "none", "stop_grace_period": "0s"}
        file.write_text(json.dumps({"version": "3", "services": {"web": service}}))  # JSON is YAML
        began = time.perf_counter()
        with get_docker_services("docker-compose", [str(file)], "bench", ["up --build -d"], ["down -v"]):
            return time.perf_counter() - began


def main():
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    kind, image, *command = sys.argv[1:]
    one = {"testcontainers": with_testcontainers, "pytest-docker": with_pytest_docker}[kind]
    one(image, command)  # imports
    for _ in sys.stdin:
        print(one(image, command), flush=True)


if __name__ == "__main__":
    main()
