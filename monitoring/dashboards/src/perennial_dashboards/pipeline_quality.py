"""One pipeline: its quality on labels, and before they come."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from perennial_dashboards import expressions as of
from perennial_dashboards.expressions import ONE
from perennial_dashboards.panels import Lines, Query, Row
from perennial_spec import names

ONLY_WITH_MIN = "The spec sets monitoring.quality.max instead."
ONLY_WITH_MAX = "The spec sets monitoring.quality.min instead."


def _judged(metric: str) -> str:
    """Of the champion, by the metric that the spec judges."""
    limits = f"({of.series(names.QUALITY_MIN, ONE)} or {of.series(names.QUALITY_MAX, ONE)})"
    return f"max by (metric) ({of.of_champion(of.series(metric, ONE))}) and on (metric) {limits}"


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
