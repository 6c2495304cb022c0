"""Writing events into the ledger: new ones as rows, copies onto the row of the original.

In a bad minute nearly all are copies, a notification of Alertmanager has many alerts, and each must be in the ledger before it is answered.
So the copies of a notification are one statement; what is new, or stands for an alert that asked again, is written one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, Integer, Text, bindparam, case, func, literal_column, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from perennial_controller.cases import DecisionKind
from perennial_controller.events import MAX_SUMMARY, NewEvent
from perennial_controller.tables import decisions

_LATE = timedelta(seconds=60)
"""A firing copy that comes so soon after the alert's end was sent before it, and was overtaken."""
_t = decisions.c


@dataclass(frozen=True)
class Written:
    """What became of an event that was written."""

    id: int
    pipeline: str
    new: bool
    """False: a copy of one that was there already."""


# The rows are locked in the order of their keys, by everybody: no two wait for each other. A row that has a successor is left to
# `_write`, and so is one that had ended and may begin anew.
_COPIES = text("""
    WITH given AS (SELECT * FROM unnest(:keys, :copies) AS given (key, copies)),
    there AS (
        SELECT id, given.key, given.copies FROM perennial_decisions JOIN given ON dedupe_key = given.key
        WHERE successor_id IS NULL AND resolved_at IS NULL ORDER BY dedupe_key COLLATE "C" FOR UPDATE OF perennial_decisions
    )
    UPDATE perennial_decisions AS row SET duplicates = duplicates + there.copies, last_seen_at = :now
    FROM there WHERE row.id = there.id AND row.successor_id IS NULL AND row.resolved_at IS NULL
    RETURNING row.id, there.key
""").bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("copies", type_=ARRAY(Integer)))


async def write_events(connection: AsyncConnection, events: Sequence[NewEvent], now: datetime) -> list[Written]:
    """Write events; what became of each, in the order of their keys."""
    in_order = sorted(events, key=lambda event: event.dedupe_key)
    firing = [event for event in in_order if not event.resolved]
    counts = Counter(event.dedupe_key for event in firing)
    copies = await _note_copies(connection, counts, now)
    new = await _insert(connection, [event for event in firing if event.dedupe_key not in copies], counts, now)
    written, told = [], set[int]()
    for event in in_order:
        id = None if event.resolved else copies.get(event.dedupe_key, new.get(event.dedupe_key))
        if id is None:
            written.append(await _write(connection, event, now))
        else:  # of several copies in one notification the first is the new one
            written.append(Written(id, event.pipeline, new=event.dedupe_key in new and id not in told))
            told.add(id)
    return written


async def _note_copies(connection: AsyncConnection, counts: Counter[str], now: datetime) -> dict[str, int]:
    """Of keys of events that fire, those of which a row is there that fires, too: key to the row's id."""
    if not counts:
        return {}
    given = {"keys": list(counts), "copies": list(counts.values()), "now": now}
    return {row.key: row.id for row in await connection.execute(_COPIES, given)}


async def _insert(
    connection: AsyncConnection, events: Sequence[NewEvent], counts: Counter[str], now: datetime
) -> dict[str, int]:
    """Of events that fire, those that nobody has written: key to the new row's id. What another writes meanwhile is left out."""
    first = {event.dedupe_key: event for event in reversed(events)}
    if not first:
        return {}
    # An insert uses up an id also where it then writes nothing, and people would wonder about the gaps: so it is asked first.
    there = await connection.scalars(select(_t.dedupe_key).where(_t.dedupe_key.in_(first)))
    for key in there:
        del first[key]
    if not first:
        return {}
    rows = [
        {
            **columns_of(event, now),
            "duplicates": counts[key] - 1,
            "decision": DecisionKind.RECEIVED,
            "reason": "not decided yet",
        }
        for key, event in sorted(first.items())
    ]
    statement = insert(decisions).values(rows).on_conflict_do_nothing().returning(_t.id, _t.dedupe_key)
    return {row.dedupe_key: row.id for row in await connection.execute(statement)}


async def _write(connection: AsyncConnection, event: NewEvent, now: datetime) -> Written:
    on_copy: dict[str, Any] = {"resolved_at": func.coalesce(_t.resolved_at, now)}
    if not event.resolved:
        on_copy = {"duplicates": _t.duplicates + 1, "last_seen_at": now, **_firing_again(now)}
    # Most events are copies. An insert would use up an id for each, and people would wonder about the gaps.
    if (id := await _newest(connection, event.dedupe_key)) is not None:
        await connection.execute(update(decisions).where(_t.id == id).values(**on_copy))
        return Written(id, event.pipeline, new=False)
    new = insert(decisions).values(
        **columns_of(event, now),
        resolved_at=now if event.resolved else None,
        decision=DecisionKind.RECEIVED,
        reason="not decided yet",
    )
    statement = new.on_conflict_do_update(index_elements=[_t.dedupe_key], set_=on_copy).returning(
        _t.id, literal_column("xmax = 0").label("new")
    )
    row = (await connection.execute(statement)).one()
    return Written(row.id, event.pipeline, row.new)


async def _newest(connection: AsyncConnection, dedupe_key: str) -> int | None:
    """The row that stands for an event now, locked: its own or its last successor's."""
    newest: int | None = None
    wanted = _t.dedupe_key == dedupe_key
    # Row by row: whoever writes a successor holds the row before it, and a lock that was waited for shows what was written.
    while row := (await connection.execute(select(_t.id, _t.successor_id).where(wanted).with_for_update())).first():
        newest = row.id
        wanted = _t.id == row.successor_id
    return newest


def _firing_again(now: datetime) -> dict[str, Any]:
    """What a firing copy changes on an alert that had ended: Prometheus keeps `startsAt` over a short gap."""
    again = _t.resolved_at < now - _LATE
    undecided = again & (_t.decision == DecisionKind.RESOLVED)
    return {
        "resolved_at": case((again, None), else_=_t.resolved_at),
        "decision": case((undecided, DecisionKind.RECEIVED), else_=_t.decision),
        "reason": case((undecided, "the alert fires again; not decided yet"), else_=_t.reason),
    }


def columns_of(event: NewEvent, now: datetime) -> dict[str, Any]:
    """The columns of a new row that tell the event."""
    return {
        "received_at": now,
        "last_seen_at": now,
        "kind": event.kind,
        "pipeline": event.pipeline,
        "dedupe_key": event.dedupe_key,
        "summary": event.summary[:MAX_SUMMARY],
        "alert": event.alert,
        "action": event.action,
        "actor": event.actor,
        "payload": event.payload,
    }
