"""How the loop itself is doing, as the ledger knows it: figures of each pipeline's training runs, right also after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import and_, case, false, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perennial_controller.cases import HELD, Pause
from perennial_controller.events import ALL_PIPELINES
from perennial_controller.policy import spent
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
    """Retrainings by alerts that ended since a run has led to a new champion, or since somebody resumed."""
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
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    """As `Ledger.pauses`."""

    def paused_since(self, pipeline: str, now: datetime) -> datetime | None:
        """When the pause began that is in force, the older of two; None: none is."""
        found = (self.pauses.get(name) for name in (pipeline, ALL_PIPELINES))
        return min((pause.since for pause in found if pause and pause.lasts(now)), default=None)


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


async def read_in_vain(connection: AsyncConnection, pipeline: str) -> int:
    """`Runs.in_vain` of one pipeline, as it is now."""
    row = (await connection.execute(_summary(None, pipeline))).first()
    return row.in_vain if row else 0


def _summary(since: datetime | None, pipeline: str | None = None) -> Any:
    """One row for each pipeline, or for the one that is named; runs accepted after `since` are listed, none when None."""
    result = case(
        (_t.outcome.is_(None), None),
        ((_t.outcome == "success") | (_t.verdict == "promoted"), "promoted"),
        (_t.verdict.in_(("rejected", "rolled_back")), _t.verdict),
        else_=_t.outcome,
    )
    times = (_t.decided_at, _t.delivered_at, _t.finished_at)
    columns = (_t.pipeline, _t.kind, _t.delivery, *times, result.label("result"))
    # The training DAG has the pipeline's name (names.dag_id): runs of the data DAG are not among them.
    these = [_t.delivery.is_not(None), _t.dag_id == _t.pipeline, *([] if pipeline is None else [_t.dag_id == pipeline])]
    runs = select(*columns).where(*these).cte("runs")
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
    resumed = (
        select(_t.pipeline, func.max(_t.received_at).label("at"))
        .where(_t.kind == "resume")
        .group_by(_t.pipeline)
        .cte("resumed")
    )
    all_resumed = select(resumed.c.at).where(resumed.c.pipeline == ALL_PIPELINES).scalar_subquery()
    anew = func.greatest(last.c.promoted, resumed.c.at, all_resumed)  # the latest of those that there are
    failed = of.result.is_not(None) & of.result.not_in(JUDGED)
    ended = of.result.is_not(None) & (of.kind == "alert")
    return (
        select(
            of.pipeline,
            *(func.count().filter(of.result == result).label(result) for result in RESULTS),
            func.max(of.finished_at).filter(good).label("good_ended"),
            func.max(last.c.good).label("good_accepted"),
            func.count().filter(failed, _after(of.decided_at, last.c.good)).label("failures_in_a_row"),
            func.count().filter(ended, _after(of.decided_at, anew)).label("in_vain"),
            func.min(of.delivered_at)
            .filter(and_(of.result.is_(None), of.delivery == "delivered"))
            .label("active_since"),
            func.array_agg(of.decided_at).filter(false() if since is None else of.decided_at > since).label("accepted"),
        )
        .join(last, last.c.pipeline == of.pipeline)
        .outerjoin(resumed, resumed.c.pipeline == of.pipeline)
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
