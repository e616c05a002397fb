"""Records of a deployment are read in order of time: one index holds both."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("records", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_records_deployment"))
        batch_op.create_index("ix_records_deployment_at", ["deployment", "at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("records", schema=None) as batch_op:
        batch_op.drop_index("ix_records_deployment_at")
        batch_op.create_index(batch_op.f("ix_records_deployment"), ["deployment"], unique=False)
