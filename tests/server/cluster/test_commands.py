"""`nightshift cluster`: what it refuses, and that it leaves nothing running."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from nightshift.cli import main
from tests.server.live.clustered import Cluster


def test_a_cluster_that_is_killed_leaves_no_process_behind() -> None:
    cluster = Cluster(selectors=1)
    try:
        cluster.start()
        processes = cluster.processes()
        names = {name for process in processes for name in process.cmdline()[:1]}
        assert any("raylet" in name for name in names)
        assert any("postgres" in name for name in names)
        assert len(processes) > 8
        os.kill(cluster.process.pid, signal.SIGKILL)
        cluster.process.wait()
        _, left = psutil.wait_procs(processes, timeout=30)
        assert not [process.cmdline() for process in left]
    finally:
        cluster.stop()
        cluster.remove()


def test_a_selector_without_a_cluster_is_told_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = ["--data-dir", str(tmp_path)]
    assert main(["cluster", "selector", *here]) == 2
    assert "--ray-address" in capsys.readouterr().err
    assert main(["cluster", "selector", *here, "--ray-address", "ray:6379"]) == 2
    assert "--database-url" in capsys.readouterr().err


def test_the_status_of_no_cluster_says_how_to_start_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["cluster", "status", "--data-dir", str(tmp_path)]) == 1
    assert "nightshift cluster up" in capsys.readouterr().err
