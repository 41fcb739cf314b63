"""The baseline of (a): server CPU per 100 KB update of Flower's SuperLink, measured here.

    python -m benchmarks.flower [--nodes N] [--rounds R] [--json]

Flower runs in a virtual environment of its own, which is made on the first run and
kept. A SuperLink with its default settings (state in memory, no TLS) serves FedAvg of
one array of 25,000 float32 to N nodes on loopback; see `flower_app`. Counted are
the CPU times of the SuperLink process and all its descendants, which are its SuperExec
and the ServerApp's process, from the start of the first round to the end of the last,
after a round that warms up. The nodes and `flwr run` are not counted.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import urllib3
from rich.console import Console
from rich.table import Table

from benchmarks.processes import free_port
from benchmarks.rounds import Flower

#: The version that is installed if the package index offers it, else its newest.
VERSION = "1.41.0"

#: float32 in the array: 100 KB down and up.
PARAMETERS = 25_000

#: Seconds that making the environment may take, once.
INSTALL_TIMEOUT_S = 300.0

#: Seconds for everything else.
TIMEOUT_S = 300.0

#: What runs in Flower's environment.
APP = Path(__file__).with_name("flower_app")

T = TypeVar("T")


class FlowerError(RuntimeError):
    """Flower could not be installed or measured; the text says what to do."""


@dataclass(frozen=True, kw_only=True)
class FlowerResult:
    """What a run showed.

    Attributes:
        version: Of Flower.
        nodes: That took part in every round.
        rounds: That are counted.
        updates: Accepted by the ServerApp in these rounds.
        wall_s: Of each round, as the ServerApp sees it.
        superlink_ms: CPU per update of the SuperLink and its SuperExec.
        serverapp_ms: CPU per update of the ServerApp's process, which averages.
    """

    version: str
    nodes: int
    rounds: int
    updates: int
    wall_s: tuple[float, ...]
    superlink_ms: float
    serverapp_ms: float

    @property
    def server_ms(self) -> float:
        """Server CPU per update, in milliseconds: receiving and averaging."""
        return self.superlink_ms + self.serverapp_ms


def default_environment() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "nightshift-benchmarks" / "flower"


def prepare(environment: Path) -> str:
    """Makes the environment unless it is there; returns Flower's version in it.

    Raises:
        FlowerError: The directory holds something else, or pip could not install Flower.
    """
    ready = environment / "flower-version"
    if ready.exists():
        return ready.read_text()
    # What is there is cleared, so it must be an environment that was not finished.
    if environment.exists() and not (environment / "pyvenv.cfg").exists():
        raise FlowerError(
            f"{environment} is not a virtual environment: name a directory that is not there yet."
        )
    python = environment / "bin" / "python"
    pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    deadline = time.monotonic() + INSTALL_TIMEOUT_S
    _install_step(sys.executable, "-m", "venv", "--clear", str(environment), deadline=deadline)
    try:
        _install_step(*pip, f"flwr=={VERSION}", deadline=deadline)
    except FlowerError:
        _install_step(*pip, "flwr", deadline=deadline)
    ask = "import importlib.metadata as m; print(m.version('flwr'), end='')"
    version = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout
    ready.write_text(version)
    return version


def _install_step(*command: str, deadline: float) -> None:
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired as error:
        raise FlowerError(
            f"Flower was not installed within {INSTALL_TIMEOUT_S:.0f} s: is the package "
            "index reachable? Without it, give an earlier figure with --flower-ms."
        ) from error
    if run.returncode != 0:
        raise FlowerError(
            f"Flower could not be installed: {' '.join(command)} said\n{run.stderr.strip()}\n"
            "Without it, give an earlier figure with --flower-ms."
        )


def measure(
    *,
    nodes: int = 100,
    rounds: int = 3,
    environment: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> FlowerResult:
    """Runs Flower and reads its processes' CPU times.

    Raises:
        FlowerError: Flower could not be installed, a process of it ended, or the
            rounds did not all end in time.
    """
    environment = environment or default_environment()
    version = prepare(environment)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        run = _Run(Path(name), environment, time.monotonic() + timeout_s)
        port = free_port()
        address = f"127.0.0.1:{port}"
        stack.callback(run.reap)
        superlink = run.start(
            "flower-superlink",
            *("--insecure", "--host", "127.0.0.1", "--port", str(port)),
            "--disable-runtime-dependency-installation",
        )
        run.wait_for_health(address)
        run.start("python", "nodes.py", address, str(nodes), cwd=APP)
        run.submit(address, nodes=nodes, rounds=rounds)
        before = run.at("begin", lambda: _cpu_seconds(superlink))
        after = run.at("end", lambda: _cpu_seconds(superlink))
        figures = json.loads((run.directory / "end").read_text())
    updates = sum(int(figure["updates"]) for figure in figures)
    if updates != nodes * rounds:
        raise FlowerError(
            f"Flower answered only {updates} of {nodes * rounds} updates: try fewer --nodes."
        )
    return FlowerResult(
        version=version,
        nodes=nodes,
        rounds=rounds,
        updates=updates,
        wall_s=tuple(figure["seconds"] for figure in figures),
        superlink_ms=1e3 * (after[0] - before[0]) / updates,
        serverapp_ms=1e3 * (after[1] - before[1]) / updates,
    )


def baseline() -> Flower:
    """The baseline of `benchmarks.rounds`, measured now.

    Raises:
        FlowerError: As `measure`.
    """
    result = measure()
    return Flower(
        ms=result.server_ms,
        source=f"Flower {result.version} SuperLink and ServerApp, {result.nodes} nodes, now",
    )


def _cpu_seconds(superlink: int) -> tuple[float, float]:
    """User and system seconds of the SuperLink with its SuperExec, and of its ServerApp."""
    first = psutil.Process(superlink)
    of_superlink = of_serverapp = 0.0
    for process in (first, *first.children(recursive=True)):
        times = process.cpu_times()
        if any("flwr-serverapp" in part for part in process.cmdline()):
            of_serverapp += times.user + times.system
        else:
            of_superlink += times.user + times.system
    if of_serverapp == 0.0:
        raise FlowerError("Flower's ServerApp is not among the SuperLink's processes.")
    return of_superlink, of_serverapp


class _Run:
    """One run of Flower's processes, all of which end with it.

    Args:
        directory: Temporary: logs, Flower's configuration, how far the ServerApp is.
        environment: Where Flower is installed.
        deadline: On the monotonic clock.
    """

    def __init__(self, directory: Path, environment: Path, deadline: float) -> None:
        self.directory = directory
        self._programs = environment / "bin"
        self._deadline = deadline
        self._running: dict[str, subprocess.Popen] = {}
        # Nothing of the caller's environment: proxies, or settings of a Flower of theirs.
        self._variables = {
            "PATH": f"{self._programs}{os.pathsep}{os.defpath}",
            "HOME": str(directory),
            "FLWR_HOME": str(directory / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }

    def start(self, program: str, *arguments: str, cwd: Path | None = None) -> int:
        """Starts a program of the environment; its pid."""
        with self._log(program).open("wb") as log:
            process = subprocess.Popen(
                [str(self._programs / program), *arguments],
                cwd=cwd or self.directory,
                env=self._variables,
                # Never written to: its end tells the nodes that this process is gone.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[program] = process
        return process.pid

    def reap(self) -> None:
        """Ends all that was started, and what that started in sessions of its own."""
        while found := [one for one in psutil.process_iter() if self._is_ours(one)]:
            for one in found:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(found, timeout=3.0)
        for process in self._running.values():
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("FLWR_HOME") == self._variables["FLWR_HOME"]
        except (psutil.Error, OSError):
            return False  # ended meanwhile, or somebody else's

    def wait_for_health(self, address: str) -> None:
        pool = urllib3.PoolManager(retries=False, timeout=2.0)
        while True:
            try:
                if pool.request("GET", f"http://{address}/health").status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                pass
            self._pause("Flower's SuperLink did not answer")

    def submit(self, address: str, *, nodes: int, rounds: int) -> None:
        """Starts the app with `flwr run`."""
        home = self.directory / "flower"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{address}"\n'
            "insecure = true\n"
        )
        settings = (
            f'nodes={nodes} rounds={rounds} parameters={PARAMETERS} directory="{self.directory}"'
        )
        self.start("flwr", "run", str(APP), "here", "--run-config", settings)
        process = self._running["flwr"]
        while process.poll() is None:
            self._pause("`flwr run` did not end")
        if process.returncode != 0:
            raise FlowerError(f"`flwr run` failed:\n{self._tail('flwr')}")

    def at(self, mark: str, read: Callable[[], T]) -> T:
        """What `read` returns while the ServerApp has stopped at `mark`."""
        while not (self.directory / mark).exists():
            done = self.directory / "progress"
            rounds = done.read_text() if done.exists() else "no"
            self._pause(
                f"Flower's ServerApp did not reach the {mark} "
                f"({rounds} rounds done, the warm-up included)"
            )
        value = read()
        (self.directory / f"{mark}.seen").touch()
        return value

    def _pause(self, what: str) -> None:
        """Waits a moment.

        Raises:
            FlowerError: A process ended by itself, or the time is over.
        """
        for program in ("flower-superlink", "python"):
            process = self._running.get(program)
            if process is not None and process.poll() is not None:
                raise FlowerError(
                    f"Flower's {program} ended with {process.returncode}:\n{self._tail(program)}"
                )
        if time.monotonic() > self._deadline:
            raise FlowerError(
                f"{what} in time: try fewer --nodes or --rounds, or a longer --timeout. "
                f"The SuperLink's last words:\n{self._tail('flower-superlink')}"
            )
        time.sleep(0.02)

    def _log(self, program: str) -> Path:
        return self.directory / f"{program}.log"

    def _tail(self, program: str) -> str:
        return "\n".join(self._log(program).read_text(errors="replace").splitlines()[-15:])


def table(result: FlowerResult) -> Table:
    shown = Table(title=f"Flower {result.version} SuperLink, 100 KB updates")
    for column in ("nodes", "rounds", "updates", "s per round", "server CPU ms per update"):
        shown.add_column(column)
    shown.add_row(
        str(result.nodes),
        str(result.rounds),
        str(result.updates),
        " ".join(f"{seconds:.1f}" for seconds in result.wall_s),
        f"{result.server_ms:.1f} = SuperLink and SuperExec {result.superlink_ms:.1f}"
        f" + ServerApp {result.serverapp_ms:.1f}",
    )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--environment",
        type=Path,
        default=default_environment(),
        help="where Flower is or will be installed (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_S, help="seconds (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    if arguments.nodes < 1 or arguments.rounds < 1:
        parser.error("--nodes and --rounds must be at least 1")
    # So that Flower's processes are ended on a SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        result = measure(
            nodes=arguments.nodes,
            rounds=arguments.rounds,
            environment=arguments.environment,
            timeout_s=arguments.timeout,
        )
    except FlowerError as error:
        sys.exit(str(error))
    if arguments.json:
        print(json.dumps({**asdict(result), "server_ms": result.server_ms}, indent=2))
    else:
        Console().print(table(result))


if __name__ == "__main__":
    main()
