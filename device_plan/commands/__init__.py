"""`nightshift plan`: build, show and check the plans that devices execute."""

import click

from device_plan.commands.build import build
from device_plan.commands.check import check
from device_plan.commands.diff import diff
from device_plan.commands.key import key
from device_plan.commands.runtimes import runtimes
from device_plan.commands.show import show
from device_plan.commands.sign import sign


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def plan() -> None:
    """Build, show and check the plans that devices execute.

    A plan is one file with everything a federated task needs: the training
    graph for devices (TFLite builtins only), the server's step from a round's
    sum to the next model, the initial model, and the checks it has passed.

    \b
    A first plan, from the task that comes with Nightshift:
      nightshift plan build examples/digits_task.py -o digits.plan
      nightshift plan show digits.plan
      nightshift plan publish digits.plan --server URL

    Exit codes: 0 done, 1 a release check failed, 2 the input is wrong.
    """


for command in (build, show, diff, check, runtimes, sign, key):
    plan.add_command(command)
