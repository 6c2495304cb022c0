"""Whether an event starts a run, and why: pure functions of the event, the pipeline's history, its spec, the facts and the clock.

alert     that asks for a rollback (label `action`): takes the traffic back to the version before, while the champion is watched; if it
          may not, it is taken as one that asks for a retraining, where it is of a kind that may.
          Any other starts a training run when its trigger is in `retraining.on`, nobody has paused retraining, no quiet hours last, the
          breaker is closed, no run is active, the cooldown is over, the budget is not spent, and there is validated data that no model
          was trained on, with enough new labels. One that is held back is asked again while it fires; one whose run did not succeed
          asks again as a new event, which waits for data that this run could not have had. A newer alert of the same labels supersedes
          it. Of several that could start a run, quality goes before freshness, and freshness before drift.
schedule  a tick of `retraining.schedule`: starts a training run unless one is active. A pause and quiet hours hold it, and only the
          newest tick that they have held.
person    starts a training run unless one is active.
data      starts a run of the data DAG unless one is already waiting to start.
note      something that a person does or orders (a pause, its end, a rollback, a promotion), or that MLflow tells of the registry: it
          starts nothing, and stays on record.

Rules by area: `holds` (people, the night, runs that are active), `limits` (cooldown, budget), `data` (what there is to learn from).
"""

from __future__ import annotations

from collections.abc import Callable
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
)
from perennial_controller.policy.case import TRIGGER_OF, Case, needs_facts, priority_of, trigger_of, when
from perennial_controller.policy.data import new_data, new_labels
from perennial_controller.policy.holds import active, breaker, data_waiting, ended, paused, quiet, superseded
from perennial_controller.policy.limits import budget, compute_spent, cooldown, spent
from perennial_controller.watching import why_not
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.units import format_duration

__all__ = ["TRIGGER_OF", "compute_spent", "decide", "needs_facts", "priority_of", "spent", "trigger_of"]


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
        return Decision(DecisionKind.NOTED, _noted(event))
    if event.kind == "alert" and event.action not in {ACTION_RETRAIN, ACTION_ROLLBACK}:
        return Decision(
            DecisionKind.IGNORED,
            f"action is {event.action or 'not set'!r}; only {ACTION_RETRAIN!r} starts a run, {ACTION_ROLLBACK!r} takes traffic back",
        )
    if spec is None:
        return Decision(DecisionKind.NOT_ALLOWED, f"there is no pipeline named {event.pipeline!r}")
    case = Case(event, history, spec, now, facts, expiry)
    for rule in _ROLLBACK if event.action == ACTION_ROLLBACK else _RULES[event.kind]:
        if decision := rule(case):
            return decision
    return Decision(DecisionKind.ACCEPTED, _accepted(case), seen_data_version=facts.validated_version)


def _noted(event: Event) -> str:
    if event.kind in ORDERS:
        return "in force from now on"
    return "told by MLflow" if event.kind == "registry" else "a person does it"


def _regression(case: Case) -> Decision | None:
    facts, refusal = case.facts, why_not(case.event, case.facts, case.spec.deployment.watch, case.now)
    if refusal is None:
        return Decision(
            DecisionKind.ROLLING_BACK,
            f"version {facts.champion_version} was promoted {when(facts.champion_promoted_at)}, is watched for "
            f"{format_duration(case.spec.deployment.watch)} (deployment.watch), and is worse: back to version {facts.previous_version}",
            to_version=facts.previous_version,
        )
    if trigger_of(case.event) is None:
        return Decision(DecisionKind.NOT_ALLOWED, f"the traffic is not taken back: {refusal}")
    return None


def _trigger(case: Case) -> Decision | None:
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


def _scheduled(case: Case) -> Decision | None:
    if case.spec.retraining.schedule is None:  # it was, when the tick was written
        return Decision(DecisionKind.NOT_ALLOWED, "the spec has no retraining.schedule any more")
    return None


def _accepted(case: Case) -> str:
    if case.event.kind == "person":
        return "a person asked, and no run is active"
    if case.event.kind == "data":
        return "new data was announced"
    if case.event.kind == "schedule":
        return "it is due by retraining.schedule, and no run is active"
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


_Rule = Callable[[Case], Decision | None]
_RULES: dict[EventKind, tuple[_Rule, ...]] = {
    "alert": (ended, superseded, _trigger, paused, quiet, active, breaker, cooldown, budget, new_data, new_labels),
    "schedule": (_scheduled, superseded, paused, quiet, active),
    "person": (active,),
    "data": (data_waiting,),
}
_ROLLBACK: tuple[_Rule, ...] = (ended, superseded, paused, _regression, *_RULES["alert"][2:])
"""Of an alert that asks for a rollback."""
