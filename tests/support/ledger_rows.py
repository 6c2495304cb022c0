"""Rows of the ledger as the controller's API tells them, for tests of who reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from perennial_cli.clients.controller import Decision

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RUNBOOK = "https://example.com/PerennialFeatureDrift.md"


def row(id: int, minutes: float = 0, **changes: Any) -> dict[str, Any]:
    """An alert of drift that came `minutes` after noon, was accepted, and whose run succeeded 10 minutes later."""
    at = NOON + timedelta(minutes=minutes)
    labels = {"alertname": "PerennialFeatureDrift", "pipeline": "flights", "version": "1", "severity": "warning"}
    notes = {
        "summary": "flights: temp PSI 0.31 > 0.20",
        "description": "Inputs of flights have moved.",
        "runbook_url": RUNBOOK,
    }
    return {
        "id": id,
        "kind": "alert",
        "pipeline": "flights",
        "decision": "accepted",
        "reason": "drift: data version 2 passed validation",
        "dag_id": "flights",
        "run_id": f"alert__{id}",
        "delivery": "delivered",
        "duplicates": 0,
        "received_at": at.isoformat(),
        "alert": "PerennialFeatureDrift",
        "actor": None,
        "summary": "flights: temp PSI 0.31 > 0.20",
        "payload": {"labels": labels, "annotations": notes, "startsAt": at.isoformat()},
        "action": "retrain",
        "trail": [],
        "outcome": "success",
        "finished_at": (at + timedelta(minutes=10)).isoformat(),
        "resolved_at": (at + timedelta(minutes=12)).isoformat(),
        "model_version": "2",
        "data_version": 2,
        "successor_id": None,
        **changes,
    }


def quiet(id: int, minutes: float = 0, **changes: Any) -> dict[str, Any]:
    """An alert that starts nothing."""
    nothing = {"run_id": None, "dag_id": None, "delivery": None, "outcome": None, "finished_at": None}
    ignored = {"decision": "ignored", "alert": "PerennialNoPredictions", "action": "none", "model_version": None}
    return row(id, minutes, **{**nothing, **ignored, **changes})


def decision(id: int, minutes: float = 0, **changes: Any) -> Decision:
    return Decision.of(row(id, minutes, **changes))


def bystander(id: int, minutes: float = 0, **changes: Any) -> Decision:
    return Decision.of(quiet(id, minutes, **changes))
