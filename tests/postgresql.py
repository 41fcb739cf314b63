"""A PostgreSQL of the tests' own: made of Debian's package, and gone when they end."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import psycopg

_MISSING = (
    "these tests need PostgreSQL's server, and neither initdb nor /usr/lib/postgresql/*/bin/initdb "
    "is there: install it (on Debian and Ubuntu: apt-get install postgresql)"
)

#: Who runs the server if the tests are root's, since PostgreSQL refuses to be.
_USER = "postgres"


class PrivatePostgresql:
    """A server in a directory of its own, reached by a socket there and by nothing else.

    It ends with the block, and with the process that made it.
    """

    def __init__(self) -> None:
        self._initdb = _binary("initdb")
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": _USER, "group": _USER, "extra_groups": []}
        self._names = itertools.count()
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PrivatePostgresql":
        # Not pytest's directory, which only its user may enter. Sockets' paths are short.
        self._directory = Path(tempfile.mkdtemp(prefix="nightshift-pg-", dir="/tmp"))
        if self._identity:
            shutil.chown(self._directory, _USER, _USER)
        self._run(
            *(self._initdb, "--auth=trust", "--username=nightshift", "--encoding=UTF8"),
            *("--locale=C", "--no-sync", f"--pgdata={self._directory / 'data'}"),
        )
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        """Starts the server, again if it was killed, and waits until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._directory),
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "QUIT", "--"),
                    *(_binary("postgres"), "-D", str(self._directory / "data"), *options),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                **self._identity,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._conninfo("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                ended = self._server.poll() is not None
                if ended or time.monotonic() > deadline:
                    said = (self._directory / "log").read_text()
                    raise RuntimeError(f"PostgreSQL does not start: {error}\n{said}") from error
                time.sleep(0.05)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test{next(self._names)}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://nightshift@/{name}?host={self._directory}"

    def drop_database(self, url: str) -> None:
        """Removes a database, whoever still uses it."""
        name = url.partition("@/")[2].partition("?")[0]
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def freeze(self) -> None:
        """Stops all of the server's processes; its sockets still take connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the server at once, with what it was doing."""
        if self._server is None:
            return
        self.thaw()
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(60)
        self._server = None

    def _signal(self, number: int) -> None:
        assert self._server is not None
        server = psutil.Process(self._server.pid)
        # First the one that makes the others.
        for process in (server, *server.children(recursive=True)):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def _conninfo(self, database: str) -> str:
        return f"host={self._directory} user=nightshift dbname={database}"

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd="/", check=False, **self._identity
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _binary(name: str) -> str:
    # Debian keeps them off the path, by version.
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = shutil.which(name) or next(map(str, versions), None)
    if found is None:
        raise RuntimeError(_MISSING)
    return found
