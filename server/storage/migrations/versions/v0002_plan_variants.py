"""A plan has several variants; one that was added before has one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "plan_variants",
        sa.Column("plan_digest", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("device_part_digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("runtimes", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["plan_digest"], ["plans.digest"], name=op.f("fk_plan_variants_plan_digest")
        ),
        sa.PrimaryKeyConstraint("plan_digest", "place", name=op.f("pk_plan_variants")),
    )
    op.execute(
        "INSERT INTO plan_variants (plan_digest, place, name, device_part_digest, size) "
        "SELECT digest, 0, 'modern', device_part_digest, 0 FROM plans"
    )
    # Not by way of a copy: tasks refer to this table.
    op.drop_column("plans", "device_part_digest")
