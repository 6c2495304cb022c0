"""What is known of an alert or a retraining, as frozen data: what happened, what was decided, what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from perennial_cli.clients.controller import Decision


@dataclass(frozen=True)
class Bin:
    """One bin of a feature: shares from 0 to 1."""

    name: str
    """As the metric's label names it."""
    reference: float
    """In the data that the model was trained on."""
    live: float


@dataclass(frozen=True)
class Moved:
    """A feature that lies otherwise than in the reference."""

    feature: str
    psi: float
    """When the alert fired."""
    peak: float | None
    """The largest since then, until it ended."""
    rows: float | None
    """Live rows in the window, when the alert fired."""
    bins: tuple[Bin, ...] = ()


@dataclass(frozen=True)
class Drift:
    """What had moved when an alert of drift fired, the worst first."""

    version: str
    threshold: float
    window: str
    features: tuple[Moved, ...]


@dataclass(frozen=True)
class Quality:
    """Live quality when an alert of quality fired."""

    version: str
    metric: str
    value: float
    low: float | None
    """Ends of its interval, where one is measured."""
    high: float | None
    least: float | None
    """monitoring.quality.min."""
    most: float | None
    """monitoring.quality.max."""
    labels: float | None


@dataclass(frozen=True)
class Freshness:
    """How old the newest data was when an alert of stale data fired, in seconds."""

    age: float
    limit: float


@dataclass(frozen=True)
class Figures:
    """What Prometheus said of the time at which the alert fired. All None: it does not have that time, or the alert has no figures."""

    at: datetime
    drift: Drift | None = None
    quality: Quality | None = None
    freshness: Freshness | None = None
    gone: bool = False
    """Prometheus has nothing of that time."""


@dataclass(frozen=True)
class Step:
    """A task of the run."""

    task: str
    state: str
    """As Airflow names it: success, failed, running, ..."""
    seconds: float | None
    summary: str
    """What the step said of itself; empty when it said nothing."""


@dataclass(frozen=True)
class Gate:
    """A gate of the evaluation, with its figure."""

    name: str
    value: float | None
    bound: str
    passed: bool


@dataclass(frozen=True)
class Version:
    """A model version, from the registry's tags."""

    number: str
    verdict: str
    """registered, passed, rejected, promoted or rolled_back."""
    verdict_reason: str
    gates: tuple[Gate, ...]
    data_version: str
    trained_at: datetime | None
    promoted_at: datetime | None
    why: str
    """The reason that the run was started for."""
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What came of a run; `state` is that of Airflow, or the ledger's outcome once that is known."""

    dag_id: str
    id: str
    url: str
    state: str
    """not_delivered, queued, running, success, failed, refused, lost or unknown."""
    started: datetime | None = None
    ended: datetime | None = None
    steps: tuple[Step, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.state in {"success", "failed", "refused", "lost"}


@dataclass(frozen=True)
class Now:
    """How things stand at this moment."""

    champion: str | None
    weights: Mapping[str, float] = field(default_factory=dict)
    """The route: share of the traffic by version."""
    firing: tuple[str, ...] = ()
    """Names of the alerts that fire."""
    paused: str = ""
    """Who has paused retraining until when, in words; empty when nobody has."""


@dataclass(frozen=True)
class Story:
    """Everything that `perennial why` tells."""

    pipeline: str
    at: datetime
    event: Decision | None
    """The row of the ledger that this is about; None when there is none."""
    figures: Figures | None = None
    run: Run | None = None
    version: Version | None = None
    """What the run has trained; the newest of all when the ledger is away."""
    around: tuple[Decision, ...] = ()
    """Other rows of the same time and later, the newest first."""
    before: Decision | None = None
    """The row whose run did not succeed, and that this one asks again for."""
    since: datetime | None = None
    """Without an event: nothing has happened since then, as far as is known."""
    now: Now | None = None
    away: Mapping[str, str] = field(default_factory=dict)
    """Parts that did not answer, with what they said."""

    def to_json(self) -> dict[str, Any]:
        """For programs: times in ISO 8601, UTC."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
