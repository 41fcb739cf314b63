"""Seconds per training step of the zoo's plans on device runtimes, against TensorFlow's own.

    python -m benchmarks training-steps [MODEL ...] [--runtimes NAME,...] [--rounds N]

One thread each. The plan's step includes TFF's metrics; the baseline is a tf.function
of forward pass, backward pass and SGD update, without. Runtimes and TensorFlow take
turns, each in a new process, and what is shown is the median over the rounds. Beside
it stand the peak memory and the import time of the processes, the creation of the
interpreter, and the seconds of `nightshift plan build` with all of its checks.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks import zoo
from benchmarks.measurement import Measurement, table
from benchmarks.workers import answers, work
from device_plan.matrix import runner
from device_plan.matrix.bundle import write_bundle
from device_plan.matrix.environment import Environments, isolated
from device_plan.matrix.table import RuntimeSpec, read_table, select

#: The runtime that Nightshift installs, and the newest of both families.
RUNTIMES = "tflite-runtime 2.14.0,tf.lite 2.21.0,ai-edge-litert 2.3.0"
ROUNDS = 3
#: Seconds in which a zoo model's plan must be built.
BUILD_S = 60.0
#: What a step may cost in terms of TensorFlow's.
TARGETS = {"Shakespeare LSTM": 1.2, "next-word CIFG LSTM": 1.2, "EMNIST CNN": 2, "activity CNN": 2}

#: Before the name of a model whose whole plan a worker builds.
BUILD = "plan of "

#: What was measured, by model and by where.
Samples = dict[tuple[str, str], list[dict[str, Any]]]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(zoo.names())}; default: all")
    parser.add_argument("--runtimes", default=RUNTIMES, help=f"default: {RUNTIMES}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--no-builds", action="store_true", help="do not time plan builds")
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.answers:
        work(chosen.answers, chosen.names, lambda name: _answer(name, chosen.keep))
        return 0
    names = chosen.names or zoo.names()
    unknown = [name for name in names if name not in zoo.names()]
    if unknown:
        parser.error(f"no model {unknown[0]!r}; there are: {', '.join(zoo.names())}")
    rows = measure(
        names,
        select(read_table(), chosen.runtimes),
        rounds=chosen.rounds,
        builds=not chosen.no_builds,
    )
    Console(width=160).print(table("Training steps", rows))
    return 0


def measure(
    names: Sequence[str], runtimes: Sequence[RuntimeSpec], *, rounds: int, builds: bool
) -> list[Measurement]:
    """All figures of these models."""
    with tempfile.TemporaryDirectory(prefix="nightshift-steps-") as temporary:
        directory = Path(temporary)
        places = _lower_all(names, directory)
        samples: Samples = defaultdict(list)
        for number in range(rounds):
            for name in places:
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                samples[name, "TensorFlow"].append(_tensorflow(name, places[name]))
                for runtime in runtimes:
                    samples[name, runtime.name].append(_on_runtime(runtime, places[name]))
    rows = []
    for name in places:
        rows += _rows(name, [runtime.name for runtime in runtimes], samples)
    if builds:
        rows += _builds(list(places))
    return rows


def _rows(name: str, runtimes: Sequence[str], samples: Mapping[Any, Any]) -> list[Measurement]:
    def middle(where: str, key: str) -> float:
        return median(sample[key] for sample in samples[name, where])

    rows = []
    target = TARGETS.get(name, 1.0)
    for runtime in runtimes:
        ours, theirs = middle(runtime, "seconds_per_step"), middle("TensorFlow", "seconds_per_step")
        rows.append(
            Measurement(
                what=f"{name}: a training step on {runtime}",
                value=1e3 * ours,
                baseline=1e3 * theirs,
                baseline_name="tf.function",
                unit="ms",
                target=f"<= {target:g}x on the best",
                met=ours <= target * theirs,
            )
        )
        rss, full = middle(runtime, "rss_bytes"), middle("TensorFlow", "rss_bytes")
        # It comes as a part of TensorFlow: its process is one of TensorFlow's, not a device's.
        on_device = not runtime.startswith("tf.lite")
        rows.append(
            Measurement(
                what=f"{name}: peak memory on {runtime}",
                value=rss / 1e6,
                baseline=full / 1e6,
                baseline_name="TensorFlow's process",
                unit="MB",
                target="<= 0.2x" if on_device else "told",
                met=rss <= 0.2 * full or not on_device,
            )
        )
        load, slow = middle(runtime, "import_s"), middle("TensorFlow", "import_s")
        rows.append(
            Measurement(
                what=f"{name}: import and interpreter of {runtime}",
                value=1e3 * (load + middle(runtime, "interpreter_s")),
                baseline=1e3 * slow,
                baseline_name="import of TensorFlow",
                unit="ms",
                target="told",
                met=True,
            )
        )
    return rows


def _builds(names: Sequence[str]) -> Iterator[Measurement]:
    items = [BUILD + name for name in names if name in zoo.TASKS]
    for item, answer in zip(items, answers(["training-steps"], items, per_worker=1), strict=True):
        if isinstance(answer, str) or not answer["passed"]:
            print(f"{item} fails: {answer}", file=sys.stderr)
            continue
        yield Measurement(
            what=f"{item.removeprefix(BUILD)}: compile a plan and compare it with TFF",
            value=answer["seconds"],
            unit="s",
            target=f"<= {BUILD_S:g} s",
            met=answer["seconds"] <= BUILD_S,
        )


def _answer(item: str, directory: Path) -> dict[str, Any]:
    """A worker's answer to what it has to lower or to build."""
    if not item.startswith(BUILD):
        return _lower(item, directory)
    # What follows is timed without the import of TensorFlow.
    from device_plan.compiler.build import build_plan

    task = replace(zoo.task(item.removeprefix(BUILD)), predicates=())
    began = time.perf_counter()
    built = build_plan(task, simulate=False)
    return {"passed": built.passed, "seconds": time.perf_counter() - began}


def _lower_all(names: Sequence[str], directory: Path) -> dict[str, Path]:
    """The directory of each model that has a graph."""
    command = ["training-steps", "--keep", str(directory)]
    places = {}
    for name, answer in zip(names, answers(command, list(names), per_worker=1), strict=True):
        if isinstance(answer, str) or answer["error"]:
            why = answer if isinstance(answer, str) else answer["error"]
            print(f"{name} has no graph: {why}", file=sys.stderr)
        else:
            places[name] = Path(answer["directory"])
    return places


def _lower(name: str, directory: Path) -> dict[str, str]:
    from benchmarks.tff_reference import LoweredTask
    from device_plan.task_file import InvalidTask

    place = directory / str(zoo.names().index(name))
    place.mkdir()
    try:
        lowered = LoweredTask(zoo.task(name))
        graph = lowered.graph()
    except InvalidTask as error:
        return {"error": str(error)}
    write_bundle(place, lowered.cases(1))
    (place / "graph.tflite").write_bytes(graph.data)
    return {"error": "", "directory": str(place)}


def _tensorflow(name: str, place: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.tensorflow_step", name, str(place)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    found: dict[str, Any] = json.loads(_quietly(command, environment))
    return found


def _on_runtime(runtime: RuntimeSpec, place: Path) -> dict[str, Any]:
    python = Environments().get(runtime).python
    command = [str(python), "-I", str(runner.__file__), str(place)]
    command += ["--graph", str(place / "graph.tflite"), "--interpreter", runtime.interpreter]
    environment = isolated() | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    found: dict[str, Any] = json.loads(_quietly([*command, "--delegates", "default"], environment))
    if found["error"] is not None:
        raise RuntimeError(f"{runtime.name}: {found['error']}")
    return found


def _quietly(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The last line of a program's output. Raises RuntimeError if it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        run = subprocess.run(
            command,
            cwd=Path(__file__).parent.parent,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            check=False,
        )
        out.seek(0)
        err.seek(0)
        lines = out.read().decode(errors="replace").strip().splitlines()
        if run.returncode != 0:
            said = err.read().decode(errors="replace").strip().splitlines()[-3:]
            raise RuntimeError(f"{' '.join(command)} fails: {' / '.join(said)}")
    return lines[-1] if lines else ""
