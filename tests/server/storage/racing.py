"""Functions that start together, in threads or in processes of their own."""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle


def race_threads(count: int, run: Callable[[int], Any]) -> Sequence[Any]:
    """The results of `run(0)` to `run(count - 1)`, all begun at the same moment."""
    barrier = threading.Barrier(count)

    def start(index: int) -> Any:
        barrier.wait()
        return run(index)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))


def race_processes(count: int, run: Callable[[int], Any]) -> Sequence[Any]:
    """The same in processes of their own.

    They are forked from a process that is clean of what tests load here: to fork one in
    which TensorFlow has threads is not safe.
    """
    clean = multiprocessing.get_context("forkserver")
    barrier = clean.Barrier(count)
    results = clean.SimpleQueue()
    packed = cloudpickle.dumps(run)
    processes = [
        clean.Process(target=_race, args=(packed, barrier, results, index))
        for index in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count
    return [result for _, result in sorted(results.get() for _ in range(count))]


def _race(packed: bytes, barrier: Any, results: Any, index: int) -> None:
    run = cloudpickle.loads(packed)
    barrier.wait()
    results.put((index, run(index)))
