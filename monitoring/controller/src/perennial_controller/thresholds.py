"""Each pipeline's thresholds as gauges: the alert rules are static files and compare against these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from perennial_controller.specs import Specs
from perennial_spec import names
from perennial_spec.model import SliceGate
from perennial_spec.pipeline import PipelineSpec


@dataclass(frozen=True)
class _Gauge:
    name: str
    help: str
    labels: tuple[str, ...] = ()
    """Beside `pipeline`."""


_GAUGES = (
    _Gauge(names.DRIFT_THRESHOLD, "PSI at which a feature counts as drifted (monitoring.drift.psi)"),
    _Gauge(names.DRIFT_MIN_ROWS, "Rows in the window below which drift is not judged (monitoring.drift.min_rows)"),
    _Gauge(names.DRIFT_WINDOW, "1 for the window that drift is measured over (monitoring.drift.window)", ("window",)),
    _Gauge(names.DRIFT_IGNORED, "1 for a feature whose drift raises no alert (monitoring.drift.ignore)", ("feature",)),
    _Gauge(
        names.ATTRIBUTION_SHIFT_LIMIT,
        "Part of the attribution whose move to other features counts as a shift (monitoring.concept.attribution_shift)",
    ),
    _Gauge(
        names.ATTRIBUTION_MIN_ROWS,
        "Explained rows in the window below which that is not judged (monitoring.concept.min_rows)",
    ),
    _Gauge(names.QUALITY_MIN, "Least live quality (monitoring.quality.min)", ("metric",)),
    _Gauge(names.QUALITY_MAX, "Largest live error (monitoring.quality.max)", ("metric",)),
    _Gauge(names.QUALITY_MIN_LABELS, "Labels below which quality is not judged (monitoring.quality.min_labels)"),
    _Gauge(names.QUALITY_MIN_LABELLED, "Least share of due predictions with a label (monitoring.quality.min_labelled)"),
    _Gauge(names.QUALITY_SLICE_MIN, "Least quality of a slice (evaluation.gates, min)", ("slice", "metric")),
    _Gauge(names.QUALITY_SLICE_MAX, "Largest error of a slice (evaluation.gates, max)", ("slice", "metric")),
    _Gauge(
        names.QUALITY_SLICE_MIN_LABELS,
        "Labels below which a slice is not judged (evaluation.gates, min_rows)",
        ("slice", "metric"),
    ),
    _Gauge(names.LABEL_ARRIVES_AFTER, "How long a label may take (data.label.arrives_after), in seconds"),
    _Gauge(names.RETRAIN_ON, "1 for what starts a retraining (retraining.on)", ("trigger",)),
    _Gauge(names.DATA_FRESHNESS_LIMIT, "Age at which the newest data is stale (data.freshness), in seconds"),
    _Gauge(names.ERROR_RATE_LIMIT, "Largest share of failed requests (monitoring.service.error_rate)"),
    _Gauge(names.LATENCY_LIMIT, "Largest p99 of the latency (monitoring.service.latency_p99), in seconds"),
    _Gauge(names.SERVICE_MIN_REQUESTS, "Requests in 5 minutes below which neither is judged (monitoring.service)"),
    _Gauge(names.MODEL_REVIEW_AFTER, "Age at which a champion is due for review (lifetime.review_every), in seconds"),
    _Gauge(names.MODEL_RETIRE_AFTER, "Age at which a champion is due to retire (lifetime.retire_after), in seconds"),
    _Gauge(names.RUN_LIMIT, "Longest that a training run may be active (monitoring.runs.longest), in seconds"),
    _Gauge(names.RUN_FAILURES_LIMIT, "Failed runs in a row that are too many (monitoring.runs.failures)"),
    _Gauge(names.RETRAININGS_LIMIT, "Retrainings in vain that are too many (monitoring.runs.without_promotion)"),
)


class Thresholds:
    """A Prometheus collector over the specs as they are at the time of the scrape."""

    def __init__(self, specs: Specs) -> None:
        self._specs = specs

    def collect(self) -> Iterator[Metric]:
        families = {
            gauge.name: GaugeMetricFamily(gauge.name, gauge.help, labels=("pipeline", *gauge.labels))
            for gauge in _GAUGES
        }
        for pipeline in self._specs.all():
            for name, labels, value in _values(pipeline.spec):
                families[name].add_metric((pipeline.name, *labels), value)
        yield from families.values()
        broken = GaugeMetricFamily(
            names.PIPELINE_BROKEN,
            "1 for a pipeline whose files cannot be read; its last good thresholds hold",
            labels=("pipeline",),
        )
        for name in self._specs.broken():
            broken.add_metric((name,), 1)
        yield broken


def _values(spec: PipelineSpec) -> Iterator[tuple[str, tuple[str, ...], float]]:
    drift, concept, quality = spec.monitoring.drift, spec.monitoring.concept, spec.monitoring.quality
    yield names.DRIFT_THRESHOLD, (), drift.psi
    yield names.DRIFT_MIN_ROWS, (), drift.min_rows
    yield names.DRIFT_WINDOW, (drift.window,), 1
    for feature in dict.fromkeys(drift.ignore):
        yield names.DRIFT_IGNORED, (feature,), 1
    yield names.ATTRIBUTION_SHIFT_LIMIT, (), concept.attribution_shift
    yield names.ATTRIBUTION_MIN_ROWS, (), concept.min_rows
    if quality is not None:
        if quality.min is not None:
            yield names.QUALITY_MIN, (quality.metric,), quality.min
        if quality.max is not None:
            yield names.QUALITY_MAX, (quality.metric,), quality.max
        yield names.QUALITY_MIN_LABELS, (), quality.min_labels
        yield names.QUALITY_MIN_LABELLED, (), quality.min_labelled
    yield from _of_slices(spec)
    yield names.LABEL_ARRIVES_AFTER, (), spec.data.label.arrives_after.total_seconds()
    for trigger in dict.fromkeys(spec.retraining.on):
        yield names.RETRAIN_ON, (trigger,), 1
    if spec.data.freshness is not None:
        yield names.DATA_FRESHNESS_LIMIT, (), spec.data.freshness.total_seconds()
    yield from _of_the_service(spec)
    yield names.RUN_LIMIT, (), spec.run_limit.total_seconds()
    yield names.RUN_FAILURES_LIMIT, (), spec.monitoring.runs.failures
    yield names.RETRAININGS_LIMIT, (), spec.monitoring.runs.without_promotion


def _of_the_service(spec: PipelineSpec) -> Iterator[tuple[str, tuple[str, ...], float]]:
    yield names.ERROR_RATE_LIMIT, (), spec.error_rate_limit
    yield names.LATENCY_LIMIT, (), spec.latency_limit.total_seconds()
    yield names.SERVICE_MIN_REQUESTS, (), spec.monitoring.service.min_requests
    yield names.MODEL_REVIEW_AFTER, (), spec.lifetime.review_every.total_seconds()
    yield names.MODEL_RETIRE_AFTER, (), spec.lifetime.retire_after.total_seconds()


def _of_slices(spec: PipelineSpec) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Of the gates on slices; where several are on one slice and metric, the strictest."""
    gates: dict[tuple[str, str], list[SliceGate]] = {}
    for gate in spec.evaluation.gates:
        if isinstance(gate, SliceGate):
            gates.setdefault((gate.slice, gate.metric), []).append(gate)
    for labels, same in gates.items():
        least = [gate.min for gate in same if gate.min is not None]
        most = [gate.max for gate in same if gate.max is not None]
        if least:
            yield names.QUALITY_SLICE_MIN, labels, max(least)
        if most:
            yield names.QUALITY_SLICE_MAX, labels, min(most)
        yield names.QUALITY_SLICE_MIN_LABELS, labels, max(gate.min_rows for gate in same)
