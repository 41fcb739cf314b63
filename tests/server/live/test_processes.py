"""The server's processes live and die together."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.house import ROOT
from tests.server.live.mean_plan import plan_for
from tests.server.live.rounds import assemble
from tests.server.live.served import Server, free_port
from tests.server.live.waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


def gone(process: psutil.Process) -> bool:
    """Ended; whoever has adopted it may not have looked yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_nothing_left(server: Server, processes: list[psutil.Process]) -> None:
    eventually(lambda: all(gone(process) for process in processes), within=10)
    with socket.socket() as connection:
        assert connection.connect_ex(("127.0.0.1", server.port)) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_whatever_clients_do(
    server: Server, number: signal.Signals
) -> None:
    eventually(server.model_update)
    processes = server.processes()
    assert len(processes) == 3
    with socket.create_connection(("127.0.0.1", server.port)) as hanging:
        hanging.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")
        eventually(lambda: server.status("/healthz") == 200)
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
    assert_nothing_left(server, processes)


def test_a_server_without_its_worker_ends(server: Server) -> None:
    processes = server.processes()
    server.worker().kill()
    assert server.process.wait(30) != 0
    assert_nothing_left(server, processes)


def test_the_worker_does_not_outlive_the_server(server: Server) -> None:
    processes = server.processes()
    server.process.kill()
    server.process.wait()
    assert_nothing_left(server, processes)
    server.start()


def test_a_model_update_that_dies_is_started_again(server: Server, mean_plan: Path) -> None:
    plan = plan_for("processes/mean", base=mean_plan, goal_count=2, over_selection=1.0)
    task = server.deploy(plan)
    live = assemble(task, 2)
    dying = eventually(server.model_update)
    dying.suspend()
    live.finish()
    dying.kill()
    live.assert_committed()
    assert eventually(server.model_update).pid != dying.pid


def serve(data: Path, port: int) -> "subprocess.CompletedProcess[str]":
    """A server that is expected not to start."""
    command = [sys.executable, "-m", "nightshift", "serve", "--data-dir", str(data)]
    return subprocess.run(
        [*command, "--port", str(port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_port_or_a_directory_in_use_is_said_in_one_sentence(
    server: Server, tmp_path: Path
) -> None:
    for run in (serve(tmp_path / "other", server.port), serve(server.data, free_port())):
        assert run.returncode == 1
        assert run.stderr.startswith("Error: ")
        assert run.stderr.count("\n") == 1
    assert server.status("/healthz") == 200


def test_a_directory_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = serve(tmp_path / "file" / "data", free_port())
    assert run.returncode == 1
    assert run.stderr.startswith("Error: cannot make the data directory")


def test_a_stale_lock_of_a_dead_server_does_no_harm(server: Server) -> None:
    server.kill()
    (server.data / "server.lock").write_text(str(os.getpid()))
    server.start()
    assert server.status("/healthz") == 200
