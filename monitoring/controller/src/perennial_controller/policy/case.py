"""One case of the policy: an event, and everything that is asked about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from perennial_controller.cases import ACTION_RETRAIN, ACTION_ROLLBACK, Event, Facts, History, Run
from perennial_spec import names
from perennial_spec.pipeline import PipelineSpec

TRIGGER_OF: dict[str, str] = {
    names.ALERT_FEATURE_DRIFT: "drift",
    names.ALERT_PREDICTION_DRIFT: "drift",
    names.ALERT_QUALITY: "quality",
    names.ALERT_DATA_STALE: "freshness",
}
"""What in `retraining.on` each alert belongs to."""


PRIORITY = ("quality", "freshness", "drift")
"""Of several alerts that could start a run, the first of these starts it, and the others are merged into it: low quality is what hurts,
and drift may not."""


@dataclass(frozen=True)
class Case:
    """What a rule is asked."""

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


def priority_of(event: Event) -> int:
    """Events are decided in this order: what moves traffic back first, then people and ticks, then alerts by `PRIORITY`."""
    if event.action == ACTION_ROLLBACK:
        return 0
    trigger = trigger_of(event)
    return 1 if trigger is None else 2 + PRIORITY.index(trigger)


def when(at: datetime | None) -> str:
    """A point in time, for people."""
    assert at is not None
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
