"""People's answers: annotators, guidelines, items, assignments, drafts, decisions."""

import sqlalchemy as sa
from alembic import op

from tutelage.store.base import UTCDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = (
    "adjudications",
    "annotations",
    "drafts",
    "assignments",
    "label_batches",
    "label_items",
    "guidelines",
    "annotators",
)


def upgrade() -> None:
    op.create_table(
        "annotators",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("added_at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "guidelines",
        sa.Column("version", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=80), nullable=True),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "label_batches",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("people", sa.JSON(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "label_items",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("example", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("example_id", sa.String(length=64), nullable=True),
        sa.Column("split", sa.String(length=16), nullable=True),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("added_at", UTCDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("label_items", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_label_items_example_id"), ["example_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_label_items_source"), ["source"], unique=False)

    op.create_table(
        "adjudications",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("author", sa.String(length=80), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["item"],
            ["label_items.id"],
        ),
        sa.PrimaryKeyConstraint("number"),
    )
    with op.batch_alter_table("adjudications", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_adjudications_item"), ["item"], unique=False)

    op.create_table(
        "assignments",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("batch", sa.String(length=32), nullable=False),
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("annotator", sa.String(length=80), nullable=True),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("leased_at", UTCDateTime(timezone=True), nullable=True),
        sa.Column("lease_until", UTCDateTime(timezone=True), nullable=True),
        sa.Column("done_at", UTCDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["annotator"],
            ["annotators.name"],
        ),
        sa.ForeignKeyConstraint(
            ["batch"],
            ["label_batches.id"],
        ),
        sa.ForeignKeyConstraint(
            ["item"],
            ["label_items.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("item", "annotator", name="uq_assignments_item_annotator"),
    )
    with op.batch_alter_table("assignments", schema=None) as batch_op:
        batch_op.create_index(
            "ix_assignments_annotator_state", ["annotator", "state"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_assignments_batch"), ["batch"], unique=False)
        batch_op.create_index(batch_op.f("ix_assignments_item"), ["item"], unique=False)

    op.create_table(
        "drafts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("model", sa.String(length=160), nullable=False),
        sa.Column("prompt", sa.String(length=64), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["item"],
            ["label_items.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("item", "model", "prompt", name="uq_drafts_item_model_prompt"),
    )
    with op.batch_alter_table("drafts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_drafts_item"), ["item"], unique=False)

    op.create_table(
        "annotations",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("annotator", sa.String(length=80), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("draft", sa.Integer(), nullable=True),
        sa.Column("edit_distance", sa.Integer(), nullable=True),
        sa.Column("guideline", sa.Integer(), nullable=True),
        sa.Column("supersedes", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("extra", sa.JSON(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("at", UTCDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator"],
            ["annotators.name"],
        ),
        sa.ForeignKeyConstraint(
            ["draft"],
            ["drafts.id"],
        ),
        sa.ForeignKeyConstraint(
            ["guideline"],
            ["guidelines.version"],
        ),
        sa.ForeignKeyConstraint(
            ["item"],
            ["label_items.id"],
        ),
        sa.ForeignKeyConstraint(
            ["supersedes"],
            ["annotations.number"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("key"),
    )
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_annotations_annotator"), ["annotator"], unique=False)
        batch_op.create_index("ix_annotations_item_annotator", ["item", "annotator"], unique=False)


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
