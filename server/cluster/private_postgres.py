"""A PostgreSQL of our own below a directory: for a laptop, not for what must not be lost.

It listens on a socket in its directory and nowhere else, asks nobody for a
password because only its owner can reach the socket, and ends with the process
that started it, however that ends.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from server.cluster.children import with_parent

#: Where Debian's packages put the programs of each version.
DEBIAN = Path("/usr/lib/postgresql")

#: PostgreSQL refuses to run as root; root runs it as this user, which Debian's package makes.
UNPRIVILEGED = "postgres"

#: Seconds that it may take to answer.
START_TIMEOUT_S = 60.0

#: Seconds that it may take to end.
STOP_TIMEOUT_S = 15.0

#: Bytes that the path of a Unix socket may have; PostgreSQL adds ".s.PGSQL.5432" to ours.
_SOCKET_BYTES = 107 - len("/.s.PGSQL.5432")


class NoPostgres(RuntimeError):
    """It cannot be started; the message says why and what to do."""


def programs() -> Path:
    """The directory of `initdb` and `postgres`: those in the PATH, else Debian's newest.

    Raises:
        NoPostgres: there are none.
    """
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = [path.parent for path in DEBIAN.glob("*/bin/initdb")]
    if not versions:
        raise NoPostgres(
            "no PostgreSQL here: install Debian's package postgresql, or name a database by "
            "--database-url postgresql+psycopg://user:password@host/name"
        )
    return max(versions, key=lambda path: [int(part) for part in path.parent.name.split(".")])


class PrivatePostgres:
    """One server on one directory.

    Args:
        directory: For its data; made if it does not exist.
        sockets: For its socket; its path must be short (a socket's has 107 bytes).
        durable: Whether a commit survives a power cut. Tests do without.
    """

    def __init__(self, directory: Path, *, sockets: Path, durable: bool = True) -> None:
        self._data = directory / "postgresql"
        self._log = directory / "postgresql.log"
        self._sockets = sockets
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        if len(os.fsencode(sockets)) > _SOCKET_BYTES:
            raise NoPostgres(f"the path {sockets} is too long for a socket: use a shorter one")

    @property
    def url(self) -> str:
        """For `open_database`."""
        user = _owner()[0] if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        return f"postgresql+psycopg://{quote(user)}@/postgres?host={quote(str(self._sockets))}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers.

        Raises:
            NoPostgres: it did not start; its log's end says why.
        """
        binaries = programs()
        for directory in (self._data, self._sockets):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._give(directory)
        if not (self._data / "PG_VERSION").exists():
            self._initialise(binaries)
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "fsync": "on" if self._durable else "off",
        }
        command = [str(binaries / "postgres"), "-D", str(self._data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        self._process = self._run(command, with_parent(signal.SIGQUIT))
        self._wait(binaries)

    def stop(self) -> None:
        """Ends it; connections that are open are cut."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def _initialise(self, binaries: Path) -> None:
        command = [str(binaries / "initdb"), "-D", str(self._data)]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
        if not self._durable:
            command.append("--no-sync")
        if self._run(command, None).wait() != 0:
            raise NoPostgres(f"initdb failed: {self._end_of_log()}")

    def _wait(self, binaries: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        ready = [str(binaries / "pg_isready"), "-q", "-h", str(self._sockets)]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NoPostgres(f"PostgreSQL did not start: {self._end_of_log()}")
            time.sleep(0.05)

    def _run(
        self, command: Sequence[str], before: Callable[[], None] | None
    ) -> subprocess.Popen[bytes]:
        user = _owner() if os.geteuid() == 0 else None
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=before,
                user=user[1] if user else None,
                group=user[2] if user else None,
                extra_groups=[] if user else None,
            )

    def _give(self, path: Path) -> None:
        if os.geteuid() != 0:
            return
        _, user, group = _owner()
        os.chown(path, user, group)
        blocked = [each for each in path.parents if not each.stat().st_mode & 0o001]
        if blocked:
            raise NoPostgres(
                f"the user {UNPRIVILEGED!r}, as which root runs PostgreSQL, cannot enter "
                f"{blocked[-1]}: use another directory, a --database-url, or another user"
            )

    def _end_of_log(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return " / ".join(lines[-3:]) or "it said nothing"


def _owner() -> tuple[str, int, int]:
    try:
        known = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise NoPostgres(
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED!r}: "
            "run this as another user, or give a --database-url"
        ) from None
    return known.pw_name, known.pw_uid, known.pw_gid
