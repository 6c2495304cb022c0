"""Asks the parts for what a report shows: a dozen range queries, one page or more of the ledger, the versions."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from perennial_cli.clients.controller import Decision
from perennial_cli.clients.prometheus import Series, Span
from perennial_cli.insight import queries
from perennial_cli.insight.asking import Asking
from perennial_cli.insight.gather import LEDGER, PROMETHEUS, REGISTRY
from perennial_cli.insight.parts import Parts, rows_since, version_of
from perennial_cli.insight.story import Now
from perennial_cli.report.model import LOOK_BACK, Report, fired, step_of
from perennial_registry.registry import ModelVersion
from perennial_spec import names
from perennial_spec.errors import PlatformError
from perennial_spec.pipeline import PipelineSpec

MOST_VERSIONS = 8


def gather(parts: Parts, spec: PipelineSpec, since: timedelta, now: datetime) -> Report:
    """The report of a pipeline from `since` before `now`.

    Raises:
        PlatformError: no part at all answers.
    """
    asking = Asking()
    span = Span(now - since, now, step_of(since))
    name, metric = spec.name, spec.monitoring.quality.metric if spec.monitoring.quality else spec.evaluation.metric
    decisions = asking.of(LEDGER, partial(rows_since, parts.controller, name, span.start)) or []
    versions = asking.of(REGISTRY, partial(parts.registry.versions, name)) or []

    def series(expression: str) -> tuple[Series, ...]:
        return tuple(asking.of(PROMETHEUS, partial(parts.prometheus.range, expression, span)) or ())

    step = f"{max(span.step, LOOK_BACK).total_seconds():.0f}s"
    alerts = series(_alerts(name, step))
    report = Report(
        pipeline=name,
        team=spec.owner.team,
        metric=metric,
        span=span,
        now=_now(parts, asking, name, versions),
        threshold=spec.monitoring.drift.psi,
        ignored=frozenset(spec.monitoring.drift.ignore),
        drift=series(_drift(name, spec.monitoring.drift.window, step)),
        quality=series(_quality(names.QUALITY, name, metric)),
        quality_low=series(_quality(queries.QUALITY_LOW, name, metric)),
        quality_high=series(_quality(queries.QUALITY_HIGH, name, metric)),
        quality_limit=_limit(spec),
        routes=series(
            f"max by (version) (avg_over_time({names.ROUTE_WEIGHT}{queries.matching(pipeline=name)}[{step}])) > 0"
        ),
        requests=series(_requests(name, step)),
        versions=tuple(version_of(version) for version in _shown(versions, decisions)),
        decisions=tuple(decisions),
        alerts=fired(alerts, decisions, span),
        away=asking.away,
    )
    if len(asking.away) == 3:
        raise PlatformError(
            "no part of the platform answers",
            where=", ".join(sorted(asking.away)),
            next="perennial status; perennial up",
        )
    return report


def _drift(name: str, window: str, step: str) -> str:
    """The largest PSI of each step, so that no short drift falls between two points, of whoever was champion then."""
    psi = f"max_over_time({queries.PSI}:{window}{queries.matching(pipeline=name)}[{step}])"
    champion = f"max_over_time({names.CHAMPION}{queries.matching(pipeline=name)}[{step}])"
    return f"max by (feature) ({psi} and on (pipeline, version) {champion} > 0)"


def _quality(metric: str, name: str, of: str) -> str:
    return f"max by (version) ({metric}{queries.matching(pipeline=name, metric=of)})"


def _requests(name: str, step: str) -> str:
    """By kind, from the first digit of the code."""
    mine = queries.matching(pipeline=name)[:-1]
    kinds = {"answered": "[23]..", "refused": "4..", "failed": "5.."}
    parts = (
        f'label_replace(sum(rate({names.REQUESTS}{mine}, code=~"{codes}"}}[{step}])), "kind", "{kind}", "", "")'
        for kind, codes in kinds.items()
    )
    return " or ".join(parts)


def _alerts(name: str, step: str) -> str:
    return f"max by (alertname, severity) (max_over_time({queries.alerts_firing(name)}[{step}]))"


def _limit(spec: PipelineSpec) -> float | None:
    quality = spec.monitoring.quality
    return (quality.min if quality.min is not None else quality.max) if quality else None


def _now(parts: Parts, asking: Asking, name: str, versions: list[ModelVersion]) -> Now:
    route = asking.of(REGISTRY, partial(parts.registry.route, name))
    firing = asking.of(PROMETHEUS, partial(parts.prometheus.query, queries.firing(name))) or []
    champion = next((version.version for version in versions if names.ALIAS_CHAMPION in version.aliases), None)
    alerts = tuple(sorted(sample.labels["alertname"] for sample in firing))
    return Now(champion, dict(route.weights) if route else {}, alerts)


def _shown(versions: list[ModelVersion], decisions: list[Decision]) -> list[ModelVersion]:
    """Versions with an alias, and the newest that runs of this time have trained, the oldest first."""
    runs = {decision.run_id for decision in decisions if decision.run_id}
    wanted = [v for v in versions if v.aliases or v.tags.get(names.TAG_RUN_KEY) in runs]
    named = [v for v in wanted if v.aliases]
    others = [v for v in wanted if not v.aliases][-max(0, MOST_VERSIONS - len(named)) :]
    return sorted({v.version: v for v in (*named, *others)}.values(), key=lambda version: version.number)
