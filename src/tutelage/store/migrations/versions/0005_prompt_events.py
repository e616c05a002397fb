"""What happened to the prompt's versions, and at most one published version."""

import sqlalchemy as sa
from alembic import op

from tutelage.store.base import UTCDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prompt_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("author", sa.String(length=80), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["prompts.hash"]),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("prompt_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_prompt_events_version"), ["version"], unique=False)
    op.create_index(
        "ix_prompts_published",
        "prompts",
        ["state"],
        unique=True,
        sqlite_where=sa.text("state = 'published'"),
        postgresql_where=sa.text("state = 'published'"),
    )


def downgrade() -> None:
    op.drop_index("ix_prompts_published", table_name="prompts")
    op.drop_table("prompt_events")
