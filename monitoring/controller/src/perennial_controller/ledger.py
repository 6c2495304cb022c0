"""The ledger in PostgreSQL: every event is a row before anything is done about it.

Copies of one event meet on its dedupe key, so that two of them in the same instant are one row. Decisions on one pipeline are
taken under a lock of the database, so that two controllers take them one after the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from perennial_controller.cases import HELD, HELD_TICKS, ORDERS, STARTED, Decision, DecisionKind, History, Pause, Run
from perennial_controller.entry import Entry
from perennial_controller.events import ALL_PIPELINES, MAX_SUMMARY, NewEvent, run_id_of, successor_key, target_dag
from perennial_controller.figures import Figures, read_in_vain, read_runs
from perennial_controller.marks import keep_schedules, read_marks, set_mark
from perennial_controller.registry import ModelVersion
from perennial_controller.standings import Standing, read_standings
from perennial_controller.tables import UNANSWERED, decisions
from perennial_controller.writing import Written, columns_of, write_events
from perennial_spec.errors import PlatformError
from perennial_spec.names import rollback_id

_LOCK_CLASS = 0x7065_7265
"""First half of the advisory locks' keys, so that they meet nobody else's in the same database."""
_DEADLOCKS = 3
"""So often a write is tried that another stands in the way of."""
_MAX_TRAIL = 50
_MAX_ALSO = 20
_HELD = [str(kind) for kind in HELD]
_HELD_TICKS = [str(kind) for kind in HELD_TICKS]
_t = decisions.c


@dataclass(frozen=True)
class Backlog:
    """What has come in and is not yet with Airflow."""

    undecided: int
    undelivered: int
    oldest: datetime | None
    """When the oldest of them came in."""


def engine_of(url: str) -> AsyncEngine:
    """A small pool of connections to the database of `url`, made when they are needed.

    Raises:
        PlatformError: not a PostgreSQL URL. The message does not repeat it: it holds a password.
    """
    return create_async_engine(
        _driver_url(url),
        pool_size=5,
        max_overflow=5,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={
            "timeout": 5,
            "command_timeout": 10,
            "server_settings": {"application_name": "perennial-controller"},
        },
    )


def _driver_url(text_: str) -> URL:
    try:
        url = make_url(text_)
        if not url.drivername.startswith("postgres"):
            raise ArgumentError
    except ArgumentError:
        raise PlatformError(
            "this is not the URL of a PostgreSQL database",
            where="PERENNIAL_DATABASE_URL",
            expected="postgresql://user:password@host/database",
        ) from None
    query = dict(url.query)
    if "sslmode" in query:  # libpq's word; asyncpg's is ssl, with the same values
        query["ssl"] = query.pop("sslmode")
    return url.set(drivername="postgresql+asyncpg", query=query)


class Ledger:
    """The rows, and what is done with them. Every method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def close(self) -> None:
        await self._engine.dispose()

    async def migrate(self) -> None:
        """Bring the schema to this version; controllers that start together do it one after the other."""
        from perennial_controller.migrations.apply import upgrade

        async with self._engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:class, 0)"), {"class": _LOCK_CLASS})
            await connection.run_sync(upgrade)

    async def ping(self) -> None:
        """Raises when the database does not answer."""
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def write(self, events: Sequence[NewEvent], now: datetime) -> list[Written]:
        """Write events, all or none; what became of each, in the order of their keys.

        A copy is noted on the row of the original and changes no decision that started a run.
        """
        for attempt in range(_DEADLOCKS):
            try:
                async with self._engine.begin() as connection:
                    return await write_events(connection, events, now)
            except DBAPIError as error:
                # Two that write the same new events at once can wait for each other; PostgreSQL ends one of them.
                if attempt + 1 == _DEADLOCKS or getattr(error.orig, "sqlstate", "") != "40P01":
                    raise
        raise AssertionError

    @asynccontextmanager
    async def deciding(self, pipeline: str) -> AsyncIterator[Deciding]:
        """The pipeline's open events and its history, held until the block ends; nobody else decides on it meanwhile."""
        async with self._engine.begin() as connection:
            lock = text("SELECT pg_advisory_xact_lock(:class, hashtext(:pipeline))")
            await connection.execute(lock, {"class": _LOCK_CLASS, "pipeline": pipeline})
            yield Deciding(connection, pipeline)

    async def succeed(self, now: datetime, seen_since: datetime) -> None:
        """Let alerts ask again whose run did not succeed and that still fire: a new row each, so that the old one keeps its run.

        Args:
            now: aware.
            seen_since: an alert of which no copy came since then has ended.
        """
        unanswered = select(decisions).where(UNANSWERED, _t.last_seen_at > seen_since).order_by(_t.id)
        async with self._engine.begin() as connection:
            for entry in await _rows(connection, unanswered.limit(200).with_for_update()):
                await _succeed(connection, entry, now)

    async def pipelines_with_open_events(self) -> list[str]:
        async with self._engine.connect() as connection:
            return list(await connection.scalars(select(_t.pipeline).where(_open()).distinct()))

    async def pipelines_with_new_events(self) -> list[str]:
        """Those with events that nobody has decided on."""
        async with self._engine.connect() as connection:
            new = select(_t.pipeline).where(_t.decision == DecisionKind.RECEIVED).distinct()
            return list(await connection.scalars(new))

    async def get(self, id: int) -> Entry | None:
        async with self._engine.connect() as connection:
            return _one(await _rows(connection, select(decisions).where(_t.id == id)))

    async def of_pipeline(self, pipeline: str, limit: int, before: int) -> list[Entry]:
        """Newest first, of those with an id below `before`."""
        mine = select(decisions).where(_t.pipeline == pipeline, _t.id < before)
        query = mine.order_by(_t.id.desc()).limit(limit)
        async with self._engine.connect() as connection:
            return await _rows(connection, query)

    async def backlog(self) -> Backlog:
        waiting = (_t.decision == DecisionKind.RECEIVED) | (_t.delivery == "pending")
        query = select(
            func.count().filter(_t.decision == DecisionKind.RECEIVED),
            func.count().filter(_t.delivery == "pending"),
            func.min(_t.received_at),
        ).where(waiting)
        async with self._engine.connect() as connection:
            undecided, undelivered, oldest = (await connection.execute(query)).one()
        return Backlog(undecided, undelivered, oldest)

    async def pauses(self) -> dict[str, Pause]:
        """The newest pause by pipeline, or under `ALL_PIPELINES`, that nobody has resumed since; in force or over."""
        async with self._engine.connect() as connection:
            orders = await _orders(connection)
        return {order.pipeline: order.pause() for order in orders if order.kind == "pause"}

    async def standings(self, seen_since: datetime) -> dict[str, Standing]:
        """Of every pipeline: alerts that fire (a copy came after `seen_since`), the run that is active, and the last that ended."""
        async with self._engine.connect() as connection:
            return await read_standings(connection, seen_since)

    async def figures(self, since: datetime) -> Figures:
        """How every pipeline's runs are doing; those within the budgets' time were accepted after `since`."""
        async with self._engine.connect() as connection:
            orders = await _orders(connection)
            pauses = {order.pipeline: order.pause() for order in orders if order.kind == "pause"}
            resumed = {order.pipeline: order.received_at for order in orders if order.kind == "resume"}
            return Figures(await read_runs(connection, since), await read_marks(connection), pauses, resumed)

    # -- moments --

    async def mark(self, name: str, at: datetime) -> None:
        async with self._engine.begin() as connection:
            await set_mark(connection, name, at)

    async def marked(self, name: str) -> datetime | None:
        async with self._engine.connect() as connection:
            return (await read_marks(connection)).get(name)

    async def marks(self) -> dict[str, datetime]:
        """All moments, by name."""
        async with self._engine.connect() as connection:
            return await read_marks(connection)

    async def keep_schedules(self, names: Iterable[str], now: datetime) -> None:
        """Note which schedules there are now, each with the moment when it was first seen."""
        async with self._engine.begin() as connection:
            await keep_schedules(connection, names, now)

    # -- outbox --

    async def retry_now(self, now: datetime) -> None:
        """Take over what a controller that is gone had begun. Harmless if it is not gone: a delivery may be done twice."""
        async with self._engine.begin() as connection:
            await connection.execute(update(decisions).where(_t.delivery == "pending").values(next_attempt_at=now))

    async def claim(self, now: datetime, lease: timedelta, limit: int = 10) -> list[Entry]:
        """Undelivered runs that are due. For the time of the lease no other controller gets them."""
        due = (
            select(_t.id)
            .where(_t.delivery == "pending", _t.next_attempt_at <= now)
            .order_by(_t.next_attempt_at, _t.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claim = (
            update(decisions)
            .where(_t.id.in_(due.scalar_subquery()))
            .values(next_attempt_at=now + lease, attempts=_t.attempts + 1)
            .returning(*decisions.c)
        )
        async with self._engine.begin() as connection:
            return await _rows(connection, claim)

    async def delivered(self, id: int, now: datetime) -> None:
        await self._set(id, delivery="delivered", delivered_at=now, next_attempt_at=None, last_error=None)

    async def postponed(self, id: int, error: str, until: datetime) -> None:
        await self._set(id, last_error=error[:MAX_SUMMARY], next_attempt_at=until)

    async def rolled_back(self, id: int, now: datetime) -> None:
        """The traffic has been taken back: there is nothing to follow."""
        over: dict[str, Any] = {"delivery": "delivered", "outcome": "success", "verdict": "rolled_back"}
        await self._set(id, **over, delivered_at=now, finished_at=now, next_attempt_at=None, last_error=None)

    async def refused(self, id: int, error: str, now: datetime) -> None:
        """Airflow will never take this run: it is over."""
        gone: dict[str, Any] = {"delivery": "failed", "outcome": "refused", "finished_at": now, "next_attempt_at": None}
        await self._set(id, last_error=error[:MAX_SUMMARY], **gone)

    # -- outcomes --

    async def unfinished(self) -> list[Entry]:
        """Runs that Airflow has and that are not known to have ended."""
        query = select(decisions).where(_t.delivery == "delivered", _t.outcome.is_(None)).order_by(_t.id).limit(200)
        async with self._engine.connect() as connection:
            return await _rows(connection, query)

    async def finished(
        self, id: int, outcome: str, at: datetime, model: ModelVersion | None, steps: Sequence[dict[str, Any]] = ()
    ) -> None:
        """A run has ended; `model` is what it has registered, `steps` what its steps came to."""
        made: dict[str, Any] = {}
        if model is not None:
            made = {"model_version": model.version, "data_version": model.data_version, "verdict": model.verdict}
        await self._set(id, outcome=outcome, finished_at=at, steps=list(steps), **made)

    async def knows(self, dag_id: str, run_id: str) -> bool:
        """Whether a row has started, or stands for, this run."""
        query = select(_t.id).where(_t.dag_id == dag_id, _t.run_id == run_id, _t.delivery.is_not(None))
        async with self._engine.connect() as connection:
            return await connection.scalar(query) is not None

    async def adopt(self, event: NewEvent, run_id: str, at: datetime, now: datetime) -> bool:
        """Write a run that was started past the controller. False: the ledger had it."""
        reason = "Airflow started it, and the ledger took note"
        statement = (
            insert(decisions)
            .values(
                **columns_of(event, now),
                decision=DecisionKind.ACCEPTED,
                reason=reason,
                decided_at=at,
                trail=[_step(at, DecisionKind.ACCEPTED, reason)],
                dag_id=target_dag(event.kind, event.pipeline),
                run_id=run_id,
                delivery="delivered",
                delivered_at=at,
            )
            .on_conflict_do_nothing()
            .returning(_t.id)
        )
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).first() is not None

    async def _set(self, id: int, **values: Any) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(update(decisions).where(_t.id == id).values(**values))


class Deciding:
    """One pipeline's open events, under its lock."""

    def __init__(self, connection: AsyncConnection, pipeline: str) -> None:
        self._connection = connection
        self._pipeline = pipeline

    async def open_events(self) -> list[Entry]:
        """Undecided events, and alerts that are held back and still fire, in the order in which they came."""
        query = select(decisions).where(_t.pipeline == self._pipeline, _open()).order_by(_t.id).with_for_update()
        return await _rows(self._connection, query)

    async def history(self, since: datetime) -> History:
        """Runs accepted after `since`, and all that have not ended."""
        mine = (_t.pipeline == self._pipeline) & _t.delivery.is_not(None)
        wanted = mine & ((_t.decided_at > since) | _t.outcome.is_(None))
        entries = await _rows(self._connection, select(decisions).where(wanted).order_by(_t.decided_at.desc()))
        tried = await self._connection.scalar(select(func.max(_t.data_version)).where(mine))
        orders = await _orders(self._connection, _t.pipeline.in_((self._pipeline, ALL_PIPELINES)))
        pauses = tuple(order.pause() for order in orders if order.kind == "pause")
        in_vain = await read_in_vain(self._connection, self._pipeline)
        return History(tuple(_run(entry) for entry in entries), tried, pauses, in_vain)

    async def answers_also(self, entry: Entry, summaries: Sequence[str]) -> None:
        """Note what else the run of an alert is for, so that its reason says all of it."""
        also = {"also": [summary[:MAX_SUMMARY] for summary in summaries[:_MAX_ALSO]]}
        added = _t.payload.op("||")(bindparam(None, also, type_=JSONB))
        await self._connection.execute(update(decisions).where(_t.id == entry.id).values(payload=added))

    async def decide(self, entry: Entry, decision: Decision, now: datetime) -> bool:
        """Write a decision, and the run that it starts into the outbox. False: it is the decision that is there already."""
        if (entry.decision, entry.reason) == (decision.kind, decision.reason):
            return False
        changed = entry.decision != decision.kind
        trail = [*entry.trail, _step(now, decision.kind, decision.reason)][-_MAX_TRAIL:] if changed else entry.trail
        values: dict[str, Any] = {
            "decision": decision.kind,
            "reason": decision.reason,
            "trail": trail,
            "run_id": decision.run_id,
        }
        if changed:
            values["decided_at"] = now
        if decision.kind == DecisionKind.RESOLVED and entry.resolved_at is None:
            values["resolved_at"] = now
        if decision.kind in STARTED:
            rolls_back = decision.kind == DecisionKind.ROLLING_BACK
            values |= {
                "dag_id": rollback_id(entry.pipeline) if rolls_back else target_dag(entry.kind, entry.pipeline),
                "run_id": run_id_of(entry.kind, entry.dedupe_key, entry.received_at),
                "delivery": "pending",
                "next_attempt_at": now,
                "seen_data_version": decision.seen_data_version,
                "model_version": decision.to_version,  # written once: a rollback that is done again goes to the same version
            }
        await self._connection.execute(update(decisions).where(_t.id == entry.id).values(**values))
        return changed


def _open() -> Any:
    held = (_t.kind == "alert") & _t.decision.in_(_HELD)
    ticks = (_t.kind == "schedule") & _t.decision.in_(_HELD_TICKS)
    return (_t.decision == DecisionKind.RECEIVED) | held | ticks


async def _succeed(connection: AsyncConnection, entry: Entry, now: datetime) -> None:
    columns = (_t.kind, _t.pipeline, _t.summary, _t.alert, _t.action, _t.payload, _t.last_seen_at, _t.seen_data_version)
    successor = insert(decisions).values(
        **{column.name: getattr(entry, column.name) for column in columns},
        received_at=now,
        dedupe_key=successor_key(entry.dedupe_key),
        decision=DecisionKind.RECEIVED,
        reason=f"the alert still fires, and run {entry.run_id} ended with {entry.outcome}: not decided yet",
    )
    id = await connection.scalar(successor.returning(_t.id))
    await connection.execute(update(decisions).where(_t.id == entry.id).values(successor_id=id))


def _step(at: datetime, kind: DecisionKind, reason: str) -> dict[str, str]:
    return {"at": at.isoformat(), "decision": str(kind), "reason": reason}


def _run(entry: Entry) -> Run:
    assert entry.dag_id and entry.run_id and entry.decided_at  # a row with a delivery has them
    delivered = entry.delivery == "delivered"
    return Run(
        entry.dag_id,
        entry.run_id,
        entry.decided_at,
        entry.outcome is None,
        delivered,
        entry.delivered_at,
        entry.finished_at,
    )


async def _orders(connection: AsyncConnection, *which: Any) -> list[Entry]:
    """The newest pause or resumption of each."""
    orders = select(decisions).where(_t.kind.in_(ORDERS), *which).distinct(_t.pipeline)
    return await _rows(connection, orders.order_by(_t.pipeline, _t.id.desc()))


async def _rows(connection: AsyncConnection, query: Any) -> list[Entry]:
    result = await connection.execute(query)
    return [_entry(dict(row)) for row in result.mappings()]


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(**{**row, "decision": DecisionKind(row["decision"])})


def _one(entries: list[Entry]) -> Entry | None:
    return entries[0] if entries else None
