"""How the loop itself is doing, as the ledger knows it: figures of each pipeline's training runs, right also after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import and_, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perennial_controller.policy import HELD, spent
from perennial_controller.tables import decisions
from perennial_spec.pipeline import PipelineSpec

Result = Literal["promoted", "rejected", "rolled_back", "failed", "refused", "lost"]
RESULTS: tuple[Result, ...] = get_args(Result)
"""What a run came to: the verdict on its model if there is one, else how the run ended (`entry.Outcome`)."""
JUDGED: tuple[Result, ...] = ("promoted", "rejected", "rolled_back")
"""Results of a run that did its work: a challenger that is not good enough is an answer, not a failure."""
HELD_KINDS = tuple(sorted(str(kind) for kind in HELD))
_t = decisions.c


@dataclass(frozen=True)
class Runs:
    """One pipeline's training runs."""

    results: Mapping[str, int] = field(default_factory=dict)
    """Result to how many runs had it, ever."""
    good_ended: datetime | None = None
    """When the last run ended that did its work."""
    good_accepted: datetime | None = None
    """When that run was accepted."""
    failures_in_a_row: int = 0
    """Runs that failed since then."""
    in_vain: int = 0
    """Retrainings by alerts that ended since a run has led to a new champion."""
    active_since: datetime | None = None
    """When Airflow got the run that has not ended; the oldest of them."""
    undelivered_since: datetime | None = None
    """When a run was accepted that Airflow does not have yet; the oldest of them, runs of the data DAG too."""
    accepted: tuple[datetime, ...] = ()
    """When its recent runs were accepted."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Decision that holds an alert back to how many it holds."""


@dataclass(frozen=True)
class Figures:
    """All pipelines', and moments by name."""

    runs: Mapping[str, Runs]
    marks: Mapping[str, datetime]


def budget_left(spec: PipelineSpec, accepted: Iterable[datetime], now: datetime) -> int:
    """How many runs alerts may still start now (`retraining.budget`)."""
    budget = spec.retraining.budget
    return max(budget.runs - len(spent(budget, accepted, now)), 0)


def run_due(spec: PipelineSpec, since: datetime | None, good_accepted: datetime | None) -> datetime | None:
    """When a good run should have ended, by `retraining.schedule`; None: nothing is due.

    Args:
        spec: the pipeline's.
        since: when its schedule was first seen.
        good_accepted: when the last good run was accepted, whoever asked for it.
    """
    from croniter import CroniterError, croniter

    moments = [moment for moment in (since, good_accepted) if moment is not None]
    if spec.retraining.schedule is None or not moments:
        return None
    try:
        tick: datetime = croniter(spec.retraining.schedule, max(moments)).get_next(datetime)
    except CroniterError:  # Airflow refuses it too: the pipeline has no DAG, and its runs cannot be delivered
        return None
    return tick + spec.run_limit


async def read_runs(connection: AsyncConnection, since: datetime) -> dict[str, Runs]:
    """The figures of every pipeline that the ledger knows.

    Args:
        connection: to the ledger.
        since: `Runs.accepted` goes back to here.
    """
    rows = {row.pipeline: row for row in await connection.execute(_summary(since))}
    pending = select(_t.pipeline, func.min(_t.decided_at)).where(_t.delivery == "pending").group_by(_t.pipeline)
    undelivered = {row[0]: row[1] for row in await connection.execute(pending)}
    held: dict[str, dict[str, int]] = {}
    holding = (_t.kind == "alert") & _t.decision.in_(HELD_KINDS)
    counts = select(_t.pipeline, _t.decision, func.count()).where(holding).group_by(_t.pipeline, _t.decision)
    for name, decision, count in await connection.execute(counts):
        held.setdefault(name, {})[decision] = count
    return {
        name: _runs(rows.get(name), undelivered.get(name), held.get(name, {})) for name in {*rows, *undelivered, *held}
    }


def _summary(since: datetime) -> Any:
    result = case(
        (_t.outcome.is_(None), None),
        ((_t.outcome == "success") | (_t.verdict == "promoted"), "promoted"),
        (_t.verdict.in_(("rejected", "rolled_back")), _t.verdict),
        else_=_t.outcome,
    )
    times = (_t.decided_at, _t.delivered_at, _t.finished_at)
    columns = (_t.pipeline, _t.kind, _t.delivery, *times, result.label("result"))
    # The training DAG has the pipeline's name (names.dag_id): runs of the data DAG are not among them.
    runs = select(*columns).where(_t.delivery.is_not(None), _t.dag_id == _t.pipeline).cte("runs")
    of = runs.c
    good = of.result.in_(JUDGED)
    last = (
        select(
            of.pipeline,
            func.max(of.decided_at).filter(good).label("good"),
            func.max(of.decided_at).filter(of.result == "promoted").label("promoted"),
        )
        .group_by(of.pipeline)
        .cte("last")
    )
    failed = of.result.is_not(None) & of.result.not_in(JUDGED)
    ended = of.result.is_not(None) & (of.kind == "alert")
    return (
        select(
            of.pipeline,
            *(func.count().filter(of.result == result).label(result) for result in RESULTS),
            func.max(of.finished_at).filter(good).label("good_ended"),
            func.max(last.c.good).label("good_accepted"),
            func.count().filter(failed, _after(of.decided_at, last.c.good)).label("failures_in_a_row"),
            func.count().filter(ended, _after(of.decided_at, last.c.promoted)).label("in_vain"),
            func.min(of.delivered_at)
            .filter(and_(of.result.is_(None), of.delivery == "delivered"))
            .label("active_since"),
            func.array_agg(of.decided_at).filter(of.decided_at > since).label("accepted"),
        )
        .join(last, last.c.pipeline == of.pipeline)
        .group_by(of.pipeline)
    )


def _after(moment: Any, other: Any) -> Any:
    """Whether `moment` is later than `other`, also when there was no other."""
    return other.is_(None) | (moment > other)


def _runs(row: Any, undelivered_since: datetime | None, held: Mapping[str, int]) -> Runs:
    if row is None:
        return Runs(undelivered_since=undelivered_since, held=held)
    return Runs(
        results={result: getattr(row, result) for result in RESULTS},
        good_ended=row.good_ended,
        good_accepted=row.good_accepted,
        failures_in_a_row=row.failures_in_a_row,
        in_vain=row.in_vain,
        active_since=row.active_since,
        undelivered_since=undelivered_since,
        accepted=tuple(row.accepted or ()),
        held=held,
    )
