"""Selectors as a master aggregator sees them: their pools, their devices, their deaths."""

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from scipy.stats import binomtest

from device_plan.cohort import Strata
from device_plan.plan_pb2 import PlanManifest, TensorSpec
from device_plan.wire_pb2 import (
    DRAINING,
    EVALUATION,
    NO_TASK,
    NOT_SELECTED,
    QUOTA_REACHED,
    ROUND_ABANDONED,
    ROUND_OVER,
    TRAINING,
    Computation,
)
from server.actors.runtime import Actor, ActorSystem, Ref
from server.actors.selector import Selector
from server.actors.selector_rounds import NotAccepting, StaleCoordinator
from server.actors.selectors import SelectorGroup
from server.assignment import Answer, Download, Opening, Work
from server.desk import PopulationSettings
from server.downloads import Downloads
from server.protocol.pace_steering import PacePolicy
from server.protocol.round_messages import SessionEnded
from server.refusal import Refusal
from server.upload import UploadMemory

POPULATION = "keyboard/next-word"
RUNTIME = "tflite-runtime 2.14.0"
GRACE_S = 0.05

WORK = Work(
    plans={"modern": Download(sha256="a" * 64, size=1)},
    checkpoint=Download(sha256="b" * 64, size=1),
    manifest=PlanManifest(
        update=[TensorSpec(name="delta", dtype="float32", shape=[2])]
    ).SerializeToString(),
    window_s=60.0,
)


class Master(Actor):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def pool_changed(self, selector_id: str, waiting: int) -> None:
        self.events.append((selector_id, waiting))

    def on_event(self, event: Any) -> None:
        self.events.append(event)

    def told(self) -> list[Any]:
        return self.events

    def fall(self) -> None:
        raise RuntimeError("as a test wants it")


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    system = ActorSystem()
    yield system
    assert system.shutdown()


def spawn_selector(system: ActorSystem, name: str, **limits: int) -> Ref:
    selector = system.spawn(
        Selector,
        name=name,
        dispatch="inline",
        selector_id=name,
        rng=random.Random(name),
        memory=UploadMemory(limit=1 << 20),
        downloads=Downloads(load=lambda _population, _sha256: b""),
        poll_interval_s=0.01,
        grace_s=GRACE_S,
    )
    selector.ask(
        "serve",
        PopulationSettings(
            name=POPULATION,
            holdout_fraction=0.0,
            holdout_salt=b"salt",
            pace=PacePolicy(),
            **limits,
        ),
    )
    return selector


def opening(round_id: str, master: Ref, **changes: Any) -> Opening:
    values: dict[str, Any] = {
        "round_id": round_id,
        "population": POPULATION,
        "epoch": 1,
        "task_id": "task",
        "task": "a task",
        "computation": TRAINING,
        "variants": (("modern", (RUNTIME,)),),
        "weight": 1.0,
        "master": master,
        "capacity": 100,
        "window_s": 0.0,
        "lifetime_s": 60.0,
    }
    return Opening(**{**values, **changes})


def check_in(selector: Ref, device: int, attributes: Mapping[str, str] | None = None) -> Answer:
    answer: Answer = selector.ask(
        "check_in",
        POPULATION,
        device.to_bytes(16, "little"),
        f"check-in-{device:08}",
        RUNTIME,
        attributes or {},
    )
    return answer


def live_sessions(selector: Ref) -> float:
    states = selector.ask("statistics", POPULATION)
    return float(sum(n for state, n in states.items() if state != "estimated_devices"))


def eventually(holds: Any) -> None:
    deadline = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.01)


def test_a_device_that_waits_at_two_selectors_is_taken_once(system: ActorSystem) -> None:
    selectors = {name: spawn_selector(system, name) for name in ("one", "two")}
    master = system.spawn(Master, name="round")
    group = SelectorGroup(round_id="round", members=selectors, rng=random.Random(1))
    group.open(opening("round", master))
    sessions = [
        check_in(selector, device).session_id
        for device in range(10)
        for selector in selectors.values()
    ]
    assert all(sessions)
    assert group.waiting() == 20
    chosen = [*group.take(20, None), *group.take(20, None)]
    assert sorted(each.device_id for each in chosen) == [
        device.to_bytes(16, "little") for device in range(10)
    ]
    group.configure(tuple(each.session_id for each in chosen), WORK)
    named = {each.session_id for each in chosen}
    for number, session_id in enumerate(sessions):
        answer = selectors[("one", "two")[number % 2]].ask("poll", session_id)
        if session_id in named:
            assert answer.assignment.plan == WORK.plans["modern"]
        else:
            assert answer.reason == NOT_SELECTED


def test_a_selector_that_dies_takes_its_own_devices_with_it_and_no_others(
    system: ActorSystem,
) -> None:
    selectors = {name: spawn_selector(system, name) for name in ("one", "two")}
    master = system.spawn(Master, name="round")
    group = SelectorGroup(round_id="round", members=selectors, rng=random.Random(1))
    group.open(opening("round", master))
    at_one = {check_in(selectors["one"], device).session_id for device in range(4)}
    at_two = {check_in(selectors["two"], device).session_id for device in range(4, 10)}
    chosen = {each.session_id for each in group.take(10, None)}
    assert chosen == at_one | at_two
    selectors["one"].tell("a message that it does not know")
    assert not selectors["one"].alive
    group.configure(tuple(chosen), WORK)
    assert set(group.take_lost()) == at_one
    assert group.take_lost() == []
    for session_id in at_two:
        assert selectors["two"].ask("poll", session_id).assignment is not None


def test_a_selector_that_comes_later_takes_part_as_if_it_had_been_there(
    system: ActorSystem,
) -> None:
    first = spawn_selector(system, "one")
    master = system.spawn(Master, name="round")
    group = SelectorGroup(round_id="round", members={"one": first}, rng=random.Random(1))
    group.open(opening("round", master))
    drained = spawn_selector(system, "drained")
    drained.ask("drain", (2.0, 10.0))
    late = spawn_selector(system, "late")
    found = {"one": first, "drained": drained, "late": late}
    assert group.admit(found, opening("round", master)) == [late]
    assert group.admit({"one": first, "late": late}, opening("round", master)) == []
    at_late = {check_in(late, device).session_id for device in range(3)}
    assert group.pool_changed("late", 3) == 3
    chosen = {each.session_id for each in group.take(3, None)}
    assert chosen == at_late
    group.configure(tuple(chosen), WORK)
    assert group.take_lost() == []
    for session_id in at_late:
        assert late.ask("poll", session_id).assignment is not None


def test_the_aggregators_of_a_selector_that_dies_end_with_it(system: ActorSystem) -> None:
    selector = spawn_selector(system, "one")
    group = SelectorGroup(round_id="round", members={"one": selector}, rng=random.Random(1))
    group.open(opening("round", system.spawn(Master, name="round")))
    device = check_in(selector, 1).session_id
    group.take(1, None)
    group.configure((device,), WORK)
    assert [name for name in system.names if "aggregator" in name]
    selector.tell("a message that it does not know")
    eventually(lambda: system.names == ["round"])


def test_a_place_in_the_pool_is_free_again_when_its_device_is_heard_of_no_more(
    system: ActorSystem,
) -> None:
    selector = spawn_selector(system, "one")
    master = system.spawn(Master, name="round")
    selector.ask("open_selection", opening("round", master, capacity=1))
    silent = check_in(selector, 1).session_id

    def gone() -> bool:
        selector.ask("tidy")
        return selector.ask("pool", "round").waiting == {"": 0}

    eventually(gone)
    with pytest.raises(Refusal) as told:
        selector.ask("poll", silent)
    assert told.value.reason == ROUND_OVER
    assert ("one", 0) in master.ask("told")
    assert check_in(selector, 1).session_id not in ("", silent)


def test_a_chosen_device_that_never_asks_is_reported_as_expired(system: ActorSystem) -> None:
    selector = spawn_selector(system, "one")
    master = system.spawn(Master, name="round")
    selector.ask("open_selection", opening("round", master))
    session_id = check_in(selector, 1).session_id
    selector.ask("take", "round", {"": 1})
    selector.ask("configure", "round", (session_id,), WORK)

    def expired() -> bool:
        selector.ask("tidy")
        return SessionEnded(session_id, "expired") in master.ask("told")

    eventually(expired)


def test_rounds_of_several_tasks_get_devices_in_proportion_to_their_weights(
    system: ActorSystem,
) -> None:
    selector = spawn_selector(system, "one")
    for name, weight in (("heavy", 3.0), ("light", 1.0)):
        master = system.spawn(Master, name=name)
        selector.ask("open_selection", opening(name, master, weight=weight, capacity=2000))
    for device in range(2000):
        check_in(selector, device)
    waiting = Counter({name: selector.ask("pool", name).waiting[""] for name in ("heavy", "light")})
    assert waiting.total() == 2000
    assert binomtest(waiting["heavy"], 2000, 0.75).pvalue > 1e-4


def test_a_training_device_gets_no_place_in_an_evaluation(system: ActorSystem) -> None:
    selector = spawn_selector(system, "one")
    master = system.spawn(Master, name="evaluation")
    computation: Computation = EVALUATION
    selector.ask("open_selection", opening("evaluation", master, computation=computation))
    assert check_in(selector, 1).reason == NO_TASK


def test_a_cohort_has_the_shares_of_its_strata_whatever_arrives(system: ActorSystem) -> None:
    selectors = {name: spawn_selector(system, name) for name in ("one", "two")}
    master = system.spawn(Master, name="round")
    strata = Strata(attribute="country", shares={"de": 0.5, "fr": 0.3})
    group = SelectorGroup(round_id="round", members=selectors, rng=random.Random(1))
    group.open(opening("round", master, strata=strata))
    country_of = {}
    for device in range(300):
        country = "de" if device < 20 else "fr" if device < 100 else "it"
        selector = selectors[("one", "two")[device % 2]]
        session_id = check_in(selector, device, {"country": country}).session_id
        if session_id:
            country_of[session_id] = country
    taken = Counter(country_of[each.session_id] for each in group.take(20, strata))
    assert taken == {"de": 10, "fr": 6, "it": 4}


def test_rounds_of_an_earlier_coordinator_end_and_no_new_one_begins(system: ActorSystem) -> None:
    selector = spawn_selector(system, "one")
    before, after = (system.spawn(Master, name=name) for name in ("before", "after"))
    selector.ask("open_selection", opening("before", before, epoch=4))
    session_id = check_in(selector, 1).session_id
    selector.ask("open_selection", opening("after", after, epoch=5))
    assert selector.ask("poll", session_id).reason == ROUND_ABANDONED
    with pytest.raises(StaleCoordinator):
        selector.ask("open_selection", opening("too-late", before, epoch=4))


def test_a_round_ends_with_its_master_aggregator(system: ActorSystem) -> None:
    selector = spawn_selector(system, "one")
    master = system.spawn(Master, name="round")
    selector.ask("open_selection", opening("round", master))
    session_id = check_in(selector, 1).session_id
    master.tell("fall")
    eventually(lambda: selector.ask("pool", "round") is None)
    assert selector.ask("poll", session_id).reason == ROUND_ABANDONED
    assert live_sessions(selector) == 0


def test_a_population_has_no_more_sessions_than_it_may(system: ActorSystem) -> None:
    selector = spawn_selector(system, "one", max_sessions=2)
    master = system.spawn(Master, name="round")
    selector.ask("open_selection", opening("round", master))
    first = [check_in(selector, device) for device in range(2)]
    assert check_in(selector, 3).reason == QUOTA_REACHED
    selector.ask("abort", first[0].session_id)
    assert check_in(selector, 3).session_id


def test_a_selector_that_drains_sends_waiting_devices_elsewhere_and_joins_no_round(
    system: ActorSystem,
) -> None:
    selector = spawn_selector(system, "one")
    master = system.spawn(Master, name="round")
    selector.ask("open_selection", opening("round", master))
    waiting = check_in(selector, 1).session_id
    working = check_in(selector, 2).session_id
    selector.ask("take", "round", {"": 2})
    selector.ask("reject", "round", (waiting,), NOT_SELECTED)
    selector.ask("configure", "round", (working,), WORK)
    selector.ask("drain", (2.0, 10.0))
    told = check_in(selector, 3)
    assert told.reason == DRAINING
    assert told.windows is not None
    assert told.windows.if_rejected == (2.0, 10.0)
    assert selector.ask("poll", working).assignment is not None
    assert live_sessions(selector) == 1
    with pytest.raises(NotAccepting):
        selector.ask("open_selection", opening("next", system.spawn(Master, name="next")))
