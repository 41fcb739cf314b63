"""Which coordinator leases this process holds."""

import threading
from collections.abc import Mapping

from server.telemetry.logs import event_log

_log = event_log("server.leases")


class LeaseTelemetry:
    """Logs leases as they come and go, and knows those that are here. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epochs: dict[str, int] = {}
        self._held: set[str] = set()

    def acquired(self, population: str, epoch: int, *, unfinished: int = 0) -> None:
        """The population is coordinated here; `unfinished` rounds of others were abandoned."""
        with self._lock:
            self._epochs[population] = epoch
            self._held.add(population)
        _log.info("lease_acquired", population=population, epoch=epoch, abandoned=unfinished)

    def lost(self, population: str, epoch: int, why: str) -> None:
        """Somebody else has it, or will have it."""
        with self._lock:
            self._held.discard(population)
        _log.warning("lease_lost", population=population, epoch=epoch, why=why)

    def released(self, population: str, epoch: int) -> None:
        """It was given back."""
        with self._lock:
            self._held.discard(population)
        _log.info("lease_released", population=population, epoch=epoch)

    def states(self) -> Mapping[str, tuple[int, bool]]:
        """Of each population that was ever coordinated here: the last epoch, and whether it is."""
        with self._lock:
            return {name: (epoch, name in self._held) for name, epoch in self._epochs.items()}
