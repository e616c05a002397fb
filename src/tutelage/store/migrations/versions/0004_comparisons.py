"""Choices between two answers."""

import sqlalchemy as sa
from alembic import op

from tutelage.store.base import UTCDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("pair", sa.String(length=24), nullable=False),
        sa.Column("example", sa.JSON(), nullable=False),
        sa.Column("first", sa.Text(), nullable=False),
        sa.Column("second", sa.Text(), nullable=False),
        sa.Column("first_from", sa.String(length=160), nullable=True),
        sa.Column("second_from", sa.String(length=160), nullable=True),
        sa.Column("choice", sa.String(length=8), nullable=False),
        sa.Column("author", sa.String(length=80), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("split", sa.String(length=16), nullable=True),
        sa.Column("source", sa.String(length=160), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("key"),
    )
    with op.batch_alter_table("comparisons", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_comparisons_item"), ["item"], unique=False)
        batch_op.create_index("ix_comparisons_pair_author", ["pair", "author"], unique=False)


def downgrade() -> None:
    op.drop_table("comparisons")
