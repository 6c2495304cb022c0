"""Live quality in Prometheus' form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from perennial_controller.quality.followed import PipelineQuality, Quality
from perennial_controller.quality.reading import LABEL_OUTCOMES, PREDICTION_OUTCOMES
from perennial_spec import names

_PIPELINE = ("pipeline",)
_VERSION = ("pipeline", "version")
_METRIC = (*_VERSION, "metric")
_VALUE = (*_VERSION, "slice", "value")
_SLICE = (*_METRIC, "slice", "value")
_GAUGES = {
    names.QUALITY: ("Live quality over the window, on labels that have come", _METRIC),
    names.QUALITY_LOWER: ("Lower end of the 95% interval of live quality", _METRIC),
    names.QUALITY_UPPER: ("Upper end of the 95% interval of live quality", _METRIC),
    names.QUALITY_LABELS: ("Predictions in the window whose label is known", _VERSION),
    names.QUALITY_LABELLED_SHARE: ("Share of the window's predictions whose label is known", _VERSION),
    names.QUALITY_ESTIMATED: ("Quality to expect of the window's predictions without a label (CBPE)", _METRIC),
    names.QUALITY_WAITING: ("Predictions in the window that have no label yet", _VERSION),
    names.PREDICTION_CONFIDENCE: ("Mean of max(p, 1-p) over the window's predictions", _VERSION),
    names.QUALITY_SLICE: ("Live quality of one value of a slice", _SLICE),
    names.QUALITY_SLICE_LOWER: ("Lower end of the 95% interval of a slice's quality", _SLICE),
    names.QUALITY_SLICE_UPPER: ("Upper end of the 95% interval of a slice's quality", _SLICE),
    names.QUALITY_SLICE_LABELS: ("Predictions of one value of a slice whose label is known", _VALUE),
    names.QUALITY_LABEL_LAG: ("Median time from a prediction to its label, over the window", _PIPELINE),
    names.QUALITY_LAST_LABEL: ("When the newest label was written", _PIPELINE),
    names.QUALITY_DUE: ("Predictions of late that are older than data.label.arrives_after", _PIPELINE),
    names.QUALITY_DUE_LABELLED_SHARE: ("Share of those whose label is known", _PIPELINE),
    names.QUALITY_LOGS_UP: ("1 when the logs could be read the last time, 0 when the last figures hold", _PIPELINE),
}
_COUNTERS = {
    names.QUALITY_PREDICTIONS_SEEN: ("Rows of the prediction log since the start", PREDICTION_OUTCOMES),
    names.QUALITY_LABELS_SEEN: ("Rows of the label log since the start", LABEL_OUTCOMES),
}
_Sample = tuple[str, tuple[str, ...], float]
"""Metric, labels' values, value."""


def families(found: Mapping[str, PipelineQuality], trouble: Set[str]) -> Iterator[Metric]:
    """Every metric of the exporter.

    Args:
        found: by pipeline.
        trouble: pipelines whose logs cannot be read now.
    """
    gauges = {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in _GAUGES.items()}
    for pipeline, known in found.items():
        gauges[names.QUALITY_LOGS_UP].add_metric((pipeline,), float(pipeline not in trouble))
        for name, more, value in _of_pipeline(known):
            gauges[name].add_metric((pipeline, *more), value)
    yield from gauges.values()
    for name, (text, outcomes) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=("pipeline", "outcome"))
        for pipeline, known in found.items():
            seen = known.labels_seen if name == names.QUALITY_LABELS_SEEN else known.predictions_seen
            for outcome in outcomes:
                counter.add_metric((pipeline, outcome), seen.get(outcome, 0))
        yield counter


def _of_pipeline(known: PipelineQuality) -> Iterator[_Sample]:
    if known.lag is not None:
        yield names.QUALITY_LABEL_LAG, (), known.lag
    if known.last_label is not None:
        yield names.QUALITY_LAST_LABEL, (), known.last_label
    yield names.QUALITY_DUE, (), known.due
    if known.due:
        yield names.QUALITY_DUE_LABELLED_SHARE, (), known.due_labelled / known.due
    for version, quality in known.versions.items():
        for name, more, value in _of_version(quality):
            yield name, (version, *more), value


def _of_version(quality: Quality) -> Iterator[_Sample]:
    yield names.QUALITY_LABELS, (), quality.labels
    yield names.QUALITY_LABELLED_SHARE, (), quality.labelled_share
    yield names.QUALITY_WAITING, (), quality.waiting
    if quality.confidence is not None:
        yield names.PREDICTION_CONFIDENCE, (), quality.confidence
    for metric, expected in quality.estimated.items():
        yield names.QUALITY_ESTIMATED, (metric,), expected
    for metric, figure in quality.figures.items():
        yield names.QUALITY, (metric,), figure.value
        yield from _ends((names.QUALITY_LOWER, names.QUALITY_UPPER), (metric,), (figure.lower, figure.upper))
    for name, values in quality.slices.items():
        for value, part in values.items():
            yield names.QUALITY_SLICE_LABELS, (name, value), part.labels
            for metric, figure in part.figures.items():
                of = (metric, name, value)
                yield names.QUALITY_SLICE, of, figure.value
                ends = (figure.lower, figure.upper)
                yield from _ends((names.QUALITY_SLICE_LOWER, names.QUALITY_SLICE_UPPER), of, ends)


def _ends(
    metrics: tuple[str, str], labels: tuple[str, ...], ends: tuple[float | None, float | None]
) -> Iterator[_Sample]:
    for name, end in zip(metrics, ends, strict=True):
        if end is not None:
            yield name, labels, end
