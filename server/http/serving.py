"""Serving the application with granian."""

import ctypes
import fcntl
import os
import resource
import signal
import socket
from contextlib import suppress
from pathlib import Path

from granian import Granian
from granian.constants import Interfaces

from device_plan.signing import InvalidKey, load_public_key
from server.configuration import ServerConfiguration
from server.http.draining import STOP_TIMEOUT_S, end_on_signals
from server.http.idle_connections import close_idle_connections
from server.telemetry.logs import GRANIAN_LOGS

#: Waiting connections that the kernel holds while all threads are busy.
BACKLOG = 4096

#: Connections held at once. Idle ones cost 10 KB each; granian's backpressure counts them all,
#: so that a smaller number would let idle phones shut out the others.
MAX_CONNECTIONS = 65_536

#: Seconds beyond its drain, and beyond what hangs then, after which the worker is killed.
MARGIN_S = 5.0


class CannotServe(RuntimeError):
    """The server was not started; the message says why and what to do."""


def run(configuration: ServerConfiguration) -> None:
    """Serves until SIGINT, or SIGTERM and a drain. Blocks; call it from the main thread.

    Raises:
        CannotServe: the address or the data directory is in use or not to be had, or a
            plan key cannot be read.
    """
    try:
        configuration.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CannotServe(
            f"cannot make the data directory {configuration.data_dir}: {error.strerror}"
        ) from error
    for path in configuration.plan_keys:
        try:
            load_public_key(path)
        except InvalidKey as error:
            raise CannotServe(str(error)) from error
    _lock(configuration.data_dir)
    _check_address(configuration.host, configuration.port)
    configuration.to_environment()
    _allow_many_connections()
    # Requests are the parallelism. BLAS threads of their own would wait for one
    # another, spinning: a sum of 100 KB then costs milliseconds instead of microseconds.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # One worker: the actors live in it. The listener's own process only
    # watches it.
    _Listener(
        "server.http.serving:worker_application",
        address=configuration.host,
        port=configuration.port,
        interface=Interfaces.WSGI,
        factory=True,
        workers=1,
        blocking_threads=configuration.threads,
        backlog=BACKLOG,
        backpressure=MAX_CONNECTIONS,
        websockets=False,
        log_access=False,
        respawn_failed_workers=False,
        workers_kill_timeout=configuration.drain_s + STOP_TIMEOUT_S + MARGIN_S,
        log_dictconfig=GRANIAN_LOGS,
    ).serve()


class _Listener(Granian):  # type: ignore[misc]
    """Granian's main process. Its worker drains at SIGTERM, and ends at SIGINT.

    Granian itself sends its worker SIGTERM when it gets either, and then waits.
    """

    def signal_handler_interrupt(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT or self.interrupt_signal:
            for worker in self.wrks:
                # Or its end would count as a failure.
                worker.interrupt_by_parent = True
                with suppress(ProcessLookupError):
                    os.kill(worker.inner.pid, signal.SIGINT)
        super().signal_handler_interrupt()


def _lock(data_dir: Path) -> None:
    """Keeps other servers out of the directory until the last process of this one has ended.

    The kernel gives the lock back, however the server ends; a file with a process
    id would have to be removed by hand after a power cut.
    """
    try:
        descriptor = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CannotServe(
            f"another server runs on the data directory {data_dir}: stop it, or use another "
            "--data-dir"
        ) from error
    except OSError as error:
        raise CannotServe(f"cannot use the data directory {data_dir}: {error.strerror}") from error


def _check_address(host: str, port: int) -> None:
    """Granian would share the port of a server that runs already, and take half of its devices."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise CannotServe(
            f"cannot listen on {host}:{port}: {error.strerror}; use another --host or --port"
        ) from error


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def worker_application() -> object:
    """The WSGI application of granian's worker process."""
    from server.http.application import Application, OnceClosed, create

    _die_with_parent()
    application: Application | None = None
    closing = OnceClosed()
    end_on_signals(lambda: application.drain if application is not None else None, closing)
    configuration = ServerConfiguration.from_environment()
    close_idle_connections(port=configuration.port, after_s=configuration.idle_timeout_s)
    application = create(configuration, closing)
    return application.flask.wsgi_app


def _die_with_parent() -> None:
    """Has the kernel end this process with its parent, even if that is killed with SIGKILL."""
    pr_set_pdeathsig = 1
    if Path("/proc/self").exists():
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
