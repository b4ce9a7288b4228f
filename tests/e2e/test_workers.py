"""Several workers as real processes: row S7, deaths, replays, drains, counters, and ways not to start."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import sip004
from tests.e2e.clients import dial, ends, open_tunnel, receive_exactly
from tests.e2e.udp_clients import associate
from tests.origin import echo, serve
from tests.processes import COMMANDS, Program, free_port, new_password, write_config
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

METHODS = ("aes-256-gcm", "2022-blake3-aes-256-gcm")


def children(program: Program) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]


def wait_workers(program: Program, count: int) -> list[int]:
    """Return the process ids once all listen."""
    wait_until(lambda: f"with {count} workers" in program.log(), what=program.log)
    return children(program)


def listeners(port: int) -> int:
    """How many TCP sockets listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def is_served(pair, origin) -> bool:
    with open_tunnel("socks5", pair.local_port, origin.address) as sock:
        sock.sendall(b"hello")
        return receive_exactly(sock, 5) == b"hello"


def statistics(program: Program) -> dict[str, int]:
    """Ask for the counters by signal and read them in the log."""
    lines = program.log().count("statistics:")
    program.signal(signal.SIGUSR1)
    wait_until(lambda: program.log().count("statistics:") > lines)
    line = [line for line in program.log().splitlines() if "statistics:" in line][-1]
    return {name: int(count) for name, count in re.findall(r"(\S+)=(\d+)", line)}


def settings(**more) -> dict[str, object]:
    return {
        "server": "127.0.0.1",
        "server_port": free_port(),
        "method": "aes-256-gcm",
        "password": new_password("aes-256-gcm"),
        "forbidden_ip": [],
        "workers": 4,
        **more,
    }


# -- deaths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_s7_a_killed_worker_is_replaced(start_pair, method):
    pair = start_pair(method=method, server_config={"workers": 4}, local_config={"workers": 2})
    before = wait_workers(pair.server, 4)
    wait_workers(pair.local, 2)
    assert (listeners(pair.server_port), listeners(pair.local_port)) == (4, 2)
    with serve(echo) as origin:
        for victim in before:
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: victim not in children(pair.server))
            wait_until(lambda: len(children(pair.server)) == 4)
            assert listeners(pair.server_port) == 4
            assert all(is_served(pair, origin) for _ in range(12)), "whichever worker has them"
    assert pair.server.log().count("was ended by SIGKILL; another one starts in 0.1 s") == 4


def test_s7_a_udp_port_is_one_workers_and_its_flows_outlive_the_others(start_pair):
    """The source port that targets see stays, and when the owner dies its successor has the port."""
    pair = start_pair(server_config={"workers": 3})
    owner, *others = sorted(wait_workers(pair.server, 3))
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        first = client.ask(target.address, b"from where?")
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(children(pair.server)) == 3 and not {*others} & {*children(pair.server)})
        assert client.ask(target.address, b"from where?") == first
        os.kill(owner, signal.SIGKILL)
        wait_until(lambda: owner not in children(pair.server))
        assert client.works(target.address)


def test_a_client_of_the_dead_workers_queue_is_served_by_its_successor(start_program):
    """The supervisor holds the sockets: what is queued waits there instead of being reset."""
    config = settings(workers=1)
    with serve(echo) as origin:
        config["workers"] = 2
        server = start_program("server", config)
        for pid in wait_workers(server, 2):
            os.kill(pid, signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(16):
                client = sip004.Client(str(config["password"]))
                sock = stack.enter_context(dial(config["server_port"]))
                sock.sendall(client.flight(sip004.address(*origin.address) + b"hello"))
                clients.append((client, sock))
            for pid in children(server):
                os.kill(pid, signal.SIGKILL)
            assert all(client.receive(sock) == b"hello" for client, sock in clients)


def test_no_worker_outlives_its_supervisor(tmp_path):
    program = Program(
        (*COMMANDS["ours"]["server"], "-c", str(write_config(tmp_path / "c.json", settings()))),
        tmp_path / "log",
    )
    workers = wait_workers(program, 4)
    program.process.kill()
    program.process.wait()
    wait_until(lambda: not any(map(is_alive, workers)), what="workers gone")


def test_no_process_is_root_any_more_and_workers_come_back_to_their_port(start_program):
    """As root the real thing, on a port that only root may bind; else the user running the tests."""
    is_root = os.getuid() == 0
    name = "nobody" if is_root else pwd.getpwuid(os.getuid()).pw_name
    port = next(port for port in range(600, 1024) if is_free(port)) if is_root else free_port()
    server = start_program("server", settings(workers=2, user=name, server_port=port))
    victim, _ = wait_workers(server, 2)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in children(server) and len(children(server)) == 2)
    wait_until(lambda: server.log().count(f"listening on 127.0.0.1:{port}") == 4)  # one is the supervisor's
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in (server.pid, *children(server))}
    assert owners == {pwd.getpwnam(name).pw_uid}
    assert listeners(port) == 2


def is_free(port: int) -> bool:
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False


def test_stopping_ends_all_of_them(start_program):
    server = start_program("server", settings())
    workers = wait_workers(server, 4)
    assert server.stop() == 0
    assert not any(map(is_alive, workers))


# -- starting ----------------------------------------------------------------------------------------


def failed_start(tmp_path, config) -> str:
    program = Program(
        (*COMMANDS["ours"]["server"], "-c", str(write_config(tmp_path / "c.json", config))), tmp_path / "log"
    )
    code = program.wait()
    program.assert_healthy()
    assert code in (1, 2)
    return f"{code} {program.log().splitlines()[-1]}"


def test_w30_a_port_that_is_taken(tmp_path):
    config = settings()
    port = config["server_port"]
    sentence = f"cannot listen on 127.0.0.1:{port}: another program listens there already"
    with socket.create_server(("127.0.0.1", port)):
        assert failed_start(tmp_path, config) == f"1 ssserver: {sentence}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        assert failed_start(tmp_path, config) == f"1 ssserver: {sentence}"


def test_w30_a_second_copy_does_not_join_the_first(start_program, tmp_path):
    config = settings(workers=2)
    wait_workers(start_program("server", config), 2)
    assert failed_start(tmp_path, config).startswith("1 ssserver: cannot listen on")
    assert failed_start(tmp_path, {**config, "workers": 1}).startswith("1 ssserver: cannot listen on")


def test_a_worker_that_cannot_start_ends_the_program_with_its_sentence(tmp_path):
    rules = tmp_path / "rules.acl"
    rules.write_text("[outbound_block_list]\n(\n")
    said = failed_start(tmp_path, settings(acl=str(rules)))
    assert said.startswith("2 ")
    assert "rules.acl: line 2" in said


def test_the_daemon_is_told_when_all_listen(tmp_path):
    path = write_config(tmp_path / "c.json", settings(workers=2))
    files = ("--pid-file", str(tmp_path / "pid"), "--log-file", str(tmp_path / "log"))
    command = (*COMMANDS["ours"]["server"], "-c", str(path), *files)
    started = subprocess.run((*command, "-d", "start"), capture_output=True, text=True, timeout=30)
    try:
        assert (started.returncode, started.stderr) == (0, "")
        assert "with 2 workers" in started.stdout
    finally:
        stopped = subprocess.run((*command, "-d", "stop"), capture_output=True, text=True, timeout=30)
    assert (stopped.returncode, stopped.stderr) == (0, "")


# -- what workers have in common -----------------------------------------------------------------------


def test_s9_a_replay_is_one_on_every_worker(start_program):
    config = settings(verbose=1)
    server = start_program("server", config)
    wait_workers(server, 4)
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        client = sip004.Client(str(config["password"]))
        flight = client.flight(sip004.address(*origin.address) + b"once")
        sock = stack.enter_context(dial(config["server_port"]))
        sock.sendall(flight)
        assert client.receive(sock) == b"once"
        for _ in range(60):
            replay = stack.enter_context(dial(config["server_port"]))
            replay.sendall(flight)
        wait_until(lambda: server.log().count("salt was used before") == 60)
    said = {line for line in server.log().splitlines() if "salt was used before" in line}
    assert {re.search(r"worker \d", line).group() for line in said} == {f"worker {n}" for n in (1, 2, 3, 4)}


def test_what_the_server_sent_is_a_replay_too(start_program):
    """Reflection: its own stream, sent back to another worker, opens with the same key."""
    config = settings(verbose=1)
    server = start_program("server", config)
    wait_workers(server, 4)
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        client = sip004.Client(str(config["password"]))
        sock = stack.enter_context(dial(config["server_port"]))
        request = sip004.address(*origin.address)
        sock.sendall(client.flight(request + request + b"reflect me"))
        answer = receive_exactly(sock, 32 + 18 + len(request) + 10 + 16)
        for _ in range(20):
            stack.enter_context(dial(config["server_port"])).sendall(answer)
        wait_until(lambda: server.log().count("salt was used before") == 20)


def test_counters_are_summed_over_the_living_and_the_dead(start_pair):
    pair = start_pair(server_config={"workers": 3})
    workers = wait_workers(pair.server, 3)
    before = statistics(pair.server)
    with serve(echo) as origin:
        for _ in range(20):
            assert is_served(pair, origin)
        wait_until(lambda: statistics(pair.server)["connections"] == 0)
        after = statistics(pair.server)
        assert after["accepted"] - before.get("accepted", 0) == 20
        assert after["bytes_down"] - before.get("bytes_down", 0) == 100
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: workers[0] not in children(pair.server) and len(children(pair.server)) == 3)
        assert statistics(pair.server)["accepted"] == after["accepted"]


# -- draining ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_t8_a_drain_under_load_loses_nothing_that_was_accepted(start_program, workers):
    """Whoever is connected is served to the end; whoever comes later is refused, and nobody is reset."""
    config = settings(workers=workers)
    server = start_program("server", config)
    server.wait_ready()
    failures: list[BaseException] = []
    served = [0]

    def ask(port: int, target: tuple[str, int]) -> None:
        while True:
            client = sip004.Client(str(config["password"]))
            try:
                sock = dial(port)
            except ConnectionRefusedError:
                return
            with sock:
                try:
                    sock.sendall(client.flight(sip004.address(*target) + b"hello"))
                    assert client.receive(sock) == b"hello"
                    served[0] += 1
                except BaseException as exc:
                    failures.append(exc)
                    return

    with serve(echo) as origin:
        threads = [
            threading.Thread(target=ask, args=(config["server_port"], origin.address)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: served[0] > 100)
        server.signal(signal.SIGQUIT)
        for thread in threads:
            thread.join(20)
        assert server.wait() == 0
    assert len(failures) <= 1, failures  # between the last look into the queue and the close


def test_s6_a_second_quit_ends_a_drain(start_pair):
    pair = start_pair(server_config={"workers": 2})
    wait_workers(pair.server, 2)
    with serve(echo) as origin, open_tunnel("socks5", pair.local_port, origin.address) as sock:
        sock.sendall(b"x")
        receive_exactly(sock, 1)
        pair.server.signal(signal.SIGQUIT)
        wait_until(lambda: listeners(pair.server_port) == 0)
        assert pair.server.running
        pair.server.signal(signal.SIGQUIT)
        assert pair.server.wait() == 0
        assert ends(sock)
    assert pair.server.log().count("draining") == 1  # the supervisor says it, for all of them
