"""Functions that start together, in threads or in processes of their own."""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def race_threads(count: int, run: Callable[[int], Any]) -> Sequence[Any]:
    """The results of `run(0)` to `run(count - 1)`, all begun at the same moment."""
    barrier = threading.Barrier(count)

    def start(index: int) -> Any:
        barrier.wait()
        return run(index)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))


def race_processes(count: int, run: Callable[[int], Any]) -> Sequence[Any]:
    """The same in forked processes; the parent must not have the database open."""
    forked = multiprocessing.get_context("fork")
    barrier = forked.Barrier(count)
    results = forked.SimpleQueue()

    def start(index: int) -> None:
        barrier.wait()
        results.put((index, run(index)))

    processes = [forked.Process(target=start, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count
    return [result for _, result in sorted(results.get() for _ in range(count))]
