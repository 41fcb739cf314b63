"""The embedded actor runtime, through its public surface, for both dispatches."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from server.actors.runtime import (
    Actor,
    ActorDied,
    ActorSystem,
    AskTimeout,
    Dispatch,
    Ref,
    SystemDown,
    WouldDeadlock,
)

#: Long enough for any thread on a busy machine; only a failing test waits for it.
PATIENCE_S = 20.0


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    system = ActorSystem()
    yield system
    assert system.shutdown(PATIENCE_S)


@pytest.fixture(params=["thread", "inline"])
def dispatch(request: pytest.FixtureRequest) -> Dispatch:
    return request.param


class Counter(Actor):
    """Counts without a lock: wrong unless messages are serialised."""

    def __init__(self, *, start: int = 0) -> None:
        self.value = start
        self.seen: list[object] = []
        self.stopped = threading.Event()

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

    def time_out(self) -> None:
        raise TimeoutError("the handler's own")

    def ask_self(self) -> int:
        return self.ref.ask("read")

    def tell_self_twice(self) -> list[object]:
        self.ref.tell("note", "later")
        self.seen.append("now")
        return list(self.seen)

    def hold(self, entered: threading.Event, leave: threading.Event) -> str:
        entered.set()
        assert leave.wait(PATIENCE_S)
        return "held"

    def call(self, function: Callable[[], object]) -> object:
        return function()

    def stopping(self) -> threading.Event:
        return self.stopped

    def on_stop(self) -> None:
        self.stopped.set()


class Watcher:
    def __init__(self) -> None:
        self.deaths: list[tuple[str, BaseException | None]] = []
        self.told = threading.Event()

    def on_death(self, name: str, reason: BaseException | None) -> None:
        self.deaths.append((name, reason))
        self.told.set()

    def get(self) -> "Watcher":
        return self


def watch(system: ActorSystem, ref: Ref) -> Watcher:
    watcher = system.spawn(Watcher)
    system.watch(watcher, ref)
    return watcher.ask("get")


def test_an_ask_returns_what_the_handler_returned(system: ActorSystem, dispatch: Dispatch) -> None:
    counter = system.spawn(Counter, dispatch=dispatch, start=41)
    counter.tell("increment")
    assert counter.ask("read") == 42


def test_an_ask_raises_what_the_handler_raised_and_the_actor_lives_on(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    with pytest.raises(LookupError, match="nothing there"):
        counter.ask("fail")
    with pytest.raises(TimeoutError, match="the handler's own"):
        counter.ask("time_out")
    assert counter.alive
    assert counter.ask("read") == 0


def test_a_request_is_answered_through_its_future(system: ActorSystem, dispatch: Dispatch) -> None:
    counter = system.spawn(Counter, dispatch=dispatch, start=7)
    assert counter.request("read").result(PATIENCE_S) == 7
    with pytest.raises(LookupError):
        counter.request("fail").result(PATIENCE_S)


def test_an_actor_handles_one_message_at_a_time_however_many_threads_send(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)

    def send() -> None:
        for number in range(500):
            if number % 3 == 0:
                counter.ask("increment")
            elif number % 3 == 1:
                counter.tell("increment")
            else:
                counter.request("increment")

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert counter.ask("read") == 8 * 500


def test_messages_of_one_sender_are_handled_in_order(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    entered, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=counter.ask, args=("hold", entered, leave))
    other.start()
    assert entered.wait(PATIENCE_S)
    for number in range(10):
        counter.tell("note", number)
    futures = [counter.request("note", number) for number in range(10, 20)]
    leave.set()
    assert counter.ask("notes") == list(range(20))
    assert all(future.done() for future in futures)
    other.join(PATIENCE_S)


def test_a_tell_is_handled_before_the_same_senders_ask_however_busy_the_actor_is(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            counter.ask("increment")

    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(200):
            counter.tell("note", number)
            assert counter.ask("notes")[-1] == number
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def test_a_message_to_oneself_is_handled_after_the_current_one(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    assert counter.ask("tell_self_twice") == ["now"]
    assert counter.ask("notes") == ["now", "later"]


def test_asking_oneself_is_an_error_instead_of_a_deadlock(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    with pytest.raises(WouldDeadlock, match="read"):
        counter.ask("ask_self")


def test_asking_oneself_through_another_inline_actor_is_an_error(system: ActorSystem) -> None:
    first = system.spawn(Counter, dispatch="inline")
    second = system.spawn(Counter, dispatch="inline")
    with pytest.raises(WouldDeadlock):
        first.ask("call", lambda: second.ask("call", lambda: first.ask("read")))


def test_inline_actors_that_tell_each_other_in_circles_from_many_threads_do_not_deadlock(
    system: ActorSystem,
) -> None:
    class Player(Actor):
        def __init__(self) -> None:
            self.hits = 0
            self.other: Ref | None = None

        def meet(self, other: Ref) -> None:
            self.other = other

        def hit(self, left: int) -> None:
            self.hits += 1
            if left and self.other:
                self.other.tell("hit", left - 1)

        def score(self) -> int:
            return self.hits

    left = system.spawn(Player, dispatch="inline")
    right = system.spawn(Player, dispatch="inline")
    left.ask("meet", right)
    right.ask("meet", left)
    threads = [
        threading.Thread(target=ref.tell, args=("hit", 99)) for ref in (left, right) for _ in "1234"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert left.ask("score") + right.ask("score") == 8 * 100


def test_an_ask_of_a_busy_actor_times_out_and_is_not_handled_later(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    entered, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=counter.ask, args=("hold", entered, leave))
    other.start()
    assert entered.wait(PATIENCE_S)
    with pytest.raises(AskTimeout, match="increment"):
        counter.ask("increment", timeout=0.01)
    leave.set()
    other.join(PATIENCE_S)
    assert counter.ask("read") == 0


def test_an_exception_in_a_told_message_is_logged_kills_the_actor_and_is_told_to_watchers(
    system: ActorSystem, dispatch: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    counter = system.spawn(Counter, name="fragile", dispatch=dispatch)
    watcher = watch(system, counter)
    with caplog.at_level(logging.ERROR):
        counter.tell("fail")
        assert watcher.told.wait(PATIENCE_S)
    [(name, reason)] = watcher.deaths
    assert name == "fragile"
    assert isinstance(reason, LookupError)
    assert "fragile" in caplog.text
    assert "nothing there" in caplog.text
    with pytest.raises(ActorDied, match="fragile"):
        counter.ask("read")
    assert not counter.alive


def test_a_message_that_the_actor_does_not_understand_kills_it_when_told(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    watcher = watch(system, counter)
    counter.tell("dance")
    assert watcher.told.wait(PATIENCE_S)
    assert isinstance(watcher.deaths[0][1], AttributeError)


def test_a_stopped_actor_handles_what_it_was_sent_before_and_nothing_after(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    watcher = watch(system, counter)
    entered, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=counter.ask, args=("hold", entered, leave))
    other.start()
    assert entered.wait(PATIENCE_S)
    before = counter.request("read")
    system.stop(counter)
    after = counter.request("read")
    leave.set()
    assert before.result(PATIENCE_S) == 0
    with pytest.raises(ActorDied):
        after.result(PATIENCE_S)
    assert watcher.told.wait(PATIENCE_S)
    assert watcher.deaths == [(counter.name, None)]
    counter.tell("increment")
    system.stop(counter)
    other.join(PATIENCE_S)


def test_an_actor_can_stop_itself_and_its_on_stop_is_called(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    stopped = counter.ask("stopping")
    counter.ask("call", lambda: system.stop(counter))
    assert stopped.wait(PATIENCE_S)
    assert counter.name not in system.names


def test_watching_the_dead_tells_at_once(system: ActorSystem, dispatch: Dispatch) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    first = watch(system, counter)
    system.stop(counter)
    assert first.told.wait(PATIENCE_S)
    assert watch(system, counter).told.wait(PATIENCE_S)


def test_only_an_actor_with_on_death_can_watch(system: ActorSystem) -> None:
    class Deaf:
        pass

    deaf, counter = system.spawn(Deaf), system.spawn(Counter)
    with pytest.raises(TypeError, match="on_death"):
        system.watch(deaf, counter)


def test_names_are_unique_among_the_living_and_free_after_death(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, name="only", dispatch=dispatch)
    assert system.find("only") is counter
    with pytest.raises(ValueError, match="only"):
        system.spawn(Counter, name="only")
    watcher = watch(system, counter)
    system.stop(counter)
    assert watcher.told.wait(PATIENCE_S)
    assert system.find("only") is None
    assert system.spawn(Counter, name="only", start=5).ask("read") == 5


def test_a_constructor_that_raises_does_so_in_the_spawner_and_frees_the_name(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    with pytest.raises(TypeError):
        system.spawn(Counter, name="made", dispatch=dispatch, unknown=1)
    assert system.find("made") is None
    assert system.spawn(Counter, name="made", dispatch=dispatch).ask("read") == 0


def test_an_actor_may_send_itself_messages_from_its_constructor(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    class Eager(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.ref.tell("increment")

    assert system.spawn(Eager, dispatch=dispatch).ask("read") == 1


def test_delayed_messages_arrive_in_the_order_of_their_times(
    system: ActorSystem, dispatch: Dispatch
) -> None:
    counter = system.spawn(Counter, dispatch=dispatch)
    last = threading.Event()
    system.schedule(0.06, counter, "call", last.set)
    system.schedule(0.04, counter, "note", "second")
    system.schedule(0.02, counter, "note", "first")
    assert last.wait(PATIENCE_S)
    assert counter.ask("notes") == ["first", "second"]


def test_a_cancelled_message_never_arrives(system: ActorSystem) -> None:
    counter = system.spawn(Counter)
    done = threading.Event()
    cancelled = [system.schedule(0.02, counter, "increment") for _ in range(1000)]
    assert all(scheduled.cancel() for scheduled in cancelled)
    assert not any(scheduled.cancel() or scheduled.pending for scheduled in cancelled)
    delivered = system.schedule(0.05, counter, "call", done.set)
    assert done.wait(PATIENCE_S)
    assert counter.ask("read") == 0
    assert not delivered.cancel()


def test_a_failing_delayed_message_does_not_stop_the_timer(system: ActorSystem) -> None:
    fragile = system.spawn(Counter, dispatch="inline")
    robust = system.spawn(Counter, dispatch="inline")
    done = threading.Event()
    system.schedule(0.0, fragile, "fail")
    system.schedule(0.01, robust, "call", done.set)
    assert done.wait(PATIENCE_S)
    assert not fragile.alive


def test_shutdown_ends_actors_timers_and_pending_asks(dispatch: Dispatch) -> None:
    system = ActorSystem()
    counter = system.spawn(Counter, dispatch=dispatch)
    stopped = counter.ask("stopping")
    entered, leave = threading.Event(), threading.Event()
    holding = threading.Thread(target=counter.ask, args=("hold", entered, leave))
    holding.start()
    assert entered.wait(PATIENCE_S)
    pending = counter.request("read")
    delayed = system.schedule(3600.0, counter, "increment")
    assert not system.shutdown(0.05)
    leave.set()
    assert system.shutdown(PATIENCE_S)
    with pytest.raises(ActorDied):
        pending.result(PATIENCE_S)
    assert stopped.wait(PATIENCE_S)
    assert delayed.pending is False
    holding.join(PATIENCE_S)
    with pytest.raises(SystemDown):
        system.spawn(Counter)


def test_an_actor_may_shut_its_own_system_down(dispatch: Dispatch) -> None:
    system = ActorSystem()
    counter = system.spawn(Counter, dispatch=dispatch)
    bystander = system.spawn(Counter)
    assert counter.ask("call", system.shutdown) is True
    assert not bystander.alive
    assert system.shutdown(PATIENCE_S)
