"""What actors may rely on wherever they live: embedded, apart on Ray, or behind a mailbox.

`tests/server/actors/test_runtime.py` has more for the embedded runtime, which
shares memory with those who send.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.actors.runtime import Actor, ActorDied, ActorSystem, AskTimeout, Ref, WouldDeadlock
from server.cluster.ray_system import RaySystem
from tests.server.live.waiting import eventually

PATIENCE_S = 30.0


class Counter(Actor):
    """Remembers what it is told."""

    def __init__(self, *, start: int = 0, left: str = "") -> None:
        self.value = start
        self.seen: list[object] = []
        self._left = left

    def increment(self) -> None:
        value = self.value
        for _ in range(20):
            pass
        self.value = value + 1

    def read(self) -> int:
        return self.value

    def note(self, item: object) -> None:
        self.seen.append(item)

    def notes(self) -> list[object]:
        return list(self.seen)

    def fail(self) -> None:
        raise LookupError("nothing there")

    def fail_oddly(self) -> None:
        class Odd(Exception):
            def __init__(self, first: int, second: int) -> None:
                super().__init__(f"{first} and {second}")

        raise Odd(1, 2)

    def hold(self, seconds: float) -> str:
        time.sleep(seconds)
        return "held"

    def itself(self) -> Ref:
        return self.ref

    def ask_itself(self) -> int:
        value: int = self.ref.ask("read")
        return value

    def ask_other(self, other: Ref, method: str) -> Any:
        return other.ask(method)

    def note_later(self, delay_s: float, item: object) -> None:
        self.system.schedule(delay_s, self.ref, "note", item)

    def note_and_call_back(self, items: list[tuple[float, object]]) -> list[bool]:
        scheduled = [self.system.schedule(delay_s, self.ref, "note", i) for delay_s, i in items]
        return [each.cancel() for each in scheduled]

    def watch(self, other: Ref) -> None:
        self.system.watch(self.ref, other)

    def on_death(self, name: str, reason: BaseException | None) -> None:
        self.seen.append((name, type(reason).__name__))

    def make_child(self) -> Ref:
        return self.system.spawn(Child, dispatch="inline", start=7)

    def double(self, values: np.ndarray) -> np.ndarray:
        values *= 2
        return values

    def pid(self) -> int:
        return os.getpid()

    def on_stop(self) -> None:
        if self._left:
            Path(self._left).write_text("stopped")


class Child(Counter):
    """Lives in the process of whoever spawns it."""


@dataclass
class World:
    """A place for actors under test."""

    system: ActorSystem
    spawn: Callable[..., Ref]


@pytest.fixture(params=["embedded", "apart", "behind a mailbox"], scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "embedded":
        system = ActorSystem()
        yield World(system, system.spawn)
        assert system.shutdown(PATIENCE_S)
        return
    namespace = request.getfixturevalue("ray_node")
    ours = RaySystem(namespace=namespace, apart=(Counter,))
    if request.param == "apart":
        yield World(ours, ours.spawn)
    else:
        # Two systems are here, as in two selector processes: what the one spawns, the
        # other knows by its mailbox.
        theirs = RaySystem(namespace=namespace)

        def spawn(cls: type, **options: Any) -> Ref:
            here = theirs.spawn(cls, **options)
            return ours.ref_at(theirs.gate_of(here), here.name)

        yield World(ours, spawn)
        assert theirs.shutdown(PATIENCE_S)
    assert ours.shutdown(PATIENCE_S)


def watched(world: World, ref: Ref) -> Ref:
    watcher = world.spawn(Counter)
    watcher.ask("watch", ref)
    return watcher


def told(watcher: Ref) -> list[object]:
    return eventually(lambda: watcher.ask("notes"))


def test_an_ask_returns_what_the_handler_returned(world: World) -> None:
    counter = world.spawn(Counter, start=41)
    counter.tell("increment")
    assert counter.ask("read") == 42


def test_an_ask_raises_what_the_handler_raised_and_the_actor_lives_on(world: World) -> None:
    counter = world.spawn(Counter)
    with pytest.raises(LookupError, match="nothing there"):
        counter.ask("fail")
    with pytest.raises(Exception, match="1 and 2"):
        counter.ask("fail_oddly")
    assert counter.alive
    assert counter.ask("read") == 0


def test_a_request_is_answered_through_its_future(world: World) -> None:
    counter = world.spawn(Counter, start=7)
    assert counter.request("read").result(PATIENCE_S) == 7
    with pytest.raises(LookupError):
        counter.request("fail").result(PATIENCE_S)


def test_an_actor_handles_one_message_at_a_time_however_many_threads_send(world: World) -> None:
    counter = world.spawn(Counter)

    def send() -> None:
        for number in range(60):
            if number % 3 == 0:
                counter.ask("increment")
            elif number % 3 == 1:
                counter.tell("increment")
            else:
                counter.request("increment")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert counter.ask("read") == 4 * 60


def test_messages_of_one_sender_are_handled_in_order_behind_a_long_one(world: World) -> None:
    counter = world.spawn(Counter)
    held = counter.request("hold", 0.1)
    for number in range(10):
        counter.tell("note", number)
    futures: list[Future] = [counter.request("note", number) for number in range(10, 20)]
    assert counter.ask("notes") == list(range(20))
    assert held.result(PATIENCE_S) == "held"
    for future in futures:
        future.result(PATIENCE_S)


def test_asking_oneself_is_an_error_instead_of_a_deadlock(world: World) -> None:
    with pytest.raises(WouldDeadlock, match="read"):
        world.spawn(Counter).ask("ask_itself")


def test_an_ask_of_a_busy_actor_times_out_and_is_not_handled_later(world: World) -> None:
    counter = world.spawn(Counter)
    held = counter.request("hold", 1.0)
    with pytest.raises(AskTimeout, match="did not"):
        counter.ask("increment", timeout=0.2)
    assert held.result(PATIENCE_S) == "held"
    assert counter.ask("read") == 0


def test_references_can_be_sent_and_come_back_as_themselves(world: World) -> None:
    first, second = world.spawn(Counter, start=1), world.spawn(Counter, start=2)
    assert first.ask("ask_other", second, "read") == 2
    assert second.ask("ask_other", first, "itself") == first
    assert first.ask("itself").ask("read") == 1


def test_a_child_lives_with_who_spawned_it_and_answers_others(world: World) -> None:
    parent = world.spawn(Counter)
    child = parent.ask("make_child")
    assert child.ask("read") == 7
    assert child.ask("pid") == parent.ask("pid")


def test_large_arrays_are_the_receivers_to_change(world: World) -> None:
    doubled = world.spawn(Counter).ask("double", np.arange(100_000, dtype=np.float32))
    doubled += 1
    np.testing.assert_array_equal(doubled, np.arange(100_000, dtype=np.float32) * 2 + 1)


def test_an_exception_in_a_told_message_kills_the_actor_and_is_told_to_watchers(
    world: World,
) -> None:
    counter = world.spawn(Counter, name="fragile")
    watcher = watched(world, counter)
    counter.tell("fail")
    assert told(watcher) == [("fragile", "LookupError")]
    with pytest.raises(ActorDied, match="fragile"):
        counter.ask("read")
    assert not counter.alive


def test_a_stopped_actor_handles_what_it_was_sent_before_and_nothing_after(
    world: World, tmp_path: Path
) -> None:
    counter = world.spawn(Counter, name="ended", left=str(tmp_path / "left"))
    watcher = watched(world, counter)
    before = counter.request("read")
    world.system.stop(counter)
    assert told(watcher) == [("ended", "NoneType")]
    assert before.result(PATIENCE_S) == 0
    assert (tmp_path / "left").read_text() == "stopped"
    with pytest.raises(ActorDied):
        counter.ask("read")
    counter.tell("increment")
    world.system.stop(counter)


def test_watching_the_dead_tells_at_once(world: World) -> None:
    counter = world.spawn(Counter, name="gone")
    first = watched(world, counter)
    world.system.stop(counter)
    assert told(first)
    second = watched(world, counter)
    ((name, _reason),) = told(second)
    assert name == "gone"


def test_names_are_unique_among_the_living_and_free_after_death(world: World) -> None:
    counter = world.spawn(Counter, name="only")
    with pytest.raises(ValueError, match="only"):
        world.spawn(Counter, name="only")
    watcher = watched(world, counter)
    world.system.stop(counter)
    told(watcher)
    again = world.spawn(Counter, name="only", start=5)
    assert again.ask("read") == 5


def test_a_constructor_that_raises_does_so_in_the_spawner_and_frees_the_name(world: World) -> None:
    with pytest.raises(TypeError):
        world.spawn(Counter, name="made", unknown=1)
    assert world.spawn(Counter, name="made").ask("read") == 0


def test_delayed_messages_arrive_in_the_order_of_their_times(world: World) -> None:
    counter = world.spawn(Counter)
    counter.ask("note_later", 0.06, "second")
    counter.ask("note_later", 0.02, "first")
    eventually(lambda: len(counter.ask("notes")) == 2)
    assert counter.ask("notes") == ["first", "second"]


def test_a_cancelled_message_never_arrives(world: World) -> None:
    counter = world.spawn(Counter)
    assert all(counter.ask("note_and_call_back", [(0.05, n) for n in range(100)]))
    counter.ask("note_later", 0.1, "last")
    assert told(counter) == ["last"]


def test_actors_apart_are_found_by_how_their_names_begin(ray_node: str) -> None:
    system = RaySystem(namespace=ray_node, apart=(Counter,))
    for name in ("found/1", "found/2", "another"):
        system.spawn(Counter, name=name)
    found = {ref.name: ref for ref in system.find_all("found/")}
    assert set(found) == {"found/1", "found/2"}
    assert found["found/2"].ask("read") == 0
    assert system.shutdown(PATIENCE_S)
