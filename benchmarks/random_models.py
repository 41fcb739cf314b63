"""Random small models, lowered, converted and compared with TFF's own graph of the same work.

    python -m benchmarks random-models 500 [--seed S] [--first N]
    python -m benchmarks random-models --replay S/N

The reference is TFF's client work as TFF built it, executed by TensorFlow; the
device graph is executed by tflite-runtime. What counts is the median over three
draws of examples.

Workers do it in processes of their own, a few models each, for TensorFlow keeps
every graph it has seen. A model that ends its worker is a failure, too.
"""

import argparse
import json
import os
import re
import statistics
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workers import answers, work
from device_plan.matrix.case import MAX_DIFFERENCE
from device_plan.reference_kernels import use_reference_kernels

#: Models that one worker examines.
PER_WORKER = 25
#: Seconds after which a model counts as hanging.
TIMEOUT_S = 300.0
#: Draws of examples for each model.
DRAWS = 3
#: What is said of a model that equals TFF.
EQUAL = "equal"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one model.

    Attributes:
        seed, number: Which it is.
        status: "equal", "differs", "ill-conditioned", "refused" (one clear error at build
            time), "not runnable", "error" (something else is raised), "crash".
        cause: Failures of one cause have the same; "" if equal.
        differences: For each kind of session the median relative difference to TFF.
        nudged: How far TFF's own result moves when its weights move by one rounding;
            only known of models that differ.
        steps: The model, for people.
    """

    seed: int
    number: int
    status: str
    cause: str = ""
    differences: Mapping[str, float] = field(default_factory=dict)
    nudged: float | None = None
    steps: str = ""
    seconds: float = 0.0

    @property
    def replay(self) -> str:
        return f"python -m benchmarks random-models --replay {self.seed}/{self.number}"


class _Cause(Exception):
    def __init__(self, status: str, cause: str) -> None:
        super().__init__(cause)
        self.status = status


def examine(seed: int, number: int) -> Outcome:
    """Draws, builds and compares one model. Imports TensorFlow."""
    from benchmarks.random_network import description, random_case

    started = time.monotonic()
    case = random_case(seed, number)
    steps = description(case)
    differences: dict[str, float] = {}
    nudged: float | None = None
    status, cause = EQUAL, ""
    try:
        compared = compare(case)
        differences, nudged = compared
        worst = max(differences, key=lambda name: differences[name])
        if not differences[worst] <= MAX_DIFFERENCE:
            # A condition of this size alone explains a quarter of the difference.
            ill = nudged is not None and nudged >= differences[worst] / 4
            status = "ill-conditioned" if ill else "differs"
            cause = f"{worst}: {_magnitude(differences[worst])}"
    except _Cause as error:
        status, cause = error.status, str(error)
    return Outcome(
        seed=seed,
        number=number,
        status=status,
        cause=cause,
        differences=differences,
        nudged=nudged,
        steps=steps,
        seconds=time.monotonic() - started,
    )


def compare(case: Any) -> tuple[dict[str, float], float | None]:
    """The median differences of a case's device graph, and how far TFF's own result moves.

    Raises:
        _Cause: there is nothing to compare; it says why.
    """
    from benchmarks.tff_reference import LoweredTask
    from device_plan.task_file import InvalidTask

    try:
        lowered = LoweredTask(case.task())
        lowered.graph()
    except InvalidTask as error:
        raise _Cause("refused", _general(str(error))) from error
    except Exception as error:
        raise _Cause("error", _general(f"{type(error).__name__}: {error}")) from error
    try:
        found = lowered.differences(DRAWS)
    except (RuntimeError, ValueError) as error:
        raise _Cause("not runnable", _general(str(error))) from error
    except Exception as error:
        raise _Cause("error", _general(f"{type(error).__name__}: {error}")) from error
    worst = max(found, key=lambda name: found[name])
    nudged = None if found[worst] <= MAX_DIFFERENCE else lowered.nudged(worst, DRAWS)
    return found, nudged


def _magnitude(difference: float) -> str:
    if not np.isfinite(difference):
        return "not finite or of another shape"
    return f"above 1e{int(np.floor(np.log10(difference)))}"


def _general(message: str) -> str:
    """An error without what is particular to a model: numbers, names of nodes."""
    message = re.sub(r"(layer|node) '([^']*)'", r"\1 '…'", " ".join(message.split()))
    message = re.sub(r"'[^']*/[^']*'", "'…'", message)
    return re.sub(r"\d+", "N", message)[:220]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks random-models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("count", nargs="?", type=int, default=50, help="models (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of all of them (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--replay", metavar="SEED/NUMBER", help="one model, told in detail")
    parser.add_argument("--log", type=Path, help="where to append one JSON line a model")
    parser.add_argument("--answers", type=Path, nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.replay:
        return _replay(chosen.replay)
    if chosen.answers:
        work(chosen.answers[0], [str(item) for item in chosen.answers[1:]], _answer)
        return 0
    numbers = range(chosen.first, chosen.first + chosen.count)
    outcomes = []
    for outcome in run(chosen.seed, numbers, chosen.log):
        outcomes.append(outcome)
        print(_line(outcome), flush=True)
    print(report(outcomes))
    return 0 if all(outcome.status == EQUAL for outcome in outcomes) else 1


def _answer(item: str) -> dict[str, Any]:
    seed, _, number = item.partition("/")
    return asdict(examine(int(seed), int(number)))


def _replay(which: str) -> int:
    seed, _, number = which.partition("/")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    use_reference_kernels()
    try:
        outcome = examine(int(seed), int(number))
    except Exception:
        traceback.print_exc()
        return 1
    print(outcome.steps)
    for name, difference in outcome.differences.items():
        print(f"  {name}: {difference:.1e}")
    if outcome.nudged is not None:
        print(f"  TFF's own, from weights that moved by one rounding: {outcome.nudged:.1e}")
    print(_line(outcome))
    return 0 if outcome.status == EQUAL else 1


def run(seed: int, numbers: range, log: Path | None = None) -> Iterator[Outcome]:
    """The outcomes of these models of a seed, in order, each as soon as it is known.

    Args:
        log: Where a JSON line of each is appended, if anywhere.
    """
    items = [f"{seed}/{number}" for number in numbers]
    found = answers(["random-models"], items, per_worker=PER_WORKER, timeout_s=TIMEOUT_S)
    for number, answer in zip(numbers, found, strict=True):
        if isinstance(answer, str):
            outcome = Outcome(seed=seed, number=number, status="crash", cause=_general(answer))
        else:
            outcome = Outcome(**answer)
        if log is not None:
            with log.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
        yield outcome


def report(outcomes: Sequence[Outcome]) -> str:
    """How many models equal TFF, and the failures by cause with a command that replays one."""
    counts = Counter(outcome.status for outcome in outcomes)
    lines = [
        f"{len(outcomes)} models: " + ", ".join(f"{n} {status}" for status, n in counts.items())
    ]
    equal = [max(o.differences.values()) for o in outcomes if o.status == EQUAL]
    if equal:
        lines.append(
            f"largest of a model's median differences: median {statistics.median(equal):.1e}, "
            f"99 % {np.quantile(equal, 0.99):.1e}, largest {max(equal):.1e}"
        )
    causes: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.status != EQUAL:
            causes[outcome.status, outcome.cause].append(outcome)
    for (status, cause), found in sorted(causes.items(), key=lambda item: -len(item[1])):
        shortest = min(found, key=lambda outcome: len(outcome.steps) or 10_000)
        lines += [f"\n{len(found)} {status}: {cause}", f"  {shortest.steps}"]
        if shortest.nudged is not None:
            lines.append(
                f"  differs by {max(shortest.differences.values()):.1e}; TFF's own result moves by "
                f"{shortest.nudged:.1e} when its weights move by one rounding"
            )
        lines.append(f"  {shortest.replay}")
    return "\n".join(lines)


def _line(outcome: Outcome) -> str:
    worst = max(outcome.differences.values(), default=None)
    figure = "" if worst is None else f" {worst:.1e}"
    return (
        f"{outcome.seed}/{outcome.number} {outcome.status}{figure} "
        f"({outcome.seconds:.0f} s) {outcome.cause}"
    )
