"""Alembic's environment: runs the migrations on the connection that :mod:`gateway.city.database.engine` hands over."""

from alembic import context

from gateway.city.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
