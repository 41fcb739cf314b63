"""What text and page say about a plan, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_plan.report import quantity

Description = Mapping[str, Any]
Pairs = list[tuple[str, str]]

#: What the counts of work mean, for those who read them.
COUNTING = (
    "Multiply-adds are those of matrix products and convolutions (two floating-point operations "
    "each). Elements are results of all other arithmetic, an exponential counted like a sum. Read "
    "and written are bytes of tensors as if no cache held them. Live is the most bytes of inputs, "
    "results and intermediate tensors that exist at once."
)


def overview(plan: Description) -> Pairs:
    """Label and value of what holds for the plan as a whole."""
    pairs = _overview(plan)
    if plan["not_measured"]:
        pairs.append(("measurements", plan["not_measured"].removeprefix("not measured: ")))
    return pairs


def _overview(plan: Description) -> Pairs:
    sizes, examples = plan["bytes"], plan["examples"]
    schedule = plan["schedule"]
    criteria = f" where {examples['criteria']}" if examples["criteria"] else ""
    return [
        ("population", plan["population"]),
        (
            "bytes",
            (
                f"archive {quantity.size(sizes['archive'])}; a device downloads "
                f"{quantity.size(sizes['device_part'])} once and "
                f"{quantity.size(sizes['initial_checkpoint'])} a round, and uploads "
                f"{quantity.size(sizes['update'])}"
            ),
        ),
        ("session", f"{_number(plan['epochs'], 'epoch')} in batches of {plan['batch_size']}"),
        (
            "examples",
            (
                f"{examples['min_examples']} to {examples['max_examples']} of "
                f"'{examples['collection']}'{criteria}"
            ),
        ),
        ("weight", _weight(plan)),
        ("randomness", _randomness(plan)),
        ("variants", ", ".join(variant["name"] for variant in plan["variants"])),
        ("rounds", f"{schedule['rounds']} of {schedule['cohort']['goal_count']} updates"),
        ("evaluation", _evaluation(schedule)),
        ("signature", _signature(plan["signature"])),
        ("checks", checks(plan)),
    ]


def variant(plan_variant: Description) -> Pairs:
    """Label and value of what holds for one variant."""
    sizes, memory = plan_variant["bytes"], plan_variant["memory"]
    session = plan_variant["session"]
    pairs = [
        ("operations", operations(plan_variant)),
        ("runtime", least_runtime(plan_variant)),
        ("passed on", passed_on(plan_variant)),
        (
            "bytes",
            (
                f"device part {quantity.size(sizes['device_part'])}, of which the graph "
                f"{quantity.size(sizes['graph'])}"
            ),
        ),
        (f"{session['examples']} examples", work(session)),
        ("seconds", _time(session)),
        ("memory", _memory(memory)),
    ]
    pairs += [("not counted", told) for told in reservations(plan_variant)]
    return pairs


def operations(plan_variant: Description) -> str:
    """The statement on Flex and custom operations."""
    total = sum(op["count"] for op in plan_variant["ops"])
    kinds = len({op["name"] for op in plan_variant["ops"]})
    if plan_variant["only_builtin_ops"]:
        return (
            f"{total} operations of {kinds} kinds, all TFLite builtins: no Flex delegate, "
            "no custom operation, no TensorFlow on the device"
        )
    listed = ", ".join(plan_variant["custom_ops"])
    return (
        f"{total} operations of {kinds} kinds, NOT all builtin: the runtime must be given {listed}"
    )


def least_runtime(plan_variant: Description) -> str:
    least = plan_variant["min_runtime_version"]
    unknown = [
        f"{op['name']} version {op['version']}"
        for op in plan_variant["ops"]
        if op["min_runtime_version"] is None
    ]
    if unknown:
        return f"TFLite newer than 2.14, for {', '.join(unknown)}"
    newest = [op["name"] for op in plan_variant["ops"] if op["min_runtime_version"] == least]
    because = f", for {', '.join(newest[:3])}" if len(newest) <= 3 else ""
    return f"TFLite {least or 'of any version'} or newer{because}"


def passed_on(plan_variant: Description) -> str:
    names = [runtime["name"] for runtime in plan_variant["runtimes"]]
    return ", ".join(names) or "no runtime yet: run `nightshift plan check`"


def work(session: Description) -> str:
    done = session["work"]
    return (
        f"{quantity.count(done['multiply_adds'])} multiply-adds, "
        f"{quantity.count(done['element_operations'])} element operations, "
        f"{quantity.size(done['bytes_moved'])} read and written, "
        f"in {_number(session['steps'], 'step')}"
    )


def reservations(plan_variant: Description) -> list[str]:
    """What the counts of work leave out, one sentence each."""
    told: list[str] = []
    for name, signature in plan_variant["signatures"].items():
        told += [f"{name}: {sentence}" for sentence in signature["assumed"]]
        for operation, times in signature["uncounted"].items():
            told.append(f"{name}: the arithmetic of {operation}, executed {times} times")
    return told


@dataclass(frozen=True)
class RuntimeRow:
    """One runtime, ready to be shown."""

    name: str
    status: str
    result: str
    reason: str
    difference: str
    step: str
    memory: str


def runtimes(plan_variant: Description) -> list[RuntimeRow]:
    """What was measured, and what the plan says of runtimes that were not measured this time."""
    rows = [
        RuntimeRow(
            one["runtime"],
            one["status"],
            one["status"],
            one["reason"],
            _scientific(one["relative_difference"]),
            "" if one["seconds_per_step"] is None else quantity.seconds(one["seconds_per_step"]),
            "" if one["rss_bytes"] is None else quantity.size(one["rss_bytes"]),
        )
        for one in plan_variant["measured"]
    ]
    shown = {row.name for row in rows}
    rows += [
        RuntimeRow(
            runtime["name"],
            "passed",
            "passed",
            "",
            _scientific(runtime["relative_difference"]),
            "",
            "",
        )
        for runtime in plan_variant["runtimes"]
        if runtime["name"] not in shown
    ]
    return rows


def failures(plan_variant: Description) -> list[tuple[str, list[str]]]:
    """Why runtimes did not pass, each reason once with all runtimes that gave it."""
    found: dict[str, list[str]] = {}
    for row in runtimes(plan_variant):
        if row.reason:
            found.setdefault(row.reason, []).append(row.name)
    return list(found.items())


def checks(plan: Description) -> str:
    rows = plan["checks"].get("checks", [])
    failed = [row["name"] for row in rows if not row["passed"]]
    if failed:
        return f"{len(failed)} of {len(rows)} FAILED: {', '.join(failed)}"
    return f"all {len(rows)} passed"


def provenance(plan_provenance: Description) -> Pairs:
    """Label and value of where the plan comes from."""
    pairs = []
    for key, value in plan_provenance.items():
        if isinstance(value, Mapping):
            text = ", ".join(f"{name} {item}" for name, item in value.items() if item)
            if key == "sources":
                text = ", ".join(value)
        elif isinstance(value, list | tuple):
            text = ", ".join(map(str, value))
        else:
            text = str(value)
        pairs.append((key, text or ("none" if key == "uncommitted" else "unknown")))
    return pairs


def shape(sides: Sequence[int]) -> str:
    return " x ".join("batch" if side < 0 else str(side) for side in sides) or "scalar"


def session_seconds(session: Description) -> tuple[str, str]:
    """How long a session takes, and how that is known."""
    times = session["seconds"]
    if times[0]["basis"] == "assumed":
        return quantity.seconds(times[0]["seconds"]), "estimated from assumed rates"
    if len(times) == 1:
        return quantity.seconds(times[0]["seconds"]), f"measured, {times[0]['runtime']}"
    ordered = [quantity.seconds(time["seconds"]) for time in _by_seconds(times)]
    return f"{ordered[0]} to {ordered[-1]}", f"measured on {len(times)} runtimes"


def resident(memory: Description) -> tuple[str, str]:
    """How much memory a session takes, and how that is known."""
    found = memory["measured_rss"]
    if not found:
        return quantity.size(memory["estimated_bytes"]), "estimated, without the runtime"
    return quantity.size(found[0]["bytes"]), f"peak of a process, {found[0]['runtime']}"


def _time(session: Description) -> str:
    times = _by_seconds(session["seconds"])
    if times[0]["basis"] == "assumed":
        return f"{_paced(times[0], session)}, by an op-rate estimate: {session['assumption']}"
    where = "one thread of the machine that checked the plan"
    if len(times) == 1:
        return f"{_paced(times[0], session)} on {times[0]['runtime']}, {where}"
    slowest = times[-1]
    return (
        f"measured on {len(times)} runtimes, {where}: {_paced(times[0], session)} on "
        f"{times[0]['runtime']}, to {quantity.seconds(slowest['seconds'])} on {slowest['runtime']}"
    )


def _paced(time: Description, session: Description) -> str:
    step, whole = (quantity.seconds(time[key]) for key in ("seconds_per_step", "seconds"))
    return f"{whole} for {session['examples']} examples, {step} a step"


def _by_seconds(times: Sequence[Description]) -> list[Description]:
    return sorted(times, key=lambda time: float(time["seconds"]))


def _memory(memory: Description) -> str:
    estimate = (
        f"about {quantity.size(memory['estimated_bytes'])}: graph "
        f"{quantity.size(memory['graph_bytes'])}, checkpoint "
        f"{quantity.size(memory['checkpoint_bytes'])}, state "
        f"{quantity.size(memory['state_bytes'])}, live tensors of a call "
        f"{quantity.size(memory['activations_peak_bytes'])}; without the runtime itself"
    )
    found = memory["measured_rss"]
    if not found:
        return estimate
    measured = f"{quantity.size(found[0]['bytes'])} ({found[0]['runtime']})"
    if len(found) > 1:
        measured += f" to {quantity.size(found[-1]['bytes'])} ({found[-1]['runtime']})"
    return f"{estimate}. Measured peak of a whole Python process: {measured}"


def _weight(plan: Description) -> str:
    if not plan["weight_tensor"]:
        return "none: updates are summed as they are"
    if plan["max_weight"] is None:
        return f"{plan['weight_tensor']}, the author's own, without a known bound"
    return f"{plan['weight_tensor']}, at most {plan['max_weight']:g}"


def _randomness(plan: Description) -> str:
    return "seeded by device and session" if plan["seeded"] else "none on the device"


def _evaluation(schedule: Description) -> str:
    evaluation = schedule.get("evaluation")
    if not evaluation:
        return "none"
    return (
        f"every {evaluation['every_rounds']} rounds "
        f"on {evaluation['cohort']['goal_count']} held-out devices"
    )


def _signature(signature: Description) -> str:
    return f"Ed25519, by key {signature['key']}" if signature["signed"] else "not signed"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _scientific(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
