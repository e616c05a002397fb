"""Verdicts of judges, and how far they agree with experts."""

import sqlalchemy as sa
from alembic import op

from tutelage.store.base import UTCDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "judge_verdicts",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("judge", sa.String(length=240), nullable=False),
        sa.Column("criterion", sa.String(length=48), nullable=False),
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    with op.batch_alter_table("judge_verdicts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_judge_verdicts_item"), ["item"], unique=False)
        batch_op.create_index(batch_op.f("ix_judge_verdicts_judge"), ["judge"], unique=False)

    op.create_table(
        "judge_trust",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("judge", sa.String(length=240), nullable=False),
        sa.Column("rubric", sa.String(length=64), nullable=False),
        sa.Column("criterion", sa.String(length=48), nullable=False),
        sa.Column("mode", sa.String(length=12), nullable=False),
        sa.Column("kappa", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(length=240), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("judge_trust", schema=None) as batch_op:
        batch_op.create_index("ix_judge_trust_judge_rubric", ["judge", "rubric"], unique=False)


def downgrade() -> None:
    op.drop_table("judge_trust")
    op.drop_table("judge_verdicts")
