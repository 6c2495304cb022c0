"""All pipelines: who is well, and who is not."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from perennial_dashboards import expressions as of
from perennial_dashboards.expressions import CHOSEN
from perennial_dashboards.grafana import RUNBOOKS
from perennial_dashboards.panels import (
    ANY_IS_BAD,
    DRIFT,
    ERRORS,
    GREEN,
    RED,
    Cells,
    Column,
    Dashboard,
    Lines,
    Number,
    Query,
    Row,
    Table,
    Variable,
)
from perennial_spec import names

ONE_OF_THEM = "/d/perennial-pipeline?var-pipeline=${__value.text}&var-datasource=${datasource}&${__url_time_range}"
NOTHING_WRONG = "No alert fires."

NOW = Row(
    "Now",
    (
        Number(
            "Pipelines",
            "Pipelines whose specification the controller has read.",
            units.Short,
            (Query(f"count({of.most(names.DRIFT_THRESHOLD, CHOSEN, by='pipeline')})"),),
        ),
        Number(
            "With a champion",
            "Pipelines of which a version serves as champion.",
            units.Short,
            (Query(f"count({of.most(names.CHAMPION, CHOSEN, by='pipeline')} > 0)"),),
        ),
        Number(
            "Broken files",
            "Pipelines whose files cannot be read; their last good thresholds hold. `perennial check NAME` says what is wrong.",
            units.Short,
            (
                Query(
                    f"sum({of.most(names.PIPELINE_BROKEN, CHOSEN, by='pipeline')})", zero=True, quiet="All can be read."
                ),
            ),
            steps=ANY_IS_BAD,
        ),
        Number(
            "Alerts firing",
            "Alerts of all the platform, also of its parts.",
            units.Short,
            (Query(f"count({of.firing()})", zero=True, quiet=NOTHING_WRONG),),
            steps=ANY_IS_BAD,
        ),
        Number(
            "Requests",
            "Requests that clients sent, of all pipelines that are chosen.",
            units.RequestsPerSecond,
            (Query(f"sum({of.rate(names.REQUESTS, CHOSEN, of.ASKED, by='pipeline')})"),),
        ),
        Number(
            "Failed",
            "Largest share of requests that one of the pipelines answered with 5xx.",
            units.PercentUnit,
            (Query(f"max({of.failed_share(CHOSEN, by='pipeline')})"),),
            steps=ERRORS,
            decimals=2,
        ),
    ),
)

PIPELINES = Table(
    "Pipelines",
    "One row per pipeline; its name leads to its own dashboard. Drift is the worst feature that was judged, as a share of the threshold of "
    "monitoring.drift.psi: 0 where nothing is beyond chance, empty where too few rows came. Quality is measured on labels as they "
    "arrive, empty without monitoring.quality.",
    units.NoUnit,
    height=9,
    columns=(
        Column("Pipeline", label="pipeline", link=("Its own dashboard", ONE_OF_THEM)),
        Column("Champion", label="version"),
        Column(
            "Its share",
            Query(f"max by (pipeline, version) ({of.of_champion(of.series(names.ROUTE_WEIGHT, CHOSEN))})"),
            unit=units.PercentUnit,
        ),
        Column("Drift", Query(of.drift(CHOSEN)), unit=units.PercentUnit, steps=DRIFT, decimals=0),
        Column("Metric", label="metric"),
        Column(
            "Quality",
            Query(
                f"max by (pipeline, metric) ({of.of_champion(of.series(names.QUALITY, CHOSEN))}) "
                f"and on (pipeline, metric) ({names.QUALITY_MIN} or {names.QUALITY_MAX})",
            ),
            decimals=3,
        ),
        Column(
            "Limit",
            Query(
                f"max by (pipeline) ({of.series(names.QUALITY_MIN, CHOSEN)} or {of.series(names.QUALITY_MAX, CHOSEN)})"
            ),
            decimals=3,
        ),
        Column(
            "Model age",
            Query(of.model_age(CHOSEN)),
            unit=units.Seconds,
        ),
        Column(
            "Failed runs",
            Query(of.most(names.RUN_FAILURES_IN_A_ROW, CHOSEN, by="pipeline")),
            unit=units.Short,
            steps=ANY_IS_BAD,
        ),
        Column("Newest data", Query(of.data_age(CHOSEN)), unit=units.Seconds),
        Column(
            "Alerts",
            Query(f"count by (pipeline) ({of.firing(CHOSEN)})", quiet=NOTHING_WRONG),
            unit=units.Short,
            steps=ANY_IS_BAD,
        ),
        Column(
            "Requests", Query(of.rate(names.REQUESTS, CHOSEN, of.ASKED, by="pipeline")), unit=units.RequestsPerSecond
        ),
        Column(
            "Failed", Query(of.failed_share(CHOSEN, by="pipeline")), unit=units.PercentUnit, steps=ERRORS, decimals=2
        ),
        Column("p99", Query(of.latency(0.99, CHOSEN, by="pipeline")), unit=units.Seconds),
    ),
)

ALERTS = Row(
    "Alerts",
    (
        Table(
            "Firing",
            "Alerts that fire now, and since when their condition holds; the name leads to the runbook. Action says "
            "what the platform does by itself.",
            units.NoUnit,
            width=10,
            by="alertname",
            columns=(
                Column("Alert", label="alertname", link=("Runbook", f"{RUNBOOKS}/${{__value.text}}.md")),
                Column("Pipeline", label="pipeline"),
                Column("Version", label="version"),
                Column("Severity", label="severity"),
                Column("Action", label="action"),
                Column("For", Query(of.firing_for(), quiet=NOTHING_WRONG), unit=units.Seconds),
            ),
        ),
        Cells(
            "Alerts over time",
            "When each alert fired.",
            units.NoUnit,
            (
                Query(
                    of.fired(by="alertname, pipeline, instance"),
                    "{{alertname}} {{pipeline}} {{instance}}",
                    quiet=NOTHING_WRONG,
                ),
            ),
            width=14,
            states=((1, "firing", RED),),
        ),
    ),
)

TIME = Row(
    "Over time",
    (
        Lines(
            "Drift",
            "Each pipeline's worst feature that was judged, as a share of its threshold; at 100% PerennialFeatureDrift or "
            "PerennialPredictionDrift fires.",
            units.PercentUnit,
            (Query(of.drift(CHOSEN), "{{pipeline}}"),),
            steps=((None, GREEN), (1.0, RED)),
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "Room of the quality above its limit",
            "How far the champion's quality is on the good side of its limit, in units of its metric; below 0, PerennialQualityLow fires.",
            units.NoUnit,
            (
                Query(
                    f"max by (pipeline, metric) ({of.of_champion(of.series(names.QUALITY, CHOSEN))}) "
                    f"- on (pipeline, metric) {of.most(names.QUALITY_MIN, by='pipeline, metric')}",
                    "{{pipeline}} {{metric}}",
                ),
                Query(
                    f"{of.most(names.QUALITY_MAX, by='pipeline, metric')} "
                    f"- on (pipeline, metric) max by (pipeline, metric) ({of.of_champion(of.series(names.QUALITY, CHOSEN))})",
                    "{{pipeline}} {{metric}}",
                    quiet="No pipeline bounds an error from above.",
                ),
            ),
            steps=((None, RED), (0, GREEN)),
            decimals=3,
            runbook=names.ALERT_QUALITY,
        ),
        Lines(
            "Requests",
            "Requests that clients sent, by pipeline.",
            units.RequestsPerSecond,
            (Query(of.rate(names.REQUESTS, CHOSEN, of.ASKED, by="pipeline"), "{{pipeline}}"),),
            runbook=names.ALERT_NO_DATA,
        ),
        Lines(
            "Failed requests",
            "Share of the requests that were answered with 5xx, by pipeline.",
            units.PercentUnit,
            (Query(of.failed_share(CHOSEN, by="pipeline"), "{{pipeline}}"),),
            decimals=2,
            runbook=names.ALERT_ERRORS,
        ),
        Lines(
            "Failed requests and latency, as a share of their limits",
            "Errors and 99th percentile of the last 5 minutes against monitoring.service; at 100% PerennialErrorsHigh or "
            "PerennialLatencyHigh fires.",
            units.PercentUnit,
            (
                Query(
                    f"max by (pipeline) ({of.series('perennial:request_errors:ratio5m', CHOSEN)}) / "
                    f"{of.most(names.ERROR_RATE_LIMIT, by='pipeline')}",
                    "errors of {{pipeline}}",
                ),
                Query(
                    f"max by (pipeline) ({of.series('perennial:request_duration_seconds:p99_5m', CHOSEN)}) / "
                    f"{of.most(names.LATENCY_LIMIT, by='pipeline')}",
                    "p99 of {{pipeline}}",
                ),
            ),
            steps=((None, GREEN), (1.0, RED)),
            runbook=names.ALERT_LATENCY,
        ),
        Lines(
            "Age of the champions",
            "As a share of lifetime.review_every; at 100% PerennialModelOld fires.",
            units.PercentUnit,
            (
                Query(
                    f"({of.model_age(CHOSEN)}) / on (pipeline) {of.most(names.MODEL_REVIEW_AFTER, by='pipeline')}",
                    "{{pipeline}}",
                ),
            ),
            steps=((None, GREEN), (1.0, RED)),
            runbook=names.ALERT_MODEL_OLD,
        ),
    ),
)

BOARD = Dashboard(
    "perennial-overview",
    "Perennial / Overview",
    "All pipelines at a glance: champion, drift, quality, data, alerts, requests.",
    (NOW, Row("Pipelines", (PIPELINES,)), ALERTS, TIME),
    variables=(Variable("pipeline", "Pipeline", f"label_values({names.DRIFT_THRESHOLD}, pipeline)", many=True),),
)
