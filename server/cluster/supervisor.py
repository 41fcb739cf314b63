"""Whoever watches the parts of a cluster that must always be there, and starts them anew.

Every selector process has a supervisor, and all do the same. That only one of them
succeeds is no matter of agreement: a coordinator's name is made from the epoch of
the lease that it is to follow, and Ray gives a name away once; and whichever
coordinators there are, the fenced lease lets one of them write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.actors.cells import ActorDied, Ref
from server.actors.runtime import Actor
from server.cluster.model_update import MODEL_UPDATE
from server.storage.leases import Leases, LeaseState
from server.telemetry.logs import event_log

if TYPE_CHECKING:
    from server.cluster.ray_system import RaySystem

_log = event_log("server.cluster.supervisor")

#: What the names of coordinators and of their leases begin with.
COORDINATOR = "coordinator/"

#: Seconds between two looks at everything.
LOOK_S = 1.0

#: Seconds that a new coordinator may take to get the lease, beyond the lease's own time.
PATIENCE_S = 10.0

#: Between the name of a coordinator and what makes its lease's owner unique.
_OWNER_MARK = "#"


def owner_of(name: str, unique: str) -> str:
    """The lease's owner of a coordinator: tells its name to who finds only the lease."""
    return f"{name}{_OWNER_MARK}{unique}"


def coordinator_of(state: LeaseState) -> str:
    """The name of the coordinator that made this acquisition."""
    return state.owner.partition(_OWNER_MARK)[0]


@dataclass
class _Succession:
    """The attempts to replace one holder of a lease."""

    epoch: int
    attempt: int = 0
    since: float = 0.0


class Supervisor(Actor):
    """Keeps a coordinator for each population, and the model update.

    Args:
        populations: Those there are now.
        leases: Where coordinators are known by.
        lease_ttl_s: Seconds that a lease lives without a renewal.
        start_coordinator: Spawns the coordinator of a population, with this name.
        start_model_update: Spawns the model update, with this name.
    """

    system: RaySystem

    def __init__(
        self,
        *,
        populations: Callable[[], Iterable[str]],
        leases: Leases,
        lease_ttl_s: float,
        start_coordinator: Callable[[str, str], Ref],
        start_model_update: Callable[[str], Ref],
    ) -> None:
        self._populations = populations
        self._leases = leases
        self._patience_s = lease_ttl_s + PATIENCE_S
        # One more renewal, and never at the first look.
        self._lateness_s = max(lease_ttl_s / 3, LOOK_S / 2)
        self._expired: dict[str, tuple[int, float]] = {}
        self._start_coordinator = start_coordinator
        self._start_model_update = start_model_update
        self._coordinators: dict[str, Ref] = {}
        self._successions: dict[str, _Succession] = {}
        self._model_update: Ref | None = None
        self._dead: set[str] = set()

    def begin(self) -> None:
        """Looks after everything, now and from then on."""
        self.look()
        self.system.schedule(LOOK_S, self.ref, "begin")

    def look(self) -> None:
        """Once, at everything. What fails is tried again at the next look."""
        self._try(self._look_after_model_update)
        for population in self._populations():
            self._try(self._look_after, population)

    def coordinator(self, population: str) -> Ref | None:
        """The coordinator that holds the population's lease, as far as is known here."""
        return self._coordinators.get(population)

    def on_death(self, name: str, reason: BaseException | None) -> None:
        """Something watched has ended: its successor waits for the lease, if it is not free."""
        if reason is None:
            _log.info("part_ended", part=name)
        else:
            _log.error("part_died", part=name, reason=repr(reason))
        self._dead.add(name)
        if self._model_update is not None and self._model_update.name == name:
            self._model_update = None
        for population, ref in list(self._coordinators.items()):
            if ref.name == name:
                del self._coordinators[population]
        self.look()

    def _try(self, act: Callable[..., None], *arguments: str) -> None:
        try:
            act(*arguments)
        except Exception as error:
            _log.warning("supervision_failed", what=arguments, error=repr(error))

    def _look_after(self, population: str) -> None:
        state = self._leases.holder(COORDINATOR + population)
        if state is None:
            self._succeed(population, 0)
            return
        holder = coordinator_of(state)
        if state.owner and holder not in self._dead:
            if not state.expired:
                self._expired.pop(population, None)
                if self._successions.pop(population, None) is not None:
                    # A holder that was late only keeps its lease: its successor is not needed.
                    self._coordinators.pop(population, None)
                self._follow(population, holder)
                return
            # It may be late only: then it still has the lease, as long as nobody takes it.
            epoch, since = self._expired.setdefault(population, (state.epoch, self.system.now()))
            if epoch != state.epoch:
                del self._expired[population]
                return
            if self.system.now() - since < self._lateness_s:
                return
        self._succeed(population, state.epoch)

    def _follow(self, population: str, name: str) -> None:
        known = self._coordinators.get(population)
        if known is not None and known.name == name:
            return
        holder = self.system.find(name)
        if holder is None:
            self._dead.add(name)
            return
        self._coordinators[population] = holder
        self.system.watch(self.ref, holder)
        self._retire_others(population, name)

    def _retire_others(self, population: str, holder: str) -> None:
        """Others wait for a lease that they shall not have; a frozen one ends when it wakes."""
        for other in self.system.find_all(f"{COORDINATOR}{population}/"):
            if other.name != holder:
                self.system.stop(other)

    def _succeed(self, population: str, epoch: int) -> None:
        now = self.system.now()
        succession = self._successions.get(population)
        if succession is None or succession.epoch != epoch:
            succession = self._successions[population] = _Succession(epoch, since=now)
        name = f"{COORDINATOR}{population}/{epoch + 1}.{succession.attempt}"
        if self.system.find(name) is not None and name not in self._dead:
            # It may be frozen, or its starter may have died before it could begin.
            if now - succession.since > self._patience_s:
                succession.attempt += 1
                succession.since = now
            return
        try:
            started = self._start_coordinator(population, name)
        except ValueError:
            # Another supervisor was faster.
            return
        self._dead.discard(name)
        _log.info("coordinator_started", population=population, name=name)
        self.system.watch(self.ref, started)
        started.tell("begin")

    def _look_after_model_update(self) -> None:
        if self._model_update is not None:
            return
        found = self.system.find(MODEL_UPDATE)
        if found is None:
            try:
                found = self._start_model_update(MODEL_UPDATE)
            except (ValueError, ActorDied):
                return
        self._model_update = found
        self.system.watch(self.ref, found)
