"""Connecting this process to Ray, and starting Ray where there is none.

Ray is used for processes, messages and deaths; not for its scheduler, its
dashboard or its object store, which holds no more than the sums in flight.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: All actors of a deployment are in this namespace of Ray unless it is told another.
NAMESPACE = "nightshift"

#: Bytes of shared memory for sums in flight.
OBJECT_STORE_BYTES = 200 << 20

#: Bytes of each of Ray's log files; one older one is kept.
LOG_BYTES = 5 << 20

#: The packages that the processes of actors import are those of this process.
_PACKAGES = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """Attributes:
    address: Of Ray's control store, as others connect to it.
    """

    address: str


def environment(token_file: Path | None = None) -> Mapping[str, str]:
    """The variables by which Ray is configured, for this process and those that it starts.

    Args:
        token_file: The cluster's shared secret. Without it, RAY_AUTH_MODE and
            RAY_AUTH_TOKEN are whatever the operator has set.
    """
    path = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ROTATION_MAX_BYTES": str(LOG_BYTES),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        # Imported before a process is needed, so that a round need not wait for it.
        "RAY_preload_python_modules": "server.cluster.tier",
        # Requests and rounds are the parallelism; BLAS threads would wait for each other.
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
    }
    if token_file is not None:
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
    return variables


def configure(variables: Mapping[str, str]) -> None:
    """Sets them for this process and its children. Ray reads them when it is imported.

    Raises:
        RuntimeError: that was before.
    """
    late = {name for name in variables if os.environ.get(name) != variables[name]}
    if "ray" in sys.modules and late & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"}:
        raise RuntimeError("Ray was imported before its token was known")
    os.environ.update(variables)


def make_token(path: Path) -> Path:
    """A file with a new secret, readable by its owner only, unless there is one."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path


def start_head(
    *,
    temporary: Path,
    token_file: Path,
    namespace: str = NAMESPACE,
    object_store_bytes: int = OBJECT_STORE_BYTES,
) -> RayNode:
    """Starts a Ray of one machine on loopback and connects to it; it ends with this process.

    Args:
        temporary: For sockets and logs; its path must be short (sockets have 107 bytes).
        token_file: The cluster's shared secret, see `make_token`.
        namespace: Of this process's actors.
        object_store_bytes: Shared memory for sums in flight.
    """
    configure(environment(token_file))
    import ray

    _init(
        ray,
        _temp_dir=str(temporary),
        _node_ip_address="127.0.0.1",
        namespace=namespace,
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=object_store_bytes,
    )
    return RayNode(address=ray.get_runtime_context().gcs_address)


def connect(address: str, *, namespace: str = NAMESPACE) -> RayNode:
    """Connects this process to the Ray at an address; this machine must be one of its nodes.

    Raises:
        ConnectionError: there is no Ray, or none here, or its token is another.
    """
    configure(environment())
    import ray

    _init(ray, address=address, namespace=namespace)
    return RayNode(address=address)


def disconnect() -> None:
    """Ends the connection, and a Ray that `start_head` has started."""
    import ray

    ray.shutdown()


def _init(ray: Any, **arguments: Any) -> None:
    ray.init(log_to_driver=False, logging_level="warning", configure_logging=False, **arguments)
