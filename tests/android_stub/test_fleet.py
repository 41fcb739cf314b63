"""Real processes of virtual devices against a server on loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from android_stub.commands import device, fleet
from android_stub.example_files import ExampleFiles, WrongExampleFile
from android_stub.fleet import Fleet, FleetFailed, FleetProgress, FleetSettings, run_fleet
from device_plan.checkpoint import decode
from tests.android_stub import linear_plan
from tests.android_stub.fake_server import FakeServer

POPULATION = "tests/linear"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    for index in range(6):
        np.savez(directory / f"device-{index:05d}.npz", **linear_plan.examples(4 + index, index))
    return directory


def _settings(server: FakeServer, data: Path, **changes) -> FleetSettings:
    values = {
        "server": server.url,
        "population": POPULATION,
        "devices": 6,
        "data": data,
        "state_dir": data.parent / "state",
        "collection": linear_plan.COLLECTION,
        "arrival_s": 0.1,
        "progress_s": 0.05,
    }
    return FleetSettings(**values | changes)


def _until(done: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_every_device_trains_on_its_own_examples_and_all_is_counted(server, data):
    with Fleet(_settings(server, data)) as fleet:
        _until(lambda: fleet.progress().session_shapes.get("-v[]+^", 0) >= 6)
        _until(lambda: fleet.progress().pacing == 6)
        progress = fleet.progress()
        fleet.check()
    assert (progress.devices, progress.in_session, progress.processes) == (6, 0, 2)
    assert progress.accepted == {"training": 6}
    assert progress.faults == 0
    assert progress.bytes_down > 6 * len(server.script.plan)
    weights = sorted(float(decode(update)["weight"]) for update in server.submitted)
    assert weights == [2.0 * (4 + index) for index in range(6)]
    assert len(set(server.credentials)) == 6
    again = FleetProgress.from_json(progress.to_json())
    assert again == progress


def test_examples_are_imported_once_and_keys_follow_from_the_seed(server, data):
    for _ in range(2):
        with Fleet(_settings(server, data, processes=1, devices=2)) as fleet:
            _until(lambda: fleet.progress().sessions >= 2)
    assert len(set(server.credentials)) == 2
    weights = sorted(float(decode(update)["weight"]) for update in server.submitted)
    assert weights == [8.0, 8.0, 10.0, 10.0]


def test_stop_leaves_no_process(server, data):
    fleet = Fleet(_settings(server, data))
    fleet.start()
    pids = [child.pid for child in fleet._children]
    _until(lambda: fleet.progress().devices == 6)
    fleet.stop()
    assert not any(_alive(pid) for pid in pids)
    assert fleet.progress().processes == 0


_PARENT = """
import sys, time
from pathlib import Path
from android_stub.fleet import Fleet, FleetSettings
fleet = Fleet(FleetSettings.from_json(sys.argv[1]))
fleet.start()
print(*[child.pid for child in fleet._children], flush=True)
time.sleep(600)
"""


def test_a_killed_parent_takes_its_children_along(server, data):
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, _settings(server, data).to_json()],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    _until(lambda: len(server.credentials) >= 6)
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _until(lambda: not any(_alive(pid) for pid in pids), 5.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly_on_a_signal(server, data, number):
    command = [sys.executable, "-c", "from android_stub.commands import fleet; fleet()"]
    command += ["--server", server.url, "--population", POPULATION, "--devices", "6", "--json"]
    command += ["--data", str(data), "--collection", linear_plan.COLLECTION]
    command += ["--state-dir", str(data.parent / "state")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until(lambda: len(server.credentials) >= 1)
    grandchildren = _children(child.pid)
    assert len(grandchildren) == 2
    os.kill(child.pid, number)
    output, errors = child.communicate(timeout=10)
    assert child.returncode == 0, errors
    assert not any(_alive(pid) for pid in grandchildren)
    last = json.loads(output.splitlines()[-1])
    assert last["devices"] == 6
    assert last["processes"] == 0


def test_a_process_that_dies_is_reported_with_its_log(server, data):
    settings = replace(_settings(server, data, processes=1), server="http://[")
    with pytest.raises(FleetFailed, match=r"ended with 1; .* must be an http or https address"):
        run_fleet(settings, seconds=15, every_s=0.1)


def test_run_fleet_tells_progress_until_it_is_stopped(server, data):
    told: list[FleetProgress] = []
    stop = threading.Event()

    def on_progress(progress: FleetProgress) -> None:
        told.append(progress)
        if progress.sessions >= 6:
            stop.set()

    settings = _settings(server, data, processes=1)
    last = run_fleet(settings, stop=stop, seconds=60, every_s=0.05, on_progress=on_progress)
    assert last.sessions >= 6
    assert len(told) >= 2


def test_run_fleet_ends_after_its_time(server, data):
    last = run_fleet(_settings(server, data, processes=1), seconds=0.2)
    assert last.processes == 0


def test_missing_example_files_are_named_before_anything_starts(server, data):
    with pytest.raises(ValueError, match=r"device-00006\.npz is missing"):
        Fleet(_settings(server, data, devices=7))
    with pytest.raises(ValueError, match="does not exist"):
        Fleet(_settings(server, data / "nothing"))


def test_one_file_is_dealt_out_in_turn(tmp_path):
    path = tmp_path / "all.npz"
    np.savez(path, x=np.arange(10), y=10 * np.arange(10))
    files = ExampleFiles(path, devices=3)
    assert files.load(1)["x"].tolist() == [1, 4, 7]
    assert files.load(1)["y"].tolist() == [10, 40, 70]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 but broken"])
def test_a_file_that_is_no_archive_is_named(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(WrongExampleFile, match=r"bad\.npz"):
        ExampleFiles(path, devices=1)


@pytest.mark.parametrize(
    "changes",
    [{"devices": 0}, {"night_s": -1.0}, {"night_fraction": 0.0}, {"interrupt_rate": 2.0}],
)
def test_impossible_settings_are_refused(tmp_path, changes):
    values = {"server": "http://x", "population": "p", "devices": 1}
    with pytest.raises(ValueError):
        FleetSettings(**values | {"data": tmp_path, "state_dir": tmp_path} | changes)


def test_accelerated_nights_shorten_the_default_delays(tmp_path):
    values = {"server": "http://x", "population": "p", "devices": 1}
    values |= {"data": tmp_path, "state_dir": tmp_path}
    assert FleetSettings(**values).acceleration() == 1.0
    assert FleetSettings(**values, night_s=28.8).acceleration() == pytest.approx(1000.0)
    assert FleetSettings(**values, night_s=28.8, time_scale=2.0).acceleration() == 2.0


def test_device_run_takes_part_once_and_tells_the_shape(server, data, tmp_path):
    arguments = ["run", "--server", server.url, "--population", POPULATION, "--sessions", "1"]
    arguments += ["--data", str(data / "device-00002.npz"), "--collection", linear_plan.COLLECTION]
    arguments += ["--state-dir", str(tmp_path / "one"), "--json"]
    result = CliRunner().invoke(device, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert (record["shape"], record["examples"]) == ("-v[]+^", 6)
    assert (tmp_path / "one" / "device.key").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "one" / "schedule.json").read_text())[POPULATION] > time.time()


@pytest.mark.parametrize(("group", "name"), [(device, "run"), (fleet, None)])
def test_help_teaches_by_example_and_explains_shapes(group, name):
    result = CliRunner().invoke(group, [name, "--help"] if name else ["--help"])
    assert result.exit_code == 0
    assert "--server URL" in result.output
    assert "-v[]+^" in result.output
    assert "http://127.0.0.1" in result.output


def test_a_server_that_is_no_address_is_one_clear_sentence(data):
    arguments = ["--server", "localhost", "--population", "p", "--data", str(data)]
    result = CliRunner().invoke(fleet, arguments)
    assert result.exit_code == 1
    assert result.output == (
        "Error: the server must be an http or https address, not 'localhost'\n"
    )
