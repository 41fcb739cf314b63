"""Rounds may wait for their model; tasks have weights, populations quotas and tokens.

What a device took part in is kept for the tasks whose policy asks for it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # SQLite cannot make a column nullable, and a copy of the table would break the
    # foreign keys that refer to it: a new column takes the old one's name.
    op.add_column("rounds", sa.Column("model_round", sa.Integer(), nullable=True))
    op.execute("UPDATE rounds SET model_round = base_model_round")
    op.drop_column("rounds", "base_model_round")
    op.execute("ALTER TABLE rounds RENAME COLUMN model_round TO base_model_round")
    op.add_column(
        "tasks", sa.Column("weight", sa.Double(), nullable=False, server_default=sa.text("1.0"))
    )
    op.add_column("populations", sa.Column("max_sessions", sa.BigInteger(), nullable=True))
    op.add_column("populations", sa.Column("max_upload_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "operator_tokens",
        sa.Column("population", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["population"], ["populations.name"], name=op.f("fk_operator_tokens_population")
        ),
        sa.PrimaryKeyConstraint("population", name=op.f("pk_operator_tokens")),
        sa.UniqueConstraint("sha256", name=op.f("uq_operator_tokens_sha256")),
    )
    op.create_table(
        "participations",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("pseudonym", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_participations_task_id")
        ),
        sa.PrimaryKeyConstraint("task_id", "pseudonym", name=op.f("pk_participations")),
    )
