"""Commands and functions in a host: what they see, how they end, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pytest_infra.checks import assert_reachable
from pytest_infra.core.errors import BadInput, CommandFailed, WaitTimeout
from pytest_infra.core.wait import until


@pytest.fixture
def host(lab):
    return lab.host("a")


@pytest.fixture(params=["plain", "pid", "user", "all"])
def any_host(lab, request):
    """The same promises hold however isolated a host is."""
    kinds = {"plain": [], "all": ["mount", "pid", "uts", "ipc", "user", "cgroup", "time"]}
    return lab.host("a", isolate=kinds.get(request.param, [request.param]))


SO_NETNS_COOKIE = 71  # <asm-generic/socket.h>: a number that only one network namespace has


def network_of(channel: socket.socket) -> int:
    return int.from_bytes(channel.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")


def network_of_new_socket() -> int:
    with socket.socket() as channel:
        return network_of(channel)


def together(functions: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def processes_with(mark: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if mark in Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace").split("\0"):
                    found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return [pid for pid in found if not ended(pid)]


# -- run ---------------------------------------------------------------------------------------------------------


def test_run_gives_status_and_output(any_host):
    done = any_host.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.returncode, done.stdout, done.stderr, done.ok) == (3, "out\n", "err\n", False)
    assert done.where == "a"
    assert done.argv == ("sh", "-c", "echo out; echo err >&2; exit 3")
    assert 0 < done.duration_s < 30
    assert any_host.run(["true"]).ok


def test_a_bad_status_is_an_error_with_the_output(any_host):
    with pytest.raises(CommandFailed) as caught:
        any_host.run(["sh", "-c", "echo one; echo two >&2; exit 4"])
    assert caught.value.returncode == 4
    assert str(caught.value).splitlines() == [
        "'sh -c echo one; echo two >&2; exit 4' in a: exit status 4",
        "  stderr  two",
        "  stdout  one",
    ]


def test_a_signal_that_ended_it_is_its_negative_number(any_host):
    assert any_host.run(["sh", "-c", "kill -KILL $$"], check=False).returncode == -signal.SIGKILL


def test_a_command_sees_only_its_hosts_network(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, name="only-a", peer_name="only-b")
    said = a.run(["cat", "/proc/self/net/dev"]).stdout
    assert "only-a" in said
    assert "only-b" not in said


def test_arguments_are_passed_as_they_are(any_host):
    arguments = ["a b", "$HOME", "*", "", "'\"", "ü", "-n", "\\"]
    done = any_host.run(["sh", "-c", 'for word in "$@"; do printf "%s\\n" "$word"; done', "sh", *arguments])
    assert done.stdout.split("\n")[:-1] == arguments


def test_a_path_is_an_argument_too(host, tmp_path):
    (tmp_path / "file").write_text("content")
    assert host.run([Path("/bin/cat"), tmp_path / "file"]).stdout == "content"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("ip addr show", r"a command is a list of arguments, not a string: write \['ip', 'addr', 'show'\]$"),
        (b"true", r"not a string: write \['true'\]$"),
        (None, r"a command is a list of arguments, not None$"),
        ([], r"needs at least a program's name; got \[\]$"),
        ([""], r"needs at least a program's name; got \[''\]$"),
        (["ping", "-c", 1], r"a command's arguments are strings, not int \(1\)$"),
        (["echo", None], r"a command's arguments are strings, not NoneType \(None\)$"),
        (["echo", "a\0b"], r"cannot hold a NUL character; got \['echo', 'a\\x00b'\]$"),
    ],
)
def test_what_is_no_list_of_arguments_is_refused(host, argv, text):
    for use in (host.run, host.spawn):
        with pytest.raises(BadInput, match=text):
            use(argv)
    assert not host.started, "refused before anything is made"


def test_a_program_that_is_not_there(lab):
    for host in (lab.host(), lab.host(isolate=["pid", "mount", "uts"])):
        for use in (host.run, host.spawn):
            with pytest.raises(
                CommandFailed, match=r"^'no-such-program -x' in h\d: no program 'no-such-program' there$"
            ):
                use(["no-such-program", "-x"])
    for host in (lab.host(isolate=["user"]), lab.host(isolate=["time"])):
        with pytest.raises(
            CommandFailed, match=r"exit status 12[67]\n +stderr +nsenter: failed to execute no-such-prog"
        ):
            host.run(["no-such-program"])


def test_a_file_that_is_no_program(host, tmp_path):
    file = tmp_path / "data"
    file.write_text("no program")
    with pytest.raises(CommandFailed, match=r"cannot be started: Permission denied"):
        host.run([file])
    file.chmod(0o755)
    with pytest.raises(CommandFailed, match=r"cannot be started: Exec format error"):
        host.run([file])


def test_the_folder(any_host, tmp_path):
    tmp_path.chmod(0o755)
    assert any_host.run(["pwd"]).stdout.strip() == os.getcwd()
    with pytest.raises(BadInput, match=r"^no folder '/no/such/folder' to run 'true' in: No such file or directory$"):
        any_host.run(["true"], cwd="/no/such/folder")
    with pytest.raises(BadInput, match=r"no folder '/etc/passwd' to run 'true' in: Not a directory"):
        any_host.run(["true"], cwd="/etc/passwd")
    assert any_host.run(["pwd"], cwd="/usr").stdout == "/usr\n"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"env": 5}, r"env 5 cannot be used; a dict of names and values is wanted$"),
        ({"cwd": 5}, r"cwd 5 cannot be used; the path of a folder is wanted$"),
        ({"input": 5}, r"input 5 cannot be used; text or bytes are wanted$"),
    ],
)
def test_options_of_another_type_are_refused(host, option, text):
    for use in (host.run, host.spawn):
        with pytest.raises(BadInput, match=text):
            use(["true"], **option)


def test_the_environment(any_host, monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "yes")
    show = ["sh", "-c", 'echo "$FROM_OUTSIDE $MINE"']
    assert any_host.run(show).stdout == "yes \n"
    assert any_host.run(show, env={"MINE": "too"}).stdout == "yes too\n"
    assert any_host.run(show, env={"FROM_OUTSIDE": ""}).stdout == " \n"
    with pytest.raises(BadInput, match=r"environment variables are strings; got 'MINE': 1"):
        any_host.run(show, env={"MINE": 1})


def test_programs_of_the_administrator_are_found(host, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    path = host.run(["sh", "-c", "echo $PATH"]).stdout.strip().split(":")
    assert path == ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
    assert host.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "0\n"
    assert host.run(["sh", "-c", "echo $PATH"], env={"PATH": "/bin"}).stdout == "/bin\n"


def test_input(any_host):
    assert any_host.run(["cat"]).stdout == ""
    assert any_host.run(["cat"], input="text ü").stdout == "text ü"
    assert any_host.run(["wc", "-c"], input=b"\0\xff").stdout.strip() == "2"
    assert any_host.run(["cat"], input="").stdout == ""


def test_much_output_blocks_nothing(host):
    done = host.run(["sh", "-c", "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2"])
    assert (len(done.stdout), len(done.stderr)) == (20_000_000, 20_000_000)


def test_output_that_is_no_text(host):
    assert host.run(["printf", "a\\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_a_command_out_of_time_is_killed_with_its_whole_group(any_host):
    mark = f"987{os.getpid()}.25"
    with pytest.raises(CommandFailed, match=r"killed after 0.2 s") as caught:
        any_host.run(["sh", "-c", f"echo before; sleep {mark} & sleep {mark}"], timeout_s=0.2)
    assert caught.value.returncode is None
    assert caught.value.stdout == "before\n"
    until(lambda: not processes_with(mark), within_s=5, what="both are gone")


def test_a_command_that_ignores_signals_is_killed_too(any_host):
    with pytest.raises(CommandFailed, match=r"killed after 0.2 s"):
        any_host.run(["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 0.05; done"], timeout_s=0.2)


def test_a_daemon_delays_nobody_and_ends_with_the_lab(infra):
    mark = f"986{os.getpid()}.25"
    with infra.lab() as lab:
        a = lab.host("a")
        began = time.monotonic()
        done = a.run(["sh", "-c", f"setsid sleep {mark} & echo started"])
        assert time.monotonic() - began < 5
        assert done.stdout == "started\n"
        until(lambda: len(processes_with(mark)) == 1, within_s=5, what="the daemon is there")
    until(lambda: not processes_with(mark), within_s=5, what="the daemon is gone")


def test_processes_are_invisible_to_the_command_but_for_the_labs(host):
    pids = host.run(["sh", "-c", "ls /proc | grep -c '^[0-9]'"]).stdout
    assert int(pids) < 10


@pytest.mark.parametrize("isolate", [[], ["pid"], ["user"], ["mount", "pid", "time"]])
def test_a_command_inherits_no_descriptors(lab, isolate):
    a, b = lab.host("a", isolate=isolate), lab.host("b")
    lab.link(a, b)
    a.call(socket.socket).close()
    with open("/dev/null") as file:
        os.set_inheritable(file.fileno(), True)
        said = a.run(["ls", "/proc/self/fd"]).stdout.split()
    assert said == ["0", "1", "2", "3"], "3 is the folder that ls reads"


def signals(text: str, name: str) -> int:
    return int(text.partition(f"{name}:")[2].split()[0], 16)


def test_a_command_starts_with_the_signals_of_a_shell(host):
    """Python ignores SIGPIPE; a program that it starts must not, and none is blocked."""
    mine = Path("/proc/self/status").read_text()
    its = host.run(["cat", "/proc/self/status"]).stdout
    assert signals(mine, "SigIgn") >> signal.SIGPIPE - 1 & 1
    assert not signals(its, "SigIgn") >> signal.SIGPIPE - 1 & 1
    assert not signals(its, "SigIgn") & ~signals(mine, "SigIgn")
    assert signals(its, "SigBlk") == 0


def test_many_commands_at_once(host):
    done: list[str] = []
    together([lambda n=n: done.append(host.run(["echo", str(n)]).stdout.strip()) for n in range(20)])
    assert sorted(map(int, done)) == list(range(20))


# -- spawn -------------------------------------------------------------------------------------------------------


def test_a_process_in_the_background(any_host):
    process = any_host.spawn(["sh", "-c", "echo ready; read line; echo got $line; sleep 60"], input="it\n")
    assert process.wait_for("got it") == "got it"
    assert process.running
    assert process.returncode is None
    assert "running" in repr(process)
    with pytest.raises(CommandFailed, match=r"still running after 0.01 s"):
        process.wait(0.01)
    assert process.running
    done = process.stop()
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "ready\ngot it\n"
    assert not process.running
    assert process.stdout == "ready\ngot it\n"


def test_stop_lets_a_program_end_by_itself(any_host):
    """SIGTERM reaches the program itself, and it has time to clean up."""
    process = any_host.spawn(
        ["sh", "-c", "trap 'sleep 0.1; echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done"]
    )
    process.wait_for("up")
    assert process.stop(grace_s=10).returncode == 7
    assert process.stdout == "up\nbye\n"


def test_stop_kills_what_does_not_end(any_host):
    process = any_host.spawn(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.02; done"])
    process.wait_for("up")
    began = time.monotonic()
    assert process.stop(grace_s=0.2).returncode == -signal.SIGKILL
    assert time.monotonic() - began < 5


def test_stop_ends_the_whole_group(host):
    mark = f"985{os.getpid()}.25"
    process = host.spawn(["sh", "-c", f"(trap '' TERM; exec sleep {mark}) & echo up; wait"])
    process.wait_for("up")
    until(lambda: processes_with(mark), within_s=5, what="it is there")
    assert process.stop().returncode == -signal.SIGTERM
    until(lambda: not processes_with(mark), within_s=5, what="the child that ignores SIGTERM is gone")


def test_stop_after_the_end_gives_the_result(host):
    process = host.spawn(["sh", "-c", "exit 5"])
    process.wait()
    assert process.stop().returncode == 5
    assert process.stop().returncode == 5


def test_as_a_context_manager(host):
    with host.spawn(["sleep", "60"]) as process:
        assert process.running
    assert process.returncode == -signal.SIGTERM


def test_wait_for_says_why_not(host):
    with pytest.raises(CommandFailed, match=r"ended with 3 before it wrote 'ready'\n  stderr  broken"):
        host.spawn(["sh", "-c", "echo broken >&2; exit 3"]).wait_for("ready")
    with (
        host.spawn(["sleep", "60"]) as process,
        pytest.raises(WaitTimeout, match=r"'ready' in the output of 'sleep 60'"),
    ):
        process.wait_for("ready", within_s=0.05)


def test_closing_twice_closes_nothing_else(host):
    process = host.spawn(["echo", "its last words"])
    process.wait()
    process.close()
    files = [open("/dev/null") for _ in range(5)]  # noqa: SIM115 - they take the numbers that became free
    process.close()
    for file in files:
        os.fstat(file.fileno())
        file.close()
    assert (process.stdout, process.stderr) == ("its last words\n", "")


def test_a_lab_ends_its_processes(infra, nothing_left):
    mark = f"984{os.getpid()}.25"
    with infra.lab() as lab:
        for host in (lab.host(), lab.host(isolate=["pid", "user"])):
            for _ in range(3):
                host.spawn(["sh", "-c", f"trap '' TERM INT HUP; setsid sleep {mark} & sleep {mark}"])
        until(lambda: len(processes_with(mark)) == 12, within_s=10, what="they are there")
    until(lambda: not processes_with(mark), within_s=5, what="they are gone")
    assert not nothing_left()


def test_send_signal(host):
    process = host.spawn(["sh", "-c", "trap 'echo usr1' USR1; echo up; while :; do sleep 0.02; done"])
    process.wait_for("up")
    process.send_signal(signal.SIGUSR1)
    process.wait_for("usr1")
    process.stop()
    process.send_signal(signal.SIGUSR1)  # nobody gets it
    assert process.stdout.split() == ["up", "usr1"]


# -- call --------------------------------------------------------------------------------------------------------


def test_call_runs_in_the_hosts_network(any_host):
    inside = any_host.call(network_of_new_socket)
    assert inside != network_of_new_socket()
    assert inside == any_host.call(network_of_new_socket)
    name = any_host.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
    assert name == os.readlink(f"/proc/self/fd/{any_host.namespace.fd}")


def test_call_passes_arguments_and_values(host):
    assert host.call(lambda *args, **kwargs: (args, kwargs), 1, "b", c=3) == ((1, "b"), {"c": 3})
    assert host.call(lambda: None) is None


def test_call_raises_the_functions_error_with_its_traceback(host):
    def inner():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        host.call(inner)
    assert caught.traceback[-1].name == "inner"


def test_call_within_call(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, name="left", peer_name="right")
    seen = a.call(lambda: (set(a.interfaces), b.call(lambda: set(b.interfaces)), a.call(threading.get_ident)))
    assert seen[:2] == ({"lo", "left"}, {"lo", "right"})
    assert a.call(lambda: a.run(["echo", "hi"]).stdout) == "hi\n"


def test_sockets_stay_in_the_host(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    address = str(link.b.addresses[0].ip)
    with b.call(socket.create_server, (address, 8080)) as server:
        with a.call(socket.create_connection, (address, 8080), 5) as client:
            connection, _ = server.accept()
            with connection:
                client.sendall(b"hello")
                assert connection.recv(5) == b"hello"
            assert network_of(client) == a.call(network_of_new_socket)
        assert network_of(server) == b.call(network_of_new_socket)


def test_a_child_started_in_a_call_is_in_the_host(host):
    inside = host.call(os.readlink, "/proc/thread-self/ns/net")
    done = host.call(subprocess.run, ["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == inside


@pytest.mark.parametrize("attempt", range(10))
def test_threads_call_at_the_same_time(lab, attempt):
    """Each gets its own answer, from a thread that is used again by the next call."""
    a = lab.host("a")
    lab.up()
    answers: list[tuple[int, int]] = []
    start = threading.Barrier(4)

    def ask(number: int) -> None:
        start.wait()
        answers.append((number, a.call(lambda: number)))
        answers.append((-1, a.call(threading.get_ident)))

    together([partial(ask, number) for number in range(4)])
    assert sorted(answer for answer in answers if answer[0] >= 0) == [(number, number) for number in range(4)]
    before = threading.active_count()
    assert a.call(threading.get_ident) in {ident for mark, ident in answers if mark == -1}
    assert threading.active_count() == before


def test_a_call_does_not_wait_for_another_in_the_same_host(lab):
    """Nor does a check for a function of the test's: each would wait for ever for the other."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    lab.up()
    meet = threading.Barrier(2, timeout=10)
    together([lambda: a.call(meet.wait), lambda: a.call(meet.wait)])
    ended = threading.Event()
    busy = threading.Thread(target=lambda: a.call(ended.wait, 10))
    busy.start()
    try:
        assert_reachable(a, b, within="1 s")
        assert_reachable(b, a, protocol="tcp", within="1 s")
        assert busy.is_alive()
    finally:
        ended.set()
        busy.join()


def test_a_host_that_nobody_enters_has_no_thread(lab):
    hosts = [lab.host() for _ in range(10)]
    before = threading.active_count()
    lab.up()
    for host in hosts:
        assert host.interfaces
        assert not host.routes
    assert threading.active_count() == before


def test_a_call_that_hangs_does_not_hang_the_end_of_the_lab(infra, nothing_left):
    hold, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        hold.wait()

    with infra.lab() as lab:
        a = lab.host("a")
        lab.up()
        caller = threading.Thread(target=a.call, args=(hang,))
        caller.start()
        assert begun.wait(5)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    hold.set()
    caller.join()


# -- sysctl ------------------------------------------------------------------------------------------------------


def test_sysctl(any_host):
    name = "net.ipv4.ip_forward"
    assert any_host.sysctl[name] == "0"
    any_host.sysctl[name] = "1"
    assert any_host.sysctl[name] == "1"
    assert any_host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "1\n"
    any_host.sysctl["net/ipv4/ip_forward"] = 0
    assert any_host.sysctl[name] == "0"
    assert name in any_host.sysctl
    assert name in list(any_host.sysctl)


def test_sysctl_of_an_interface_with_a_dot_in_its_name(lab):
    a = lab.host("a")
    lab.link(a, lab.host("b"), name="eth0.1")
    a.sysctl["net/ipv4/conf/eth0.1/rp_filter"] = "2"
    assert a.sysctl["net/ipv4/conf/eth0.1/rp_filter"] == "2"


def test_sysctl_refuses_what_is_not_the_hosts(host):
    for name in ("kernel.hostname", "vm.swappiness", "net.ipv4/../../kernel/panic", "/net/ipv4/ip_forward", "net"):
        with pytest.raises((BadInput, KeyError)):
            host.sysctl[name] = "1"
    with pytest.raises(KeyError, match=r"a has no setting 'net.ipv4.no_such_thing'"):
        host.sysctl["net.ipv4.no_such_thing"]
    assert "net.ipv4.no_such_thing" not in host.sysctl
    with pytest.raises(BadInput, match=r"a does not take net.ipv4.ip_forward = 'perhaps': Invalid argument"):
        host.sysctl["net.ipv4.ip_forward"] = "perhaps"
    with pytest.raises(TypeError, match="cannot be deleted"):
        del host.sysctl["net.ipv4.ip_forward"]


def test_the_machines_settings_stay(lab):
    path = Path("/proc/sys/net/ipv4/ip_forward")
    before = path.read_text()
    r, a = lab.router("r"), lab.host("a")
    lab.link(r, a)
    a.sysctl["net.ipv4.ip_forward"] = "1" if before == "0\n" else "0"
    assert r.sysctl["net.ipv4.ip_forward"] == "1"
    assert r.sysctl["net.ipv6.conf.eth0.forwarding"] == "1"
    assert path.read_text() == before


def test_python_is_told_which_host_a_forked_process_lacks(script):
    """A process forked from the test has none of its threads: it is told so, and does not wait for ever."""
    said = script(
        """
import os
from pytest_infra.core.errors import InfraError
from pytest_infra.session import Infra
with Infra() as infra, infra.lab() as lab:
    a = lab.host("a")
    a.call(int)
    a.run(["true"])
    import warnings
    warnings.simplefilter("ignore")  # Python 3.12 warns of any fork beside threads
    if (child := os.fork()) == 0:
        for use in (lambda: a.call(int), lambda: a.run(["true"]), lambda: a.interfaces, lab.host("new").observe):
            try:
                use()
                os.write(1, b"worked?\\n")
            except InfraError as error:
                os.write(1, f"{error}\\n".replace(str(os.getppid()), "PID").encode())
        lab.stop()
        infra.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert a.run(["echo", "still here"]).stdout == "still here\\n"
    print(a.call(str, "and here"))
"""
    )
    lines = said.splitlines()
    assert len(lines) == 5
    assert all("a thread of process PID, which a fork does not copy" in line for line in lines[:4]), said
    assert lines[4] == "and here"
