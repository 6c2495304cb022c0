"""How often and how long runs may be started by alerts: cooldown and budget."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from perennial_controller.cases import Decision, DecisionKind, Run
from perennial_controller.policy.case import Case, when
from perennial_spec.retraining import Budget
from perennial_spec.units import format_duration


def cooldown(case: Case) -> Decision | None:
    pause = case.spec.retraining.cooldown
    # A run of much later than now is of a clock that was put right since: it must not hold alerts until then.
    last = max((at for run in case.trainings if (at := run.accepted_at) <= case.now + pause), default=None)
    if last is None or last + pause <= case.now:
        return None
    return Decision(
        DecisionKind.COOLING_DOWN,
        f"the last run was accepted {when(last)}; retraining.cooldown is {format_duration(pause)}, "
        f"so no alert starts one before {when(last + pause)}",
    )


def spent(budget: Budget, accepted: Iterable[datetime], now: datetime) -> list[datetime]:
    """When the runs that count against the budget were accepted, oldest first."""
    return sorted(moment for moment in accepted if _counts(budget, moment, now))


def _counts(budget: Budget, accepted: datetime, now: datetime) -> bool:
    """Whether a run is of the budget's time. One of much later than now is of a clock that was put right since."""
    return now - budget.per < accepted <= now + budget.per


def compute_spent(budget: Budget, runs: Iterable[Run], now: datetime) -> timedelta:
    """How long the runs that count against the budget have taken together; one that is active counts up to now."""
    recent = (run.took(now) for run in runs if _counts(budget, run.accepted_at, now))
    return sum(recent, timedelta(0))


def budget(case: Case) -> Decision | None:
    """`retraining.budget`."""
    limit = case.spec.retraining.budget
    recent = spent(limit, (run.accepted_at for run in case.trainings), case.now)
    if len(recent) >= limit.runs:
        free = recent[-limit.runs] + limit.per
        return Decision(
            DecisionKind.OVER_BUDGET,
            f"{len(recent)} runs since {when(recent[0])}; retraining.budget is {limit.runs} per "
            f"{format_duration(limit.per)}, so no alert starts one before {when(free)}",
        )
    return _compute(limit, case)


def _compute(limit: Budget, case: Case) -> Decision | None:
    if limit.compute is None:
        return None
    runs = sorted(
        (run for run in case.trainings if _counts(limit, run.accepted_at, case.now)), key=lambda r: r.accepted_at
    )
    taken = sum((run.took(case.now) for run in runs), timedelta(0))
    if taken < limit.compute:
        return None
    left, free = taken, case.now
    for run in runs:  # as the oldest leave the budget's time, what is left falls below it
        left, free = left - run.took(case.now), run.accepted_at + limit.per
        if left < limit.compute:
            break
    return Decision(
        DecisionKind.OVER_BUDGET,
        f"runs since {when(runs[0].accepted_at)} took {minutes(taken)}; retraining.budget is {format_duration(limit.compute)} of "
        f"compute per {format_duration(limit.per)}, so no alert starts one before {when(free)}",
    )


def minutes(time: timedelta) -> str:
    """`75 min`."""
    return f"{time.total_seconds() / 60:.0f} min"
