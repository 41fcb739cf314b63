"""Closes connections on which nothing has come or gone for a while.

A phone that loses its network in the middle of an upload does not say goodbye,
and granian waits for the rest of a body without a limit, on one of the server's
threads. Enough such phones would leave no thread for the others. The kernel
knows how long each connection has been silent (tcp(7), TCP_INFO).
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Where struct tcp_info (linux/tcp.h) has the state, and the milliseconds since
#: data were sent and received.
_STATE = struct.Struct("B")
_LAST_DATA_SENT = struct.Struct("44xI")
_LAST_DATA_RECEIVED = struct.Struct("52xI")
_TCP_INFO_BYTES = 104

_ESTABLISHED = 1


def close_idle_connections(*, port: int, after_s: float) -> None:
    """Begins to watch this process's connections to `port`, for as long as it lives.

    Args:
        port: On which the process listens.
        after_s: Seconds of silence; checked a few times in that span.
    """

    def watch() -> None:
        while True:
            time.sleep(after_s / 4)
            for connection in _connections(port):
                with connection, suppress(OSError):
                    if _silent_s(connection) > after_s:
                        connection.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=watch, name="idle-connections", daemon=True).start()


def _connections(port: int) -> Iterator[socket.socket]:
    """This process's TCP sockets with that local port, as duplicates for the caller to close."""
    for descriptor in Path("/proc/self/fd").iterdir():
        # Another thread may close any of them meanwhile, or open something else.
        with suppress(OSError):
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            duplicate = socket.socket(fileno=os.dup(int(descriptor.name)))
            if (
                duplicate.family in (socket.AF_INET, socket.AF_INET6)
                and duplicate.type == socket.SOCK_STREAM
                and duplicate.getsockname()[1] == port
            ):
                yield duplicate
            else:
                duplicate.close()


def _silent_s(connection: socket.socket) -> float:
    """Seconds since data were sent or received; 0 for a socket that is not connected."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if _STATE.unpack_from(info)[0] != _ESTABLISHED:
        return 0.0
    sent: int = _LAST_DATA_SENT.unpack_from(info)[0]
    received: int = _LAST_DATA_RECEIVED.unpack_from(info)[0]
    return min(sent, received) / 1000.0
