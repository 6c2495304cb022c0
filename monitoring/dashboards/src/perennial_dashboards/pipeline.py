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
    Column,
    Dashboard,
    Lines,
    Mark,
    Number,
    Query,
    Row,
    Table,
    Variable,
)
from perennial_spec import names

FEATURE = 'feature="$feature"'
INPUT = f'feature!="{names.PREDICTION_FEATURE}"'
PREDICTION = f'feature="{names.PREDICTION_FEATURE}"'
PSI_LIMIT = Query(f"max({of.series(names.DRIFT_THRESHOLD, ONE)})", "threshold", limit=True)
ONLY_WITH_MIN = "The spec sets monitoring.quality.max instead."
ONLY_WITH_MAX = "The spec sets monitoring.quality.min instead."
NOTHING_WRONG = "No alert fires."


def _bins(matcher: str) -> str:
    """Share of the champion's live values that lie in a bin, by feature."""
    return f"max by (feature) ({of.of_champion(of.shares(ONE, INPUT, matcher))})"


def bin_moves() -> str:
    """What each bin of the feature that is chosen adds to its PSI."""
    live, reference = of.shares(ONE, FEATURE), of.series(of.REFERENCE, ONE, FEATURE)
    return f"max by (bin) ({of.of_champion(f'({live} - {reference}) * ln({live} / {reference})')})"


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
            "The worst feature that was judged, as a share of monitoring.drift.psi; 0 where nothing is beyond sampling noise.",
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

DRIFTING = Row(
    "Drift of the champion's inputs and predictions, over the window of monitoring.drift.window",
    (
        Cells(
            "Drift by feature",
            "PSI of each feature as a share of the threshold: from 100% on it counts as drifted, if it is also beyond sampling noise, "
            "rests on enough rows, and is not ignored by the spec.",
            units.PercentUnit,
            (
                Query(
                    f"max by (feature) ({of.of_champion(of.windowed(of.PSI, ONE))}) "
                    f"/ on () group_left () max({of.series(names.DRIFT_THRESHOLD, ONE)})",
                    "{{feature}}",
                ),
            ),
            width=24,
            height=12,
            steps=DRIFT,
            decimals=0,
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "PSI of the ten worst features",
            "Population stability index against the champion's training data; the dashed line is monitoring.drift.psi.",
            units.NoUnit,
            (
                Query(f"topk(10, max by (feature) ({of.of_champion(of.windowed(of.PSI, ONE, INPUT))}))", "{{feature}}"),
                PSI_LIMIT,
            ),
            decimals=2,
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "PSI of the predictions",
            "Have the champion's predictions moved away from those on its reference data? Above the threshold and above what sampling "
            "noise explains at this number of rows, PerennialPredictionDrift fires.",
            units.NoUnit,
            (
                Query(f"max({of.of_champion(of.windowed(of.PSI, ONE, PREDICTION))})", "predictions"),
                Query(f"max({of.of_champion(of.windowed(of.NOISE, ONE, PREDICTION))})", "sampling noise"),
                PSI_LIMIT,
            ),
            decimals=2,
            runbook=names.ALERT_PREDICTION_DRIFT,
        ),
        Lines(
            "Missing values",
            "Share of the champion's live values that are missing, by feature.",
            units.PercentUnit,
            (Query(_bins(f'bin="{names.BIN_MISSING}"'), "{{feature}}"),),
            width=8,
            decimals=1,
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "Categories never seen in training",
            "Share of the champion's live values that are of a category without a bin of its own: unseen, or too seldom in training.",
            units.PercentUnit,
            (
                Query(
                    _bins(f'bin="{names.BIN_OTHER}"'),
                    "{{feature}}",
                    quiet="The model has no categorical feature.",
                ),
            ),
            width=8,
            decimals=1,
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "Rows in the window",
            "Predictions of the champion within the window; below the dashed line (monitoring.drift.min_rows) drift is not judged.",
            units.Short,
            (
                Query(f"max({of.of_champion(of.windowed(of.ROWS, ONE, PREDICTION))})", "rows"),
                Query(f"max({of.series(names.DRIFT_MIN_ROWS, ONE)})", "least rows", limit=True),
            ),
            width=8,
            runbook=names.ALERT_NO_DATA,
        ),
        Table(
            "Bins of $feature: what has moved",
            "Where the values of the chosen feature lay in training and where they lie now. The bins add up to its PSI; the one that adds "
            "most comes first.",
            units.NoUnit,
            by="bin",
            sort="Adds to PSI",
            columns=(
                Column("Bin", label="bin"),
                Column(
                    "In training",
                    Query(f"max by (bin) ({of.of_champion(of.series(of.REFERENCE, ONE, FEATURE))})"),
                    unit=units.PercentUnit,
                    decimals=1,
                ),
                Column(
                    "Now",
                    Query(f"max by (bin) ({of.of_champion(of.shares(ONE, FEATURE))})"),
                    unit=units.PercentUnit,
                    decimals=1,
                ),
                Column(
                    "Adds to PSI",
                    Query(bin_moves()),
                    decimals=3,
                    steps=((None, GREEN), (0.05, ORANGE), (0.1, RED)),
                ),
            ),
        ),
    ),
)

QUALITY = Row(
    "Quality, on the labels that have come",
    (
        Lines(
            "Quality by version",
            "Every metric that is measured, over the window of monitoring.quality. The dashed line is the limit: below min, or above max, "
            "PerennialQualityLow fires for the champion.",
            units.NoUnit,
            (
                Query(of.most(names.QUALITY, ONE, by="version, metric"), "{{metric}} of version {{version}}"),
                Query(
                    of.most(names.QUALITY_MIN, ONE, by="metric"), "least {{metric}}", limit=True, quiet=ONLY_WITH_MIN
                ),
                Query(
                    of.most(names.QUALITY_MAX, ONE, by="metric"), "largest {{metric}}", limit=True, quiet=ONLY_WITH_MAX
                ),
            ),
            decimals=3,
            height=9,
            runbook=names.ALERT_QUALITY,
        ),
        Lines(
            "Labels in the window",
            "Predictions whose label is known, by version; below the dashed line (monitoring.quality.min_labels) quality is not judged.",
            units.Short,
            (
                Query(of.most(names.QUALITY_LABELS, ONE, by="version"), "version {{version}}"),
                Query(f"max({of.series(names.QUALITY_MIN_LABELS, ONE)})", "least labels", limit=True),
            ),
            width=6,
            height=9,
            runbook=names.ALERT_QUALITY,
        ),
        Lines(
            "Labels that arrive",
            "Labels that clients brought to the model server.",
            units.RowsPerSecond,
            (Query(of.rate(names.FEEDBACK, ONE, by="pipeline"), "labels"),),
            width=6,
            height=9,
        ),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Lines(
            "Route",
            "Share of the traffic that each version is given.",
            units.PercentUnit,
            (Query(of.most(names.ROUTE_WEIGHT, ONE, by="version"), "version {{version}}"),),
            width=8,
            stacked=True,
            high=1,
        ),
        Lines(
            "Requests by version",
            "Requests that clients sent, by the version that answered; without one where none had been chosen yet.",
            units.RequestsPerSecond,
            (Query(of.rate(names.REQUESTS, ONE, of.ASKED, by="version"), "version {{version}}"),),
            width=8,
            runbook=names.ALERT_NO_DATA,
        ),
        Lines(
            "Answers by status",
            "Requests by the status of their answer: 4xx were refused, 5xx failed.",
            units.RequestsPerSecond,
            (Query(f"{of.rate(names.REQUESTS, ONE, of.ASKED, by='code')} > 0", "{{code}}"),),
            width=8,
            stacked=True,
        ),
        Lines(
            "Latency",
            "From the first byte of a request to its answer, within the server: median and 99th percentile by version.",
            units.Seconds,
            (
                Query(of.latency(0.99, ONE, by="version"), "p99 of version {{version}}"),
                Query(of.latency(0.5, ONE, by="version"), "median of version {{version}}"),
            ),
            width=8,
        ),
        Lines(
            "Rows predicted",
            "A request may ask for many rows.",
            units.RowsPerSecond,
            (Query(of.rate(names.PREDICTIONS, ONE, by="version"), "version {{version}}"),),
            width=8,
        ),
        Lines(
            "Mean reward",
            "What clients reported as reward, by the version that earned it: what a bandit goes by.",
            units.NoUnit,
            (
                Query(
                    f"{of.most(names.REWARD_SUM, ONE, by='version')} / {of.most(names.REWARDS, ONE, by='version')}",
                    "version {{version}}",
                    quiet="No client reports rewards.",
                ),
            ),
            width=8,
            low=None,
            decimals=3,
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
