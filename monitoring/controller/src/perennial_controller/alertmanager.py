"""Alertmanager's webhook, version 4: what it sends, and the events that follow from it."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from perennial_controller.events import MAX_NAME, NewEvent


class _Received(BaseModel):
    """Foreign JSON: what is not known is none of our business."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Alert(_Received):
    """One alert of a notification."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    startsAt: AwareDatetime
    generatorURL: str = ""
    fingerprint: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Notification(_Received):
    """The body of one webhook call."""

    version: Literal["4"]
    alerts: tuple[Alert, ...] = Field(min_length=1)


def event_of(alert: Alert) -> NewEvent:
    """The event that an alert is. Every copy of one firing has the same dedupe key, from whichever Alertmanager it comes."""
    pipeline = alert.labels.get("pipeline", "")[:MAX_NAME]
    name = alert.labels.get("alertname", "")[:MAX_NAME]
    started = alert.startsAt.astimezone(UTC).isoformat()
    return NewEvent(
        kind="alert",
        pipeline=pipeline,
        dedupe_key=f"alert:{pipeline}:{alert.fingerprint}:{started}",
        summary=alert.annotations.get("summary")
        or f"{name}: " + ", ".join(f"{k}={v}" for k, v in sorted(alert.labels.items())),
        payload=alert.model_dump(mode="json"),
        alert=name,
        action=alert.labels.get("action", "")[:MAX_NAME] or None,
        resolved=alert.status == "resolved",
    )
