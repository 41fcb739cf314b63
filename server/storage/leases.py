"""Fenced leases: at most one owner at a time, and no write by an earlier one.

A lease alone cannot keep a process that was frozen past its expiry from going
on when it wakes. Therefore each acquisition gets a higher epoch, and every
write that needs the lease calls `check_fence` inside its own transaction.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Engine,
    Executable,
    Select,
    bindparam,
    or_,
    select,
    update,
)

from server.storage.clocks import Clock, in_statements, lease_clock, values
from server.storage.database import read, upsert, write
from server.storage.schema import leases

_IS = (
    leases.c.name == bindparam("of_name"),
    leases.c.owner == bindparam("of_owner"),
    leases.c.epoch == bindparam("of_epoch"),
)

# On PostgreSQL a takeover waits for this row lock; on SQLite for the write lock.
_HELD = select(leases.c.epoch).where(*_IS).with_for_update(read=True)

#: See `Leases.acquire`. Far more than two servers' settings differ by.
SET_BACK = 100


class Fenced(RuntimeError):
    """The lease is no longer held: nothing was written."""


@dataclass(frozen=True)
class Lease:
    """One acquisition of a lease.

    Attributes:
        name: What is owned, e.g. "coordinator/digits/demo".
        owner: Who owns it.
        epoch: Grows with each acquisition of the name, from 1.
    """

    name: str
    owner: str
    epoch: int


@dataclass(frozen=True)
class LeaseState:
    """What is known of a lease's last acquisition.

    Attributes:
        owner: Who made it; empty if it was given back.
        epoch: Its epoch.
        expired: Whether anyone may acquire the lease now.
    """

    owner: str
    epoch: int
    expired: bool


class Leases:
    """The leases of one database.

    Args:
        engine: From `open_database`.
        clock: What the leases expire by; `lease_clock` unless it is given.
    """

    def __init__(self, *, engine: Engine, clock: Clock | None = None) -> None:
        self._engine = engine
        self._clock = clock or lease_clock(engine)
        self._statements = _statements(in_statements(self._clock))

    def acquire(self, name: str, owner: str, ttl_s: float) -> Lease | None:
        """The lease, if it is free, has expired, or is this owner's already; else None.

        One that would live on for `SET_BACK` times as long as it is asked for was
        given before the clock was set back, and counts as expired.

        Each acquisition fences those before it, the owner's own too: a part
        that is started again in the same process does not share its
        predecessor's right to write.

        Raises:
            ValueError: an empty owner, or a time to live that is not positive.
        """
        _check(owner, ttl_s)
        now = self._clock()
        with write(self._engine) as connection:
            insert = upsert(connection, leases)
            epoch = connection.scalar(
                insert.values(name=name, owner=owner, epoch=1, expires=now + ttl_s)
                .on_conflict_do_update(
                    index_elements=[leases.c.name],
                    set_={
                        "owner": insert.excluded.owner,
                        "epoch": leases.c.epoch + 1,
                        "expires": insert.excluded.expires,
                    },
                    where=or_(
                        leases.c.expires <= now,
                        leases.c.expires > now + SET_BACK * ttl_s,
                        leases.c.owner == owner,
                    ),
                )
                .returning(leases.c.epoch)
            )
        return None if epoch is None else Lease(name, owner, epoch)

    def renew(self, lease: Lease, ttl_s: float) -> bool:
        """Let the lease expire `ttl_s` seconds from now; False if it was lost.

        A lease that has expired without a successor is still its owner's.
        """
        _check(lease.owner, ttl_s)
        with write(self._engine) as connection:
            renewed = connection.execute(
                self._statements.renew, {**_named(lease), "ttl_s": ttl_s, **values(self._clock)}
            )
        return renewed.rowcount == 1

    def release(self, lease: Lease) -> None:
        """Give the lease back, for anyone to acquire at once; no effect if it was lost."""
        with write(self._engine) as connection:
            connection.execute(
                update(leases).where(*_IS).values(owner="", expires=0.0), _named(lease)
            )

    def holder(self, name: str) -> LeaseState | None:
        """The lease's last acquisition; None if there was none."""
        return self._states(self._statements.state_of, {"of_name": name}).get(name)

    def holders(self, prefix: str) -> Mapping[str, LeaseState]:
        """Likewise of all leases whose names begin so, in one query."""
        which = leases.c.name.startswith(prefix, autoescape=True)
        return self._states(self._statements.state.where(which), {})

    def _states(self, query: Select[Any], of: Mapping[str, str]) -> Mapping[str, LeaseState]:
        with read(self._engine) as connection:
            rows = connection.execute(query, {**of, **values(self._clock)}).all()
        return {row.name: LeaseState(row.owner, row.epoch, bool(row.expired)) for row in rows}


@dataclass(frozen=True)
class _Statements:
    """Made once: making one takes as long as having SQLite carry it out."""

    renew: Executable
    state: Select[Any]
    state_of: Select[Any]


@functools.cache
def _statements(now: ColumnElement[float]) -> _Statements:
    ttl_s: ColumnElement[float] = bindparam("ttl_s", type_=Double)
    expired = (leases.c.expires <= now).label("expired")
    state = select(leases.c.name, leases.c.owner, leases.c.epoch, expired)
    return _Statements(
        renew=update(leases).where(*_IS).values(expires=now + ttl_s),
        state=state,
        state_of=state.where(leases.c.name == bindparam("of_name")),
    )


def check_fence(connection: Connection, lease: Lease) -> None:
    """Let the transaction go on only if the lease is held until it ends.

    Raises:
        Fenced: another owner, or a later acquisition, has the lease.
    """
    held = connection.scalar(_HELD, _named(lease))
    if held is None:
        raise Fenced(f"{lease.owner} lost the lease {lease.name!r} of epoch {lease.epoch}")


def _named(lease: Lease) -> dict[str, Any]:
    """The values of `_IS`."""
    return {"of_name": lease.name, "of_owner": lease.owner, "of_epoch": lease.epoch}


def _check(owner: str, ttl_s: float) -> None:
    if not owner:
        raise ValueError("a lease needs an owner: a text that no other process uses")
    if not ttl_s > 0:
        raise ValueError(f"a lease must live for a positive number of seconds, not {ttl_s}")
