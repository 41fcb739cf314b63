"""Which selectors a cluster has: the mailboxes that Ray knows, and that somebody empties."""

from __future__ import annotations

import time
from collections.abc import Mapping

import ray
from ray.actor import ActorHandle

from server.actors.cells import Ref
from server.cluster.ray_system import RaySystem
from server.cluster.remote_ref import RemoteRef

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
        self._gates: dict[str, ActorHandle] = {}

    def members(self) -> Mapping[str, Ref]:
        """Those whose process was heard of in the last seconds, by id."""
        gates = self._known()
        newest = {name.removeprefix(_MAILBOX).rpartition("/")[0]: name for name in sorted(gates)}
        refs = {
            selector_id: RemoteRef(SELECTOR + selector_id, gates[name], self._system)
            for selector_id, name in newest.items()
        }
        calls = {ref.gate.lives.remote(ref.name): each for each, ref in refs.items()}
        if not calls:
            return {}
        answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=ANSWER_S)
        alive = {calls[call] for call in answered if _says_yes(call)}
        return {each: self._here(ref) for each, ref in sorted(refs.items()) if each in alive}

    def _here(self, ref: RemoteRef) -> Ref:
        return self._system.ref_at(ref.gate, ref.name)

    def _known(self) -> Mapping[str, ActorHandle]:
        names = [name for name in ray.util.list_named_actors() if name.startswith(_MAILBOX)]
        known = {}
        for name in names:
            try:
                known[name] = self._gates.get(name) or ray.get_actor(
                    name, namespace=self._system.namespace
                )
            except ValueError:
                # It ended just now.
                continue
        self._gates = known
        return known


def _says_yes(call: ray.ObjectRef) -> bool:
    try:
        return bool(ray.get(call))
    except ray.exceptions.RayActorError:
        return False
