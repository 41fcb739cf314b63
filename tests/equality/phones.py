"""The fixed cohorts on the reference device runtime, against a server."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from android_stub.attempt import SessionRecord
from android_stub.device import Device
from android_stub.example_store import ExampleStore
from android_stub.gate import AlwaysReady, Gate
from android_stub.identity import Identity
from android_stub.misfortune import MisfortuneRates
from android_stub.randomness import SeededDraws
from android_stub.runtime import Runtime
from android_stub.server_api import ServerApi
from tests.equality.cohorts import Examples

#: Seconds until a session that does not come about is a failure.
PATIENCE_S = 40.0


class Phone:
    """One device with its examples.

    Args:
        url: Of the server.
        population: Which it belongs to.
        collection: The plan's.
        directory: For its example store.
        identity: Decides whether it is held out.
        examples: Its own, in the order of the batches.
    """

    def __init__(
        self,
        *,
        url: str,
        population: str,
        collection: str,
        directory: Path,
        identity: Identity,
        examples: Examples,
    ) -> None:
        self._url = url
        self._population = population
        self._identity = identity
        self._store = ExampleStore(directory / f"{identity.credential}.sqlite", durable=False)
        self._store.add(collection, examples, now=time.monotonic())

    def take_part(self, *, picked_up: bool = False) -> SessionRecord:
        """Checks in until it is given work, and ends with that session.

        Args:
            picked_up: The training is interrupted between two batches.
        """
        records: list[SessionRecord] = []
        device = Device(
            runtime=Runtime(
                api=ServerApi(url=self._url, connections=1),
                clock=time.monotonic,
                misfortune=MisfortuneRates(interrupt=1.0) if picked_up else None,
            ),
            identity=self._identity,
            populations=[self._population],
            store=self._store,
            gate=Gate(source=AlwaysReady()),
            draws=SeededDraws(self._identity.credential),
            on_session=records.append,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not records or not records[-1].round_id:
            assert time.monotonic() < deadline, f"no work: {records[-3:]}"
            time.sleep(min(device.step(time.monotonic()), 1.0))
        return records[-1]


def take_part_together(
    phones: Sequence[Phone], *, picked_up: Sequence[int] = ()
) -> list[SessionRecord]:
    """One session of each phone, at the same time; `picked_up` are indices of phones."""
    records: list[SessionRecord | None] = [None] * len(phones)

    def run(index: int) -> None:
        records[index] = phones[index].take_part(picked_up=index in picked_up)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(phones))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [record for record in records if record is not None]
    assert len(done) == len(phones), "a phone's session failed: see above"
    return done
