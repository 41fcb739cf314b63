"""The actor system over Ray: the same surface as the embedded one, across processes.

Actors of some classes, those that are to die alone, get a process of their own
(a Ray actor, `server.cluster.gates.Host`); all others live in the process that
spawns them, on the embedded runtime. References may be sent to anyone.

What is different across processes: a message must be picklable, its values are
copies, a timeout covers the whole handling, an actor may end because its process
or machine does (its watchers are told `ActorDied`), and an exception that cannot
be pickled arrives as a RuntimeError with its text.

Nothing here is exclusive: a frozen process keeps its name in Ray. Who may write
is decided by the fenced lease alone.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError

from server.actors.cells import ActorDied, Ref, ThreadCell
from server.actors.runtime import Actor, ActorSystem, Dispatch, SystemDown
from server.cluster.gates import Host, Mailbox
from server.cluster.parcels import Parcel, pack, pack_failure, unpack, value_of
from server.cluster.remote_ref import GONE, RemoteRef, gate_id

_log = logging.getLogger(__name__)

#: Seconds that a process may take to start and make its actor.
START_TIMEOUT_S = 60.0

#: Seconds that a process may take to say its id.
PID_TIMEOUT_S = 2.0

#: Seconds that a spawner waits for the name of an actor that has ended.
NAME_TIMEOUT_S = 10.0

#: Bytes from which on an answer is left in shared memory instead of going through the mailbox.
LARGE = 1 << 16

#: Threads that unpack answers and deliver death notices.
ARRIVAL_THREADS = 4

_HOST: Any = ray.remote(num_cpus=0, max_restarts=0, concurrency_groups={"watch": 4, "query": 1})(
    Host
)
_MAILBOX: Any = ray.remote(
    num_cpus=0,
    max_restarts=0,
    concurrency_groups={"watch": 4, "query": 1, "owner": 1, "answers": 1},
)(Mailbox)


class RaySystem(ActorSystem):
    """The actors of this process, and the way to those of others. Ray must be connected.

    Args:
        namespace: The cluster's name for Ray; names of actors are unique in it.
        apart: Classes whose actors get a process of their own.
        gate: Through which messages enter this process, if Ray has started it.
        name: Of this process, if Ray has not started it; others find it by this name.
        on_cut_off: Called when this process can no longer be reached by the others.
    """

    def __init__(
        self,
        *,
        namespace: str,
        apart: tuple[type, ...] = (),
        gate: ActorHandle | None = None,
        name: str | None = None,
        on_cut_off: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.namespace = namespace
        self._apart = apart
        self._on_cut_off = on_cut_off
        self._hosts: dict[str, ActorHandle] = {}
        self._ends: dict[str, tuple[Ref, Future]] = {}
        self._arrivals = ThreadPoolExecutor(ARRIVAL_THREADS, thread_name_prefix="arrivals")
        self._own_mailbox = gate is None
        self._closing = False
        self._gate = gate if gate is not None else self._make_mailbox(name)
        self._gate_id = gate_id(self._gate)
        if self._own_mailbox:
            threading.Thread(target=self._fetch, name="mailbox", daemon=True).start()

    # The surface of ActorSystem.

    def spawn(
        self,
        cls: Callable[..., Any],
        *,
        name: str | None = None,
        dispatch: Dispatch = "thread",
        **kwargs: Any,
    ) -> Ref:
        """As `ActorSystem.spawn`; in a process of its own if the class is one of `apart`.

        That process ends with this one. An actor that lives in a process of Ray's does
        not wait until the other has been made, see `spawn_apart`.
        """
        if cls not in self._apart:
            return self.spawn_here(cls, name=name, dispatch=dispatch, **kwargs)
        # An actor of Ray's, which may have a lease to keep, does not wait for a process.
        return self.spawn_apart(cls, name=name, wait=self._own_mailbox, **kwargs)

    def spawn_here(self, cls: Callable[..., Any], **options: Any) -> Ref:
        """As `ActorSystem.spawn`, in this process whatever the class."""
        return super().spawn(cls, **options)

    def spawn_apart(
        self,
        cls: Callable[..., Any],
        *,
        name: str | None = None,
        detached: bool = False,
        wait: bool = True,
        **kwargs: Any,
    ) -> Ref:
        """Creates an actor in a process of its own, somewhere in the cluster.

        Args:
            cls: Its class; it and the arguments must be picklable.
            name: Unique among the living of the cluster.
            detached: It outlives this process.
            wait: Until it has been made. Otherwise messages wait for that, and what
                its constructor raises is the reason of its end.

        Raises:
            ValueError: a living actor has this name.
            ActorDied, TimeoutError: its process could not be started.
            Exception: whatever its constructor raised.
        """
        if self._closing:
            raise SystemDown(f"cannot spawn {name!r}: the actor system has been shut down")
        if name is None:
            name = f"{getattr(cls, '__name__', 'actor')}-{os.urandom(6).hex()}"
        options: dict[str, Any] = {"name": name, "namespace": self.namespace}
        if detached:
            options["lifetime"] = "detached"
        host = self._start(name, options, pack((cls, kwargs), self))
        if wait:
            self._wait_for(host, name)
        if not detached:
            # Ray ends an actor that nobody refers to.
            self._hosts[name] = host
        return RemoteRef(name, host, self)

    def find(self, name: str) -> Ref | None:
        """The actor of that name, in this process or in one of its own.

        One that is silent, for example frozen, is found too: it still has the name.
        """
        return self.find_here(name) or self._find_apart(name)

    def find_all(self, prefix: str) -> list[Ref]:
        """The actors with processes of their own whose names begin so, silent ones too."""
        found: list[Ref] = []
        for name in ray.util.list_named_actors():
            if name.startswith(prefix):
                # It may have ended just now.
                with suppress(ValueError):
                    gate = ray.get_actor(name, namespace=self.namespace)
                    found.append(RemoteRef(name, gate, self))
        return found

    def find_here(self, name: str) -> Ref | None:
        """The living actor of that name in this process."""
        return super().find(name)

    def stop(self, ref: Ref) -> None:
        if isinstance(ref, RemoteRef):
            ref.stop()
        else:
            super().stop(ref)

    def watch(self, watcher: Ref, ref: Ref) -> None:
        if not isinstance(ref, RemoteRef):
            super().watch(watcher, ref)
            return
        if not isinstance(watcher, RemoteRef) and not watcher.cell.understands("on_death"):
            raise TypeError(f"{watcher.name!r} cannot watch: it has no method on_death")
        ref.when_ended(lambda reason: watcher.tell("on_death", ref.name, reason))

    def shutdown(self, timeout_s: float = 5.0) -> bool:
        """Ends the actors of this process, and those apart that it spawned and not detached."""
        self._closing = True
        done = super().shutdown(timeout_s)
        for host in self._hosts.values():
            ray.kill(host)
        self._hosts.clear()
        if self._own_mailbox:
            ray.kill(self._gate)
        self._arrivals.shutdown(wait=False, cancel_futures=True)
        return done

    # For references and gates.

    def pack(self, value: Any) -> Parcel:
        return pack(value, self)

    def open_answer(self, answer: Any) -> Any:
        """The value of an answer, or raises the exception that it is."""
        if isinstance(answer, list):
            (answer,) = ray.get(answer)
        return value_of(answer, self)

    def when_done(self, call: Any, then: Callable[[Future], None]) -> None:
        """Calls `then` with the call's future, on a thread that may wait."""

        def arrived(future: Future) -> None:
            if not self._closing:
                self._arrivals.submit(_logged, then, future)

        call.future().add_done_callback(arrived)

    def gate_of(self, ref: Ref) -> ActorHandle:
        return ref.gate if isinstance(ref, RemoteRef) else self._gate

    def ref_at(self, gate: ActorHandle, name: str) -> Ref:
        if gate_id(gate) != self._gate_id:
            return RemoteRef(name, gate, self)
        return self.find_here(name) or _dead(name)

    def end_of(self, ref: Ref) -> Future:
        """The future of the reason for which an actor of this process ends."""
        with self._lock:
            known = self._ends.get(ref.name)
            if known is not None and known[0] is ref:
                return known[1]
            end: Future = Future()
            self._ends[ref.name] = (ref, end)
        sentinel = self.spawn_here(_Sentinel, dispatch="inline", end=end)
        super().watch(sentinel, ref)
        return end

    # Parts of the above.

    def _start(self, name: str, options: dict[str, Any], creation: Parcel) -> ActorHandle:
        deadline = self.now() + NAME_TIMEOUT_S
        while True:
            try:
                return _HOST.options(**options).remote(name, creation, self._apart)
            except ValueError:
                if self._find_apart(name) is not None or self.now() > deadline:
                    raise ValueError(
                        f"an actor named {name!r} is alive; stop it or take another name"
                    ) from None
            # The actor has ended and its process is about to: it need not wait for questions.
            try:
                ray.kill(ray.get_actor(name, namespace=self.namespace))
            except ValueError:
                continue
            threading.Event().wait(0.05)

    def _wait_for(self, host: ActorHandle, name: str) -> None:
        try:
            value_of(ray.get(host.begun.remote(), timeout=START_TIMEOUT_S), self)
        except GetTimeoutError:
            ray.kill(host)
            raise TimeoutError(f"{name!r} did not start in {START_TIMEOUT_S:g} s") from None
        except GONE:
            raise ActorDied(name) from None
        except BaseException:
            ray.kill(host)
            raise

    def _find_apart(self, name: str) -> Ref | None:
        try:
            gate = ray.get_actor(name, namespace=self.namespace)
        except ValueError:
            return None
        ref = RemoteRef(name, gate, self)
        return None if ref.heard() is False else ref

    def _make_mailbox(self, name: str | None) -> ActorHandle:
        options = {"name": name, "namespace": self.namespace} if name is not None else {}
        return _MAILBOX.options(**options).remote(os.getpid())

    def _fetch(self) -> None:
        """Brings the messages of other processes to the actors of this one, in order."""
        while not self._closing:
            try:
                messages = ray.get(self._gate.fetch.remote())
            except Exception as error:
                if not self._closing:
                    _log.error("this process is cut off from the cluster: %r", error)
                    if self._on_cut_off is not None:
                        self._on_cut_off()
                return
            for number, kind, name, message in messages:
                try:
                    self._handle(number, kind, name, message)
                except Exception:
                    _log.exception("a message to %s was lost", name)

    def _handle(self, number: int, kind: str, name: str, message: Any) -> None:
        ref = self.find_here(name) or _dead(name)
        if kind == "lives":
            self._gate.answer.remote(number, ref.alive)
        elif kind == "stop":
            super().stop(ref)
        elif kind == "ended":
            if ref.alive:
                self.end_of(ref).add_done_callback(
                    lambda end: self._answer(number, pack(end.result(), self))
                )
            else:
                self._answer(number, pack(None, self))
        else:
            self._deliver(number, ref, message)

    def _deliver(self, number: int, ref: Ref, message: Parcel) -> None:
        try:
            method, args = unpack(message, self)
            if not number:
                ref.tell(method, *args)
                return
            answer = pack(ref.ask(method, *args), self)
        except BaseException as error:
            answer = pack_failure(error, self)
        self._answer(number, answer)

    def _answer(self, number: int, answer: Parcel) -> None:
        self._gate.answer.remote(number, answer if answer.size < LARGE else [ray.put(answer)])


class _Sentinel(Actor):
    """Keeps the reason of an actor's end."""

    def __init__(self, *, end: Future) -> None:
        self._end = end

    def on_death(self, name: str, reason: BaseException | None) -> None:  # noqa: ARG002
        self._end.set_result(reason)
        self.system.stop(self.ref)


def _dead(name: str) -> Ref:
    """A reference to an actor that has ended."""
    cell = ThreadCell(name, lambda _: None)
    cell.discard()
    return cell.ref


def _logged(then: Callable[[Future], None], future: Future) -> None:
    try:
        then(future)
    except Exception:
        _log.exception("an answer could not be delivered")


def pids(namespace: str) -> dict[str, int]:
    """The processes of the actors that have one of their own, and of selectors, by name."""
    found = {}
    for name in ray.util.list_named_actors():
        try:
            gate = ray.get_actor(name, namespace=namespace)
            found[name] = int(ray.get(gate.pid.remote(), timeout=PID_TIMEOUT_S))
        except (ValueError, GetTimeoutError, *GONE):
            continue
    return found
