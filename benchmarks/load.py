"""`python -m benchmarks load`: many devices that wait, while many more are turned away.

One round wants so many devices that all of them wait in its pool and poll as they are
told, at most every ten seconds. Meanwhile new devices, each with a key of its own,
check in at a fixed rate. The round is full: most are told to come back later, and the
reservoir takes some in the place of others, who learn it at their next poll. Server and
generator share the machine; the CPU of both is printed. Only 127.0.0.1 is spoken to.
"""

import argparse
import asyncio
import base64
import gc
import hashlib
import heapq
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks import plans
from benchmarks.open_loop import TICK_S, OpenLoop
from benchmarks.processes import Served, nightshift
from device_plan import wire_pb2 as wire

#: Keep-alive connections of the generator.
CONNECTIONS = 64

#: Devices that check in a second while the pool is filled.
FILL_PER_S = 1000

#: Seconds beyond the end within which the last answers must come.
PATIENCE_S = 30.0

_HEADERS = (
    "Host: bench\r\nContent-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n"
)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a phase of the load was.

    Attributes:
        check_ins: Answered in it,
        polls: and polls.
        seconds: It took.
        server_cpu_s: CPU seconds of the server in it,
        own_cpu_s: and of the generator.
    """

    check_ins: int
    polls: int
    seconds: float
    server_cpu_s: float
    own_cpu_s: float


class Crowd:
    """Devices that check in, wait and poll.

    Args:
        loop: Sends for them.
    """

    def __init__(self, loop: OpenLoop) -> None:
        self._open = loop
        self._clock = asyncio.get_running_loop().time
        self._polls: list[tuple[float, str, str]] = []
        self._next = 0
        self.check_ins = self.polls = self.live = self.turned_away = self.drawn_out = 0

    async def check_in(self, *, per_second: float, seconds: float) -> None:
        """New devices come at a rate, and those that wait poll."""
        begun = self._clock()
        sent, total = 0, round(per_second * seconds)
        while sent < total:
            now = self._clock()
            while sent < min((now - begun) * per_second, total):
                self._open.send(begun + sent / per_second, self._request(), self._checked_in)
                sent += 1
            self._poll(now)
            await asyncio.sleep(TICK_S)

    async def wait(self, seconds: float) -> None:
        """Nobody new comes."""
        until = self._clock() + seconds
        while (now := self._clock()) < until:
            self._poll(now)
            await asyncio.sleep(TICK_S)

    def _poll(self, now: float) -> None:
        while self._polls and self._polls[0][0] <= now:
            due, session, token = heapq.heappop(self._polls)
            request = f"GET /v1/sessions/{session} HTTP/1.1\r\n{_HEADERS}"
            data = f"{request}Authorization: Bearer {token}\r\n\r\n".encode()
            self._open.send(due, data, partial(self._polled, session, token))

    def _request(self) -> bytes:
        number = self._next
        self._next += 1
        key = base64.urlsafe_b64encode(hashlib.sha256(b"load %d" % number).digest())[:43]
        body = wire.CheckInRequest(
            protocol_version=1, check_in_id=f"load-{number:012}", runtime=plans.RUNTIME
        ).SerializeToString()
        return (
            f"POST /v1/populations/{plans.POPULATION}/checkins HTTP/1.1\r\n{_HEADERS}"
            f"Authorization: Bearer {key.decode()}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _checked_in(self, status: int, body: bytes) -> None:
        self.check_ins += 1
        if status != 200:
            return
        told = wire.CheckInResponse.FromString(body)
        if told.HasField("waiting"):
            self.live += 1
            self._waits(told, told.session_id, told.session_token)
        else:
            self.turned_away += 1

    def _polled(self, session: str, token: str, status: int, body: bytes) -> None:
        self.polls += 1
        told = wire.CheckInResponse.FromString(body) if status == 200 else None
        if told is not None and told.HasField("waiting"):
            self._waits(told, session, token)
        else:
            self.live -= 1
            self.drawn_out += 1

    def _waits(self, told: wire.CheckInResponse, session: str, token: str) -> None:
        due = self._clock() + told.waiting.poll_after_ms / 1000
        heapq.heappush(self._polls, (due, session, token))


def main(argv: Sequence[str]) -> int:
    """Prints what was held; 1 if there was any error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load; at most 600")
    parser.add_argument("--rate", type=float, default=5000.0, help="check-ins a second, to 20000")
    parser.add_argument("--waiting", type=int, default=10_000, help="devices that wait, to 100000")
    parser.add_argument("--threads", type=int, default=None, help="of the server")
    arguments = parser.parse_args(argv)
    if not (
        0 < arguments.seconds <= 600
        and 0 < arguments.rate <= 20_000
        and 0 < arguments.waiting <= 100_000
    ):
        parser.error("--seconds is up to 600, --rate up to 20000, --waiting up to 100000")
    window_s = arguments.seconds + arguments.waiting / FILL_PER_S + 120.0
    threads = () if arguments.threads is None else ("--threads", str(arguments.threads))
    console = Console()
    with (
        tempfile.TemporaryDirectory() as directory,
        nightshift("--holdout-fraction", "0", *threads) as served,
    ):
        plan = plans.build(
            Path(directory) / "small.plan",
            parameters=100,
            goal_count=arguments.waiting,
            selection_window_s=window_s,
        )
        served.admin().post("tasks?rounds=1", plan.read_bytes())
        time.sleep(2.0)
        return asyncio.run(_measure(console, served, arguments))


async def _measure(console: Console, served: Served, arguments: argparse.Namespace) -> int:
    open_loop = OpenLoop(served.port, CONNECTIONS)
    await open_loop.connect()
    crowd = Crowd(open_loop)
    # What the generator keeps is no garbage, and looking through it takes long.
    gc.freeze()
    gc.disable()
    # Threads, caches and libraries first: they are no device's memory.
    warm = max(1, arguments.waiting // 20)
    await crowd.check_in(per_second=FILL_PER_S, seconds=warm / FILL_PER_S)
    await crowd.wait(2.0)
    before, first = _resident(served), crowd.live
    await crowd.check_in(per_second=FILL_PER_S, seconds=(arguments.waiting - warm) / FILL_PER_S)
    await open_loop.drained(PATIENCE_S)
    full, waiting = _resident(served), crowd.live
    open_loop.observed.latencies.clear()
    samples = [full]
    parts = max(1, round(arguments.seconds / 10))
    phases = []
    for _ in range(parts):
        phases.append(await _phase(crowd, served, arguments.rate, arguments.seconds / parts))
        samples.append(_resident(served))
    began = time.perf_counter()
    await open_loop.drained(PATIENCE_S)
    late_s = time.perf_counter() - began
    open_loop.close()
    total = Held(
        check_ins=sum(each.check_ins for each in phases),
        polls=sum(each.polls for each in phases),
        seconds=sum(each.seconds for each in phases),
        server_cpu_s=sum(each.server_cpu_s for each in phases),
        own_cpu_s=sum(each.own_cpu_s for each in phases),
    )
    observed = open_loop.observed
    requests = total.check_ins + total.polls
    say = console.print
    say(f"waiting at once: {waiting:,} devices")
    say(f"memory: {(full - before) / max(1, waiting - first):,.0f} bytes a waiting device")
    say("server's resident MB, each 10 s: " + " ".join(f"{each / 1e6:.1f}" for each in samples))
    say(
        f"held for {total.seconds:.0f} s: {total.check_ins / total.seconds:,.0f} check-ins/s "
        f"(asked: {arguments.rate:,.0f}) and {total.polls / total.seconds:,.0f} polls/s; "
        f"the last answer came {late_s:.1f} s after the end"
    )
    say(
        f"check-ins turned away: {crowd.turned_away:,}; "
        f"devices that waited and were drawn out: {crowd.drawn_out:,}"
    )
    say(
        "latency from when it was due, ms: "
        + ", ".join(f"p{p:g} {1e3 * observed.latency(p / 100):.1f}" for p in (50, 90, 99, 99.9))
    )
    say(
        f"CPU seconds a second: server {total.server_cpu_s / total.seconds:.2f} "
        f"({1e6 * total.server_cpu_s / requests:.0f} µs a request), generator "
        f"{total.own_cpu_s / total.seconds:.2f} ({1e6 * total.own_cpu_s / requests:.0f} µs), "
        f"on {psutil.cpu_count()} cores that others use too (load {psutil.getloadavg()[0]:.0f})"
    )
    errors = {what: count for what, count in observed.errors.items() if count}
    say(f"errors: {errors or 0}")
    return 1 if errors else 0


async def _phase(crowd: Crowd, served: Served, rate: float, seconds: float) -> Held:
    check_ins, polls = crowd.check_ins, crowd.polls
    server_cpu_s, own_cpu_s, began = served.cpu_seconds(), time.process_time(), time.perf_counter()
    await crowd.check_in(per_second=rate, seconds=seconds)
    return Held(
        check_ins=crowd.check_ins - check_ins,
        polls=crowd.polls - polls,
        seconds=time.perf_counter() - began,
        server_cpu_s=served.cpu_seconds() - server_cpu_s,
        own_cpu_s=time.process_time() - own_cpu_s,
    )


def _resident(served: Served) -> int:
    """Bytes of the server's worker, in which the actors live."""
    first = psutil.Process(served.pid)
    return max(
        int(process.memory_info().rss)
        for process in first.children(recursive=True)
        if not any("model_update" in part for part in process.cmdline())
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
