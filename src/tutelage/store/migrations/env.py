"""Alembic's entry: runs the migrations on the engine that store/migrate.py hands over."""

from alembic import context

from tutelage.store import tables
from tutelage.store.base import Base

assert tables  # importing it registers every table with Base

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
