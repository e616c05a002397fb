"""Alembic's entry: runs the scripts in the transaction that store/migrate.py hands over."""

from alembic import context

from tutelage.store.base import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
