"""Runs the variants of a plan on runtimes, each in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from device_plan.matrix import runner
from device_plan.matrix.bundle import write_bundle
from device_plan.matrix.case import Cases
from device_plan.matrix.environment import (
    Environment,
    Environments,
    Unavailable,
    isolated,
    last_lines,
)
from device_plan.matrix.result import Delegates, Measurement, Result, by_draw, judge, medians
from device_plan.matrix.table import RuntimeSpec

#: Seconds after which a runtime that is not done counts as hanging.
TIMEOUT_S = 600.0

#: Called before each step with (steps done, steps in all, what begins).
Progress = Callable[[int, int, str], None]


def run(
    variants: Mapping[str, bytes],
    cases: Cases,
    runtimes: Sequence[RuntimeSpec],
    environments: Environments,
    progress: Progress = lambda _done, _total, _what: None,
    *,
    delegates: Sequence[Delegates] = get_args(Delegates),
    timeout_s: float = TIMEOUT_S,
) -> list[Result]:
    """Every variant on every runtime, one after another so that timings are undisturbed.

    Args:
        variants: TFLite graphs by the variant's name, best first.
        cases: At least one; all variants must give their references.
        runtimes: From the table.
        environments: Where the runtimes are, or will be installed.
        progress: See `Progress`.
        delegates: With which of them each runs; "default" comes first.
        timeout_s: For one process: one variant on all cases.

    Returns:
        One result for each runtime and variant, in this order. A runtime that
        crashes, hangs or talks nonsense has failed; one that cannot be had was
        not run.
    """
    if not cases.cases:
        raise ValueError("there is no case to run")
    results: list[Result] = []
    steps = 1 + len(variants)
    with tempfile.TemporaryDirectory(prefix="nightshift-matrix-") as name:
        work = Path(name)
        write_bundle(work, cases)
        graphs = _write_graphs(work, variants)
        for place, runtime in enumerate(runtimes):
            done, total = place * steps, len(runtimes) * steps
            ready = environments.installed(runtime)
            progress(done, total, f"{runtime.name}: {'looking' if ready else 'installing'}")
            try:
                environment = environments.get(runtime)
            except Unavailable as error:
                results += [
                    Result(
                        runtime=runtime.name, variant=variant, status="not run", reason=str(error)
                    )
                    for variant in variants
                ]
                continue
            for step, (variant, graph) in enumerate(graphs.items(), start=1):
                progress(done + step, total, f"{runtime.name}: {variant}")
                measured = _measure(environment, runtime, work, graph, cases, delegates, timeout_s)
                results.append(judge(runtime.name, variant, measured, cases.limits()))
        progress(len(runtimes) * steps, len(runtimes) * steps, "done")
    return results


def _write_graphs(work: Path, variants: Mapping[str, bytes]) -> dict[str, Path]:
    graphs = {}
    for number, (variant, graph) in enumerate(variants.items()):
        graphs[variant] = work / f"graph{number}.tflite"
        graphs[variant].write_bytes(graph)
    return graphs


def _measure(
    environment: Environment,
    runtime: RuntimeSpec,
    work: Path,
    graph: Path,
    cases: Cases,
    wanted: Sequence[Delegates],
    timeout_s: float,
) -> dict[Delegates, Measurement]:
    measured: dict[Delegates, Measurement] = {}
    for delegates in wanted:
        command: list[str | Path] = [
            environment.python,
            "-I",
            Path(runner.__file__),
            work,
            "--graph",
            graph,
        ]
        command += ["--interpreter", runtime.interpreter, "--delegates", delegates]
        try:
            found = _answer(*_execute(command, work, timeout_s), cases)
        except _NoAnswer as error:
            measured[delegates] = Measurement(reason=str(error))
            if isinstance(error, _Hangs):
                break
            # What crashes with its delegates may work without them, which its author wants to know.
            continue
        if delegates == "none" and not found["switch"]:
            break
        measured[delegates] = _measurement(found, cases)
    return measured


class _NoAnswer(Exception):
    """The process gave no answer; the message says why."""


class _Hangs(_NoAnswer):
    """It was not done in time; waiting again is no use."""


def _execute(
    command: Sequence[str | Path], directory: Path, timeout_s: float
) -> tuple[int, str, str]:
    """The process's exit code, output and error output."""
    # To files: a child that outlives the process could keep a pipe open for ever.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=isolated() | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise _Hangs(f"hangs: not done after {timeout_s:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return code, texts[0], texts[1]


def _answer(code: int, out: str, err: str, cases: Cases) -> dict[str, Any]:
    said = last_lines(err)
    ending = f": {said}" if said else ""
    if code < 0:
        raise _NoAnswer(f"crashes ({signal.Signals(-code).name}){ending}")
    if code > 0:
        raise _NoAnswer(f"does not work here (exit code {code}){ending}")
    lines = out.strip().splitlines()
    try:
        found = json.loads(lines[-1])
        complete = (
            found["format"] == runner.FORMAT
            and (found["error"] is not None or len(found["differences"]) == len(cases.cases))
            and all(value is None or value >= 0 for value in found["differences"])
        )
        if not complete or not isinstance(found["switch"], bool):
            raise ValueError("incomplete")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _NoAnswer(f"gives no usable answer: {(lines or [''])[-1][:200]!r}{ending}") from error
    return dict(found)


def _measurement(found: Mapping[str, Any], cases: Cases) -> Measurement:
    reason = found["error"]
    # An error is often many lines; the first says what.
    names = [case.name for case in cases.cases[: len(found["differences"])]]
    drawn = by_draw(names, found["differences"])
    return Measurement(
        reason="" if reason is None else " ".join(str(reason).split())[:500],
        differences=medians(drawn),
        drawn=drawn,
        seconds_per_step=found.get("seconds_per_step"),
        import_s=found.get("import_s"),
        interpreter_s=found.get("interpreter_s"),
        rss_import_bytes=found.get("rss_import_bytes"),
        rss_bytes=found.get("rss_bytes"),
    )
