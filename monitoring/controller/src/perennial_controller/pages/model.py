"""What is shown, as frozen data. Times are ISO 8601, in UTC."""

from __future__ import annotations

from dataclasses import dataclass

from perennial_controller.steps import Step


@dataclass(frozen=True)
class Link:
    """Somewhere to look further."""

    text: str
    url: str


@dataclass(frozen=True)
class Version:
    """A version of the model, and its share of the traffic."""

    version: str
    share: float
    is_champion: bool = False


@dataclass(frozen=True)
class Glance:
    """One pipeline at a glance."""

    pipeline: str
    team: str
    state: str
    """In a word: broken, paused, rolling out, training, waiting, watching, serving or new."""
    says: str
    """In a sentence."""
    champion: str | None = None
    champion_since: str | None = None
    traffic: tuple[Version, ...] = ()
    """Versions with a share, the largest first."""
    shadow: tuple[str, ...] = ()
    firing: tuple[str, ...] = ()
    """Names of its alerts that fire."""
    run: str | None = None
    """Id of the run that has not ended."""
    run_since: str | None = None
    last_run: str | None = None
    """What the last run that ended came to."""
    last_run_at: str | None = None
    budget_left: int | None = None
    breaker_open: bool = False
    paused_by: str | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Overview:
    """All pipelines."""

    pipelines: tuple[Glance, ...]
    at: str
    away: tuple[str, ...] = ()
    """Parts that did not answer, and what is missing for it."""


@dataclass(frozen=True)
class Taken:
    """A decision, when it was taken."""

    at: str
    decision: str
    reason: str


@dataclass(frozen=True)
class RunStory:
    """A run, and what came of it."""

    run_id: str
    state: str
    """waiting (Airflow does not have it yet), running, success, failed, refused or lost."""
    started_at: str | None = None
    ended_at: str | None = None
    steps: tuple[Step, ...] = ()
    model_version: str | None = None
    verdict: str | None = None
    """What became of that model: promoted, rejected, rolled_back, or how far it came."""
    error: str | None = None
    """Why it is not with Airflow yet, or never will be."""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Moment:
    """One event of a pipeline, and all that followed from it."""

    id: int
    at: str
    kind: str
    """alert, schedule, data, person, pause, resume, rollback, promotion or registry."""
    heading: str
    summary: str
    decision: str
    reason: str
    actor: str | None = None
    copies: int = 0
    """Of an alert, that came after the first."""
    ended_at: str | None = None
    """When the alert was resolved."""
    trail: tuple[Taken, ...] = ()
    run: RunStory | None = None
    answered_by: str | None = None
    """Id of another event's run, which answers this one too."""
    asks_again: int | None = None
    """The event that asks again, because the run did not succeed and the alert still fires."""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """What happened to a pipeline, the newest first."""

    pipeline: str
    moments: tuple[Moment, ...] = ()
    older: int | None = None
    """Where the next page begins (`before`); None: there is nothing older."""
    at: str = ""
    away: tuple[str, ...] = ()
    """Parts that did not answer, and what is missing for it."""
