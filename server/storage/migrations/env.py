"""Run by Alembic: upgrades the database of the connection that the caller passes."""

from alembic import context

from server.storage.schema import metadata

# The caller's transaction covers every step and the version number: an upgrade
# that fails, or is killed, leaves the old schema.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
