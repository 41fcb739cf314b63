"""Serving the application with granian."""

import ctypes
import os
import resource
import signal
from pathlib import Path

from granian import Granian
from granian.constants import Interfaces

from server.configuration import ServerConfiguration

#: Waiting connections that the kernel holds while all threads are busy.
BACKLOG = 4096

#: Connections held at once. Idle ones cost 10 KB each; granian's backpressure counts them all,
#: so that a smaller number would let idle phones shut out the others.
MAX_CONNECTIONS = 65_536


def run(configuration: ServerConfiguration) -> None:
    """Serves until SIGTERM or SIGINT. Blocks; call it from a process's main thread."""
    configuration.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    configuration.to_environment()
    _allow_many_connections()
    # Requests are the parallelism. BLAS threads of their own would wait for one
    # another, spinning: a sum of 100 KB then costs milliseconds instead of microseconds.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # One worker: the actors live in it. The listener's own process only
    # watches it.
    Granian(
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
        workers_kill_timeout=10,
        pid_file=configuration.data_dir / "server.pid",
    ).serve()


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def worker_application() -> object:
    """The WSGI application of granian's worker process."""
    from server.http.application import create_from_environment

    _die_with_parent()
    return create_from_environment()


def _die_with_parent() -> None:
    """Has the kernel end this process with its parent, even if that is killed with SIGKILL."""
    pr_set_pdeathsig = 1
    if Path("/proc/self").exists():
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
