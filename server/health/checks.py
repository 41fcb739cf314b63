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


def leases_are_held(without: Iterable[str], holder: Callable[[str], str | None]) -> str:
    """Whether somebody coordinates each population.

    Args:
        without: The populations that this process does not coordinate.
        holder: Who has a population's lease now; None if nobody has.
    """
    elsewhere, nobody = [], []
    for population in without:
        owner = holder(population)
        if owner is None:
            nobody.append(population)
        else:
            elsewhere.append(f"{population} by {owner}")
    if nobody:
        raise NotWell(f"nobody coordinates {', '.join(nobody)}")
    return f"coordinated elsewhere: {', '.join(elsewhere)}" if elsewhere else "all held here"


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
