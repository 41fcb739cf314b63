"""The tables. Written for SQLite and PostgreSQL alike.

Times are seconds since the epoch, digests are SHA-256 in lower-case hex.
`rounds` and `model_heads` hold what is current and change by compare-and-set;
`models` and `round_events` only ever grow. Nothing refers to a single device but
`participations`, which is written only for tasks whose policy needs it.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

#: Fixed constraint names, so that migrations can refer to them on both databases.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column declared INTEGER.
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires", Double, nullable=False),
)

populations = Table(
    "populations",
    metadata,
    Column("name", String, primary_key=True),
    Column("holdout_fraction", Double, nullable=False),
    Column("holdout_salt", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("max_sessions", BigInteger),
    Column("max_upload_bytes", BigInteger),
)

# Who may operate a population. The token itself is nowhere.
operator_tokens = Table(
    "operator_tokens",
    metadata,
    Column("population", ForeignKey("populations.name"), primary_key=True),
    Column("sha256", String, nullable=False, unique=True),
)

plans = Table(
    "plans",
    metadata,
    Column("digest", String, primary_key=True),
    Column("manifest", JSON, nullable=False),
    Column("schedule", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
)

# The best variant of a plan has place 0. `runtimes` is null for a plan added
# before they were recorded here, until a server has read them from its archive.
plan_variants = Table(
    "plan_variants",
    metadata,
    Column("plan_digest", ForeignKey("plans.digest"), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
    Column("device_part_digest", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("runtimes", JSON(none_as_null=True)),
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", String, primary_key=True),
    Column("population", ForeignKey("populations.name"), nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("computation", String, nullable=False),
    Column("plan_digest", ForeignKey("plans.digest"), nullable=False),
    Column("cohort", JSON, nullable=False),
    Column("rounds", Integer),
    Column("evaluates", ForeignKey("tasks.task_id")),
    Column("every_rounds", Integer),
    Column("status", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("weight", Double, nullable=False, server_default=text("1.0")),
    CheckConstraint("computation IN ('training', 'evaluation')", name="computation"),
    CheckConstraint("status IN ('active', 'paused', 'completed', 'cancelled')", name="status"),
)

rounds = Table(
    "rounds",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("round_id", String, nullable=False, unique=True),
    Column("task_id", ForeignKey("tasks.task_id"), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    # Null until a pipelined round is released.
    Column("base_model_round", Integer),
    Column("lease_name", String, nullable=False),
    Column("lease_epoch", BigInteger, nullable=False),
    Column("outcome", String, nullable=False),
    Column("reason", String),
    Column("metrics", JSON, nullable=False),
    Column("statistics", JSON, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("ended_at", Double),
    CheckConstraint("outcome IN ('open', 'committed', 'abandoned')", name="outcome"),
)

# After a takeover the unfinished rounds are found without reading the history.
Index(
    "ix_rounds_open",
    rounds.c.task_id,
    sqlite_where=text("outcome = 'open'"),
    postgresql_where=text("outcome = 'open'"),
)

round_events = Table(
    "round_events",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("round_id", ForeignKey("rounds.round_id"), nullable=False, index=True),
    Column("event", String, nullable=False),
    Column("lease_owner", String, nullable=False),
    Column("lease_epoch", BigInteger, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("at", Double, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("task_id", ForeignKey("tasks.task_id"), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("round_id", ForeignKey("rounds.round_id"), unique=True),
    Column("state_sha256", String, nullable=False),
    Column("checkpoint_sha256", String, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
)

model_heads = Table(
    "model_heads",
    metadata,
    Column("task_id", ForeignKey("tasks.task_id"), primary_key=True),
    Column("round", Integer, nullable=False),
)

session_shapes = Table(
    "session_shapes",
    metadata,
    Column("population", ForeignKey("populations.name"), primary_key=True),
    Column("shape", String, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

traffic = Table(
    "traffic",
    metadata,
    Column("population", ForeignKey("populations.name"), primary_key=True),
    Column("bytes_up", BigInteger, nullable=False),
    Column("bytes_down", BigInteger, nullable=False),
)

participations = Table(
    "participations",
    metadata,
    Column("task_id", ForeignKey("tasks.task_id"), primary_key=True),
    Column("pseudonym", String, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at", Double, nullable=False),
)
