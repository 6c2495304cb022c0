"""Which row of the ledger a person who is woken wants to read first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from perennial_cli.clients.controller import Decision

KINDS = frozenset({"alert", "person", "schedule"})
"""What an account can be about. News of data and a person's notes stand around it."""
BEFORE = timedelta(minutes=5)
"""An alert that came so long before another belongs to the same trouble: features move together."""
_NO_RUN_OF_ITS_OWN = frozenset({"ignored", "not_allowed"})


def choose(decisions: Sequence[Decision], now: datetime) -> Decision | None:
    """The newest alert or retraining; an alert that starts nothing only when no retraining was under way at that time.

    A drift that retrains moves the predictions too, and the alert of that comes a moment later: the retraining is what is asked about.

    Args:
        decisions: rows of one pipeline, the newest first.
        now: aware.
    """
    told = [decision for decision in decisions if decision.kind in KINDS]
    ours = next((decision for decision in told if decision.decision not in _NO_RUN_OF_ITS_OWN), None)
    bystander = next((decision for decision in told if decision.decision in _NO_RUN_OF_ITS_OWN), None)
    if ours is None or bystander is None:
        return ours or bystander
    return ours if bystander.received <= end_of(ours, now) else bystander


def end_of(decision: Decision, now: datetime) -> datetime:
    """When an event was over: its run ended and its alert resolved; `now` while one of them is not."""
    ends = [decision.received]
    if decision.started_run or decision.rolls_back:
        ends.append(time_of(decision.finished_at) or now)
    if decision.kind == "alert":
        # A row whose run failed and that another follows is over with its run.
        ends.append(time_of(decision.resolved_at) or (ends[-1] if decision.successor_id else now))
    return max(ends)


def around(decisions: Sequence[Decision], event: Decision, most: int = 6) -> tuple[Decision, ...]:
    """Other rows from shortly before `event` on, the newest first."""
    since = event.received - BEFORE
    found = [decision for decision in decisions if decision.id != event.id and decision.received >= since]
    return tuple(found[:most])


def fired_at(decision: Decision) -> datetime:
    """When the alert began to fire, as Alertmanager says; when it came in, for what is no alert."""
    return time_of(decision.payload.get("startsAt")) or decision.received


def time_of(text: object) -> datetime | None:
    """ISO 8601 as an aware datetime in UTC; None for what is not a time."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
