"""A PostgreSQL of the tests' own: made of Debian's package, and gone when they end."""

import itertools
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType

import psutil
import psycopg
from sqlalchemy.engine import make_url

from server.cluster.private_postgres import PrivatePostgres


class PrivatePostgresql:
    """A server in a directory of its own, with databases for tests that may freeze and kill it.

    It ends with the block, and with the process that made it.
    """

    def __init__(self) -> None:
        self._names = itertools.count()

    def __enter__(self) -> "PrivatePostgresql":
        # Not pytest's directory, which only its user may enter. Sockets' paths are short.
        self._directory = Path(tempfile.mkdtemp(prefix="nightshift-pg-", dir="/tmp"))
        self._directory.chmod(0o711)
        self._sockets = self._directory / "sockets"
        self._server = PrivatePostgres(self._directory, sockets=self._sockets, durable=False)
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
        self._server.start()
        self._runs = True

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test{next(self._names)}"
        self._execute(f"CREATE DATABASE {name}")
        user = make_url(self._server.url).username
        return f"postgresql+psycopg://{user}@/{name}?host={self._sockets}"

    def drop_database(self, url: str) -> None:
        """Removes a database, whoever still uses it."""
        self._execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def freeze(self) -> None:
        """Stops all of the server's processes; its sockets still take connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the server at once, with what it was doing."""
        if self._runs:
            self._runs = False
            self.thaw()
            os.kill(self._server.pid, signal.SIGQUIT)
            self._server.stop()

    def _execute(self, statement: str) -> None:
        url = make_url(self._server.url).set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _signal(self, number: int) -> None:
        server = psutil.Process(self._server.pid)
        # First the one that makes the others.
        for process in (server, *server.children(recursive=True)):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
