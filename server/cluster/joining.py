"""Making a machine a node of a Ray cluster for as long as a selector runs on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.cluster import children, ray_node

#: Seconds that a node may take to join.
JOIN_TIMEOUT_S = 60.0

#: Seconds that it may take to leave.
LEAVE_TIMEOUT_S = 10.0


class CannotJoin(RuntimeError):
    """The machine is no node of the cluster; the message says why and what to do."""


@contextmanager
def joined(address: str, data_dir: Path, *, start_node: bool) -> Iterator[None]:
    """The machine is a node, without processors for others, inside the with statement.

    Args:
        address: Of Ray's control store.
        data_dir: For the node's log.
        start_node: Whether it has to be made one.

    Raises:
        CannotJoin: it did not join; the node's own words are in the message.
    """
    os.environ.update(ray_node.environment())
    if not start_node:
        yield
        return
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = data_dir / "ray-node.log"
    program = shutil.which("ray") or str(Path(sys.executable).with_name("ray"))
    node = children.start(
        [
            *(program, "start", f"--address={address}", "--block", "--num-cpus=0"),
            *("--disable-usage-stats", f"--object-store-memory={ray_node.OBJECT_STORE_BYTES}"),
        ],
        log=log,
    )
    try:
        _wait(node, address, log)
        yield
    finally:
        children.end([node], within_s=LEAVE_TIMEOUT_S)


def _wait(node: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while "Ray runtime started" not in (said := log.read_text(errors="replace")):
        if node.poll() is not None or time.monotonic() > deadline:
            end = "\n".join(said.splitlines()[-5:])
            raise CannotJoin(
                f"cannot join the Ray at {address}: is it reachable from here, and are "
                f"RAY_AUTH_MODE and RAY_AUTH_TOKEN those of the head? It said:\n{end}"
            )
        time.sleep(0.1)
