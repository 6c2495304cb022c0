"""Moments by name, in a table of the ledger's database: what the controller must still know after a restart and is no decision."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from perennial_controller.tables import marks

WATCHDOG = "watchdog"
"""When Alertmanager last sent the alert that fires always."""
_SCHEDULE = "schedule:"


def schedule_mark(pipeline: str, schedule: str) -> str:
    """The name of the moment when a pipeline's schedule was first seen; another schedule is another name."""
    return f"{_SCHEDULE}{pipeline}:{schedule}"


async def read_marks(connection: AsyncConnection) -> dict[str, datetime]:
    """All of them."""
    return {row.name: row.at for row in await connection.execute(select(marks.c.name, marks.c.at))}


async def set_mark(connection: AsyncConnection, name: str, at: datetime) -> None:
    """Move one to `at`."""
    new = insert(marks).values(name=name, at=at)
    await connection.execute(new.on_conflict_do_update(index_elements=[marks.c.name], set_={"at": at}))


async def keep_schedules(connection: AsyncConnection, names: Iterable[str], now: datetime) -> None:
    """Note schedules that are new, and forget those that are gone."""
    wanted = sorted(names)
    # Of a clock that was put right since: no tick would come until then.
    await connection.execute(update(marks).where(marks.c.name.startswith(_SCHEDULE), marks.c.at > now).values(at=now))
    gone = delete(marks).where(marks.c.name.startswith(_SCHEDULE), marks.c.name.not_in(wanted))
    await connection.execute(gone)
    if wanted:
        rows = [{"name": name, "at": now} for name in wanted]
        await connection.execute(insert(marks).values(rows).on_conflict_do_nothing())
