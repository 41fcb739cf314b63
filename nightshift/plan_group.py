"""`nightshift plan`: what is done to plan files, and their way to a server."""

from device_plan.commands import plan as on_files
from nightshift.lazy_group import LazyCommand, LazyGroup

plan = LazyGroup(
    name="plan",
    commands={
        **on_files.commands,
        "publish": LazyCommand(
            "nightshift.publish:publish", "Sign a plan that passed, and deploy it on a server."
        ),
    },
    help=on_files.help,
    context_settings=on_files.context_settings,
)
