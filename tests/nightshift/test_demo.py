"""`nightshift demo` as a person runs it: to its end, and interrupted at bad moments."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import safetensors.numpy

from nightshift.demo.directory import MARKER, NotOurs, demo_directory
from nightshift.demo.interruption import Interruption
from nightshift.demo.processes import ChildFailed, Children
from tests.house import ROOT
from tests.server.live.waiting import eventually

#: Enough for a small demo on a machine that is busy with other tests.
END_S = 150.0

#: "Within seconds": what a person waits after Ctrl-C without worrying.
INTERRUPTED_S = 15.0

OPTIONS = ("--rounds", "3", "--devices", "60", "--seed", "3")


class Demo:
    """A demo in a process group of its own, as a terminal runs it.

    Args:
        directory: Its --data-dir.
        log: Where its output goes.
        arguments: Further ones.
    """

    def __init__(self, directory: Path, log: Path, *arguments: str) -> None:
        self.directory = directory
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nightshift", "demo", "--data-dir", directory, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def output(self) -> str:
        return self._log.read_text()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def names(self) -> list[str]:
        """Of all processes that it has started, and these in turn."""
        found = []
        for process in self.descendants():
            try:
                found.append(" ".join([process.name(), *process.cmdline()]))
            except psutil.NoSuchProcess:
                continue
        return found

    def has(self, *wanted: str) -> bool:
        """Whether processes with these words are running."""
        assert self.process.poll() is None, self.output()
        names = self.names()
        return all(any(word in name for name in names) for word in wanted)

    def interrupt(self, *, whole_group: bool) -> list[psutil.Process]:
        """Ctrl-C; returns what it had started."""
        started = self.descendants()
        send: Callable[[int, int], None] = os.killpg if whole_group else os.kill
        send(self.process.pid, signal.SIGINT)
        return started

    def end(self) -> None:
        """For tests that fail half way."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def start(*arguments: str) -> Demo:
        directory = tmp_path / "demo"
        demos.append(Demo(directory, tmp_path / f"output-{len(demos)}", *OPTIONS, *arguments))
        return demos[-1]

    yield start
    for demo in demos:
        demo.end()


def left_behind(started: list[psutil.Process], directory: Path) -> list[str]:
    """Those still alive, and any other process that works on the demo's directory."""
    alive = {process.pid: process for process in started if process.is_running()}
    for process in psutil.process_iter(["cmdline"]):
        if any(str(directory) in word for word in process.info["cmdline"] or ()):
            alive[process.pid] = process
    return [str(process) for process in alive.values() if process.status() != "zombie"]


@dataclass(frozen=True)
class Finished:
    """A demo that has ended.

    Attributes:
        left: Processes that outlived it.
    """

    directory: Path
    code: int
    output: str
    left: list[str]

    @property
    def summary(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.directory / "summary.json").read_text())
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The whole way, in a directory that an earlier demo left in a mess."""
    directory = tmp_path_factory.mktemp("whole") / "demo"
    (directory / "server").mkdir(parents=True)
    (directory / MARKER).touch()
    (directory / "summary.json").write_text("of an earlier demo")
    (directory / "server" / "nightshift.db").write_text("not a database")
    demo = Demo(directory, directory.parent / "output", *OPTIONS)
    seen: dict[int, psutil.Process] = {}
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.5):
            for process in demo.descendants():
                seen[process.pid] = process

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        code = demo.process.wait(END_S)
    finally:
        watching.set()
        watcher.join()
        demo.end()
    return Finished(directory, code, demo.output(), left_behind(list(seen.values()), directory))


def test_a_demo_ends_well_and_leaves_no_process(finished: Finished) -> None:
    assert finished.code == 0, finished.output
    assert finished.left == []


def test_the_summary_says_what_came_of_it(finished: Finished) -> None:
    summary = finished.summary
    accuracy = summary["held_out_accuracy"]
    assert isinstance(accuracy, float)
    # Three rounds teach something: a guess is right for one digit of ten.
    assert 0.5 < accuracy <= 1.0
    assert summary["rounds_committed"] == 3
    assert summary["rounds_abandoned"] >= 0  # type: ignore[operator]
    assert "-v[]+^" in summary["session_shapes"]  # type: ignore[operator]
    assert summary["bytes_up"] > 100_000  # type: ignore[operator]
    assert summary["bytes_down"] > 100_000  # type: ignore[operator]
    assert 0 < summary["seconds"] < END_S  # type: ignore[operator]


def test_the_model_has_the_authors_names(finished: Finished) -> None:
    model = safetensors.numpy.load_file(str(finished.summary["model"]))
    assert {name: array.shape for name, array in model.items()} == {
        "hidden/kernel": (64, 128),
        "hidden/bias": (128,),
        "logits/kernel": (128, 10),
        "logits/bias": (10,),
    }


def test_the_plot_is_a_picture(finished: Finished) -> None:
    assert (finished.directory / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_pipe_gets_the_checks_each_round_once_and_the_summary(finished: Finished) -> None:
    output = finished.output
    assert "equality: one batch" in output
    assert "Traceback" not in output
    for number in (1, 2, 3):
        assert output.count(f"round {number} committed") == 1
    assert "held-out accuracy" in output
    assert "\x1b" not in output
    # Most of it are the checks of two variants; progress would be hundreds of lines.
    assert len(output.splitlines()) < 100


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "parent only"])
def test_ctrl_c_while_the_plan_is_compiled_ends_everything(
    start: Callable[..., Demo], whole_group: bool
) -> None:
    demo = start()
    # The program that TFF starts, and would leave behind, is there at the end.
    wanted = ("worker_binary",) if whole_group else ("plan build", "serve", "model_update")
    eventually(lambda: demo.has(*wanted), within=END_S)
    started = demo.interrupt(whole_group=whole_group)
    assert demo.process.wait(INTERRUPTED_S) == 130, demo.output()
    assert left_behind(started, demo.directory) == []
    assert demo.output().endswith("Interrupted.\n")


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "parent only"])
def test_ctrl_c_while_devices_train_ends_everything(
    start: Callable[..., Demo], digits_plan: Path, whole_group: bool
) -> None:
    demo = start("--plan", str(digits_plan), "--rounds", "1000")
    eventually(lambda: "round 1 committed" in demo.output(), within=END_S)
    assert demo.has("serve", "fleet_process", "model_update")
    started = demo.interrupt(whole_group=whole_group)
    # Somebody who does not trust the first Ctrl-C.
    time.sleep(0.1)
    demo.interrupt(whole_group=whole_group)
    assert demo.process.wait(INTERRUPTED_S) == 130, demo.output()
    assert left_behind(started, demo.directory) == []
    assert not (demo.directory / "summary.json").exists()


def test_a_directory_that_the_demo_did_not_make_is_refused_and_left_alone(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    foreign = tmp_path / "demo"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    demo = start()
    assert demo.process.wait(END_S) == 2
    assert "which it did not make: give another --data-dir" in demo.output()
    assert [entry.name for entry in foreign.iterdir()] == ["thesis.tex"]


def test_a_directory_in_which_a_demo_runs_is_refused(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    directory = tmp_path / "demo"
    with demo_directory(directory):
        (directory / "digits.plan").touch()
        demo = start()
        assert demo.process.wait(END_S) == 2
        assert "another demo is running" in demo.output()
        assert (directory / "digits.plan").exists()


def test_a_demos_own_directory_is_emptied_and_stays_the_demos(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    directory = tmp_path / "demo"
    with demo_directory(directory):
        (directory / "deep" / "er").mkdir(parents=True)
        (directory / "link").symlink_to(outside)
    with demo_directory(directory):
        assert [entry.name for entry in directory.iterdir()] == [MARKER]
    assert (outside / "file").exists()
    (directory / MARKER).unlink()
    (directory / "mine").touch()
    with pytest.raises(NotOurs, match="did not make"), demo_directory(directory):
        pass


def test_the_lock_of_a_directory_ends_with_the_demo(tmp_path: Path) -> None:
    with demo_directory(tmp_path):
        pass
    with (tmp_path / MARKER).open() as marker:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_later_ones_are_ignored(number: signal.Signals) -> None:
    # Whoever started the tests may have it ignored, as nohup does with SIGHUP.
    inherited = signal.signal(number, signal.SIG_DFL)
    try:
        with Interruption():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, inherited)


def test_a_deferred_signal_interrupts_as_soon_as_it_may() -> None:
    steps = []

    def start_something(interruption: Interruption) -> None:
        with interruption.deferred():
            signal.raise_signal(signal.SIGINT)
            steps.append("started")
        steps.append("went on")

    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt):
            start_something(interruption)
        start_something(interruption)
    assert steps == ["started", "started", "went on"]


def test_a_child_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        Interruption() as interruption,
        Children(logs=tmp_path, interruption=interruption) as children,
    ):
        child = children.start("sick", "no-such-command")
        with pytest.raises(
            ChildFailed, match=r"sick ended with exit code 2:(.|\n)*no-such-command"
        ):
            child.wait()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--night-seconds", "0"),
        ("--interrupt-rate", "0.6"),
        ("--vanish-rate", "-1"),
        ("--devices", "10"),
        ("--rounds", "0"),
        ("--timeout", "0"),
        ("--plan", "no-such.plan"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_started(
    tmp_path: Path, option: str, value: str
) -> None:
    from click.testing import CliRunner

    from nightshift.demo import demo

    result = CliRunner().invoke(demo, ["--data-dir", str(tmp_path / "demo"), option, value])
    assert result.exit_code == 2
    assert option in result.output
    assert not (tmp_path / "demo").exists()
