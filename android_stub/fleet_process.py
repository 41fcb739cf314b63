"""One process of a fleet: `python -m android_stub.fleet_process`, started by `fleet`.

Reads one JSON line from standard input: {"settings", "process", "parent"};
writes a `FleetProgress` JSON line to standard output now and then, and a last
one before it ends. It ends on SIGTERM, on SIGINT, or when its input ends.
"""

import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from android_stub.attempt import SessionRecord
from android_stub.crew import Crew
from android_stub.device import Device, State
from android_stub.example_files import ExampleFiles
from android_stub.example_store import ExampleStore
from android_stub.fleet_settings import FleetProgress, FleetSettings
from android_stub.gate import AlwaysReady, ConditionSource, Gate
from android_stub.identity import Identity
from android_stub.night import Night
from android_stub.randomness import SeededDraws, between
from android_stub.reaping import die_with_parent, when_input_ends
from android_stub.runtime import Runtime
from android_stub.server_api import ServerApi

#: Seconds that running steps have to finish after the signal to stop.
GRACE_S = 1.0


class VirtualDevice:
    """A device that first imports its examples, once in the life of its store."""

    __slots__ = ("_collection", "_examples", "_index", "_store", "device")

    def __init__(
        self,
        *,
        device: Device,
        store: ExampleStore,
        examples: ExampleFiles,
        collection: str,
        index: int,
    ) -> None:
        self.device = device
        self._store = store
        self._examples: ExampleFiles | None = examples
        self._collection = collection
        self._index = index

    def step(self, now: float) -> float:
        if self._examples is not None:
            if self._store.count(self._collection) == 0:
                arrays = self._examples.load(self._index)
                if all(len(array) for array in arrays.values()):
                    self._store.add(self._collection, arrays, now=now)
            self._examples = None
            return 0.0
        return self.device.step(now)


class Tally:
    """Sums finished sessions; called from every thread of the crew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures = FleetProgress()

    def add(self, record: SessionRecord) -> None:
        with self._lock:
            figures = self._figures
            figures.session_shapes[record.shape] += 1
            figures.bytes_up += record.bytes_up
            figures.bytes_down += record.bytes_down
            if record.shape.endswith("^"):
                figures.accepted[record.computation] += 1
            elif record.note:
                # Notes may hold identifiers; their first word tells the cause.
                figures.notes[_cause(record.note)] += 1
            if record.misfortune:
                figures.misfortunes[record.misfortune] += 1

    def snapshot(self) -> FleetProgress:
        with self._lock:
            return FleetProgress.total([self._figures])


def _cause(note: str) -> str:
    """A note without what differs from session to session."""
    head = note.partition(":")[0]
    return " ".join(word for word in head.split() if "/" not in word)[:60]


def build(
    settings: FleetSettings, *, process: int, runtime: Runtime, tally: Tally
) -> list[VirtualDevice]:
    """The devices of one process: every `processes`-th of the fleet."""
    examples = settings.examples()
    origin = runtime.clock()
    members: list[VirtualDevice] = []
    for index in range(process, settings.devices, settings.processes):
        source: ConditionSource = AlwaysReady()
        if settings.night_s is not None:
            source = Night(
                seed=settings.seed,
                index=index,
                night_s=settings.night_s,
                fraction=settings.night_fraction,
                origin=origin,
            )
        store = ExampleStore(settings.state_dir / f"device-{index:05d}.sqlite", durable=False)
        device = Device(
            runtime=runtime,
            identity=Identity.virtual(seed=settings.seed, index=index),
            populations=(settings.population,),
            store=store,
            gate=Gate(source=source),
            draws=SeededDraws("device", settings.seed, index),
            time_scale=settings.acceleration(),
            on_session=tally.add,
        )
        members.append(
            VirtualDevice(
                device=device,
                store=store,
                examples=examples,
                collection=settings.collection,
                index=index,
            )
        )
    return members


def steady_clock() -> float:
    """Seconds since 1970 that never go back, whoever sets the clock."""
    return _EPOCH + time.monotonic()


_EPOCH = time.time() - time.monotonic()


def rss_bytes() -> int:
    """Memory of this process that lies in RAM now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def run(settings: FleetSettings, *, process: int, stop: threading.Event) -> None:
    """Runs the devices of one process until `stop`, writing progress lines."""
    started = time.monotonic()
    runtime = Runtime(
        api=ServerApi(url=settings.server, connections=settings.threads),
        clock=steady_clock,
        misfortune=settings.misfortune(),
        client_version="nightshift-fleet",
        plan_keys=settings.trusted(),
    )
    tally = Tally()
    crew = Crew(threads=settings.threads, clock=steady_clock)
    members = build(settings, process=process, runtime=runtime, tally=tally)
    now = steady_clock()
    for number, member in enumerate(members):
        draws = SeededDraws("arrival", settings.seed, process, number)
        crew.add(member, due=now + between(draws, 0.0, settings.arrival_s))
    crew.start()

    def tell() -> None:
        figures = tally.snapshot()
        states = Counter(member.device.state for member in members)
        figures.devices = len(members)
        figures.pacing = states[State.PACING]
        figures.asleep = states[State.ASLEEP]
        figures.in_session = states[State.IN_SESSION]
        figures.faults = crew.faults
        figures.cpu_seconds = round(time.process_time(), 3)
        figures.rss_bytes = rss_bytes()
        figures.processes = 1
        figures.seconds = round(time.monotonic() - started, 3)
        sys.stdout.write(figures.to_json() + "\n")
        sys.stdout.flush()

    while not stop.wait(settings.progress_s):
        tell()
    crew.stop(timeout_s=GRACE_S)
    tell()


def main() -> None:
    order = json.loads(os.read(0, 1 << 20))
    die_with_parent(order["parent"])
    settings = FleetSettings.from_json(order["settings"])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    when_input_ends(stop.set)
    try:
        run(settings, process=order["process"], stop=stop)
    except BrokenPipeError:
        os._exit(1)
    # Threads may sit in a request; their devices keep nothing that a kill could harm.
    os._exit(0)


if __name__ == "__main__":
    main()
