"""What TensorFlow computes as a reference is what numpy computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_plan.reference_kernels import VARIABLE
from device_plan.task_file import InvalidTask, load_task
from tests.house import ROOT

#: dw[c, n] = sum over examples and positions of x[b, 2p, 2q, c] dy[b, p, q, n].
GRADIENTS = """
import device_plan.compiler
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
for channels, outputs in 50 * [(1, 1), (8, 8), (3, 16)]:
    x = rng.standard_normal((1, 10, 10, channels), np.float32)
    dy = rng.standard_normal((1, 5, 5, outputs), np.float32)
    dw = tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=[1, 1, channels, outputs],
        out_backprop=dy,
        strides=[1, 2, 2, 1],
        padding="VALID",
    )
    expected = np.einsum("bpqc,bpqn->cn", x[:, ::2, ::2], dy)
    np.testing.assert_allclose(dw[0, 0], expected, rtol=1e-4, atol=1e-4)
"""


def test_the_compilers_filter_gradients_of_strided_windows_of_one_are_right() -> None:
    unset = {name: value for name, value in os.environ.items() if name != VARIABLE}
    ended = subprocess.run(
        [sys.executable, "-c", GRADIENTS], env=unset, cwd=ROOT, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]


@pytest.mark.parametrize(("said", "expected"), [(None, "0"), ("1", "1")])
def test_a_task_file_imports_tensorflow_with_these_kernels_unless_its_author_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, expected: str
) -> None:
    monkeypatch.delenv(VARIABLE)
    if said is not None:
        monkeypatch.setenv(VARIABLE, said)
    file = tmp_path / "task.py"
    file.write_text(f'import os\nraise RuntimeError("it is " + os.environ["{VARIABLE}"])\n')
    with pytest.raises(InvalidTask, match=f"it is {expected}"):
        load_task(file)
