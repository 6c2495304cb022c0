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


def _champions(expression: str) -> str:
    """By feature, of the champion."""
    return f"max by (feature) ({of.of_champion(expression)})"


def _judged(metric: str) -> str:
    """Of the champion, by the metric that the spec judges."""
    limits = f"({of.series(names.QUALITY_MIN, ONE)} or {of.series(names.QUALITY_MAX, ONE)})"
    return f"max by (metric) ({of.of_champion(of.series(metric, ONE))}) and on (metric) {limits}"


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

DRIFTING = Row(
    "Drift of the champion's inputs and predictions, over the window of monitoring.drift.window",
    (
        Cells(
            "Drift by feature",
            "PSI of each feature as a share of the threshold: from 100% on it counts as drifted, if it is also beyond chance, "
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
            "Have the champion's predictions moved away from those on its reference data? Above the threshold, and beyond what "
            "chance explains at this number of rows, PerennialPredictionDrift fires.",
            units.NoUnit,
            (
                Query(f"max({of.of_champion(of.windowed(of.PSI, ONE, PREDICTION))})", "predictions"),
                PSI_LIMIT,
            ),
            decimals=2,
            runbook=names.ALERT_PREDICTION_DRIFT,
        ),
        Lines(
            "Missing values",
            "Share of the champion's live values that are missing, by feature.",
            units.PercentUnit,
            (Query(_champions(of.windowed(of.MISSING, ONE)), "{{feature}}"),),
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
                    _champions(of.windowed(of.UNSEEN, ONE)),
                    "{{feature}}",
                    quiet="The model has no categorical feature.",
                ),
            ),
            width=8,
            decimals=1,
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "Numbers beyond the training data",
            "Share of the champion's live values that are below the least or above the largest of training, by feature.",
            units.PercentUnit,
            (
                Query(
                    _champions(of.unlabelled(of.OUT_OF_RANGE, ONE)),
                    "{{feature}}",
                    quiet="The model has no numeric feature.",
                ),
            ),
            width=8,
            decimals=1,
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "Beyond chance",
            "Evidence that a feature has moved at all (G statistic), as a share of what chance explains: below 100% nothing is judged, "
            "however large PSI is. The ten largest.",
            units.PercentUnit,
            (
                Query(
                    f"topk(10, {_champions(of.windowed(of.EVIDENCE, ONE))} / on (feature) "
                    f"{_champions(of.series(of.EVIDENCE_LIMIT, ONE))})",
                    "{{feature}}",
                ),
            ),
            width=8,
            decimals=0,
            steps=((None, GREEN), (1.0, ORANGE)),
            runbook=names.ALERT_FEATURE_DRIFT,
        ),
        Lines(
            "What moves the predictions: shift of attributions",
            "Total variation between the features' shares of the predictions now and in training; above the dashed line "
            "(monitoring.concept.attribution_shift) PerennialAttributionShift fires.",
            units.PercentUnit,
            (
                Query(
                    f"max({of.of_champion(of.series(of.ATTRIBUTION_SHIFT, ONE))})",
                    "shift",
                    quiet="Too few rows have been explained, or the model is of a flavour without TreeSHAP.",
                ),
                Query(f"max({of.series(names.ATTRIBUTION_SHIFT_LIMIT, ONE)})", "limit", limit=True),
            ),
            width=8,
            decimals=1,
            runbook=names.ALERT_ATTRIBUTION_SHIFT,
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
            "The champion's quality with its 95% interval, and estimated",
            "Measured on labels, with the ends of its interval, and estimated by the model's own probabilities for predictions that wait "
            "for a label. PerennialQualityLow fires only when even the favourable end is beyond the limit.",
            units.NoUnit,
            (
                Query(_judged(names.QUALITY), "{{metric}}"),
                Query(_judged(names.QUALITY_LOWER), "{{metric}}, lower end"),
                Query(_judged(names.QUALITY_UPPER), "{{metric}}, upper end"),
                Query(
                    _judged(names.QUALITY_ESTIMATED),
                    "{{metric}}, estimated",
                    quiet="No prediction waits for its label, or too few labels came to calibrate by.",
                ),
                Query(
                    of.most(names.QUALITY_MIN, ONE, by="metric"), "least {{metric}}", limit=True, quiet=ONLY_WITH_MIN
                ),
                Query(
                    of.most(names.QUALITY_MAX, ONE, by="metric"), "largest {{metric}}", limit=True, quiet=ONLY_WITH_MAX
                ),
            ),
            decimals=3,
            height=9,
            low=None,
            runbook=names.ALERT_QUALITY_ESTIMATED,
        ),
        Lines(
            "The champion's quality by slice",
            "The metric of monitoring.quality on each value of the slices: those of the gates and of monitoring.quality.slices.",
            units.NoUnit,
            (
                Query(
                    f"max by (slice, value, metric) ({of.of_champion(of.series(names.QUALITY_SLICE, ONE))})",
                    "{{metric}} of {{slice}} {{value}}",
                    quiet="The spec names no slice.",
                ),
            ),
            decimals=3,
            height=9,
            runbook=names.ALERT_QUALITY_SLICE,
        ),
        Lines(
            "Confidence",
            "Mean of max(p, 1 - p) over the window's predictions, by version: it falls when the model meets what it does not know.",
            units.PercentUnit,
            (
                Query(
                    of.most(names.PREDICTION_CONFIDENCE, ONE, by="version"),
                    "version {{version}}",
                ),
            ),
            width=6,
            height=9,
            low=None,
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
        Lines(
            "Labels by what became of them",
            "Per minute: joined with a prediction, repeated, contradicting an earlier one, of no prediction that is known, of the future.",
            units.Short,
            (
                Query(
                    f"sum by (outcome) (increase({of.series(names.QUALITY_LABELS_SEEN, ONE)}[$__interval]))",
                    "{{outcome}}",
                ),
            ),
            width=6,
            height=9,
            bars=True,
            stacked=True,
            interval="1m",
        ),
        Lines(
            "How late labels are",
            "Median time from a prediction to its label; above the dashed line (data.label.arrives_after) they are late.",
            units.Seconds,
            (
                Query(f"max({of.series(names.QUALITY_LABEL_LAG, ONE)})", "median lag"),
                Query(f"max({of.series(names.LABEL_ARRIVES_AFTER, ONE)})", "data.label.arrives_after", limit=True),
            ),
            width=6,
            height=9,
            runbook=names.ALERT_LABELS_LATE,
        ),
        Lines(
            "Due predictions that have their label",
            "Of predictions older than data.label.arrives_after; below the dashed line (monitoring.quality.min_labelled) "
            "PerennialLabelsLate fires.",
            units.PercentUnit,
            (
                Query(
                    f"max({of.series(names.QUALITY_DUE_LABELLED_SHARE, ONE)})",
                    "labelled",
                    quiet="No prediction is old enough.",
                ),
                Query(f"max({of.series(names.QUALITY_MIN_LABELLED, ONE)})", "least share", limit=True),
            ),
            width=6,
            height=9,
            high=1,
            runbook=names.ALERT_LABELS_LATE,
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
                Query(f"max({of.series(names.LATENCY_LIMIT, ONE)})", "limit of p99", limit=True),
            ),
            width=8,
            runbook=names.ALERT_LATENCY,
        ),
        Lines(
            "Failed requests",
            "Share of the requests of the last 5 minutes that were answered with 5xx; the dashed line is monitoring.service.error_rate.",
            units.PercentUnit,
            (
                Query(f"max({of.series('perennial:request_errors:ratio5m', ONE)})", "failed"),
                Query(f"max({of.series(names.ERROR_RATE_LIMIT, ONE)})", "limit", limit=True),
            ),
            width=8,
            decimals=2,
            runbook=names.ALERT_ERRORS,
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
