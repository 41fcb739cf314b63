"""A running server: its probes, its port, and what its operator's API tells of rounds."""

import errno
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import urllib3

from server.admin_client import AdminClient
from server.configuration import ServerConfiguration
from server.doctor.finding import Finding, fine, skipped, warning, wrong
from server.doctor.rounds import LATELY_S, EndedRound

_TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)

#: What to do, by the check of /readyz or /healthz that failed.
REMEDIES = {
    "accepting": "nothing: it ends by itself; start another if none follows",
    "database": "see the lines on the database",
    "blobs": "see the lines on the blob store",
    "leases": "wait for --lease-ttl-s; then see the log for lease_lost and actor_died",
    "model_update": "wait a minute after a start; else run "
    "`python -m server.model_update.process` by hand to see why TensorFlow does not load",
    "actors": "restart the process: its threads are stuck; keep the log",
    "selector": "restart the process; keep the log",
}


def server_findings(url: str) -> Iterator[Finding]:
    """Whether a server answers, can serve, and wants devices."""
    check = f"server {url}"
    pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=False)
    began = time.perf_counter()
    try:
        live = pool.request("GET", f"{url}/healthz")
    except urllib3.exceptions.HTTPError as error:
        yield wrong(
            check,
            f"does not answer: {error}",
            "start it, or correct --server; see that nothing between blocks the port",
        )
        return
    took_s = time.perf_counter() - began
    checks = _checks(live.data)
    if checks is None:
        yield wrong(check, "something else answers there", "correct --server, --host or --port")
        return
    yield from _failing(f"{check} /healthz", checks)
    ready = pool.request("GET", f"{url}/readyz")
    checks = _checks(ready.data) or {}
    yield from _failing(f"{check} /readyz", checks)
    if live.status == 200 and ready.status == 200:
        yield fine(check, f"healthy and ready, answered in {took_s * 1000:.1f} ms")


def port_findings(configuration: ServerConfiguration) -> Iterator[Finding]:
    """Whether the configured address is free for a server, or has one."""
    host, port = configuration.host, configuration.port
    check = f"address {host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_ours(f"http://{_reachable(host)}:{port}"):
            yield fine(check, "a Nightshift server listens there")
        else:
            yield wrong(
                check,
                f"cannot be listened on: {error.strerror}",
                f"end what listens there (`ss -ltnp 'sport = :{port}'`), or use another --port",
            )
        return
    yield skipped(check, "free: no server listens there")


def ended_rounds(url: str, token: str) -> list[EndedRound]:
    """The rounds that ended lately, from the operator's API. Raises AdminError."""
    client = AdminClient(url=url, token=token)
    since = time.time() - LATELY_S
    return [
        EndedRound(task["task_id"], record["outcome"], record["reason"])
        for task in client.get("tasks")["tasks"]
        for record in client.get(f"tasks/{task['task_id']}/rounds")["rounds"]
        if record["ended_at"] and record["ended_at"] > since
    ]


def reachable(check: str, address: str, remedy: str) -> Finding:
    """Whether a TCP connection to "host:port" can be made."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname is None or parts.port is None:
        return wrong(check, f"{address!r} is not host:port", "correct the configuration")
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=3.0).close()
    except OSError as error:
        return wrong(check, f"{address} does not answer: {error}", remedy)
    return fine(check, f"{address} answers")


def _failing(check: str, checks: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    for name, result in checks.items():
        if not result["ok"]:
            say = warning if name == "accepting" else wrong
            yield say(f"{check} {name}", str(result["detail"]), REMEDIES.get(name, "see its log"))


def _checks(body: bytes) -> dict[str, dict[str, Any]] | None:
    try:
        checks: dict[str, dict[str, Any]] = json.loads(body)["checks"]
    except (ValueError, KeyError, TypeError):
        return None
    return checks


def _is_ours(url: str) -> bool:
    try:
        answer = urllib3.request("GET", f"{url}/healthz", timeout=_TIMEOUT, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    return _checks(answer.data) is not None


def _reachable(host: str) -> str:
    """An address at which a server that listens on `host` can be reached from here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
