"""One row of the ledger, as the rest of the controller and its API see it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from perennial_controller.cases import NOTES, DecisionKind, Event, EventKind, Pause
from perennial_controller.events import ALL_PIPELINES, MAX_SUMMARY
from perennial_spec.step import Reason

Delivery = Literal["pending", "delivered", "failed"]
Outcome = Literal["success", "failed", "refused", "lost"]


@dataclass(frozen=True)
class Entry:
    """An event, the decision on it, the run that it started and what came of that. Times are aware, in UTC."""

    id: int
    received_at: datetime
    kind: EventKind
    pipeline: str
    dedupe_key: str
    summary: str
    alert: str | None
    action: str | None
    actor: str | None
    payload: dict[str, Any]
    duplicates: int
    """Copies that came after the first and started nothing."""
    last_seen_at: datetime
    resolved_at: datetime | None
    decision: DecisionKind
    reason: str
    decided_at: datetime | None
    trail: list[dict[str, str]]
    """Each decision in turn: at, decision, reason."""
    dag_id: str | None
    run_id: str | None
    """The run that this started; for a merged event the run that answers it."""
    delivery: Delivery | None
    """None when there is nothing to deliver; `failed`: Airflow will never take it."""
    attempts: int
    next_attempt_at: datetime | None
    last_error: str | None
    delivered_at: datetime | None
    outcome: Outcome | None
    """`refused`: Airflow would not take the run; `lost`: it had the run and no longer knows it."""
    finished_at: datetime | None
    model_version: str | None
    """The version in the registry that the run has registered; of a rollback the one that serves again."""
    data_version: int | None
    """The version of the data which that model was trained on."""
    verdict: str | None
    """What the registry said of that model when the run ended: promoted, rejected, rolled_back, or how far it came."""
    seen_data_version: int | None
    """Newest version of the data that had passed validation when this was accepted; of a successor that is not accepted yet:
    when the row before it was."""
    successor_id: int | None
    """The row that asks again, because this one's run did not succeed and the alert still fires."""
    steps: list[dict[str, Any]]
    """What the steps of its run came to, when it ended (`steps.Step`)."""

    @property
    def started(self) -> bool:
        """Whether this event has started a run of its own."""
        return self.decision == DecisionKind.ACCEPTED

    @property
    def subject(self) -> str | None:
        """What alerts of the same labels share, and ticks of a pipeline's schedule; None of other events."""
        if self.kind == "schedule":
            return f"schedule:{self.pipeline}"
        fingerprint = self.payload.get("fingerprint") if self.kind == "alert" else None
        return f"alert:{fingerprint}" if fingerprint else None

    def event(self) -> Event:
        """What the policy needs of it."""
        return Event(
            kind=self.kind,
            pipeline=self.pipeline,
            alert=self.alert,
            action=self.action,
            version=self.payload.get("labels", {}).get("version") if self.kind == "alert" else None,
            resolved=self.resolved_at is not None,
            last_seen=self.last_seen_at if self.kind == "alert" else None,
            seen_data_version=self.seen_data_version,
        )

    def pause(self) -> Pause:
        """What a row of kind `pause` ordered."""
        until = self.payload.get("until")
        since, of_all = self.received_at, self.pipeline == ALL_PIPELINES
        return Pause(since, datetime.fromisoformat(until) if until else None, self.actor or "", self.summary, of_all)

    def why(self) -> Reason:
        """The reason that travels with the run and stays with its model version."""
        assert self.kind not in NOTES  # they start no run
        summary = "; and ".join([self.summary, *self.payload.get("also", [])])[:MAX_SUMMARY]
        return Reason(kind=self.kind, summary=summary, decision_id=self.id, alert=self.alert, actor=self.actor)

    def to_json(self) -> dict[str, Any]:
        """As the API answers: times in ISO 8601."""
        values = {**asdict(self), "started": self.started}
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
