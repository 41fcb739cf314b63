"""Every layer, loss, optimizer and algorithm of the cases on every runtime, against TFF.

    python -m benchmarks layers [CASE ...] [--runtimes light|all|none|NAME,...]

Each case of tests/tflite_models is a small model that learns. Its graph must equal
TFF's client work on one batch, with a smaller last batch, over two epochs, and in
evaluation: a median relative difference of at most 1e-5 over three draws. Without
`--runtimes` the installed tflite-runtime alone is asked. A runtime is served the
first variant of the graph, modern or legacy, that passes with and without its delegates.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import on_runtime
from benchmarks.layers_table import markdown, text
from benchmarks.sessions import SESSIONS
from benchmarks.workers import answers, work
from device_plan.matrix import runner
from device_plan.matrix.bundle import write_bundle
from device_plan.matrix.case import MAX_DIFFERENCE
from device_plan.matrix.environment import Environments, Unavailable, isolated
from device_plan.matrix.result import Delegates, Measurement, Result, by_draw, judge, medians
from device_plan.matrix.table import RuntimeSpec, read_table, select
from tests.tflite_models import layer_cases, learning_cases, sequence_cases
from tests.tflite_models.case import LayerCase

#: The runtime that Nightshift installs.
OWN = "tflite-runtime 2.14.0"
#: Sessions of several steps are held to the same as single ones: these models are small.
LIMITS = dict.fromkeys(SESSIONS, MAX_DIFFERENCE)
#: Cases that one worker builds.
PER_WORKER = 15
#: Draws of examples for each kind of session.
DRAWS = 3
#: Every group of cases, in the order of the table.
GROUPS = {**layer_cases.GROUPS, **sequence_cases.GROUPS, **learning_cases.GROUPS}


@dataclass
class Built:
    """What became of a case before any other runtime was asked.

    Attributes:
        error: Why there is no graph; "" if there is one.
        variants: Graph files by profile, best first.
        directory: With the bundle of `device_plan.matrix.bundle`.
        sessions: The name of each case in the bundle.
        results: By runtime.
    """

    group: str
    name: str
    error: str = ""
    variants: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    sessions: Sequence[str] = ()
    results: dict[str, list[Result]] = field(default_factory=dict)


def cases() -> dict[str, tuple[str, LayerCase]]:
    """Every case by its name, with its group."""
    return {case.name: (group, case) for group, made in GROUPS.items() for case in made()}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks layers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="cases whose name has one of these in it")
    parser.add_argument(
        "--runtimes",
        default="none",
        help="more runtimes: all, light, none, or names separated by commas",
    )
    parser.add_argument("--markdown", type=Path, help="also write the table for docs/layers.md")
    parser.add_argument("--keep", type=Path, help="directory that keeps graphs and examples")
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.answers:
        work(chosen.answers, chosen.names, lambda name: build(name, chosen.keep))
        return 0
    asked = {OWN, *(runtime.name for runtime in select(read_table(), chosen.runtimes))}
    with tempfile.TemporaryDirectory(prefix="nightshift-layers-") as temporary:
        directory = chosen.keep or Path(temporary)
        built = []
        for one in _build_all(chosen.names, directory):
            built.append(one)
            print(f"{one.name}: {one.error or 'built'}", file=sys.stderr, flush=True)
        for runtime in (runtime for runtime in read_table() if runtime.name in asked):
            print(runtime.name, file=sys.stderr, flush=True)
            _execute(runtime, built, Environments())
    print(text(built))
    if chosen.markdown:
        chosen.markdown.write_text(markdown(built))
    return 0 if all(_passes(one) for one in built) else 1


def _passes(one: Built) -> bool:
    return not one.error and all(
        any(result.status != "failed" for result in results) for results in one.results.values()
    )


def _build_all(names: Sequence[str], directory: Path) -> Iterator[Built]:
    known = cases()
    wanted = [name for name in known if not names or any(part in name for part in names)]
    command = ["layers", "--keep", str(directory)]
    built = answers(command, wanted, per_worker=PER_WORKER)
    for name, answer in zip(wanted, built, strict=True):
        group, _ = known[name]
        yield Built(group, name, **({"error": answer} if isinstance(answer, str) else answer))


def build(name: str, directory: Path) -> dict[str, Any]:
    """Lowers a case and writes what runtimes need. Imports TensorFlow.

    Returns:
        The fields of `Built` that follow from it.
    """
    from benchmarks.tff_reference import LoweredTask
    from device_plan.task_file import InvalidTask

    known = cases()
    place = directory / f"{list(known).index(name):03d}"
    place.mkdir(parents=True, exist_ok=True)
    try:
        lowered = LoweredTask(known[name][1].task())
        graphs = {"modern": lowered.graph()}
        if graphs["modern"].has_legacy_form:
            graphs["legacy"] = lowered.graph("legacy")
    except InvalidTask as error:
        return {"error": str(error)}
    found = lowered.cases(DRAWS)
    write_bundle(place, found)
    for profile, graph in graphs.items():
        (place / f"{profile}.tflite").write_bytes(graph.data)
    return {
        "variants": {profile: str(place / f"{profile}.tflite") for profile in graphs},
        "directory": str(place),
        "sessions": [case.name for case in found.cases],
    }


def _execute(runtime: RuntimeSpec, built: Sequence[Built], environments: Environments) -> None:
    """Adds the runtime's results to each case that has a graph."""
    jobs: list[tuple[Built, str, Delegates]] = [
        (one, variant, delegates)
        for one in built
        for variant in one.variants
        for delegates in ("default", "none")
    ]
    try:
        python = environments.get(runtime).python
    except Unavailable as error:
        for one in built:
            one.results[runtime.name] = [
                Result(runtime=runtime.name, variant=v, status="not run", reason=str(error))
                for v in one.variants
            ]
        return
    measured: dict[tuple[str, str], dict[Delegates, Measurement]] = {}
    for (one, variant, delegates), answer in zip(jobs, _run(python, runtime, jobs), strict=True):
        if delegates == "default" or answer.get("switch", True):
            measured.setdefault((one.name, variant), {})[delegates] = _measurement(answer, one)
    for one in built:
        one.results[runtime.name] = [
            judge(runtime.name, variant, measured[one.name, variant], LIMITS)
            for variant in one.variants
        ]


def _run(
    python: Path, runtime: RuntimeSpec, jobs: Sequence[tuple[Built, str, Delegates]]
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        listed, answered, errors = (Path(name) / part for part in ("jobs", "answers", "errors"))
        listed.write_text(
            json.dumps([[one.directory, one.variants[variant], d] for one, variant, d in jobs])
        )
        answered.write_text("")
        command = [python, "-I", on_runtime.__file__, runner.__file__, runtime.interpreter]
        with errors.open("wb") as file:
            subprocess.run(
                [*command, listed, answered],
                env=isolated() | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                check=False,
            )
        found = [json.loads(line) for line in answered.read_text().splitlines()]
        if len(found) < len(jobs):
            said = errors.read_text(errors="replace").strip().splitlines()
            ending = {"error": f"the runtime's process ends: {said[-1] if said else ''}"}
            found += [ending] * (len(jobs) - len(found))
        return found


def _measurement(answer: Mapping[str, Any], one: Built) -> Measurement:
    if answer["error"] is not None:
        return Measurement(reason=" ".join(str(answer["error"]).split())[:300])
    return Measurement(differences=medians(by_draw(one.sessions, answer["differences"])))
