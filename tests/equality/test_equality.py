"""Five rounds of the running system give the models of TFF's simulation of the same process.

The plan is that of examples/digits_task.py, with momentum on the server. The
system is `nightshift serve` in its processes, spoken to over HTTP by the
reference device runtime, which trains with tflite-runtime. TFF's side is
tests/equality/simulation.py. `pytest -s tests/equality` prints the figures.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from android_stub.attempt import SessionRecord
from android_stub.identity import Identity
from device_plan.archive import DevicePart, PlanArchive, write_archive
from device_plan.checkpoint import decode, encode
from device_plan.cohort import CohortPolicy
from server.configuration import ServerConfiguration
from server.http.credentials import device_id
from server.protocol.holdout import is_held_out
from server.storage.database import open_database
from server.storage.registry import Registry
from tests.equality import cohorts
from tests.equality.phones import Phone, take_part_together
from tests.house import ROOT
from tests.server.live.served import Server
from tests.server.live.waiting import eventually

#: Largest absolute difference of a weight after any round.
TOLERANCE = 1e-5

#: Relative; a metric is one division of sums whose order differs.
METRIC_TOLERANCE = 1e-5

POPULATION = "equality/digits"
HOLDOUT_FRACTION = 0.4
#: Fixed, so that the same identities are held out in every run.
SALT = b"tests of equality"

#: Short windows; a phone that is sent away comes back at once.
OPTIONS = (
    *("--poll-interval-s", "0.05", "--min-retry-s", "0.05", "--max-retry-s", "0.5"),
    *("--rendezvous-s", "0.1", "--max-chunk-bytes", "8192", "--lease-ttl-s", "10"),
)


@dataclass
class Course:
    """What the system did.

    Attributes:
        weights: By model number, the author's weights.
        rounds: The training task's rounds as the admin API tells them.
        evaluations: By model number, an evaluation's round.
        sessions: By round number, its devices' sessions.
    """

    weights: dict[int, dict[str, np.ndarray]]
    rounds: list[dict[str, Any]]
    evaluations: dict[int, dict[str, Any]]
    sessions: dict[int, list[SessionRecord]]


@pytest.fixture(scope="module")
def plan(digits_plan: Path) -> PlanArchive:
    """The digits plan, for the fixed cohorts."""
    built = PlanArchive.open(digits_plan)
    manifest = built.manifest
    manifest.epochs = cohorts.EPOCHS
    assert manifest.batch_size == cohorts.BATCH_SIZE
    assert manifest.example_selector.min_examples == cohorts.MIN_EXAMPLES

    def policy(goal_count: int, minimum_fraction: float) -> dict[str, Any]:
        # Who is in which round is fixed: as many as there are, and nobody ahead of time.
        return CohortPolicy(
            adaptive_over_selection=False,
            pipelined=False,
            goal_count=goal_count,
            over_selection=1.0,
            minimum_fraction=minimum_fraction,
            selection_window_s=0.05,
            selection_timeout_s=170.0,
            reporting_window_s=60.0,
        ).to_json()

    return PlanArchive.from_bytes(
        write_archive(
            variants=[DevicePart(manifest=manifest, graph=built.graph)],
            training=built.server_part("training"),
            evaluation=built.server_part("evaluation"),
            initial_state=built.initial_state,
            initial_checkpoint=built.initial_checkpoint,
            checks=built.checks,
            schedule={
                "name": "equality",
                "population": POPULATION,
                "rounds": len(cohorts.COHORTS),
                "cohort": policy(cohorts.COHORT_SIZE, cohorts.MINIMUM_FRACTION),
                "evaluation": {
                    "every_rounds": len(cohorts.COHORTS),
                    "cohort": policy(len(cohorts.HELD_OUT_DEVICES), 1.0),
                },
            },
        )
    )


@pytest.fixture(scope="module")
def both(plan: PlanArchive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Course, Path]:
    """The system's course, and the directory where TFF's simulation left its own."""
    directory = tmp_path_factory.mktemp("equality")
    state = decode(plan.initial_state)
    names = plan.server_part("training").model_weights
    (directory / "initial.safetensors").write_bytes(
        encode({name: state[tensor] for name, tensor in names.items()})
    )
    with simulation(directory):
        course = run_system(plan, directory)
    return course, directory


@contextmanager
def simulation(directory: Path) -> Iterator[None]:
    """TFF's simulation meanwhile; it has ended well when the context ends well."""
    log = directory / "simulation.log"
    with log.open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.equality.simulation", str(directory)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
        assert program.wait(120) == 0, log.read_text()[-4000:]
    finally:
        # TFF's executors would outlive the program that started them.
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def run_system(plan: PlanArchive, directory: Path) -> Course:
    server = Server(directory, OPTIONS)
    found_population(server.data)
    server.start()
    try:
        admin = server.admin
        training, evaluation = (task["task_id"] for task in admin.post("tasks", plan.data)["tasks"])
        training_phones, held_out_phones = make_phones(server, plan, directory)

        def rounds_of(task_id: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = admin.get(f"tasks/{task_id}/rounds")["rounds"]
            return found

        def evaluations() -> dict[int, dict[str, Any]]:
            committed = [r for r in rounds_of(evaluation) if r["outcome"] == "committed"]
            return {record["base_model_round"]: record for record in committed}

        def has_models(count: int) -> bool:
            return bool(admin.get(f"tasks/{training}")["head_round"] == count)

        take_part_together(held_out_phones)
        eventually(lambda: 0 in evaluations(), within=60.0)
        sessions = {}
        for number, cohort in enumerate(cohorts.COHORTS, start=1):
            sessions[number] = take_part_together(
                [training_phones[device] for device in cohort],
                picked_up=[
                    index
                    for index, device in enumerate(cohort)
                    if (number, device) in cohorts.PICKED_UP
                ],
            )
            eventually(lambda number=number: has_models(number), within=60.0)
        take_part_together(held_out_phones)
        eventually(lambda: len(cohorts.COHORTS) in evaluations(), within=60.0)
        course = Course(
            weights={
                number: decode(admin.get_bytes(f"tasks/{training}/models/{number}/weights"))
                for number in range(len(cohorts.COHORTS) + 1)
            },
            rounds=rounds_of(training),
            evaluations=evaluations(),
            sessions=sessions,
        )
    finally:
        server.stop()
    assert not server.errors()
    return course


def found_population(data_dir: Path) -> None:
    """Decides who is held out before the server could draw a salt of its own."""
    data_dir.mkdir(parents=True)
    engine = open_database(ServerConfiguration(data_dir=data_dir).database_url)
    Registry(engine=engine).populations.create(
        name=POPULATION, holdout_fraction=HOLDOUT_FRACTION, holdout_salt=SALT
    )
    engine.dispose()


def make_phones(
    server: Server, plan: PlanArchive, directory: Path
) -> tuple[list[Phone], list[Phone]]:
    """The phones that train, and those held out."""
    identities: dict[bool, list[Identity]] = {False: [], True: []}
    for index in range(100):
        identity = Identity.virtual(seed=0, index=index)
        header = {"HTTP_AUTHORIZATION": f"Bearer {identity.credential}"}
        held_out = is_held_out(device_id(header, POPULATION), SALT, HOLDOUT_FRACTION)
        identities[held_out].append(identity)

    def phone(identity: Identity, examples: cohorts.Examples) -> Phone:
        return Phone(
            url=f"http://127.0.0.1:{server.port}",
            population=POPULATION,
            collection=plan.manifest.example_selector.collection,
            directory=directory,
            identity=identity,
            examples=examples,
        )

    return (
        [
            phone(identities[False][device], cohorts.training_examples(device))
            for device in range(len(cohorts.TRAINING_DEVICES))
        ],
        [
            phone(identities[True][device], cohorts.held_out_examples(device))
            for device in range(len(cohorts.HELD_OUT_DEVICES))
        ],
    )


def test_the_cohorts_are_uneven_and_not_all_of_a_cohort_contributes() -> None:
    counts = [len(cohorts.contributors(number + 1)) for number in range(len(cohorts.COHORTS))]
    assert counts == [6, 5, 4, 5, 5]
    assert any(count % cohorts.BATCH_SIZE for count in cohorts.TRAINING_DEVICES)


def test_every_round_sums_exactly_the_devices_that_should_contribute(
    both: tuple[Course, Path],
) -> None:
    course, _ = both
    assert [record["outcome"] for record in course.rounds] == ["committed"] * len(cohorts.COHORTS)
    for number, record in enumerate(course.rounds, start=1):
        selected, expected = cohorts.COHORTS[number - 1], cohorts.contributors(number)
        assert record["statistics"]["selected"] == cohorts.COHORT_SIZE
        assert record["statistics"]["accepted"] == len(expected)
        for device, session in zip(selected, course.sessions[number], strict=True):
            assert session.round_id == record["round_id"]
            assert session.shape.endswith("]+^") == (device in expected), (number, device, session)


def test_the_weights_after_every_round_are_those_of_tffs_simulation(
    both: tuple[Course, Path], record_property: Callable[[str, object], None]
) -> None:
    course, directory = both
    differences, moves = [], []
    for number in range(1, len(cohorts.COHORTS) + 1):
        ours = course.weights[number]
        theirs = safetensors.numpy.load_file(directory / f"tff-{number}.safetensors")
        assert ours.keys() == theirs.keys()
        differences.append(max(float(np.abs(ours[n] - theirs[n]).max()) for n in theirs))
        before = course.weights[number - 1]
        moves.append(max(float(np.abs(ours[n] - before[n]).max()) for n in ours))
    record_property("max_abs_difference_by_round", differences)
    shown = ", ".join(f"{difference:.1e}" for difference in differences)
    print(  # noqa: T201
        f"\nmax abs difference of the weights to TFF's simulation, by round: {shown} "
        f"(a round moves a weight by up to {max(moves):.2f})"
    )
    assert max(differences) <= TOLERANCE
    # Equal because nothing was learned would say nothing.
    assert min(moves) > 1e3 * TOLERANCE


def test_the_training_metrics_are_those_of_tffs_simulation(both: tuple[Course, Path]) -> None:
    course, directory = both
    expected = json.loads((directory / "tff.json").read_text())["training"]
    for record, theirs in zip(course.rounds, expected, strict=True):
        ours = {name.rpartition("/")[2]: value for name, value in record["metrics"].items()}
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=METRIC_TOLERANCE)
    counts = [theirs["num_examples"] for theirs in expected]
    assert counts == [
        cohorts.EPOCHS * sum(cohorts.TRAINING_DEVICES[d] for d in cohorts.contributors(number))
        for number in range(1, len(cohorts.COHORTS) + 1)
    ]


@pytest.mark.parametrize("model", [0, len(cohorts.COHORTS)])
def test_an_evaluation_on_held_out_devices_is_that_of_tffs_fed_eval(
    both: tuple[Course, Path], model: int
) -> None:
    course, directory = both
    theirs = json.loads((directory / "tff.json").read_text())["evaluations"][str(model)]
    metrics = course.evaluations[model]["metrics"]
    ours = {name.rpartition("/")[2]: metrics[name] for name in metrics if "total" not in name}
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=METRIC_TOLERANCE)
    assert theirs["num_examples"] == sum(cohorts.HELD_OUT_DEVICES)
