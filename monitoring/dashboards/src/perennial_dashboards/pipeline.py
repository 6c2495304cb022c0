"""One pipeline: drift, quality, traffic, versions, and why it was trained again."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from perennial_dashboards import expressions as of
from perennial_dashboards.expressions import ONE
from perennial_dashboards.panels import (
    ANY_IS_BAD,
    DRIFT,
    ERRORS,
    GREEN,
    ORANGE,
    RED,
    Cells,
    Dashboard,
    Lines,
    Mark,
    Number,
    Query,
    Row,
    Variable,
)
from perennial_dashboards.pipeline_drift import DRIFTING
from perennial_dashboards.pipeline_quality import QUALITY
from perennial_dashboards.pipeline_traffic import TRAFFIC
from perennial_spec import names

NOTHING_WRONG = "No alert fires."


NOW = Row(
    "Now",
    (
        Number(
            "Champion",
            "The version that the registry calls champion.",
            units.NoUnit,
            (Query(of.most(names.CHAMPION, ONE, by="version"), "{{version}}"),),
            width=3,
            named=True,
        ),
        Number(
            "Worst drift",
            "The worst feature that was judged, as a share of monitoring.drift.psi; 0 where nothing is beyond chance.",
            units.PercentUnit,
            (Query(of.drift(ONE)),),
            width=3,
            steps=DRIFT,
            decimals=0,
            no_value="too few rows",
        ),
        Number(
            "Quality",
            "The champion's quality on the labels that have come, by the metric of monitoring.quality.",
            units.NoUnit,
            (
                Query(
                    f"max by (metric) ({of.of_champion(of.series(names.QUALITY, ONE))}) "
                    f"and on (metric) ({of.series(names.QUALITY_MIN, ONE)} or {of.series(names.QUALITY_MAX, ONE)})",
                    "{{metric}}",
                ),
            ),
            width=3,
            decimals=3,
            no_value="no labels",
        ),
        Number(
            "Labelled",
            "Share of the champion's predictions in the window whose label is known.",
            units.PercentUnit,
            (Query(f"max({of.of_champion(of.series(names.QUALITY_LABELLED_SHARE, ONE))})"),),
            width=3,
            decimals=0,
        ),
        Number(
            "Requests",
            "Requests that clients sent.",
            units.RequestsPerSecond,
            (Query(of.rate(names.REQUESTS, ONE, of.ASKED, by="pipeline")),),
            width=3,
        ),
        Number(
            "Failed",
            "Share of the requests that were answered with 5xx.",
            units.PercentUnit,
            (Query(of.failed_share(ONE, by="pipeline")),),
            width=3,
            steps=ERRORS,
            decimals=2,
        ),
        Number(
            "Newest data",
            "Age of the newest row that has landed, by data.timestamp.",
            units.Seconds,
            (Query(of.data_age(ONE)),),
            width=3,
        ),
        Number(
            "Alerts firing",
            "Alerts of this pipeline.",
            units.Short,
            (Query(f"count({of.firing(ONE)})", zero=True, quiet=NOTHING_WRONG),),
            width=3,
            steps=ANY_IS_BAD,
        ),
    ),
)

VERSIONS = Row(
    "Versions and decisions",
    (
        Cells(
            "Versions",
            "What the model server makes of each version that it was told to load.",
            units.NoUnit,
            (
                Query(
                    f"min by (version) (min_over_time({of.series(names.MODEL_LOADED, ONE)}[$__interval]))",
                    "version {{version}}",
                ),
            ),
            width=8,
            states=((0, "refused", RED), (1, "loaded", GREEN)),
        ),
        Cells(
            "Champion",
            "Which version was champion, and when.",
            units.NoUnit,
            (Query(of.most(names.CHAMPION, ONE, by="version"), "version {{version}}"),),
            width=8,
            states=((1, "champion", GREEN),),
        ),
        Cells(
            "Alerts",
            "Which alerts fired, and when.",
            units.NoUnit,
            (Query(of.fired(ONE, by="alertname, version"), "{{alertname}} {{version}}", quiet=NOTHING_WRONG),),
            width=8,
            states=((1, "firing", RED),),
        ),
        Cells(
            "Health queries",
            "Whether each version answers rows of its own training as it did then.",
            units.NoUnit,
            (
                Query(
                    f"min by (version) (min_over_time({of.series(names.HEALTH_QUERY_UP, ONE)}[$__interval]))",
                    "version {{version}}",
                ),
            ),
            width=8,
            states=((0, "answers otherwise", RED), (1, "well", GREEN)),
            runbook=names.ALERT_HEALTH_QUERY,
        ),
        Lines(
            "Age of the champion",
            "Since it was trained; the dashed lines are lifetime.review_every and lifetime.retire_after.",
            units.Seconds,
            (
                Query(of.model_age(ONE), "champion"),
                Query(f"max({of.series(names.MODEL_REVIEW_AFTER, ONE)})", "review", limit=True),
                Query(f"max({of.series(names.MODEL_RETIRE_AFTER, ONE)})", "retire", limit=True),
            ),
            width=8,
            runbook=names.ALERT_MODEL_OLD,
        ),
        Lines(
            "Runs by what came of them",
            "Training runs that have ended.",
            units.Short,
            (Query(of.most(names.RUNS, ONE, by="outcome"), "{{outcome}}"),),
            width=8,
            runbook=names.ALERT_RUN_FAILING,
        ),
        Lines(
            "Decisions",
            "What the controller decided about alerts, data and people's wishes, per minute. `accepted` starts a run.",
            units.Short,
            (Query(f"sum by (decision) (increase({of.series(names.DECISIONS, ONE)}[$__interval]))", "{{decision}}"),),
            bars=True,
            stacked=True,
            interval="1m",
        ),
        Lines(
            "Age of the newest data",
            "By data.timestamp; above the dashed line (data.freshness) PerennialDataStale fires.",
            units.Seconds,
            (
                Query(of.data_age(ONE), "newest row"),
                Query(
                    f"max({of.series(names.DATA_FRESHNESS_LIMIT, ONE)})",
                    "data.freshness",
                    limit=True,
                    quiet="The spec sets no data.freshness.",
                ),
            ),
            runbook=names.ALERT_DATA_STALE,
        ),
    ),
)

MARKS = (
    Mark(
        "Alerts that retrain",
        Query(of.firing(ONE, of.RETRAIN), quiet=NOTHING_WRONG),
        "{{alertname}}",
        "Version {{version}} {{metric}}: asks for a retraining.",
        ORANGE,
    ),
    Mark(
        "Runs",
        Query(of.accepted(ONE), quiet="None was accepted."),
        "Run accepted",
        "The controller started a run.",
        "blue",
    ),
    Mark(
        "New champions",
        Query(of.succeeded(ONE), quiet="None took over."),
        "New champion",
        "Version {{version}}.",
        GREEN,
    ),
)

BOARD = Dashboard(
    "perennial-pipeline",
    "Perennial / One pipeline",
    "Drift, quality, traffic and versions of one pipeline, with the retrainings and their reasons.",
    (NOW, DRIFTING, QUALITY, TRAFFIC, VERSIONS),
    variables=(
        Variable("pipeline", "Pipeline", f"label_values({names.DRIFT_THRESHOLD}, pipeline)"),
        Variable("feature", "Feature", f"label_values({of.series(names.REFERENCE_SHARE, ONE)}, feature)"),
    ),
    marks=MARKS,
)
