"""What runs for a cluster on this machine, with the ids of its processes."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from server.cluster import ray_node
from server.cluster.laptop import STATE_FILE


class NoCluster(RuntimeError):
    """There is none, or it does not answer; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process that may be looked at, frozen or killed.

    Attributes:
        kind: up, database, selector, coordinator, master, model-update or mailbox.
        name: Of the actor or selector.
        pid: Its process; of a selector the one that answers devices.
        url: Of a selector.
    """

    kind: str
    name: str
    pid: int
    url: str = ""


def read(data_dir: Path) -> list[Part]:
    """The parts of the cluster on a data directory.

    Raises:
        NoCluster: none runs there, or Ray does not answer.
    """
    try:
        state = json.loads((data_dir / STATE_FILE).read_text())
    except FileNotFoundError:
        raise NoCluster(
            f"no cluster runs on {data_dir}: start one by `nightshift cluster up`, or name "
            "its --data-dir"
        ) from None
    parts = [Part(kind="up", name="", pid=state["pid"])]
    if state["postgres_pid"] is not None:
        parts.append(Part(kind="database", name="", pid=state["postgres_pid"]))
    urls = {selector["id"]: selector["url"] for selector in state["selectors"]}
    for name, pid in sorted(_actors(state).items()):
        kind, _, rest = name.partition("/")
        if kind == "mailbox":
            selector_id = rest.partition("/")[0]
            url = urls.get(selector_id, "")
            parts.append(Part(kind="selector", name=selector_id, pid=pid, url=url))
        elif kind in ("coordinator", "model-update"):
            parts.append(Part(kind=kind, name=name, pid=pid))
        else:
            parts.append(Part(kind="master", name=name, pid=pid))
    return parts


def _actors(state: dict[str, str]) -> dict[str, int]:
    ray_node.configure(ray_node.environment(Path(state["ray_token"])))
    # After its environment.
    from server.cluster.ray_system import pids

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray_node.connect(state["ray_address"])
    except ConnectionError as error:
        raise NoCluster(f"the cluster's Ray does not answer: {error}") from error
    try:
        return pids(ray_node.NAMESPACE)
    finally:
        ray_node.disconnect()
