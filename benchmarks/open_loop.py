"""A load whose requests come when they are due, however slow the server is.

A generator that waits for answers before it asks again slows down with the server,
and hides how long its devices would have waited. This one has a timetable; what is
late is sent as soon as a connection is free, and its latency counts from when it
was due. It shares the machine with the server, so it does little: keep-alive
connections without asyncio's streams, one request at a time on each.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from device_plan import wire_pb2 as wire

#: Seconds between two looks at the timetable.
TICK_S = 0.005

#: Called with the status and the body of an answer.
Answered = Callable[[int, bytes], None]


@dataclass(slots=True)
class Observed:
    """What came of the requests.

    Attributes:
        answered: With a 200.
        errors: Other answers, and connections that broke, by what was wrong.
        latencies: Seconds from when each was due until it was answered.
    """

    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def latency(self, share: float) -> float:
        """Seconds within which this share of the requests was answered."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(slots=True)
class _Request:
    due: float
    data: bytes
    answered: Answered


class OpenLoop:
    """Sends requests on a fixed number of connections.

    Args:
        port: Of the server, on loopback.
        connections: How many requests are under way at most.
    """

    def __init__(self, port: int, connections: int) -> None:
        self.observed = Observed()
        self._port = port
        self._count = connections
        self._idle: list[_Connection] = []
        self._waiting: deque[_Request] = deque()
        self._open: set[_Connection] = set()
        self._opening: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def backlog(self) -> int:
        """Requests that are due and not answered."""
        return len(self._waiting) + len(self._open) - len(self._idle)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)

    def send(self, due: float, data: bytes, answered: Answered) -> None:
        """A request is due, in seconds of the running loop's clock."""
        request = _Request(due, data, answered)
        if self._idle:
            self._idle.pop().send(request)
        else:
            self._waiting.append(request)

    async def drained(self, within_s: float) -> None:
        """Waits until all is answered; what is not then counts as an error."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while self.backlog and loop.time() < until:
            await asyncio.sleep(TICK_S)
        self.observed.errors["no answer"] += self.backlog

    def close(self) -> None:
        self._closed = True
        for connection in list(self._open):
            connection.close()

    def free(self, connection: "_Connection") -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def opened(self, connection: "_Connection") -> None:
        self._open.add(connection)
        self.free(connection)

    def lost(self, connection: "_Connection") -> None:
        """The server may close a connection that was idle, or after a refusal: opens another."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._closed:
            loop = asyncio.get_running_loop()
            opening = loop.create_task(
                loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
            )
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)


class _Connection(asyncio.Protocol):
    def __init__(self, owner: OpenLoop) -> None:
        self._owner = owner
        self._request: _Request | None = None
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._owner.opened(self)

    def send(self, request: _Request) -> None:
        self._request = request
        self._transport.write(request.data)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"ontent-length: ", 0, max(end, 0))
        if at < 0 and end >= 0:
            at = data.find(b"ontent-Length: ", 0, end)
        if (
            end < 0
            or at < 0
            or len(data) < (whole := end + 4 + int(data[at + 15 : data.index(b"\r\n", at)]))
        ):
            self._received = data
            return
        self._received = b""
        request, self._request = self._request, None
        assert request is not None
        observed = self._owner.observed
        observed.latencies.append(self._loop.time() - request.due)
        status = int(data[9:12])
        if status == 200:
            observed.answered += 1
        else:
            observed.errors[_error(status, data[end + 4 : whole])] += 1
        request.answered(status, data[end + 4 : whole])
        if status == 200:
            self._owner.free(self)
        else:
            # The server closes it after a refusal.
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._request is not None:
            self._owner.observed.errors[f"connection lost: {error}"] += 1
        self._owner.lost(self)

    def close(self) -> None:
        self._request = None
        self._transport.close()


def _error(status: int, body: bytes) -> str:
    error = wire.Error.FromString(body)
    return f"{status} {wire.Reason.Name(error.reason)}: {error.message}"
