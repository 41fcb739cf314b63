"""How often, and when last, devices took part in a task, for the policies that bound it.

It is the only thing the server keeps of single devices, and only for tasks whose
policy asks for it. A device is not kept by its id but by a pseudonym that differs
from task to task, so that its participations cannot be joined to each other, nor to
what else mentions the id. They are forgotten when the task ends.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Engine,
    String,
    any_,
    bindparam,
    delete,
    func,
    literal,
    select,
)

from server.storage.database import read, upsert, write
from server.storage.schema import participations, tasks

#: Of a task that has not ended.
_UNFINISHED = ("active", "paused")


@dataclass(frozen=True)
class Participation:
    """How a device took part in a task so far.

    Attributes:
        count: Rounds that were committed with it among their participants.
        last_at: When the last of them was committed, in seconds since the epoch.
    """

    count: int
    last_at: float


class Participations:
    """The participations of one database. `Rounds.commit_training` and the like write them."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def of(self, task_id: str, device_ids: Iterable[bytes]) -> Mapping[bytes, Participation]:
        """Those of the devices that took part in the task, by device id."""
        devices = {_pseudonym(task_id, device_id): device_id for device_id in device_ids}
        columns = (participations.c.pseudonym, participations.c.count, participations.c.last_at)
        with read(self._engine) as connection:
            rows = connection.execute(
                select(*columns).where(
                    participations.c.task_id == task_id,
                    _is_among(connection, [*devices]),
                )
            ).all()
        return {devices[row[0]]: Participation(row[1], row[2]) for row in rows}

    def forget(self, task_id: str) -> None:
        """Deletes all of a task's, which then begin to count anew."""
        with write(self._engine) as connection:
            connection.execute(delete(participations).where(participations.c.task_id == task_id))


def record(
    connection: Connection,
    task_id: str,
    device_ids: Iterable[bytes],
    now: float | ColumnElement[float],
) -> None:
    """Count one more participation of each device, unless the task has ended by now."""
    # One order for all writers: on PostgreSQL two of them cannot then deadlock.
    pseudonyms = sorted({_pseudonym(task_id, device_id) for device_id in device_ids})
    if not pseudonyms:
        return
    # The task cannot end, and forget its participations, before these are among them.
    status = connection.scalar(
        select(tasks.c.status).where(tasks.c.task_id == task_id).with_for_update(read=True)
    )
    if status not in _UNFINISHED:
        return
    insert = upsert(connection, participations)
    connection.execute(
        insert.values(
            task_id=task_id, pseudonym=bindparam("pseudonym"), count=1, last_at=now
        ).on_conflict_do_update(
            index_elements=[participations.c.task_id, participations.c.pseudonym],
            set_={"count": participations.c.count + 1, "last_at": insert.excluded.last_at},
        ),
        [{"pseudonym": pseudonym} for pseudonym in pseudonyms],
    )


def _is_among(connection: Connection, pseudonyms: list[str]) -> ColumnElement[bool]:
    # As one parameter: they may be more than a statement takes.
    if connection.dialect.name == "postgresql":
        return participations.c.pseudonym == any_(literal(pseudonyms, ARRAY(String)))
    given = func.json_each(json.dumps(pseudonyms)).table_valued("value")
    return participations.c.pseudonym.in_(select(given.c.value))


def _pseudonym(task_id: str, device_id: bytes) -> str:
    # 16 bytes: among a billion devices the chance that any two share one is 1e-21.
    return hashlib.sha256(task_id.encode() + b"\0" + device_id).hexdigest()[:32]
