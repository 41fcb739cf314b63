"""`nightshift simulate`: a fleet of millions against the server's own decisions."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from server.simulation.scenario import Scenario

#: Fleets above this are answered in steps of several seconds, to be done in minutes.
_LARGE = 1_000_000
_LARGE_STEP_S = 5.0


def _fleet_options(command: Any) -> Any:
    options = (
        click.option(
            "--devices",
            type=click.IntRange(1, 50_000_000),
            default=200_000,
            help="Virtual devices.",
        ),
        click.option(
            "--days", type=click.FloatRange(0.05, 20), default=3.0, help="Days to simulate."
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), default=7, help="Same seed, same figures."
        ),
        click.option(
            "--step",
            type=click.FloatRange(0.1, 60),
            show_default="1 up to a million devices, else 5",
            help="Seconds of the virtual clock's step: check-ins of one step are answered "
            "together. Longer is faster and coarser.",
        ),
        click.option(
            "--time-zones",
            default="us",
            help="Where devices live: us, europe, india, world, one, or hours from UTC with "
            "shares such as -5:0.6,1:0.4. More zones make a flatter day.",
        ),
        click.option(
            "--night-share",
            type=click.FloatRange(0, 1),
            default=0.65,
            help="Nights on which a device is left charging on Wi-Fi.",
        ),
        click.option(
            "--day-share",
            type=click.FloatRange(0, 1),
            default=0.9,
            help="Days on which it is so by day too, for two to four hours.",
        ),
        click.option(
            "--session-seconds",
            type=click.FloatRange(0.1, 3600),
            default=90.0,
            help="Download, training and upload on a device of median speed.",
        ),
        click.option(
            "--failures",
            type=click.FloatRange(0, 0.9),
            default=0.03,
            help="Sessions whose computation fails.",
        ),
        click.option(
            "--pickups",
            type=(float, float),
            default=(0.3, 1.5),
            help="How often an hour someone takes the phone in hand, by night and by day.",
        ),
        click.option(
            "--loss",
            type=click.FloatRange(0, 0.9),
            default=0.01,
            help="Check-ins and sessions that the network loses without a word.",
        ),
        click.option(
            "--unsupported",
            type=click.FloatRange(0, 0.9),
            default=0.02,
            help="Devices whose runtime no plan supports.",
        ),
        click.option(
            "--wake-at",
            type=click.FloatRange(min=0),
            default=42.0,
            help="Hour at which something wakes devices within one minute; 0: never.",
        ),
        click.option(
            "--wake-share",
            type=click.FloatRange(0, 0.9),
            default=0.1,
            help="Of the devices that are idle then, the share that wakes.",
        ),
    )
    return _decorated(command, options)


def _server_options(command: Any) -> Any:
    options = (
        click.option(
            "--goal", type=click.IntRange(1, 100_000), default=400, help="Updates of a round."
        ),
        click.option(
            "--over-selection",
            type=click.FloatRange(1, 10),
            default=1.3,
            help="Devices selected for each update wanted.",
        ),
        click.option(
            "--adaptive/--fixed",
            default=False,
            help="Derive the over-selection from the drop-out of past rounds.",
        ),
        click.option(
            "--pipelined/--one-at-a-time",
            default=True,
            help="Select for the next round while one reports.",
        ),
        click.option(
            "--selection-window",
            type=click.FloatRange(1, 3600),
            default=60.0,
            help="Seconds for which check-ins are sampled before devices are chosen.",
        ),
        click.option(
            "--selection-timeout",
            type=click.FloatRange(1, 86_400),
            default=600.0,
            help="Seconds until selection ends with what there is, or abandons the round.",
        ),
        click.option(
            "--reporting-window",
            type=click.FloatRange(1, 86_400),
            default=300.0,
            help="Seconds until stragglers are cut off.",
        ),
        click.option(
            "--selectors",
            type=click.IntRange(1, 256),
            default=1,
            help="Each with pace steering of its own; devices go to any of them.",
        ),
    )
    return _decorated(command, options)


def _pace_options(command: Any) -> Any:
    options = (
        click.option(
            "--pace",
            type=click.Choice(["both", "steered", "unsteered"]),
            default="both",
            help="Simulate with pace steering, without, or both side by side.",
        ),
        click.option(
            "--by-time-of-day/--same-at-all-times",
            default=True,
            help="Whether the pace follows the day's course, once it has been observed.",
        ),
        click.option(
            "--min-delay",
            type=click.FloatRange(min=1),
            default=60.0,
            help="Seconds before which no device is asked back.",
        ),
        click.option(
            "--max-delay",
            type=click.FloatRange(min=1),
            default=86_400.0,
            help="Seconds after which none is. Below a few hours a large fleet is at the "
            "door again and again.",
        ),
        click.option(
            "--rendezvous",
            type=click.FloatRange(min=1),
            default=300.0,
            help="Seconds between the meetings of a small population.",
        ),
        click.option(
            "--surplus",
            type=click.FloatRange(min=1),
            default=1.2,
            help="Arrivals aimed at for each device that rounds can use.",
        ),
        click.option(
            "--peak",
            type=click.FloatRange(min=0.001),
            default=2000.0,
            help="Devices a second that are asked back at most.",
        ),
        click.option(
            "--permanent-delay",
            type=click.FloatRange(min=1),
            default=86_400.0,
            help="Seconds that a device waits at least whose runtime no plan supports.",
        ),
        click.option(
            "--own-retry",
            type=click.FloatRange(min=1),
            default=900.0,
            help="Seconds, ± 20 %, that a device waits without an answer; without pace "
            "steering also after one.",
        ),
    )
    return _decorated(command, options)


def _decorated(command: Any, options: tuple[Any, ...]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_fleet_options
@_server_options
@_pace_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="All figures as JSON, for each hour and minute.",
)
@click.option(
    "--plot",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A picture (PNG) of participation, arrivals, drop-out and rounds.",
)
def simulate(output: Path | None, picture: Path | None, pace: str, **options: Any) -> None:
    """Simulate days of a fleet of millions, before it is yours to wake up for.

    The state machines that the server runs (rounds, selection, pace steering)
    decide here too, under a virtual clock, about virtual devices: each lives in a
    time zone, charges at night and sometimes by day, has its own speed, is picked
    up, fails, or is lost by the network. Nothing is trained and nothing is sent.

    It answers: how many devices take part at which hour? How long do rounds
    take, and how many are abandoned? How many requests a second must the
    selectors bear, and what if something wakes the whole fleet at once? The
    table at the end holds it against the figures of Bonawitz et al. 2019.

    Ten million devices for three days take some minutes on two cores, and 1 GB of
    memory; the run without pace steering, where devices ask all the time, takes most.

    \b
    Examples:
      nightshift simulate                                   # 200,000 devices
      nightshift simulate --devices 10000000 --days 3 --seed 7 -o fleet.json --plot fleet.png
      nightshift simulate --goal 2000 --devices 100000      # more than the fleet can give
      nightshift simulate --same-at-all-times --pace steered     # without the day's course
    """
    from rich.console import Console
    from rich.progress import Progress, TimeRemainingColumn

    from server.simulation.report import print_report
    from server.simulation.side_by_side import run_side_by_side

    runs = ("steered", "unsteered") if pace == "both" else (pace,)
    scenarios = {name: _scenario(options, steered=name == "steered") for name in runs}
    for path in (output, picture):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no directory {path.absolute().parent} to write to")
    result: dict[str, Any] = {"scenario": scenarios[runs[0]].to_json(), "runs": {}}
    del result["scenario"]["steered"]
    with Progress(
        *Progress.get_default_columns()[:-1],
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as bar:
        tasks = {
            name: bar.add_task(f"{scenario.devices:,} devices, {name}", total=scenario.seconds)
            for name, scenario in scenarios.items()
        }
        result["runs"] = run_side_by_side(
            scenarios, lambda name, done: bar.update(tasks[name], completed=done)
        )
    print_report(result, Console(width=None if sys.stdout.isatty() else 140))
    try:
        if output is not None:
            output.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        if picture is not None:
            from server.simulation.plot import save_plot

            save_plot(result, picture)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error


def _scenario(options: dict[str, Any], *, steered: bool) -> "Scenario":
    from device_plan.cohort import CohortPolicy
    from server.protocol.pace_steering import PacePolicy
    from server.simulation.scenario import Habits, Scenario, parse_time_zones

    try:
        return Scenario(
            devices=options["devices"],
            days=options["days"],
            seed=options["seed"],
            steered=steered,
            cohort=CohortPolicy(
                goal_count=options["goal"],
                over_selection=options["over_selection"],
                adaptive_over_selection=options["adaptive"],
                pipelined=options["pipelined"],
                selection_window_s=options["selection_window"],
                selection_timeout_s=options["selection_timeout"],
                reporting_window_s=options["reporting_window"],
            ),
            pace=PacePolicy(
                min_delay_s=options["min_delay"],
                max_delay_s=options["max_delay"],
                rendezvous_period_s=options["rendezvous"],
                surplus=options["surplus"],
                peak_per_s=options["peak"],
                by_time_of_day=options["by_time_of_day"],
                permanent_delay_s=options["permanent_delay"],
            ),
            time_zones=parse_time_zones(options["time_zones"]),
            habits=Habits(night_share=options["night_share"], day_share=options["day_share"]),
            selectors=options["selectors"],
            own_retry_s=options["own_retry"],
            loss=options["loss"],
            failures=options["failures"],
            pickups_per_hour_night=options["pickups"][0],
            pickups_per_hour_day=options["pickups"][1],
            session_s=options["session_seconds"],
            unsupported=options["unsupported"],
            wake_at_s=options["wake_at"] * 3600 or None,
            wake_share=options["wake_share"],
            step_s=options["step"] or (_LARGE_STEP_S if options["devices"] > _LARGE else 1.0),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
