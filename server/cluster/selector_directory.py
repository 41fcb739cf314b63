"""Which selectors a cluster has: the mailboxes that Ray knows, and that somebody empties."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set

import ray
from ray.actor import ActorHandle

from server.actors.cells import Ref
from server.cluster.ray_system import RaySystem

#: What the names of selector actors begin with; the rest is the selector's id.
SELECTOR = "selector/"

_MAILBOX = "mailbox/"

#: Seconds that a mailbox may take to say whether its owner lives.
ANSWER_S = 1.0


def mailbox_name(selector_id: str) -> str:
    """A name for the mailbox of a selector process that starts now.

    A selector that is started again has the same id and another mailbox.
    """
    return f"{_MAILBOX}{selector_id}/{time.time_ns():020d}"


class RayDirectory:
    """The selectors that answer.

    Args:
        system: Of this process.
    """

    def __init__(self, system: RaySystem) -> None:
        self._system = system
        self._mailboxes: Mapping[str, ActorHandle] = {}

    def members(self) -> Mapping[str, Ref]:
        """Those whose process was heard of in the last seconds, by id."""
        self._mailboxes = mailboxes(self._system.namespace, known=self._mailboxes)
        newest = newest_mailboxes(self._mailboxes)
        return {
            selector_id: self._system.ref_at(newest[selector_id], SELECTOR + selector_id)
            for selector_id in sorted(answering(newest))
        }


def mailboxes(
    namespace: str, *, known: Mapping[str, ActorHandle] | None = None
) -> Mapping[str, ActorHandle]:
    """All that Ray knows, by name; those that are known already are not asked for again."""
    known = known or {}
    found = {}
    for name in ray.util.list_named_actors():
        if not name.startswith(_MAILBOX):
            continue
        try:
            found[name] = known.get(name) or ray.get_actor(name, namespace=namespace)
        except ValueError:
            # It ended just now.
            continue
    return found


def newest_mailboxes(found: Mapping[str, ActorHandle]) -> Mapping[str, ActorHandle]:
    """One for each selector, by its id."""
    return {name.removeprefix(_MAILBOX).rpartition("/")[0]: found[name] for name in sorted(found)}


def answering(selectors: Mapping[str, ActorHandle]) -> Set[str]:
    """The ids of those whose process says within a second that its selector lives."""
    calls = {gate.lives.remote(SELECTOR + each): each for each, gate in selectors.items()}
    if not calls:
        return frozenset()
    answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=ANSWER_S)
    return frozenset(calls[call] for call in answered if _says_yes(call))


def _says_yes(call: ray.ObjectRef) -> bool:
    try:
        return bool(ray.get(call))
    except ray.exceptions.RayActorError:
        return False
