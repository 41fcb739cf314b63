"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "plans",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("device_part_digest", sa.String(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("schedule", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_plans")),
    )
    op.create_table(
        "populations",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holdout_fraction", sa.Double(), nullable=False),
        sa.Column("holdout_salt", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_populations")),
    )
    op.create_table(
        "session_shapes",
        sa.Column("population", sa.String(), nullable=False),
        sa.Column("shape", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["population"], ["populations.name"], name=op.f("fk_session_shapes_population")
        ),
        sa.PrimaryKeyConstraint("population", "shape", name=op.f("pk_session_shapes")),
    )
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("population", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("computation", sa.String(), nullable=False),
        sa.Column("plan_digest", sa.String(), nullable=False),
        sa.Column("cohort", sa.JSON(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=True),
        sa.Column("evaluates", sa.String(), nullable=True),
        sa.Column("every_rounds", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "computation IN ('training', 'evaluation')", name=op.f("ck_tasks_computation")
        ),
        sa.CheckConstraint(
            "status IN ('active', 'paused', 'completed', 'cancelled')", name=op.f("ck_tasks_status")
        ),
        sa.ForeignKeyConstraint(["evaluates"], ["tasks.task_id"], name=op.f("fk_tasks_evaluates")),
        sa.ForeignKeyConstraint(
            ["plan_digest"], ["plans.digest"], name=op.f("fk_tasks_plan_digest")
        ),
        sa.ForeignKeyConstraint(
            ["population"], ["populations.name"], name=op.f("fk_tasks_population")
        ),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_index(op.f("ix_tasks_population"), "tasks", ["population"], unique=False)
    op.create_table(
        "traffic",
        sa.Column("population", sa.String(), nullable=False),
        sa.Column("bytes_up", sa.BigInteger(), nullable=False),
        sa.Column("bytes_down", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["population"], ["populations.name"], name=op.f("fk_traffic_population")
        ),
        sa.PrimaryKeyConstraint("population", name=op.f("pk_traffic")),
    )
    op.create_table(
        "model_heads",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_model_heads_task_id")
        ),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_model_heads")),
    )
    op.create_table(
        "rounds",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("base_model_round", sa.Integer(), nullable=False),
        sa.Column("lease_name", sa.String(), nullable=False),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("statistics", sa.JSON(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('open', 'committed', 'abandoned')", name=op.f("ck_rounds_outcome")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_rounds_task_id")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_rounds")),
        sa.UniqueConstraint("round_id", name=op.f("uq_rounds_round_id")),
    )
    op.create_index(
        "ix_rounds_open",
        "rounds",
        ["task_id"],
        unique=False,
        sqlite_where=sa.text("outcome = 'open'"),
        postgresql_where=sa.text("outcome = 'open'"),
    )
    op.create_index(op.f("ix_rounds_task_id"), "rounds", ["task_id"], unique=False)
    op.create_table(
        "models",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("round_id", sa.String(), nullable=True),
        sa.Column("state_sha256", sa.String(), nullable=False),
        sa.Column("checkpoint_sha256", sa.String(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_models_round_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_models_task_id")),
        sa.PrimaryKeyConstraint("task_id", "round", name=op.f("pk_models")),
        sa.UniqueConstraint("round_id", name=op.f("uq_models_round_id")),
    )
    op.create_table(
        "round_events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=False),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.round_id"], name=op.f("fk_round_events_round_id")
        ),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_round_events")),
    )
    op.create_index(op.f("ix_round_events_round_id"), "round_events", ["round_id"], unique=False)
