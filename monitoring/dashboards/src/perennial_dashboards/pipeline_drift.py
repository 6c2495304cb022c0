"""One pipeline: how its inputs and predictions have moved."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from perennial_dashboards import expressions as of
from perennial_dashboards.expressions import ONE
from perennial_dashboards.panels import DRIFT, GREEN, ORANGE, RED, Cells, Column, Lines, Query, Row, Table
from perennial_spec import names

FEATURE = 'feature="$feature"'
INPUT = f'feature!="{names.PREDICTION_FEATURE}"'
PREDICTION = f'feature="{names.PREDICTION_FEATURE}"'
PSI_LIMIT = Query(f"max({of.series(names.DRIFT_THRESHOLD, ONE)})", "threshold", limit=True)


def _champions(expression: str) -> str:
    """By feature, of the champion."""
    return f"max by (feature) ({of.of_champion(expression)})"


def bin_moves() -> str:
    """What each bin of the feature that is chosen adds to its PSI."""
    live, reference = of.shares(ONE, FEATURE), of.series(of.REFERENCE, ONE, FEATURE)
    return f"max by (bin) ({of.of_champion(f'({live} - {reference}) * ln({live} / {reference})')})"


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
