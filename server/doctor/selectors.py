"""The selectors of a cluster, as Ray knows them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from server.doctor.finding import Finding, fine, warning, wrong

_CHECK = "selectors"


def selector_findings(address: str, *, servers: int, token_file: Path) -> Iterator[Finding]:
    """Whether those that serve devices are registered, and answer.

    Args:
        address: Of Ray's control store.
        servers: How many there should be at least.
        token_file: Ray's secret, if the file exists and the environment has none.
    """
    from server.cluster import ray_node

    told = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    own = token_file if token_file.exists() and not told else None
    ray_node.configure(ray_node.environment(own))
    # After its environment.
    from server.cluster.selector_directory import answering, mailboxes, newest_mailboxes

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray_node.connect(address)
    except ConnectionError as error:
        text = (str(error).splitlines() or [""])[0]
        yield warning(
            _CHECK,
            f"Ray cannot be asked from here: {text}",
            "run the doctor where a selector runs, with its RAY_AUTH_MODE and RAY_AUTH_TOKEN",
        )
        return
    try:
        registered = newest_mailboxes(mailboxes(ray_node.NAMESPACE))
        answer = answering(registered)
    finally:
        ray_node.disconnect()
    yield from findings_of(registered, answer, servers=servers)


def findings_of(registered: Iterable[str], answer: Set[str], *, servers: int) -> Iterator[Finding]:
    """What to think of the selectors with these ids, of which some answer."""
    names = sorted(registered)
    if not names:
        yield wrong(
            _CHECK,
            "none is registered with Ray: no round can select devices",
            "start `nightshift cluster selector`; if one runs, its log says why it is cut off",
        )
        return
    for name in names:
        if name not in answer:
            yield wrong(
                f"selector {name}",
                "is registered with Ray and does not answer: rounds go on without it",
                "it is frozen, overloaded or cut off: restart it, and keep its log",
            )
    if len(names) < servers:
        yield warning(
            _CHECK,
            f"{len(names)} registered with Ray ({', '.join(names)}), {servers} named by --server",
            "the others are of another cluster, or cut off from Ray: see their logs",
        )
    elif answer:
        yield fine(_CHECK, f"registered with Ray, and answering: {', '.join(sorted(answer))}")
