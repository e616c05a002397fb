"""Human evaluation: studies, what they ask, who is asked, judgements."""

import sqlalchemy as sa
from alembic import op

from tutelage.store.base import UTCDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = ("human_judgements", "human_assignments", "human_tasks", "human_studies")


def upgrade() -> None:
    op.create_table(
        "human_studies",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("evaluation", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("criteria", sa.JSON(), nullable=False),
        sa.Column("people", sa.JSON(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("sample", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("human_studies", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_human_studies_evaluation"), ["evaluation"], unique=False
        )

    op.create_table(
        "human_tasks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study", sa.String(length=32), nullable=False),
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("cluster", sa.String(length=64), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("first", sa.String(length=80), nullable=False),
        sa.Column("second", sa.String(length=80), nullable=True),
        sa.Column("first_text", sa.Text(), nullable=False),
        sa.Column("second_text", sa.Text(), nullable=True),
        sa.Column("asked", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"],
            ["human_studies.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("human_tasks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_human_tasks_item"), ["item"], unique=False)
        batch_op.create_index(batch_op.f("ix_human_tasks_study"), ["study"], unique=False)

    op.create_table(
        "human_assignments",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study", sa.String(length=32), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=80), nullable=True),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("leased_at", UTCDateTime(timezone=True), nullable=True),
        sa.Column("lease_until", UTCDateTime(timezone=True), nullable=True),
        sa.Column("done_at", UTCDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study"],
            ["human_studies.id"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["human_tasks.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("task", "rater", name="uq_human_assignments_task_rater"),
    )
    with op.batch_alter_table("human_assignments", schema=None) as batch_op:
        batch_op.create_index(
            "ix_human_assignments_study_rater_state", ["study", "rater", "state"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_human_assignments_task"), ["task"], unique=False)

    op.create_table(
        "human_judgements",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("assignment", sa.String(length=32), nullable=False),
        sa.Column("study", sa.String(length=32), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("choice", sa.String(length=8), nullable=True),
        sa.Column("left", sa.String(length=80), nullable=True),
        sa.Column("levels", sa.JSON(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("supersedes", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(length=160), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["assignment"],
            ["human_assignments.id"],
        ),
        sa.ForeignKeyConstraint(
            ["study"],
            ["human_studies.id"],
        ),
        sa.ForeignKeyConstraint(
            ["supersedes"],
            ["human_judgements.number"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["human_tasks.id"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("key"),
    )
    with op.batch_alter_table("human_judgements", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_human_judgements_assignment"), ["assignment"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_human_judgements_study"), ["study"], unique=False)


def downgrade() -> None:
    for name in TABLES:
        op.drop_table(name)
