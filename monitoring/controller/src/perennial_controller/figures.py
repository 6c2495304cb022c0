"""How the loop itself is doing, as the ledger knows it: figures of each pipeline's training runs, right also after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import and_, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perennial_controller.cases import HELD, Pause, Run
from perennial_controller.events import ALL_PIPELINES
from perennial_controller.policy import compute_spent, spent
from perennial_controller.schedules import next_tick
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
    recent: tuple[Run, ...] = ()
    """Those that were accepted of late."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Decision that holds an alert back to how many it holds."""


@dataclass(frozen=True)
class Figures:
    """All pipelines', and moments by name."""

    runs: Mapping[str, Runs]
    marks: Mapping[str, datetime]
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    """As `Ledger.pauses`."""
    resumed: Mapping[str, datetime] = field(default_factory=dict)
    """When somebody resumed, where that was the last order."""

    def paused_since(self, pipeline: str, now: datetime) -> datetime | None:
        """When the pause began that is in force, the older of two; None: none is."""
        found = (self.pauses.get(name) for name in (pipeline, ALL_PIPELINES))
        return min((pause.since for pause in found if pause and pause.lasts(now)), default=None)

    def paused_until(self, pipeline: str, now: datetime) -> datetime | None:
        """When the last pause ended that is over, of the pipeline or of all; None: there was none."""
        of = (pipeline, ALL_PIPELINES)
        ran_out = (pause.until for name in of if (pause := self.pauses.get(name)) and not pause.lasts(now))
        ended = (self.resumed.get(name) for name in of)
        return max((moment for moment in (*ran_out, *ended) if moment is not None), default=None)


def budget_left(spec: PipelineSpec, runs: Runs, now: datetime) -> int:
    """How many runs alerts may still start now (`retraining.budget`); none when the time of their runs is used up."""
    budget, left = spec.retraining.budget, compute_left(spec, runs, now)
    if left is not None and left <= timedelta(0):
        return 0
    return max(budget.runs - len(spent(budget, (run.accepted_at for run in runs.recent), now)), 0)


def compute_left(spec: PipelineSpec, runs: Runs, now: datetime) -> timedelta | None:
    """What is left of `retraining.budget.compute`; None: it is not limited."""
    budget = spec.retraining.budget
    if budget.compute is None:
        return None
    return max(budget.compute - compute_spent(budget, runs.recent, now), timedelta(0))


def run_due(spec: PipelineSpec, since: datetime | None, *later: datetime | None) -> datetime | None:
    """When a good run should have ended, by `retraining.schedule`; None: nothing is due.

    Args:
        spec: the pipeline's.
        since: when its schedule was first seen.
        later: when the last good run was accepted, whoever asked for it, and when the last pause ended: what was due before is past.
    """
    moments = [moment for moment in (since, *later) if moment is not None]
    if spec.retraining.schedule is None or not moments:
        return None
    tick = next_tick(spec.retraining.schedule, max(moments))
    if tick is None:
        return None
    quiet = spec.retraining.quiet_hours
    return ((quiet.until(tick) if quiet else None) or tick) + spec.run_limit


async def read_runs(connection: AsyncConnection, since: datetime) -> dict[str, Runs]:
    """The figures of every pipeline that the ledger knows.

    Args:
        connection: to the ledger.
        since: `Runs.recent` goes back to here.
    """
    rows = {row.pipeline: row for row in await connection.execute(_summary())}
    pending = select(_t.pipeline, func.min(_t.decided_at)).where(_t.delivery == "pending").group_by(_t.pipeline)
    undelivered = {row[0]: row[1] for row in await connection.execute(pending)}
    held: dict[str, dict[str, int]] = {}
    holding = (_t.kind == "alert") & _t.decision.in_(HELD_KINDS)
    counts = select(_t.pipeline, _t.decision, func.count()).where(holding).group_by(_t.pipeline, _t.decision)
    for name, decision, count in await connection.execute(counts):
        held.setdefault(name, {})[decision] = count
    recent: dict[str, list[Run]] = {}
    for row in await connection.execute(_recent(since)):
        run = Run(row.dag_id, row.run_id, row.decided_at, row.outcome is None, True, row.delivered_at, row.finished_at)
        recent.setdefault(row.pipeline, []).append(run)
    return {
        name: _runs(rows.get(name), undelivered.get(name), held.get(name, {}), recent.get(name, ()))
        for name in {*rows, *undelivered, *held}
    }


async def read_in_vain(connection: AsyncConnection, pipeline: str) -> int:
    """`Runs.in_vain` of one pipeline, as it is now."""
    row = (await connection.execute(_summary(pipeline))).first()
    return row.in_vain if row else 0


def _recent(since: datetime) -> Any:
    """Training runs that were accepted after `since`."""
    columns = (_t.pipeline, _t.dag_id, _t.run_id, _t.decided_at, _t.outcome, _t.delivered_at, _t.finished_at)
    return select(*columns).where(_t.delivery.is_not(None), _t.dag_id == _t.pipeline, _t.decided_at > since)


def _summary(pipeline: str | None = None) -> Any:
    """One row for each pipeline, or for the one that is named."""
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
        )
        .join(last, last.c.pipeline == of.pipeline)
        .outerjoin(resumed, resumed.c.pipeline == of.pipeline)
        .group_by(of.pipeline)
    )


def _after(moment: Any, other: Any) -> Any:
    """Whether `moment` is later than `other`, also when there was no other."""
    return other.is_(None) | (moment > other)


def _runs(row: Any, undelivered_since: datetime | None, held: Mapping[str, int], recent: Iterable[Run]) -> Runs:
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
        recent=tuple(recent),
        held=held,
    )
