"""What the policy decides on, and what comes of it: events, history, facts and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, get_args

RunKind = Literal["alert", "data", "person", "schedule"]
"""What may start a run."""
OrderKind = Literal["pause", "resume"]
"""What a person orders of the controller itself."""
_Moves = Literal["rollback", "promotion", "registry"]
NoteKind = OrderKind | _Moves
"""What is only kept: those orders, that a person takes the traffic back or makes a version champion, and what MLflow tells."""
EventKind = RunKind | NoteKind
ORDERS: tuple[OrderKind, ...] = get_args(OrderKind)
NOTES: tuple[NoteKind, ...] = (*ORDERS, *get_args(_Moves))
ACTION_RETRAIN = "retrain"
ACTION_ROLLBACK = "rollback"


class DecisionKind(StrEnum):
    RECEIVED = "received"
    """Written, and not yet decided."""
    ACCEPTED = "accepted"
    ROLLING_BACK = "rolling_back"
    """The controller itself takes the traffic back to the version before."""
    MERGED = "merged"
    """A run is already active, and answers this event too."""
    PAUSED = "paused"
    """A person has paused retraining."""
    BREAKER_OPEN = "breaker_open"
    """Too many retrainings have led to nothing: a person must look first."""
    COOLING_DOWN = "cooling_down"
    OVER_BUDGET = "over_budget"
    QUIET_HOURS = "quiet_hours"
    WAITING_FOR_DATA = "waiting_for_data"
    SUPERSEDED = "superseded"
    """A newer event says the same. Should that one end first, an alert that still fires is asked again."""
    RESOLVED = "resolved"
    """The alert ended before it started a run."""
    IGNORED = "ignored"
    """Nothing to start."""
    NOT_ALLOWED = "not_allowed"
    NOTED = "noted"
    """On record, and in force; there is nothing to start."""
    DUPLICATE = "duplicate"
    """Only counted: a copy is noted on the row of the original."""


HELD = frozenset(
    {
        DecisionKind.PAUSED,
        DecisionKind.QUIET_HOURS,
        DecisionKind.BREAKER_OPEN,
        DecisionKind.MERGED,
        DecisionKind.COOLING_DOWN,
        DecisionKind.OVER_BUDGET,
        DecisionKind.WAITING_FOR_DATA,
        DecisionKind.SUPERSEDED,
    }
)
"""Decisions on an alert that are taken anew while it fires."""
HELD_TICKS = frozenset({DecisionKind.PAUSED, DecisionKind.QUIET_HOURS})
"""Decisions on a tick of the schedule that are taken anew."""
STARTED = frozenset({DecisionKind.ACCEPTED, DecisionKind.ROLLING_BACK})
"""Decisions that put something into the outbox."""


@dataclass(frozen=True)
class Event:
    """What has come in, as far as the policy needs it."""

    kind: EventKind
    pipeline: str
    alert: str | None = None
    """The alert's name."""
    action: str | None = None
    """The alert's label `action`."""
    version: str | None = None
    """The model version that the alert is about (its label `version`)."""
    resolved: bool = False
    last_seen: datetime | None = None
    """When the newest copy of the alert came; None for an event that has no copies."""
    seen_data_version: int | None = None
    """Newest validated version of the data when a run for this alert was accepted that did not succeed; None: there was none."""
    superseded_by: int | None = None
    """The ledger's row of a newer event that says the same: an alert of the same labels, a later tick of the schedule."""


@dataclass(frozen=True)
class Run:
    """A run that was accepted before."""

    dag_id: str
    run_id: str
    accepted_at: datetime
    active: bool
    """Not known to have finished, or not even started."""
    delivered: bool = True
    """Airflow has it."""
    started_at: datetime | None = None
    """When Airflow got it."""
    finished_at: datetime | None = None

    def took(self, now: datetime) -> timedelta:
        """From its start to its end, or up to now; nothing before Airflow has it."""
        if self.started_at is None:
            return timedelta(0)
        return max((self.finished_at or now) - self.started_at, timedelta(0))


@dataclass(frozen=True)
class Pause:
    """Alerts start no retraining while it lasts."""

    since: datetime
    until: datetime | None
    """None: until somebody resumes."""
    actor: str
    reason: str
    of_all: bool = False
    """Of every pipeline, rather than of one."""

    def lasts(self, now: datetime) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True)
class History:
    """The pipeline's runs, newest first: at least those within its cooldown and budget, and all that are active."""

    runs: tuple[Run, ...] = ()
    tried_data_version: int | None = None
    """Newest version of the data that one of these runs has trained a model on, whether or not that became champion."""
    pauses: tuple[Pause, ...] = ()
    """In force or over: the newest of the pipeline, and the newest of all pipelines, unless somebody has resumed since."""
    in_vain: int = 0
    """Retrainings by alerts that have ended since one led to a new champion, or since somebody resumed."""


@dataclass(frozen=True)
class Facts:
    """What the store and the registry say."""

    validated_version: int | None = None
    """Newest version of the data that passed validation."""
    champion_version: str | None = None
    champion_data_version: int | None = None
    """The version of the data that the champion was trained on."""
    champion_promoted_at: datetime | None = None
    champion_restored_at: datetime | None = None
    """When the traffic was last taken back to the champion."""
    previous_version: str | None = None
    """Where a rollback would go to."""
    labelled: Mapping[int, int] = field(default_factory=dict)
    """Rows with a label by version of the data, of the champion's and newer versions, where that is known and asked for."""


@dataclass(frozen=True)
class Decision:
    kind: DecisionKind
    reason: str
    """In words. Says points in time rather than times left, so that it changes only when the decision does."""
    run_id: str | None = None
    """The run that the event was merged into."""
    seen_data_version: int | None = None
    """Newest validated version of the data when a run is accepted, if that was asked for."""
    to_version: str | None = None
    """Of a rollback: the version that takes all of the traffic."""
