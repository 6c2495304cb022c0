"""What a report shows, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from perennial_cli.clients.controller import Decision
from perennial_cli.clients.prometheus import Series, Span
from perennial_cli.insight.choose import fired_at, time_of
from perennial_cli.insight.story import Now, Version

MOST_POINTS = 300
"""Per series: more than a chart has room for costs Prometheus time and shows nothing."""
LEAST_STEP = timedelta(seconds=15)
LOOK_BACK = timedelta(minutes=2)
"""A point stands for the step before it, and for no less than this: a rate needs two scrapes, which may be half a minute apart."""


@dataclass(frozen=True)
class Fired:
    """One stretch of time in which an alert fired."""

    name: str
    severity: str
    start: datetime
    end: datetime | None
    """None: it fires still."""
    decision: int | None = None
    """The ledger's row, when one was found; then the times are exact."""


@dataclass(frozen=True)
class Mark:
    """A retraining on the time axis."""

    at: datetime
    text: str


@dataclass(frozen=True)
class Report:
    """Everything on the page. Series are empty where a part was away or had nothing."""

    pipeline: str
    team: str
    metric: str
    """Whose quality is drawn."""
    span: Span
    now: Now | None
    threshold: float | None
    """Of PSI, now."""
    ignored: frozenset[str] = frozenset()
    """Features that raise no alert."""
    drift: tuple[Series, ...] = ()
    """PSI of the champion by feature: the largest within each step."""
    quality: tuple[Series, ...] = ()
    """By version."""
    quality_low: tuple[Series, ...] = ()
    quality_high: tuple[Series, ...] = ()
    quality_limit: float | None = None
    routes: tuple[Series, ...] = ()
    """Share of the traffic by version, the mean of each step."""
    requests: tuple[Series, ...] = ()
    """Per second, by `kind`: answered, refused (4xx), failed (5xx)."""
    versions: tuple[Version, ...] = ()
    """The oldest first."""
    decisions: tuple[Decision, ...] = ()
    """The newest first."""
    alerts: tuple[Fired, ...] = ()
    away: Mapping[str, str] = field(default_factory=dict)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Runs that trained, at the time at which they were decided, the oldest first."""
        found = [d for d in self.decisions if d.started_run and d.dag_id == self.pipeline]
        return tuple(Mark(d.received, f"#{d.id}") for d in reversed(found))


def step_of(length: timedelta) -> timedelta:
    """Between two points, in whole seconds, so that a series has at most `MOST_POINTS`."""
    seconds = -(-length.total_seconds() // (MOST_POINTS - 1))
    return max(LEAST_STEP, timedelta(seconds=seconds))


def stretches(series: Series, step: timedelta, last: datetime) -> list[tuple[float, float]]:
    """`(start, end)` of each unbroken run of points; a point stands for the step before it.

    The end of a stretch that reaches `last` is infinite: it goes on.
    """
    gap, found = step.total_seconds(), list[tuple[float, float]]()
    for at, _ in series.points:
        if found and at - found[-1][1] <= 1.5 * gap:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at - gap, at))
    return [(start, float("inf") if last.timestamp() - end < gap else end) for start, end in found]


def fired(series: Sequence[Series], decisions: Sequence[Decision], span: Span) -> tuple[Fired, ...]:
    """When alerts fired, the newest first; to the second where the ledger has the alert, else to the step.

    The ledger's alerts come first: Prometheus may have lost what it knew. Of Prometheus' only those that the ledger does not have.
    """
    found = [
        Fired(
            d.alert or "",
            str((d.payload.get("labels") or {}).get("severity", "")),
            max(fired_at(d), span.start),
            time_of(d.resolved_at),
            d.id,
        )
        for d in decisions
        if d.kind == "alert" and (time_of(d.resolved_at) or span.end) >= span.start
    ]
    slack = 2 * span.step
    for each in series:
        name = each.labels.get("alertname", "")
        for start, end in stretches(each, span.step, span.end):
            begin = datetime.fromtimestamp(max(start, span.start.timestamp()), span.start.tzinfo)
            until = None if end == float("inf") else datetime.fromtimestamp(end, span.start.tzinfo)
            if not any(_covers(known, name, begin, slack, span.end) for known in found):
                found.append(Fired(name, each.labels.get("severity", ""), begin, until))
    return tuple(sorted(found, key=lambda one: one.start, reverse=True))


def _covers(known: Fired, name: str, at: datetime, slack: timedelta, now: datetime) -> bool:
    return known.name == name and known.start - slack <= at <= (known.end or now) + slack
