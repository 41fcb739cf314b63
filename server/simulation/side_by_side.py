"""Several simulations at once, each in a process of its own."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from server.simulation.run import run
from server.simulation.scenario import Scenario


class SimulationFailed(RuntimeError):
    """A simulating process ended without a result."""


def run_side_by_side(
    scenarios: Mapping[str, Scenario], progress: Callable[[str, float], None]
) -> dict[str, Any]:
    """The figures of each scenario, by its name; they do not depend on each other.

    Args:
        progress: Told a scenario's name and its simulated seconds that are done.

    Raises:
        SimulationFailed: a process died; its own output says of what.
    """
    context = multiprocessing.get_context("spawn")
    names: dict[Connection, str] = {}
    processes = []
    results: dict[str, Any] = {}
    try:
        for name, scenario in scenarios.items():
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_simulate, args=(scenario, sending), daemon=True)
            process.start()
            sending.close()
            processes.append(process)
            names[receiving] = name
        while names:
            for connection in wait(list(names)):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except EOFError as error:
                    name = names[connection]
                    raise SimulationFailed(f"the simulation {name!r} ended early") from error
                if isinstance(message, float):
                    progress(names[connection], message)
                else:
                    results[names.pop(connection)] = message
    finally:
        for process in processes:
            if process.is_alive() and names:
                process.terminate()
            process.join()
    return {name: results[name] for name in scenarios}


def _simulate(scenario: Scenario, sending: Connection) -> None:
    # Ctrl-C reaches the whole group; who started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):
        sending.send(run(scenario, progress=lambda done: sending.send(float(done))))
