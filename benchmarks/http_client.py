"""A small keep-alive HTTP/1.1 client on asyncio streams: a load generator must cost little."""

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes


class Connection:
    """One keep-alive connection. Not for untrusted servers: nothing is bounded.

    Args:
        host: Of the server.
        port: Of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, *, headers: str = "", body: bytes = b""
    ) -> Reply:
        """Sends one request; `headers` are whole lines, each ending in CRLF."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                self._host, self._port, limit=1 << 20
            )
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(f"{head}{headers}\r\n".encode())
        if body:
            self._writer.write(body)
        raw = await self._reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
        reply = Reply(int(lines[0].split(" ", 2)[1]), await self._reader.readexactly(length))
        if "connection: close" in raw.decode("latin-1").lower():
            self.close()
        return reply

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
