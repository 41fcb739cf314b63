"""What /healthz and /readyz ask. Each returns a detail, or raises what is wrong."""

import time
from collections.abc import Callable, Iterable

from server.actors.supervised import Supervised
from server.health.probe import NotWell
from server.storage.blobs import BlobNotFound, BlobStore
from server.storage.registry import Registry

#: An object that is put there once and then asked for.
PROBE_KEY = "probe/present"
PROBE = b"nightshift\n"

#: Seconds in which a coordinator that died has its successor.
SUCCESSION_S = 10.0

#: Seconds that a model update may take to start before it is told to again.
RESTART_S = 15.0


def selector_answers(selector: Supervised) -> str:
    """Whether check-ins would be answered."""
    selector.ask("windows", None)
    return "the selector answers"


def database_answers(registry: Registry) -> str:
    """Whether the database can be read."""
    began = time.monotonic()
    populations = len(registry.populations.list())
    return f"{populations} populations, read in {_ms(began)}"


def blobs_answer(blobs: BlobStore) -> Callable[[], str]:
    """A check of whether the blob store gives back what was put there."""
    stored = False

    def check() -> str:
        nonlocal stored
        began = time.monotonic()
        if not stored:
            blobs.put_new(PROBE_KEY, PROBE)
            stored = True
        try:
            blobs.size(PROBE_KEY)
        except BlobNotFound as error:
            raise NotWell(f"the blob store has lost an object: {error}") from error
        return f"answered in {_ms(began)}"

    return check


class LeasesAreHeld:
    """A check of whether somebody coordinates each population.

    A coordinator's successor takes seconds, in which devices are told when to come
    back. If every server said at once that it is not ready, they would reach none.

    Args:
        without: The populations that this process does not coordinate.
        holder: Who has a population's lease now; None if nobody has.
        now: Seconds, monotonic.
    """

    def __init__(
        self,
        without: Callable[[], Iterable[str]],
        holder: Callable[[str], str | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._without = without
        self._holder = holder
        self._now = now
        self._was_well = False
        self._nobody_since: float | None = None

    def __call__(self) -> str:
        """Raises NotWell if nobody coordinates some, and a succession does not take so long."""
        elsewhere, nobody = [], []
        for population in self._without():
            owner = self._holder(population)
            if owner is None:
                nobody.append(population)
            else:
                elsewhere.append(f"{population} by {owner}")
        if not nobody:
            self._was_well, self._nobody_since = True, None
            return (
                f"coordinated elsewhere: {', '.join(elsewhere)}" if elsewhere else "all held here"
            )
        if self._nobody_since is None:
            self._nobody_since = self._now()
        text = f"nobody coordinates {', '.join(nobody)}"
        if not self._was_well or self._now() - self._nobody_since > SUCCESSION_S:
            raise NotWell(text)
        return f"{text} yet: a successor has {SUCCESSION_S:g} s"


def model_update_is_ready(
    ready: Callable[[], bool], start: Callable[[], None]
) -> Callable[[], str]:
    """A check of whether a round could be committed.

    Args:
        ready: Whether the model update would answer at once.
        start: Begins to start it again. Otherwise a process that is sent no devices,
            because its model update has died, would never need it and never start it.
    """
    started_at = time.monotonic()

    def check() -> str:
        nonlocal started_at
        if ready():
            return "TensorFlow is loaded"
        if time.monotonic() - started_at > RESTART_S:
            started_at = time.monotonic()
            start()
        raise NotWell("its process has not loaded TensorFlow: it is starting, or cannot start")

    return check


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.1f} ms"
