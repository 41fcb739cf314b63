"""What the demo makes of the admin API's answers: its course, its screen and its summary."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nightshift.demo.course import Course, observe
from nightshift.demo.screen import Screen, course_table, waiting_for
from nightshift.demo.summary import print_summary, summarize, write_summary

#: Columns of a terminal nobody has changed.
NARROW = 80


class Answers:
    """The admin API of a server whose state the test says."""

    def __init__(self, *, status: str, head_round: int, evaluated: list[int]) -> None:
        self._answers: dict[str, Any] = {
            "tasks/t": {"population": "p/q", "status": status, "head_round": head_round},
            "tasks/t/rounds": {
                "rounds": [
                    *(a_round(number, "committed") for number in range(1, head_round + 1)),
                    a_round(head_round + 1, "abandoned", reason="too_few_updates"),
                    a_round(head_round + 1, "open"),
                ]
            },
            "tasks/e/rounds": {
                "rounds": [
                    *(an_evaluation(number, "committed") for number in evaluated),
                    an_evaluation(head_round, "abandoned"),
                ]
            },
            "populations/p/q": {
                "session_shapes": [
                    {"shape": "-v[]+^", "sessions": 1234},
                    {"shape": "-v[!", "sessions": 7},
                    {"shape": "-v[*", "sessions": 6},
                ],
                "bytes_up": 2048,
                "bytes_down": 4096,
                "now": {"waiting": 3, "selected": 2, "reported": 1, "adding": 0},
            },
        }

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._answers[path]
        return answer


def a_round(number: int, outcome: str, *, reason: str = "") -> dict[str, Any]:
    return {
        "round_id": f"{number}-{outcome}",
        "number": number,
        "base_model_round": number - 1,
        "outcome": outcome,
        "reason": reason,
        "opened_at": 100.0,
        "ended_at": None if outcome == "open" else 101.5,
        "statistics": {} if outcome == "open" else {"selected": 32, "accepted": 24},
        "metrics": {"train/loss": 0.25} if outcome == "committed" else {},
    }


def an_evaluation(model: int, outcome: str) -> dict[str, Any]:
    committed = outcome == "committed"
    return {
        "base_model_round": model,
        "outcome": outcome,
        "statistics": {"accepted": 9},
        "metrics": (
            {
                "current_round_metrics/accuracy": 0.9 + model / 100,
                "current_round_metrics/loss": 0.5,
                "current_round_metrics/num_examples": 90,
            }
            if committed
            else {}
        ),
    }


def course(status: str = "completed", head_round: int = 5, evaluated: tuple[int, ...] = (0, 4, 5)):
    answers = Answers(status=status, head_round=head_round, evaluated=list(evaluated))
    return observe(answers, "t", "e")  # type: ignore[arg-type]


def shown(*things: object) -> str:
    output = io.StringIO()
    Console(file=output, width=NARROW).print(*things)
    return output.getvalue()


def test_a_course_is_finished_when_its_last_model_has_been_evaluated() -> None:
    assert course().finished
    assert not course(evaluated=(0, 4)).finished
    assert not course(status="active").finished
    assert not Course().finished


def test_a_course_tells_committed_abandoned_and_open_rounds_apart() -> None:
    seen = course()
    assert [len(seen.committed), len(seen.abandoned), len(seen.open_rounds)] == [5, 1, 1]
    assert [evaluation.model_round for evaluation in seen.evaluations] == [0, 4, 5]
    assert seen.evaluations[1].accuracy == pytest.approx(0.94)
    assert (seen.evaluations[1].examples, seen.evaluations[1].devices) == (90, 9)


def test_the_summary_has_what_happened(tmp_path: Path) -> None:
    summary = summarize(course(), seconds=61.23, model=tmp_path / "model.safetensors")
    write_summary(summary, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "held_out_accuracy": pytest.approx(0.95),
        "held_out_accuracy_by_round": pytest.approx({"0": 0.9, "4": 0.94, "5": 0.95}),
        "rounds_committed": 5,
        "rounds_abandoned": 1,
        "abandoned_because": ["too_few_updates"],
        "session_shapes": {"-v[]+^": 1234, "-v[!": 7, "-v[*": 6},
        "bytes_up": 2048,
        "bytes_down": 4096,
        "seconds": 61.2,
        "model": str(tmp_path / "model.safetensors"),
    }
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_without_an_accuracy_has_a_summary_that_is_still_json() -> None:
    seen = course()
    for record in seen.evaluations:
        object.__setattr__(record, "accuracy", float("nan"))
    summary = summarize(seen, seconds=1.0, model=Path("m"))
    assert summary["held_out_accuracy"] is None
    json.dumps(summary, allow_nan=False)


def test_the_printed_summary_shows_shapes_and_whole_paths_in_80_columns(tmp_path: Path) -> None:
    output = io.StringIO()
    summary = summarize(course(), seconds=61.23, model=tmp_path / ("m" * 90))
    print_summary(summary, tmp_path, Console(file=output, width=NARROW))
    text = output.getvalue()
    assert "-v[]+^ x1,234   -v[! x7   -v[* x6" in text
    assert str(tmp_path / ("m" * 90)) in text
    assert "too_few_updates" in text


def test_a_row_of_the_table_is_one_line_of_80_columns() -> None:
    lines = shown(course_table(course())).splitlines()
    assert len(lines) == 1 + 6
    assert any("0.940 on 9 devices" in line for line in lines)
    assert any("abandoned" in line and "too_few_updates" in line for line in lines)
    assert max(map(len, lines)) <= NARROW


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            course("active", 3, (0,)),
            "round 4 is open; devices: 3 waiting, 2 computing, 1 uploading",
        ),
        (course(evaluated=(0, 4)), "measuring model 5; devices: 3 waiting"),
        (Course(), "between rounds"),
    ],
)
def test_the_screen_says_what_is_waited_for(seen: Course, expected: str) -> None:
    assert expected in shown(waiting_for(seen))


def test_a_pipe_gets_one_line_for_each_event_however_often_it_is_seen() -> None:
    output = io.StringIO()
    screen = Screen(Console(file=output, width=NARROW), rounds=5)
    with screen.course() as show:
        for _ in range(20):
            show(course())
    lines = output.getvalue().splitlines()
    assert len(lines) == 5 + 1 + 3
    assert "round 2 committed in 1.5 s: 24 of 32 devices, loss 0.250" in lines[1]
    assert "round 6 abandoned after 1.5 s: too_few_updates, 24 of 32 devices" in lines[5]
    assert "\x1b" not in output.getvalue()
