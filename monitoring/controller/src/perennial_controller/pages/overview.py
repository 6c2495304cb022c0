"""Every pipeline at a glance. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from perennial_controller.cases import Facts, Pause
from perennial_controller.events import ALL_PIPELINES
from perennial_controller.figures import Figures, Runs, budget_left
from perennial_controller.pages.links import Links
from perennial_controller.pages.model import Glance, Version
from perennial_controller.registry import Served
from perennial_controller.standings import Running, Standing
from perennial_spec.load import Pipeline
from perennial_spec.units import format_share


@dataclass(frozen=True)
class Known:
    """What was found out about all pipelines; what a part did not tell is empty."""

    now: datetime
    standings: Mapping[str, Standing] = field(default_factory=dict)
    served: Mapping[str, Served] = field(default_factory=dict)
    champions: Mapping[str, Facts] = field(default_factory=dict)
    figures: Figures | None = None


def glance(pipeline: Pipeline, known: Known, links: Links) -> Glance:
    """One pipeline."""
    name, spec = pipeline.name, pipeline.spec
    standing = known.standings.get(name, Standing())
    served = known.served.get(name, Served({}, {}))
    facts = known.champions.get(name, Facts())
    champion = served.aliases.get("champion") or facts.champion_version
    runs = known.figures.runs.get(name, Runs()) if known.figures else None
    pause = _pause(known, name)
    breaker = runs is not None and runs.in_vain >= spec.monitoring.runs.without_promotion
    traffic = _traffic(served, champion)
    state, says = _state(standing, traffic, champion, pause, _watched(pipeline, facts, known.now))
    return Glance(
        pipeline=name,
        team=spec.owner.team,
        state=state,
        says=says,
        champion=champion,
        champion_since=_iso(facts.champion_promoted_at) if facts.champion_version == champion else None,
        traffic=traffic,
        shadow=served.shadow,
        firing=standing.firing,
        run=standing.running.run_id if standing.running else None,
        run_since=_iso(standing.running.since) if standing.running else None,
        last_run=(standing.ended.verdict or standing.ended.outcome) if standing.ended else None,
        last_run_at=_iso(standing.ended.at) if standing.ended else None,
        budget_left=budget_left(spec, runs, known.now) if runs is not None else None,
        breaker_open=breaker,
        paused_by=pause.actor if pause else None,
        links=links.pipeline(name),
    )


def broken(name: str, error: str, last: Glance | None) -> Glance:
    """A pipeline whose files cannot be read; `last`: as its last good ones say."""
    return replace(last or Glance(name, "", "", ""), state="broken", says=f"its files cannot be read: {error}")


def _traffic(served: Served, champion: str | None) -> tuple[Version, ...]:
    shares = sorted(served.weights.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Version(version, share, version == champion) for version, share in shares if share > 0)


def _state(
    standing: Standing,
    traffic: tuple[Version, ...],
    champion: str | None,
    pause: Pause | None,
    watched: datetime | None,
) -> tuple[str, str]:
    """A word and a sentence, of what matters most."""
    if pause is not None:
        until = f" until {_when(pause.until)}" if pause.until else ""
        return "paused", f"{pause.actor} has paused retraining{until}: {pause.reason}"
    if standing.running:
        return _running(standing.running, traffic, champion)
    if waiting := standing.waiting:
        return "waiting", f"decision {waiting.decision} ({waiting.kind.replace('_', ' ')}): {waiting.reason}"
    return _quiet(traffic, champion, watched)


def _running(run: Running, traffic: tuple[Version, ...], champion: str | None) -> tuple[str, str]:
    newcomers = [version for version in traffic if not version.is_champion]
    if newcomers and champion:
        newcomer = newcomers[0]
        return "rolling out", f"version {newcomer.version} has {format_share(newcomer.share)} of the traffic"
    where = "" if run.delivered else ", which Airflow does not have yet"
    return "training", f"run {run.run_id} since {_when(run.since)}{where}"


def _quiet(traffic: tuple[Version, ...], champion: str | None, watched: datetime | None) -> tuple[str, str]:
    if champion is None:
        return "new", "no version serves yet"
    if watched is not None:
        return "watching", f"version {champion} is new, and watched until {_when(watched)}"
    share = next((version.share for version in traffic if version.is_champion), None)
    return "serving", f"version {champion} is champion" + (
        f", with {format_share(share)} of the traffic" if share else ""
    )


def _watched(pipeline: Pipeline, facts: Facts, now: datetime) -> datetime | None:
    if facts.champion_promoted_at is None or facts.previous_version is None:
        return None
    until = facts.champion_promoted_at + pipeline.spec.deployment.watch
    return until if until > now else None


def _pause(known: Known, name: str) -> Pause | None:
    pauses = known.figures.pauses if known.figures else {}
    found = (pauses.get(of) for of in (name, ALL_PIPELINES))
    return next((pause for pause in found if pause and pause.lasts(known.now)), None)


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
