"""Whether an event starts a run, and why: pure functions of the event, the pipeline's history, its spec, the facts and the clock.

alert     that asks for a rollback (label `action`): takes the traffic back to the version before, while the champion is watched; if it
          may not, it is taken as one that asks for a retraining, where it is of a kind that may.
          Any other starts a training run when its trigger is in `retraining.on`, nobody has paused retraining, the breaker is closed,
          no run is active, the cooldown is over, the budget is not spent, and there is validated data that no model was trained on.
          One that is held back is asked again while it fires; one whose run did not succeed asks again as a new event, which waits
          for data that this run could not have had.
person    starts a training run unless one is active.
data      starts a run of the data DAG unless one is already waiting to start.
note      something that a person does or orders (a pause, its end, a rollback, a promotion): it starts nothing, and stays on record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from perennial_controller.cases import (
    ACTION_RETRAIN,
    ACTION_ROLLBACK,
    NOTES,
    ORDERS,
    Decision,
    DecisionKind,
    Event,
    EventKind,
    Facts,
    History,
    Run,
)
from perennial_controller.watching import why_not
from perennial_spec import names
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.retraining import Budget
from perennial_spec.units import format_duration

TRIGGER_OF: dict[str, str] = {
    names.ALERT_FEATURE_DRIFT: "drift",
    names.ALERT_PREDICTION_DRIFT: "drift",
    names.ALERT_QUALITY: "quality",
    names.ALERT_DATA_STALE: "freshness",
}
"""What in `retraining.on` each alert belongs to."""


@dataclass(frozen=True)
class _Case:
    event: Event
    history: History
    spec: PipelineSpec
    now: datetime
    facts: Facts
    expiry: timedelta

    def active(self, dag_id: str) -> Run | None:
        return next((run for run in self.history.runs if run.active and run.dag_id == dag_id), None)

    @property
    def trainings(self) -> tuple[Run, ...]:
        return tuple(run for run in self.history.runs if run.dag_id == names.dag_id(self.event.pipeline))


def trigger_of(event: Event) -> str | None:
    """`drift`, `quality` or `freshness` for an alert that asks for a retraining, else None."""
    if event.kind != "alert" or event.action not in {ACTION_RETRAIN, ACTION_ROLLBACK}:
        return None
    return TRIGGER_OF.get(event.alert or "")


def needs_facts(event: Event) -> bool:
    """Whether the store and the registry must be asked before this event can be decided."""
    return not event.resolved and (event.action == ACTION_ROLLBACK or trigger_of(event) in ("drift", "quality"))


def decide(  # noqa: PLR0917 (one case of the policy, in the order in which a person would tell it)
    event: Event,
    history: History,
    spec: PipelineSpec | None,
    now: datetime,
    facts: Facts,
    expiry: timedelta = timedelta(hours=24),
) -> Decision:
    """The decision on one event.

    Args:
        event: what has come in.
        history: runs accepted before, newest first.
        spec: the pipeline's spec; None when there is no such pipeline.
        now: aware.
        facts: of no interest unless `needs_facts(event)`.
        expiry: an alert of which no copy came for so long has ended.
    """
    if event.kind in NOTES:
        return Decision(DecisionKind.NOTED, "in force from now on" if event.kind in ORDERS else "a person does it")
    if event.kind == "alert" and event.action not in {ACTION_RETRAIN, ACTION_ROLLBACK}:
        return Decision(
            DecisionKind.IGNORED,
            f"action is {event.action or 'not set'!r}; only {ACTION_RETRAIN!r} starts a run, {ACTION_ROLLBACK!r} takes traffic back",
        )
    if spec is None:
        return Decision(DecisionKind.NOT_ALLOWED, f"there is no pipeline named {event.pipeline!r}")
    case = _Case(event, history, spec, now, facts, expiry)
    for rule in _ROLLBACK if event.action == ACTION_ROLLBACK else _RULES[event.kind]:
        if decision := rule(case):
            return decision
    return Decision(DecisionKind.ACCEPTED, _accepted(case), seen_data_version=facts.validated_version)


def _ended(case: _Case) -> Decision | None:
    if case.event.resolved:
        return Decision(DecisionKind.RESOLVED, "the alert ended before it started a run")
    seen = case.event.last_seen
    if seen is not None and seen + case.expiry < case.now:
        return Decision(
            DecisionKind.RESOLVED,
            f"no copy of the alert came since {_when(seen)}; after {format_duration(case.expiry)} it is taken as ended",
        )
    return None


def _regression(case: _Case) -> Decision | None:
    facts, refusal = case.facts, why_not(case.event, case.facts, case.spec.deployment.watch, case.now)
    if refusal is None:
        return Decision(
            DecisionKind.ROLLING_BACK,
            f"version {facts.champion_version} was promoted {_when(facts.champion_promoted_at)}, is watched for "
            f"{format_duration(case.spec.deployment.watch)} (deployment.watch), and is worse: back to version {facts.previous_version}",
            to_version=facts.previous_version,
        )
    if trigger_of(case.event) is None:
        return Decision(DecisionKind.NOT_ALLOWED, f"the traffic is not taken back: {refusal}")
    return None


def _trigger(case: _Case) -> Decision | None:
    trigger = trigger_of(case.event)
    if trigger is None:
        known = ", ".join(TRIGGER_OF)
        return Decision(
            DecisionKind.NOT_ALLOWED, f"{case.event.alert!r} is not an alert that retrains; those are {known}"
        )
    if trigger not in case.spec.retraining.on:
        on = ", ".join(case.spec.retraining.on) or "empty"
        return Decision(DecisionKind.NOT_ALLOWED, f"{trigger} does not start a retraining here: retraining.on is {on}")
    return None


def _paused(case: _Case) -> Decision | None:
    pause = next((pause for pause in case.history.pauses if pause.lasts(case.now)), None)
    if pause is None:
        return None
    what = "all pipelines" if pause.of_all else "this pipeline"
    until = f"until {_when(pause.until)}" if pause.until else "until somebody resumes"
    return Decision(
        DecisionKind.PAUSED, f"{pause.actor} has paused {what} on {_when(pause.since)}, {until}: {pause.reason}"
    )


def _breaker(case: _Case) -> Decision | None:
    limit = case.spec.monitoring.runs.without_promotion
    if case.history.in_vain < limit:
        return None
    return Decision(
        DecisionKind.BREAKER_OPEN,
        f"{limit} retrainings by alerts or more have led to no new champion (monitoring.runs.without_promotion): "
        f"no alert starts another until somebody has looked, and says: perennial resume {case.event.pipeline}",
    )


def _active(case: _Case) -> Decision | None:
    run = case.active(names.dag_id(case.event.pipeline))
    if run is None:
        return None
    reason = f"run {run.run_id}, accepted {_when(run.accepted_at)}, has not finished"
    return Decision(DecisionKind.MERGED, reason, run.run_id)


def _data_waiting(case: _Case) -> Decision | None:
    # A data run that has begun may have looked before this data came: only one that is yet to start answers for it.
    runs = (run for run in case.history.runs if run.dag_id == names.data_dag_id(case.event.pipeline))
    run = next((run for run in runs if run.active and not run.delivered), None)
    if run is None:
        return None
    return Decision(DecisionKind.MERGED, f"run {run.run_id} has not started yet and will find this data", run.run_id)


def _cooldown(case: _Case) -> Decision | None:
    cooldown = case.spec.retraining.cooldown
    last = max((run.accepted_at for run in case.trainings), default=None)
    if last is None or last + cooldown <= case.now:
        return None
    return Decision(
        DecisionKind.COOLING_DOWN,
        f"the last run was accepted {_when(last)}; retraining.cooldown is {format_duration(cooldown)}, "
        f"so no alert starts one before {_when(last + cooldown)}",
    )


def spent(budget: Budget, accepted: Iterable[datetime], now: datetime) -> list[datetime]:
    """When the runs that count against the budget were accepted, oldest first."""
    return sorted(moment for moment in accepted if moment > now - budget.per)


def _budget(case: _Case) -> Decision | None:
    budget = case.spec.retraining.budget
    recent = spent(budget, (run.accepted_at for run in case.trainings), case.now)
    if len(recent) < budget.runs:
        return None
    free = recent[-budget.runs] + budget.per
    return Decision(
        DecisionKind.OVER_BUDGET,
        f"{len(recent)} runs since {_when(recent[0])}; retraining.budget is {budget.runs} per "
        f"{format_duration(budget.per)}, so no alert starts one before {_when(free)}",
    )


def _new_data(case: _Case) -> Decision | None:
    if not needs_facts(case.event):  # stale data: the run's own ingest looks for new data
        return None
    newest = case.facts.validated_version
    if newest is None:
        return Decision(DecisionKind.WAITING_FOR_DATA, "no version of the data has passed validation yet")
    champion, tried = case.facts.champion_data_version, case.history.tried_data_version
    if champion is not None and newest <= champion:
        return Decision(
            DecisionKind.WAITING_FOR_DATA,
            f"data version {newest} is the newest that passed validation, and the champion "
            f"(version {case.facts.champion_version}) was trained on {champion}",
        )
    if tried is not None and newest <= tried:
        return Decision(
            DecisionKind.WAITING_FOR_DATA,
            f"data version {newest} is the newest that passed validation, and a model was already trained on {tried}",
        )
    seen = case.event.seen_data_version
    if seen is not None and newest <= seen:
        return Decision(
            DecisionKind.WAITING_FOR_DATA,
            f"data version {newest} is the newest that passed validation, and the run that this alert had on {seen} did not succeed",
        )
    return None


def _accepted(case: _Case) -> str:
    if case.event.kind == "person":
        return "a person asked, and no run is active"
    if case.event.kind == "data":
        return "new data was announced"
    trigger = trigger_of(case.event)
    if not needs_facts(case.event):
        return f"{trigger}: no run is active, and cooldown and budget allow one"
    trained = case.facts.champion_data_version
    than = (
        f"newer than {trained}, which the champion was trained on"
        if trained is not None
        else "and there is no champion yet"
    )
    return f"{trigger}: data version {case.facts.validated_version} passed validation, {than}; cooldown and budget allow a run"


def _when(at: datetime | None) -> str:
    assert at is not None
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


_Rule = Callable[[_Case], Decision | None]
_RULES: dict[EventKind, tuple[_Rule, ...]] = {
    "alert": (_ended, _trigger, _paused, _active, _breaker, _cooldown, _budget, _new_data),
    "person": (_active,),
    "data": (_data_waiting,),
    "schedule": (),
}
_ROLLBACK: tuple[_Rule, ...] = (_ended, _paused, _regression, *_RULES["alert"][1:])
"""Of an alert that asks for a rollback."""
