"""Asks the parts for everything that `perennial why` tells. The figures are those of the time of the alert, not of now."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial

from perennial_cli.clients.airflow import Run as AirflowRun
from perennial_cli.clients.airflow import Task
from perennial_cli.clients.controller import Decision
from perennial_cli.clients.prometheus import Prometheus
from perennial_cli.insight import queries
from perennial_cli.insight.asking import Asking
from perennial_cli.insight.bins import in_order
from perennial_cli.insight.choose import KINDS, around, choose, end_of, fired_at
from perennial_cli.insight.parts import Parts, rows_until, version_of
from perennial_cli.insight.story import Bin, Drift, Figures, Freshness, Moved, Now, Quality, Run, Step, Story
from perennial_spec import names
from perennial_spec.errors import PlatformError

MOST_FEATURES = 12
HISTOGRAMS = 3
"""Of the worst features; the others are named with their figures."""
LEDGER, PROMETHEUS, AIRFLOW, REGISTRY = "controller", "prometheus", "airflow", "mlflow"


def tell(parts: Parts, pipeline: str, decision_id: int | None, now: datetime) -> Story:
    """The story of the newest alert or retraining, or of one row of the ledger.

    Raises:
        PlatformError: there is no such row, it is another pipeline's, or no part at all answers.
    """
    asking = Asking()
    rows = asking.of(LEDGER, partial(rows_until, parts.controller, pipeline, KINDS)) or []
    event = choose(rows, now)
    if decision_id is not None:
        event = asking.of(LEDGER, partial(parts.controller.decision, decision_id))
        if LEDGER not in asking.away:
            event = _of_pipeline(event, pipeline, decision_id)
    story = Story(pipeline, now, event, around=around(rows, event) if event else tuple(rows[:6]))
    if event is not None:
        before = next((row for row in rows if row.successor_id == event.id), None)
        story = replace(story, before=before, run=_run(parts, asking, event))
        if event.kind == "alert":
            story = replace(story, figures=asking.of(PROMETHEUS, partial(_figures, parts.prometheus, event, now)))
    story = _with_versions(story, parts, asking, rows)
    if {LEDGER, PROMETHEUS, REGISTRY} <= asking.away.keys():
        raise PlatformError(
            "no part of the platform answers",
            where=", ".join(sorted(asking.away)),
            expected="a platform that is up",
            next="perennial status; perennial up",
        )
    return replace(story, away=asking.away)


def _of_pipeline(event: Decision | None, pipeline: str, id: int) -> Decision:
    if event is None:
        raise PlatformError(
            f"there is no decision {id}", where="the ledger", next=f"the newest are shown by: perennial why {pipeline}"
        )
    if event.pipeline != pipeline:
        raise PlatformError(
            f"decision {id} is about {event.pipeline!r}, not {pipeline!r}",
            where="the ledger",
            next=f"perennial why {event.pipeline} --decision {id}",
        )
    return event


# -- what had moved --


def _figures(prometheus: Prometheus, event: Decision, now: datetime) -> Figures:
    at = fired_at(event)
    pipeline = event.pipeline
    version = str((event.payload.get("labels") or {}).get("version", ""))
    threshold = _value(prometheus, queries.threshold(pipeline), at)
    figures = Figures(at, gone=threshold is None)
    if threshold is None:
        return figures
    if event.alert in {names.ALERT_FEATURE_DRIFT, names.ALERT_PREDICTION_DRIFT}:
        return replace(figures, drift=_drift(prometheus, event, version, threshold, now))
    if event.alert == names.ALERT_QUALITY:
        metric = str((event.payload.get("labels") or {}).get("metric", ""))
        return replace(figures, quality=_quality(prometheus, pipeline, version, metric, at))
    if event.alert == names.ALERT_DATA_STALE:
        last = _value(prometheus, queries.one(names.DATA_LAST_TIMESTAMP, pipeline=pipeline), at)
        limit = _value(prometheus, queries.one(names.DATA_FRESHNESS_LIMIT, pipeline=pipeline), at)
        if last is not None and limit is not None:
            return replace(figures, freshness=Freshness(at.timestamp() - last, limit))
    return figures


def _drift(prometheus: Prometheus, event: Decision, version: str, threshold: float, now: datetime) -> Drift | None:
    pipeline, at = event.pipeline, fired_at(event)
    windows = prometheus.query(queries.window(pipeline), at)
    if not windows:
        return None
    window = windows[0].labels.get("window", "")
    predictions = event.alert == names.ALERT_PREDICTION_DRIFT
    found = prometheus.query(queries.over(pipeline, version, predictions=predictions), at)
    if not found:  # a sample of the rule was missed: then the worst, whatever they are
        asked = queries.worst(pipeline, version, window, MOST_FEATURES)
        found = [
            s for s in prometheus.query(asked, at) if (s.labels["feature"] == names.PREDICTION_FEATURE) == predictions
        ]
    until = min(end_of(event, now), now)
    seconds = (until - at).total_seconds()
    peaks = {
        s.labels["feature"]: s.value for s in prometheus.query(queries.peak(pipeline, version, window, seconds), until)
    }
    rows = {s.labels["feature"]: s.value for s in prometheus.query(queries.rows(pipeline, version, window), at)}
    worst = sorted(found, key=lambda sample: -sample.value)[:MOST_FEATURES]
    moved = []
    for place, sample in enumerate(worst):
        feature = sample.labels["feature"]
        bins = _bins(prometheus, event, version, feature, window) if place < HISTOGRAMS else ()
        moved.append(Moved(feature, sample.value, peaks.get(feature), rows.get(feature), bins))
    return Drift(version, threshold, window, tuple(moved))


def _bins(prometheus: Prometheus, event: Decision, version: str, feature: str, window: str) -> tuple[Bin, ...]:
    at = fired_at(event)
    shares = [
        {sample.labels["bin"]: sample.value for sample in prometheus.query(expression, at)}
        for expression in (
            queries.by_bin(queries.REFERENCE_SHARE, event.pipeline, version, feature),
            queries.by_bin(f"{queries.LIVE_SHARE}:{window}", event.pipeline, version, feature),
        )
    ]
    reference, live = shares
    return in_order(Bin(name, share, live.get(name, 0.0)) for name, share in reference.items())


def _quality(prometheus: Prometheus, pipeline: str, version: str, metric: str, at: datetime) -> Quality | None:
    of_metric = {"pipeline": pipeline, "version": version, "metric": metric}
    value = _value(prometheus, queries.one(names.QUALITY, **of_metric), at)
    if value is None:
        return None
    limits = {"pipeline": pipeline, "metric": metric}
    return Quality(
        version,
        metric,
        value,
        low=_value(prometheus, queries.one(queries.QUALITY_LOW, **of_metric), at),
        high=_value(prometheus, queries.one(queries.QUALITY_HIGH, **of_metric), at),
        least=_value(prometheus, queries.one(names.QUALITY_MIN, **limits), at),
        most=_value(prometheus, queries.one(names.QUALITY_MAX, **limits), at),
        labels=_value(prometheus, queries.one(names.QUALITY_LABELS, pipeline=pipeline, version=version), at),
    )


def _value(prometheus: Prometheus, expression: str, at: datetime) -> float | None:
    found = prometheus.query(expression, at)
    return found[0].value if found else None


# -- what came of it --


def _run(parts: Parts, asking: Asking, event: Decision) -> Run | None:
    if not event.run_id or event.rolls_back:
        return None
    # A merged event names the run that answers it, and not the DAG: only training runs are merged into.
    dag = event.dag_id or names.dag_id(event.pipeline)
    waiting = "not_delivered" if event.delivery == "pending" else "unknown"
    known = Run(
        dag, event.run_id, f"{parts.platform.airflow_url}/dags/{dag}/runs/{event.run_id}", event.outcome or waiting
    )
    found = asking.of(AIRFLOW, partial(parts.airflow.run, dag, event.run_id))
    if found is None:
        return known
    tasks = asking.of(AIRFLOW, partial(parts.airflow.tasks, dag, event.run_id)) or []
    steps = tuple(_step(parts, asking, found, task) for task in tasks if task.state not in {"skipped", "removed"})
    return replace(known, state=found.state, started=found.start, ended=found.end, steps=steps)


def _step(parts: Parts, asking: Asking, run: AirflowRun, task: Task) -> Step:
    said = None
    if task.state in {"success", "failed", "up_for_retry"}:
        said = asking.of(AIRFLOW, partial(parts.airflow.xcom, run.dag_id, run.id, task.id, "result"))
    summary = str(said.get("summary", "")) if isinstance(said, dict) else ""
    if isinstance(said, dict) and said.get("verdict") != "pass":
        summary = str((said.get("failure") or {}).get("message") or summary)
    return Step(task.id, task.state, task.seconds, summary)


def _with_versions(story: Story, parts: Parts, asking: Asking, rows: list[Decision]) -> Story:
    versions = asking.of(REGISTRY, partial(parts.registry.versions, story.pipeline)) or []
    route = asking.of(REGISTRY, partial(parts.registry.route, story.pipeline))
    champion = next((version for version in versions if names.ALIAS_CHAMPION in version.aliases), None)
    made = None
    if story.run is not None:
        key = story.run.id
        made = next((version for version in versions if version.tags.get(names.TAG_RUN_KEY) == key), None)
    elif LEDGER in asking.away:  # the registry knows at least what was trained last, and why
        made = max(versions, key=lambda version: version.number, default=None)
    firing = asking.of(PROMETHEUS, partial(parts.prometheus.query, queries.firing(story.pipeline))) or []
    since = min((row.received for row in rows), default=None) or (champion.created_at if champion else None)
    return replace(
        story,
        version=version_of(made) if made else None,
        since=None if story.event else since,
        now=Now(
            champion.version if champion else None,
            dict(route.weights) if route else {},
            tuple(sorted(sample.labels["alertname"] for sample in firing)),
            _paused(parts, asking, story.pipeline),
        ),
    )


def _paused(parts: Parts, asking: Asking, pipeline: str) -> str:
    for pause in asking.of(LEDGER, parts.controller.pauses) or []:
        if pause.pipeline in {"*", pipeline}:
            until = f"until {pause.until[:19].replace('T', ' ')} UTC" if pause.until else "until somebody resumes"
            return f"{pause.actor} has paused retraining {until}: {pause.reason}"
    return ""
