"""`nightshift task`: what is done to a server's tasks, and the simulation without a server."""

from nightshift.lazy_group import LazyCommand, LazyGroup
from server.commands import task as on_a_server

task = LazyGroup(
    name="task",
    commands={
        "simulate": LazyCommand(
            "device_plan.commands.simulate:simulate",
            "Run a task file's learning process in TFF, on proxy data.",
        ),
        **on_a_server.commands,
    },
    help="""Federated tasks: simulate one, or have a server's devices compute it, round after round.

    `simulate` takes a task file and no server; the others speak to a running one.
    """,
)
