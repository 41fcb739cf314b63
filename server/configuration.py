"""What an operator may set, with defaults that suit one machine.

The fields are the only declaration: options, environment variables, keys of the
configuration file and docs/configuration.md are derived from them (server/settings.py).
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.settings import check, setting
from server.telemetry.logs import LogFormat

#: How the configuration reaches the process that granian starts.
ENVIRONMENT_VARIABLE = "NIGHTSHIFT_SERVER_CONFIGURATION"


@dataclass(frozen=True, kw_only=True)
class ServerConfiguration:
    """Every setting of a server, embedded or a selector of a cluster.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    data_dir: Path = setting(
        Path("nightshift-data"),
        "Directory of the database, blobs and secrets; made if it does not exist.",
    )
    host: str = setting(
        "127.0.0.1", "Address to listen on; put a proxy with TLS before any other than loopback."
    )
    port: int = setting(8750, "Port to listen on.", least=0, most=65535)
    threads: int = setting(
        128,
        "Requests served at once; an upload, or a client that stalls, holds one.",
        least=8,
        most=4096,
    )
    idle_timeout_s: float = setting(
        30.0,
        "Seconds after which a connection is closed on which nothing comes or goes: "
        "a phone that fell silent must not hold a thread.",
        above=0,
    )
    lease_ttl_s: float = setting(
        3.0,
        "Seconds until a dead coordinator's lease can be taken; also how long a restart "
        "after a crash waits.",
        above=0,
    )
    holdout_fraction: float = setting(
        0.15,
        "Share of devices that evaluate and never train, of populations made from now on.",
        least=0,
        below=1,
    )
    max_chunk_bytes: int = setting(
        1 << 20, "Bytes of one upload request; at most max_upload_bytes.", least=4096
    )
    max_upload_bytes: int = setting(
        1 << 30,
        "Bytes of unfinished uploads held in memory; beyond it devices are told BUSY.",
        least=4096,
    )
    poll_interval_s: float = setting(
        1.0,
        "Seconds, about, between two polls of a device in the pool once the selection "
        "window has passed.",
        above=0,
    )
    session_grace_s: float = setting(
        30.0,
        "Seconds that a device may be late with a poll before its place in the pool, or in "
        "the round, is given up.",
        above=0,
    )
    min_retry_s: float = setting(
        60.0, "Seconds before which no device comes back; at most max_retry_s.", above=0
    )
    max_retry_s: float = setting(
        86400.0,
        "Seconds after which every device comes back; also what it is told when nothing "
        "is scheduled.",
        above=0,
    )
    rendezvous_s: float = setting(
        300.0,
        "Small populations are sent to multiples of so many seconds, so that rounds fill.",
        above=0,
    )
    unsupported_retry_s: float = setting(
        86400.0,
        "A device whose runtime no task supports comes back after so many seconds at the "
        "earliest, and twice as many at the latest; the reference runtime believes no window "
        "beyond two days.",
        above=0,
    )
    plan_keys: tuple[Path, ...] = setting(
        (),
        "File of a public key (see `nightshift plan key`): plans that none of these keys "
        "signed are refused. Without it any plan is run, with a warning.",
        option="--plan-key",
    )
    round_retry_s: float = setting(
        1.0,
        "Seconds after an abandoned round before its task tries again, doubled for each "
        "further one, at most a minute.",
        above=0,
    )
    drain_s: float = setting(
        30.0,
        "Seconds that a server which gets SIGTERM waits at most for the uploads under way; "
        "give its supervisor ten more.",
        least=0,
    )
    drain_min_s: float = setting(
        0.0,
        "Seconds that it goes on answering at least, so that a load balancer that asks "
        "/readyz sends no more devices before it ends.",
        least=0,
    )
    log_format: LogFormat = setting(
        "auto", "Form of the log; auto is console on a terminal, else json."
    )
    database_url: str = setting(
        "",
        "Database, as sqlite:////path or postgresql+psycopg://user:password@host/name; by "
        "default nightshift.db in the data directory.",
        secret=True,
    )
    blobs: str = setting(
        "",
        "Where plans and models are stored: a directory or gs://bucket/prefix; by default "
        "blobs/ in the data directory.",
    )
    secrets: Path | None = setting(
        None,
        "File with the key of session tokens and the operator's token, which all selectors of "
        "a cluster share; by default secrets.json in the data directory, made if missing.",
    )
    public_url: str | None = setting(
        None,
        "Address at which devices reach this very selector, for sessions that must come "
        "back to it; by default that of the check-in.",
    )
    selector_id: str | None = setting(
        None, "Name of this selector among those of its cluster; by default host and process id."
    )
    ray_address: str | None = setting(
        None, "Address of the cluster's Ray, e.g. ray-head:6379; without it everything is embedded."
    )

    def __post_init__(self) -> None:
        check(self)
        if self.max_chunk_bytes > self.max_upload_bytes:
            raise ValueError(
                f"max_chunk_bytes must be at most max_upload_bytes ({self.max_upload_bytes}), "
                f"not {self.max_chunk_bytes}"
            )
        if self.min_retry_s > self.max_retry_s:
            raise ValueError(
                f"min_retry_s must be at most max_retry_s ({self.max_retry_s}), "
                f"not {self.min_retry_s}"
            )
        if not self.database_url:
            path = (self.data_dir / "nightshift.db").resolve()
            object.__setattr__(self, "database_url", f"sqlite:///{path}")
        if not self.blobs:
            object.__setattr__(self, "blobs", str((self.data_dir / "blobs").resolve()))

    def to_environment(self) -> None:
        """Leaves the configuration for the server's worker process."""
        values = {
            **asdict(self),
            "data_dir": str(self.data_dir.resolve()),
            "plan_keys": [str(path.resolve()) for path in self.plan_keys],
            "secrets": None if self.secrets is None else str(self.secrets.resolve()),
        }
        os.environ[ENVIRONMENT_VARIABLE] = json.dumps(values)

    @classmethod
    def from_environment(cls) -> "ServerConfiguration":
        """Raises KeyError if `to_environment` was not called in a parent."""
        values: dict[str, Any] = json.loads(os.environ[ENVIRONMENT_VARIABLE])
        values["data_dir"] = Path(values["data_dir"])
        values["plan_keys"] = tuple(Path(path) for path in values["plan_keys"])
        values["secrets"] = None if values["secrets"] is None else Path(values["secrets"])
        return cls(**values)
