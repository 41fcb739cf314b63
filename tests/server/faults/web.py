"""HTTP between devices and selector processes, by the server's own WSGI application."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.server.faults.process import Process
from tests.server.faults.simulated_system import SimulatedFuture
from tests.server.faults.world import World

#: Seconds that a request or an answer takes at least and at most.
LATENCY_S = (0.002, 0.05)

#: Seconds until a device knows that nobody listens, or gives up waiting.
REFUSED_S = 0.05
TIMEOUT_S = 15.0

#: A WSGI application (PEP 3333).
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Vanished(Exception):
    """The device is switched off while it waits for the answer."""


class ConnectionLost(OSError):
    """No answer: the request may or may not have been carried out."""


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Request:
    """What a device sends.

    Attributes:
        step: What it is for, e.g. "check-in"; names the point where faults strike.
        headers: By their WSGI names.
    """

    step: str
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Body:
    """A request's body, which arrives in two pieces."""

    def __init__(self, world: World, data: bytes, rng: random.Random) -> None:
        self._world = world
        self._data = data
        self._pause_s = rng.uniform(0.0, 0.05)

    def read(self, size: int = -1) -> bytes:
        wanted = len(self._data) if size < 0 else min(size, len(self._data))
        if wanted > 256 and self._pause_s:
            wanted //= 2
            self._world.time.sleep(self._pause_s)
            self._world.effect()
            self._pause_s = 0.0
        piece, self._data = self._data[:wanted], self._data[wanted:]
        return piece


class Web:
    """Carries requests to the processes that serve, and their answers back.

    Args:
        world: The run.
        rng: For latencies.
        names: Of the processes that serve, which a balancer knows.
    """

    def __init__(self, world: World, rng: random.Random, names: tuple[str, ...]) -> None:
        self.names = names
        self._world = world
        self._rng = rng
        self._serving: dict[str, tuple[Process, Application]] = {}
        # Dictionaries keep their order, which is a part of the run; sets of objects do not.
        self._open: dict[Process, dict[SimulatedFuture, None]] = {}

    def serve(self, process: Process, application: Application) -> None:
        """A process begins to serve."""
        self._serving[process.name] = (process, application)
        self._open[process] = {}

    def killed(self, process: Process) -> None:
        """A process has been killed: its connections break."""
        for answer in self._open.pop(process, ()):
            self._lose(answer, self._rng.uniform(*LATENCY_S))

    def exchange(self, name: str, request: Request) -> Reply:
        """Sends a request and waits for its answer.

        Raises:
            ConnectionLost: there is none.
            Vanished: the schedule switches the device off.
        """
        world = self._world
        fault = world.injector.at(f"http {request.step}")
        kind, amount = (fault.kind, fault.amount) if fault is not None else ("", 0.0)
        answer = SimulatedFuture(world)
        delay = self._rng.uniform(*LATENCY_S) + (amount if kind == "delay" else 0.0)
        arrival = self._arrival(name, request, answer, kind, amount)
        if kind != "lose":
            world.time.after(delay, None, arrival)
        if kind == "duplicate":
            twin = self._arrival(name, request, SimulatedFuture(world), "", 0.0)
            world.time.after(delay + amount / 10, None, twin)
        if kind == "vanish":
            raise Vanished
        if not world.time.wait_for(answer, TIMEOUT_S) or kind == "lose answer":
            raise ConnectionLost(f"{request.step} was not answered")
        reply: Reply = answer.result(0)
        return reply

    def _arrival(
        self, name: str, request: Request, answer: SimulatedFuture, kind: str, amount: float
    ) -> Callable[[], None]:
        def arrive() -> None:
            process, application = self._serving.get(name, (None, None))
            if process is None or application is None or not process.alive:
                self._lose(answer, REFUSED_S)
                return
            self._open[process][answer] = None

            def serve() -> None:
                match kind:
                    case "kill during":
                        self._world._doom(process, int(amount))
                    case "freeze":
                        process.freeze(amount)
                        self._world.time.sleep(0.0)
                reply = self._run(application, request, truncated=kind == "truncate")
                open_here = self._open.get(process)
                if open_here is not None:
                    open_here.pop(answer, None)
                latency = self._rng.uniform(*LATENCY_S)
                self._world.time.after(latency, None, lambda: answer.settle(reply))

            self._world.time.start(process, serve)

        return arrive

    def _run(self, application: Application, request: Request, *, truncated: bool) -> Reply:
        body = request.body[: len(request.body) // 2] if truncated else request.body
        environ = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": "simulated",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_LENGTH": str(len(request.body)),
            "CONTENT_TYPE": "application/x-protobuf",
            "HTTP_ACCEPT": "application/x-protobuf",
            "wsgi.input": Body(self._world, body, self._rng),
            "wsgi.url_scheme": "http",
            **request.headers,
        }
        status = 0

        def start_response(line: str, headers: list[tuple[str, str]], *_: object) -> None:  # noqa: ARG001
            nonlocal status
            status = int(line.split(" ", 1)[0])

        answered = b"".join(application(environ, start_response))
        self._world.trace(f"http {request.step} {request.path} -> {status}")
        return Reply(status, answered)

    def _lose(self, answer: SimulatedFuture, delay_s: float) -> None:
        lost = ConnectionLost("the connection broke")
        self._world.time.after(delay_s, None, lambda: answer.settle(error=lost))
