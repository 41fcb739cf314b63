"""Work on many items in processes that may crash, hang or grow.

A worker is this package's command with `--answers FILE` and the items after it. It
appends one JSON object an item to the file, in order. TensorFlow keeps every graph
it has seen, so a worker gets a few items only; an item that ends its worker is
reported, and the next worker goes on after it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from device_plan.reference_kernels import use_reference_kernels

#: Seconds after which an item counts as hanging.
TIMEOUT_S = 600.0


def answers(
    command: Sequence[str],
    items: Sequence[str],
    *,
    per_worker: int,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[dict[str, Any] | str]:
    """One answer for each item, in order, as soon as it is there.

    Args:
        command: What follows `python -m benchmarks`.
        items: Texts without a leading dash.
        per_worker: Items for one process.
        timeout_s: For one item.

    Yields:
        The worker's object; or how the worker ended on the item, as text.
    """
    with tempfile.TemporaryDirectory(prefix="nightshift-workers-") as name:
        position = 0
        while position < len(items):
            given = items[position : position + per_worker]
            for answer in _one_worker(command, given, Path(name), timeout_s):
                position += 1
                yield answer


def work(answers_file: Path, items: Sequence[str], examine: Callable[[str], Any]) -> None:
    """A worker's part: `examine` gives what JSON can hold."""
    use_reference_kernels()
    for item in items:
        answer = json.dumps(examine(item))
        with answers_file.open("a") as file:
            file.write(answer + "\n")


def _one_worker(
    command: Sequence[str], items: Sequence[str], directory: Path, timeout_s: float
) -> Iterator[dict[str, Any] | str]:
    """The answers of one process, until it is done or ends too early."""
    answered, said = directory / "answers", directory / "said"
    answered.write_text("")
    line = [sys.executable, "-m", "benchmarks", *command, "--answers", str(answered), *items]
    # To a file: a child that outlives the worker could keep a pipe open for ever.
    with said.open("wb") as file:
        process = subprocess.Popen(
            line,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        done, changed = 0, time.monotonic()
        while done < len(items):
            ended = process.poll() is not None
            lines = answered.read_text().splitlines()[done:]
            if lines:
                done, changed = done + len(lines), time.monotonic()
                yield from map(json.loads, lines)
            elif ended:
                yield _ending(process.returncode, said)
                return
            elif time.monotonic() - changed > timeout_s:
                yield f"hangs: not done after {timeout_s:g} s"
                return
            else:
                time.sleep(0.2)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ending(code: int, said: Path) -> str:
    how = f"crashes ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
    last = re.sub(r"\x1b\[[0-9;]*m", "", lines[-1]) if lines else "no message"
    return f"{how}: {last[:300]}"
