"""Where every pipeline stands, as the ledger knows it: a few questions for all of them, however many they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perennial_controller.tables import decisions

_t = decisions.c


@dataclass(frozen=True)
class Running:
    """A training run that has not ended."""

    decision: int
    run_id: str
    since: datetime
    delivered: bool
    """Airflow has it."""


@dataclass(frozen=True)
class Ended:
    """The last training run that has ended."""

    decision: int
    run_id: str
    at: datetime
    outcome: str
    verdict: str | None
    model_version: str | None


@dataclass(frozen=True)
class Waiting:
    """The newest decision that holds something back."""

    decision: int
    kind: str
    reason: str


@dataclass(frozen=True)
class Standing:
    """One pipeline's."""

    firing: tuple[str, ...] = ()
    """Names of the alerts that fire, each once."""
    running: Running | None = None
    ended: Ended | None = None
    waiting: Waiting | None = None


async def read_standings(connection: AsyncConnection, seen_since: datetime) -> dict[str, Standing]:
    """All pipelines that the ledger knows, in four questions.

    Args:
        connection: to the ledger.
        seen_since: an alert of which no copy came since then has ended.
    """
    firing = {row.pipeline: tuple(sorted(row.names)) for row in await connection.execute(_firing(seen_since))}
    running = {row.pipeline: _running(row) for row in await connection.execute(_newest(_t.outcome.is_(None)))}
    ended = {row.pipeline: _ended(row) for row in await connection.execute(_newest(_t.outcome.is_not(None)))}
    waiting = {
        row.pipeline: Waiting(row.id, row.decision, row.reason) for row in await connection.execute(_held(seen_since))
    }
    return {
        name: Standing(firing.get(name, ()), running.get(name), ended.get(name), waiting.get(name))
        for name in {*firing, *running, *ended, *waiting}
    }


def _firing(seen_since: datetime) -> Any:
    fires = (_t.kind == "alert") & _t.resolved_at.is_(None) & (_t.last_seen_at > seen_since) & _t.successor_id.is_(None)
    return select(_t.pipeline, func.array_agg(_t.alert.distinct()).label("names")).where(fires).group_by(_t.pipeline)


def _held(seen_since: datetime) -> Any:
    fires = (_t.kind == "alert") & _t.resolved_at.is_(None) & (_t.last_seen_at > seen_since)
    held = fires & _t.delivery.is_(None) & _t.decision.not_in(("received", "ignored", "not_allowed"))
    columns = (_t.pipeline, _t.id, _t.decision, _t.reason)
    return select(*columns).where(held).distinct(_t.pipeline).order_by(_t.pipeline, _t.id.desc())


def _newest(which: Any) -> Any:
    """The newest training run of each pipeline of which something holds; the training DAG has the pipeline's name."""
    columns = (_t.pipeline, _t.id, _t.run_id, _t.decided_at, _t.delivery, _t.delivered_at, _t.finished_at)
    runs = select(*columns, _t.outcome, _t.verdict, _t.model_version).where(
        _t.delivery.is_not(None), _t.dag_id == _t.pipeline, which
    )
    return runs.distinct(_t.pipeline).order_by(_t.pipeline, _t.decided_at.desc())


def _running(row: Any) -> Running:
    return Running(row.id, row.run_id, row.delivered_at or row.decided_at, row.delivery == "delivered")


def _ended(row: Any) -> Ended:
    return Ended(row.id, row.run_id, row.finished_at or row.decided_at, row.outcome, row.verdict, row.model_version)
