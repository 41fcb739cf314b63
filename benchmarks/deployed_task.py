"""A task in the running system: its proxy data on virtual devices, until its rounds are done.

The server is `nightshift serve` on loopback. Each client of the proxy data is a
device of the reference runtime with that client's examples, which trains with
tflite-runtime and speaks only HTTP. All devices check in again and again; the
server chooses among them, as it would among phones.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from android_stub.attempt import SessionRecord
from android_stub.crew import Crew
from android_stub.device import Device
from android_stub.example_store import ExampleStore
from android_stub.gate import AlwaysReady, Gate
from android_stub.identity import Identity
from android_stub.randomness import SeededDraws, between
from android_stub.runtime import Runtime
from android_stub.server_api import ServerApi
from benchmarks.processes import Served, nightshift
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.cohort import CohortPolicy
from device_plan.proxy_data import ClientExamples, ProxyData
from device_plan.task_file import InvalidTask
from server.admin_client import AdminClient
from server.configuration import ServerConfiguration
from server.http.credentials import device_id
from server.protocol.holdout import is_held_out
from server.storage.database import open_database
from server.storage.registry import Registry

#: Short windows: devices that are sent away come back at once.
OPTIONS = (
    *("--holdout-fraction", "0.3", "--poll-interval-s", "0.5", "--round-retry-s", "0.2"),
    *("--min-retry-s", "0.2", "--max-retry-s", "2", "--rendezvous-s", "0.5"),
)

#: Threads that step the devices: so many compute or ask at once.
THREADS = 4

#: Seconds over which the first check-ins are spread.
ARRIVAL_S = 1.0

#: Seconds that a round may wait for devices, or for their updates.
WINDOW_S = 600.0

#: Seconds without a committed round after which the run has failed.
PATIENCE_S = 900.0

#: Seconds between two looks at the server.
LOOK_S = 0.5


class NotDone(RuntimeError):
    """The rounds were not committed, or the server's figures contradict the devices'."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What the system did.

    Attributes:
        cohorts: By number of the round, from 1, the clients whose updates are in its sum.
        weights: By number of the model, from 0, what `nightshift models get` gives: safetensors.
        evaluations: By number of the model, its metrics on the held-out devices.
        held_out: Held-out devices behind each evaluation.
        abandoned: Rounds that were begun in vain.
        seconds: From the first check-in to the last evaluation.
    """

    cohorts: Mapping[int, tuple[str, ...]]
    weights: Mapping[int, bytes]
    evaluations: Mapping[int, Mapping[str, float]]
    held_out: int
    abandoned: int
    seconds: float


class Sessions:
    """Who contributed to which round, by the devices' own account."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accepted: dict[str, list[str]] = {}

    def listener(self, client: str) -> Callable[[SessionRecord], None]:
        """To be called with each finished session of the client's device."""

        def finished(record: SessionRecord) -> None:
            # The shape of a session whose update the server took into the sum.
            if record.shape.endswith("^"):
                with self._lock:
                    self._accepted.setdefault(record.round_id, []).append(client)

        return finished

    def of(self, round_id: str) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._accepted.get(round_id, ())))


def with_schedule(
    plan: PlanArchive, *, rounds: int, clients: int, every: int, held_out: int
) -> bytes:
    """The plan, to be run as the benchmark needs it; an unsigned archive.

    Args:
        plan: As its author built it.
        rounds: To be committed.
        clients: Updates that complete a round.
        every: Rounds between evaluations.
        held_out: Devices of an evaluation: every one of them.
    """
    author = CohortPolicy.from_json(plan.schedule["cohort"])
    training = replace(
        author,
        goal_count=clients,
        adaptive_over_selection=False,
        pipelined=False,
        selection_window_s=1.0,
        selection_timeout_s=WINDOW_S,
        reporting_window_s=WINDOW_S,
    )
    evaluation = replace(training, goal_count=held_out, over_selection=1.0, minimum_fraction=1.0)
    return write_archive(
        variants=[DevicePart(manifest=v.manifest, graph=v.graph) for v in plan.variants],
        training=plan.server_part("training"),
        evaluation=plan.server_part("evaluation"),
        initial_state=plan.initial_state,
        initial_checkpoint=plan.initial_checkpoint,
        checks=plan.checks,
        schedule={
            **plan.schedule,
            "rounds": rounds,
            "cohort": training.to_json(),
            "evaluation": {"every_rounds": every, "cohort": evaluation.to_json()},
        },
        provenance=plan.provenance,
    )


def run(
    plan: PlanArchive,
    data: ProxyData,
    *,
    rounds: int,
    clients: int,
    every: int,
    tell: Callable[[str], None],
) -> Course:
    """Deploys the plan and runs it to its end.

    Args:
        plan: Of the task.
        data: A device for each client; those with too few examples are left out.
        rounds, clients, every: See `with_schedule`.
        tell: Called with a line about the progress.

    Raises:
        InvalidTask: there are too few clients for such rounds.
        NotDone: the rounds do not come about.
        AdminError: the server refuses the plan.
    """
    fewest = plan.manifest.example_selector.min_examples
    training = _large_enough(data.clients, fewest)
    held_out = _large_enough(data.held_out, fewest)
    target = replace(
        CohortPolicy.from_json(plan.schedule["cohort"]), goal_count=clients
    ).selection_target
    if target > len(training):
        raise InvalidTask(
            f"{clients} updates a round need {target} devices, and the proxy data have "
            f"{len(training)} clients with at least {fewest} examples: ask for fewer updates"
        )
    scheduled = with_schedule(
        plan, rounds=rounds, clients=clients, every=every, held_out=len(held_out)
    )
    sessions = Sessions()
    with tempfile.TemporaryDirectory() as stores, nightshift(*OPTIONS) as served:
        admin = served.admin()
        tasks = [task["task_id"] for task in admin.create_tasks(scheduled)["tasks"]]
        crew = Crew(threads=THREADS, clock=time.monotonic)
        runtime = Runtime(
            api=ServerApi(url=f"http://127.0.0.1:{served.port}", connections=THREADS),
            clock=time.monotonic,
            client_version="nightshift-benchmark",
        )
        identities = _identities(served, plan.schedule["population"])
        started = time.monotonic()
        for is_held, part in ((False, training), (True, held_out)):
            for client, examples in part.items():
                identity = next(identities[is_held])
                store = ExampleStore(Path(stores) / f"{identity.credential}.sqlite", durable=False)
                collection = plan.manifest.example_selector.collection
                store.add(collection, examples, now=started)
                device = Device(
                    runtime=runtime,
                    identity=identity,
                    populations=[plan.schedule["population"]],
                    store=store,
                    gate=Gate(source=AlwaysReady()),
                    draws=SeededDraws("device", client),
                    on_session=sessions.listener(client),
                )
                arrival = between(SeededDraws("arrival", client), 0.0, ARRIVAL_S)
                crew.add(device, due=time.monotonic() + arrival)
        crew.start()
        try:
            _await_end(admin, tasks, rounds, tell)
            seconds = time.monotonic() - started
        finally:
            crew.stop(timeout_s=WINDOW_S / 10)
        if crew.faults:
            raise NotDone(f"{crew.faults} steps of devices failed: see the log above")
        return _course(admin, tasks, sessions, len(held_out), seconds)


def _large_enough(clients: Mapping[str, ClientExamples], fewest: int) -> dict[str, ClientExamples]:
    return {
        name: examples
        for name, examples in clients.items()
        if len(next(iter(examples.values()))) >= fewest
    }


def _identities(served: Served, population: str) -> dict[bool, Iterator[Identity]]:
    """Keys of devices that the server lets train (False) and holds out (True)."""
    engine = open_database(ServerConfiguration(data_dir=served.directory).database_url)
    found = Registry(engine=engine).populations.get(population)
    engine.dispose()

    def those(wanted: bool) -> Iterator[Identity]:
        index = 0
        while True:
            identity = Identity.virtual(seed=0, index=index)
            header = {"HTTP_AUTHORIZATION": f"Bearer {identity.credential}"}
            name = device_id(header, population)
            if is_held_out(name, found.holdout_salt, found.holdout_fraction) == wanted:
                yield identity
            index += 1

    return {False: those(False), True: those(True)}


def _committed(admin: AdminClient, task: str) -> list[dict[str, Any]]:
    rounds = admin.get(f"tasks/{task}/rounds")["rounds"]
    return [record for record in rounds if record["outcome"] == "committed"]


def _await_end(
    admin: AdminClient, tasks: list[str], rounds: int, tell: Callable[[str], None]
) -> None:
    """Returns when the last model is there and evaluated."""
    seen, news_at = (-1, -1), time.monotonic()
    while True:
        head = admin.get(f"tasks/{tasks[0]}")["head_round"]
        evaluated = {record["base_model_round"] for record in _committed(admin, tasks[1])}
        if (head, len(evaluated)) != seen:
            seen, news_at = (head, len(evaluated)), time.monotonic()
            tell(f"round {head} of {rounds}, {len(evaluated)} models evaluated …")
        if head >= rounds and rounds in evaluated:
            return
        if time.monotonic() > news_at + PATIENCE_S:
            raise NotDone(
                f"nothing was committed for {PATIENCE_S:g} s after round {head} of {rounds}"
            )
        time.sleep(LOOK_S)


def _course(
    admin: AdminClient, tasks: list[str], sessions: Sessions, held_out: int, seconds: float
) -> Course:
    cohorts = {}
    for record in _committed(admin, tasks[0]):
        cohort = sessions.of(record["round_id"])
        accepted = record["statistics"]["accepted"]
        number = record["base_model_round"] + 1
        if len(cohort) != accepted:
            raise NotDone(
                f"round {number}: the server has {accepted} updates in its sum, "
                f"and {len(cohort)} devices were told that theirs is"
            )
        cohorts[number] = cohort
    ended = admin.get(f"tasks/{tasks[0]}/rounds")["rounds"]
    return Course(
        cohorts=cohorts,
        weights={
            number: admin.get_bytes(f"tasks/{tasks[0]}/models/{number}/weights")
            for number in range(len(cohorts) + 1)
        },
        evaluations={
            record["base_model_round"]: {
                name.rpartition("/")[2]: value
                for name, value in record["metrics"].items()
                # Those of this round alone, not of all so far.
                if "total" not in name
            }
            for record in _committed(admin, tasks[1])
        },
        held_out=held_out,
        abandoned=sum(record["outcome"] == "abandoned" for record in ended),
        seconds=seconds,
    )
