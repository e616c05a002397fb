"""The shapes of the tables that this database has been given, so that opening it again is quick."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class ShapeRow(Base):
    """A digest of all tables, columns and indexes that some version declared and now are here."""

    __tablename__ = "store_shapes"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
