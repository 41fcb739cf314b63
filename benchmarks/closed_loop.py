"""A load in which each connection sends its next request when it has the last one's answer.

It finds out how many requests a server can answer. It shares the machine with the
server, and at tens of thousands of requests a second asyncio would need more of it
than the server does; this is epoll(7) and sockets, and nothing else.
"""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

#: Bytes that are received at once: answers to check-ins are some hundred bytes.
_RECEIVE_BYTES = 1 << 14


class NotAnswered(RuntimeError):
    """A request got no answer, or another than 200."""


def answer_all(
    port: int, requests: Sequence[bytes], *, connections: int, timeout_s: float
) -> float:
    """Sends every request once, over keep-alive connections, and waits for all answers.

    Args:
        port: Of the server, on loopback.
        requests: Each a whole HTTP/1.1 request.
        connections: How many requests are under way at a time.
        timeout_s: Seconds within which all must be answered.

    Returns:
        Seconds from the first request to the last answer.

    Raises:
        NotAnswered: an answer is not 200, a connection broke, or time was up.
    """
    with ExitStack() as stack:
        epoll = stack.enter_context(select.epoll())
        opened: dict[int, _Connection] = {}
        for _ in range(connections):
            channel = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            epoll.register(channel, select.EPOLLIN)
            opened[channel.fileno()] = _Connection(channel)
        left = len(requests)
        waiting = iter(requests)
        began = time.perf_counter()
        for connection in opened.values():
            connection.send_next(waiting)
        while left:
            ready = epoll.poll(began + timeout_s - time.perf_counter())
            if not ready:
                raise NotAnswered(f"{left} requests were not answered in {timeout_s} s")
            for descriptor, _ in ready:
                connection = opened[descriptor]
                if connection.answered():
                    left -= 1
                    connection.send_next(waiting)
        return time.perf_counter() - began


class _Connection:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._received = b""

    def send_next(self, waiting: Iterator[bytes]) -> None:
        request = next(waiting, None)
        if request is not None:
            self._channel.sendall(request)

    def answered(self) -> bool:
        """Whether the answer under way is here as a whole now."""
        data = self._channel.recv(_RECEIVE_BYTES)
        if not data:
            raise NotAnswered("the server closed a connection")
        data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + _content_length(data[:end]):
            self._received = data
            return False
        self._received = b""
        if not data.startswith(b"HTTP/1.1 200 "):
            raise NotAnswered(f"a request was answered with {data!r}")
        return True


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length: ")
    if at < 0:
        raise NotAnswered(f"an answer has no Content-Length: {head!r}")
    return int(head[at + 16 :].split(b"\r\n", 1)[0])
