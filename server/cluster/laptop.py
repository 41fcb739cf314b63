"""A whole cluster on one machine: Ray, PostgreSQL, and selectors, started and ended as one."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3

from server.cluster import children, ray_node
from server.cluster.private_postgres import PrivatePostgres
from server.cluster.watchdog import Watchdog
from server.configuration import ServerConfiguration
from server.secrets_file import FILE_NAME, ServerSecrets
from server.settings import settings

#: Describes a running cluster, in its data directory.
STATE_FILE = "cluster.json"

#: Seconds until all selectors are ready; TensorFlow alone takes ten.
READY_TIMEOUT_S = 180.0

#: So many restarts of selectors within so many seconds are too many.
MAX_RESTARTS = 5
RESTARTS_S = 60.0

#: Seconds beyond its drain that a selector may take to end.
STOP_MARGIN_S = 15.0


class CannotStart(RuntimeError):
    """The cluster was not started; the message says why and what to do."""


class Laptop:
    """One cluster on this machine. Everything it starts ends with this process.

    Args:
        configuration: What all selectors have in common; its port is the first one's.
        selectors: How many.
        object_store_bytes: Shared memory of Ray.
        durable: Whether the private database survives a power cut.
    """

    def __init__(
        self,
        configuration: ServerConfiguration,
        *,
        selectors: int,
        object_store_bytes: int = ray_node.OBJECT_STORE_BYTES,
        durable: bool = True,
    ) -> None:
        self._configuration = configuration
        self._count = selectors
        self._object_store_bytes = object_store_bytes
        self._durable = durable
        self._data = configuration.data_dir.resolve()
        # Sockets have short paths; the same for each start, so that nothing piles up.
        name = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:12]
        self._short = Path(tempfile.gettempdir()) / f"nightshift-{name}"
        self._postgres: PrivatePostgres | None = None
        self._selectors: list[subprocess.Popen[bytes]] = []
        self._own: list[ServerConfiguration] = []
        self._restarts: deque[float] = deque(maxlen=MAX_RESTARTS)
        self._node: ray_node.RayNode | None = None
        self._lock: int | None = None
        self._watchdog: Watchdog | None = None

    @property
    def urls(self) -> list[str]:
        """Of the selectors."""
        first = self._configuration.port
        host = self._configuration.host
        shown = f"[{host}]" if ":" in host else host
        return [f"http://{shown}:{first + number}" for number in range(self._count)]

    def start(self) -> None:
        """Starts everything and returns when all selectors are ready.

        Raises:
            CannotStart, NoPostgres: something did not start; `stop` ends what did.
        """
        self._prepare()
        os.environ.update(ray_node.environment())
        self._watchdog = Watchdog()
        database_url = self._database()
        node = self._node = ray_node.start_head(
            temporary=self._short / "ray",
            token_file=ray_node.make_token(self._data / "ray.token"),
            object_store_bytes=self._object_store_bytes,
        )
        self._watchdog.name_descendants()
        ServerSecrets.load_or_create(self._data)
        for number, url in enumerate(self.urls):
            own = dataclasses.replace(
                self._configuration,
                data_dir=self._data / "selectors" / str(number),
                port=self._configuration.port + number,
                database_url=database_url,
                blobs=self._blobs,
                secrets=self._data / FILE_NAME,
                selector_id=f"selector-{number}",
                public_url=url,
                ray_address=node.address,
            )
            self._own.append(own)
            self._selectors.append(self._start_selector(own))
        self._write_state(node.address)
        self._wait()
        self._watchdog.name_descendants()

    def stop(self) -> None:
        """Ends everything in order: uploads under way first."""
        children.end(self._selectors, within_s=self._configuration.drain_s + STOP_MARGIN_S)
        ray_node.disconnect()
        if self._postgres is not None:
            self._postgres.stop()
        if self._watchdog is not None:
            self._watchdog.end()
        (self._data / STATE_FILE).unlink(missing_ok=True)
        shutil.rmtree(self._short, ignore_errors=True)

    def failed(self) -> str | None:
        """Which selector has ended by itself, if one has."""
        for number, process in enumerate(self._selectors):
            if process.poll() is not None:
                return f"selector-{number} ended with {process.returncode}: {self._said(number)}"
        return None

    def mend(self) -> list[str]:
        """Starts selectors again that have ended by themselves; their ids.

        Raises:
            CannotStart: they end again and again.
        """
        mended = []
        for number, process in enumerate(self._selectors):
            if process.poll() is None:
                continue
            now = time.monotonic()
            if len(self._restarts) == MAX_RESTARTS and now - self._restarts[0] < RESTARTS_S:
                raise CannotStart(f"selectors end again and again; {self.failed()}")
            self._restarts.append(now)
            self._selectors[number] = self._start_selector(self._own[number])
            mended.append(f"selector-{number}")
        if mended and self._node is not None:
            self._write_state(self._node.address)
        return mended

    @property
    def _blobs(self) -> str:
        given = self._configuration.blobs
        return given if "://" in given else str(Path(given).resolve())

    def _prepare(self) -> None:
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._data / "cluster.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotStart(
                f"another cluster runs on the data directory {self._data}: stop it, or use "
                "another --data-dir"
            ) from error
        except OSError as error:
            raise CannotStart(f"cannot use {self._data}: {error.strerror}") from error
        shutil.rmtree(self._short, ignore_errors=True)
        self._short.mkdir(mode=0o711)

    def _database(self) -> str:
        if not self._configuration.database_url.startswith("sqlite:"):
            return self._configuration.database_url
        self._postgres = PrivatePostgres(
            self._data, sockets=self._short / "postgresql", durable=self._durable
        )
        self._postgres.start()
        return self._postgres.url

    def _start_selector(self, own: ServerConfiguration) -> subprocess.Popen[bytes]:
        own.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        # In the environment, because a command line can be read by everybody here.
        return children.start(
            [sys.executable, "-m", "nightshift", "cluster", "selector", "--no-join"],
            log=own.data_dir / "log",
            environment=as_environment(own),
        )

    def _wait(self) -> None:
        pool = urllib3.PoolManager(retries=False, timeout=5.0)
        deadline = time.monotonic() + READY_TIMEOUT_S
        waiting = dict(enumerate(self.urls))
        while waiting:
            if (failed := self.failed()) is not None:
                raise CannotStart(failed)
            if time.monotonic() > deadline:
                missing = ", ".join(waiting.values())
                raise CannotStart(f"not ready after {READY_TIMEOUT_S:g} s: {missing}")
            for number, url in list(waiting.items()):
                try:
                    if pool.request("GET", f"{url}/readyz").status == 200:
                        del waiting[number]
                except urllib3.exceptions.HTTPError:
                    continue
            time.sleep(0.1)

    def _said(self, number: int) -> str:
        log = self._data / "selectors" / str(number) / "log"
        lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
        return "\n".join([f"the end of {log}:", *lines])

    def _write_state(self, ray_address: str) -> None:
        state: dict[str, Any] = {
            "ray_address": ray_address,
            "ray_token": str(self._data / "ray.token"),
            "pid": os.getpid(),
            "postgres_pid": None if self._postgres is None else self._postgres.pid,
            "selectors": [
                {"id": f"selector-{number}", "url": url, "pid": process.pid}
                for number, (url, process) in enumerate(
                    zip(self.urls, self._selectors, strict=True)
                )
            ],
        }
        path = self._data / STATE_FILE
        temporary = path.with_suffix(f".{secrets.token_hex(4)}")
        temporary.write_text(json.dumps(state, indent=2))
        temporary.replace(path)


def as_environment(configuration: ServerConfiguration) -> Mapping[str, str]:
    """The variables that give another process the same settings."""
    variables = {}
    for known in settings(ServerConfiguration):
        value = getattr(configuration, known.name)
        if value is None or value == known.default:
            continue
        values = value if known.multiple else (value,)
        variables[known.variable] = os.pathsep.join(str(each) for each in values)
    return variables
