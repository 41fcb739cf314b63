"""The models of training tasks: one per committed round, and which is the newest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row, and_, select

from server.storage.database import read
from server.storage.errors import UnknownModel
from server.storage.schema import model_heads, models


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
        is_head = and_(
            models.c.task_id == model_heads.c.task_id, models.c.round == model_heads.c.round
        )
        with read(self._engine) as connection:
            row = connection.execute(
                select(models).join(model_heads, is_head).where(models.c.task_id == task_id)
            ).one_or_none()
        return _model(row, f"there is no model of a task {task_id!r}")

    def get(self, task_id: str, round_: int) -> Model:
        """Raises UnknownModel."""
        with read(self._engine) as connection:
            row = connection.execute(
                select(models).where(models.c.task_id == task_id, models.c.round == round_)
            ).one_or_none()
        return _model(row, f"there is no model of round {round_} of a task {task_id!r}")

    def list(self, task_id: str) -> Sequence[Model]:
        """The task's models, by round."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(models).where(models.c.task_id == task_id).order_by(models.c.round)
            ).all()
        return [Model(**row._mapping) for row in rows]


def _model(row: Row[Any] | None, missing: str) -> Model:
    if row is None:
        raise UnknownModel(missing)
    return Model(**row._mapping)
