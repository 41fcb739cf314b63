"""What an operator may set, with defaults that suit one machine."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: How the configuration reaches the process that granian starts.
ENVIRONMENT_VARIABLE = "NIGHTSHIFT_SERVER_CONFIGURATION"


@dataclass(frozen=True, kw_only=True)
class ServerConfiguration:
    """Every setting of a server. docs/configuration.md explains them.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    #: Database, blobs, secrets and logs live here.
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8750
    #: Threads that answer requests; an upload holds one while its body arrives.
    threads: int = 128
    #: Seconds after which a connection is closed on which nothing comes or goes.
    idle_timeout_s: float = 30.0
    #: Seconds a dead coordinator's lease lives on.
    lease_ttl_s: float = 3.0
    #: The share of devices that evaluate and never train (a new population's).
    holdout_fraction: float = 0.15
    #: Bytes of one upload request.
    max_chunk_bytes: int = 1 << 20
    #: Bytes of unfinished uploads held in memory.
    max_upload_bytes: int = 1 << 30
    #: Seconds between the polls of a device in the selection pool.
    poll_interval_s: float = 1.0
    #: Seconds a device waits at least between check-ins.
    min_retry_s: float = 60.0
    #: Seconds a device waits at most.
    max_retry_s: float = 24 * 3600.0
    #: Small populations meet at multiples of this many seconds.
    rendezvous_s: float = 300.0
    #: Seconds that a device waits at least whose runtime no task supports, and
    #: half of what it waits at most.
    unsupported_retry_s: float = 24 * 3600.0
    #: Files of public keys: plans must be signed by one of them. None: any plan is run.
    plan_keys: tuple[Path, ...] = ()
    #: Seconds after an abandoned round before its task tries again, at first.
    round_retry_s: float = 1.0

    def __post_init__(self) -> None:
        _check(0 <= self.port < 65536, "port", self.port, "from 0 to 65535")
        _check(8 <= self.threads <= 4096, "threads", self.threads, "from 8 to 4096")
        _check(
            0.0 <= self.holdout_fraction < 1.0,
            "holdout_fraction",
            self.holdout_fraction,
            "from 0 to below 1",
        )
        _check(
            4096 <= self.max_chunk_bytes <= self.max_upload_bytes,
            "max_chunk_bytes",
            self.max_chunk_bytes,
            "from 4096 to max_upload_bytes",
        )
        for name in (
            "idle_timeout_s",
            "lease_ttl_s",
            "poll_interval_s",
            "rendezvous_s",
            "round_retry_s",
            "unsupported_retry_s",
        ):
            _check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        _check(
            0 < self.min_retry_s <= self.max_retry_s,
            "min_retry_s",
            self.min_retry_s,
            "above 0 and at most max_retry_s",
        )

    @property
    def database_url(self) -> str:
        return f"sqlite:///{(self.data_dir / 'nightshift.db').resolve()}"

    def to_environment(self) -> None:
        """Leaves the configuration for the server's worker process."""
        values = {
            **asdict(self),
            "data_dir": str(self.data_dir.resolve()),
            "plan_keys": [str(path.resolve()) for path in self.plan_keys],
        }
        os.environ[ENVIRONMENT_VARIABLE] = json.dumps(values)

    @classmethod
    def from_environment(cls) -> "ServerConfiguration":
        """Raises KeyError if `to_environment` was not called in a parent."""
        values: dict[str, Any] = json.loads(os.environ[ENVIRONMENT_VARIABLE])
        values["data_dir"] = Path(values["data_dir"])
        values["plan_keys"] = tuple(Path(path) for path in values["plan_keys"])
        return cls(**values)


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, not {value}")
