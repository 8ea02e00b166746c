"""Alembic's entry point; `store.migrate` hands in the connection."""

from alembic import context
from sekisho_tools.server.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction is the one
)
context.run_migrations()
