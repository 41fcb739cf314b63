"""The doctor asks Ray which selectors there are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from tests.house import ROOT


@pytest.mark.usefixtures("ray_node")
def test_a_ray_without_selectors_is_wrong(tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "nightshift", "doctor", "--json", "--ray-address", address]
    run = subprocess.run(
        [*command, "--data-dir", str(tmp_path)],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    found = {each["check"]: each for each in json.loads(run.stdout)["findings"]}
    assert found["Ray"]["status"] == "fine"
    assert found["selectors"]["status"] == "wrong"
    assert "none is registered" in found["selectors"]["detail"]
