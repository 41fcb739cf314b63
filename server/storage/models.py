"""The models of training tasks: one per committed round, and which is the newest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row, and_, bindparam, select

from server.storage.database import read
from server.storage.errors import UnknownModel
from server.storage.schema import model_heads, models

_OF_A_TASK = select(models).where(models.c.task_id == bindparam("task_id"))
_IS_HEAD = and_(models.c.task_id == model_heads.c.task_id, models.c.round == model_heads.c.round)

# Made once: making one takes as long as having SQLite carry it out.
_HEAD = _OF_A_TASK.join(model_heads, _IS_HEAD)
_ONE = _OF_A_TASK.where(models.c.round == bindparam("round"))
_ALL = _OF_A_TASK.order_by(models.c.round)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the server keeps of a task after a round. It never changes.

    Attributes:
        task_id: The training task.
        round: Rounds committed before it: 0 is the initial model.
        round_id: The round that made it; None for the initial model.
        state_sha256: Blob of the TFF server state.
        checkpoint_sha256: Blob of what devices download.
        metrics: The training metrics of the round.
        created_at: Seconds since the epoch.
    """

    task_id: str
    round: int
    round_id: str | None
    state_sha256: str
    checkpoint_sha256: str
    metrics: Mapping[str, Any]
    created_at: float


class Models:
    """The models of one database. `Tasks.create` and `Rounds.commit_training` write them."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def head(self, task_id: str) -> Model:
        """The newest model. Raises UnknownModel, also for a task that does not train."""
        with read(self._engine) as connection:
            row = connection.execute(_HEAD, {"task_id": task_id}).one_or_none()
        return _model(row, f"there is no model of a task {task_id!r}")

    def get(self, task_id: str, round_: int) -> Model:
        """Raises UnknownModel."""
        with read(self._engine) as connection:
            row = connection.execute(_ONE, {"task_id": task_id, "round": round_}).one_or_none()
        return _model(row, f"there is no model of round {round_} of a task {task_id!r}")

    def list(self, task_id: str) -> Sequence[Model]:
        """The task's models, by round."""
        with read(self._engine) as connection:
            rows = connection.execute(_ALL, {"task_id": task_id}).all()
        return [Model(**row._mapping) for row in rows]


def _model(row: Row[Any] | None, missing: str) -> Model:
    if row is None:
        raise UnknownModel(missing)
    return Model(**row._mapping)
