"""What Prometheus says that a version did since a moment: the queries, as data, and the `Figures` made of their answers.

Counts are differences of counters, not `increase`: it extrapolates, and it misses the first error of a series that begins within the
window. A series that was reset counts from its reset on.
"""

from __future__ import annotations

import math

from perennial_spec import names
from perennial_steps.analysis import Figures, Histogram, LiveQuality
from perennial_steps.prometheus import Prometheus, quoted

SINCE = "(({series} - {series} offset {window}) >= 0 or {series})"
"""How much each counter grew: its difference, or its whole value when it began or was reset within the window."""

REQUESTS = f"sum({SINCE})"
ERRORS = f"sum({SINCE})"
LATENCY_P99 = f"histogram_quantile(0.99, sum by (le) ({SINCE}))"
LIVE_BINS = f"sum by (bin) ({SINCE})"
REFERENCE_BINS = "max by (bin) ({series})"
REFERENCE_ROWS = "max({series})"
LOADED = "min({series})"
GAUGE = "max({series})"
"""Of what only one process exports, and a second copy of it exports alike."""


def of_version(
    prometheus: Prometheus, pipeline: str, version: str, since: float, now: float, *, metric: str | None = None
) -> Figures:
    """The figures of `version` between two Unix times.

    Args:
        prometheus: whom to ask.
        pipeline, version: of the model.
        since, now: Unix seconds by Prometheus' clock.
        metric: by which live quality is measured, if it is; over the exporter's own window, which no query can cut.

    Raises:
        MonitoringError: Prometheus is away.
    """
    asking = _Asking(prometheus, f"pipeline={quoted(pipeline)}, version={quoted(version)}", since, now)
    predictions = f"feature={quoted(names.PREDICTION_FEATURE)}"
    rows = asking.value(REFERENCE_ROWS, names.REFERENCE_ROWS)
    return Figures(
        requests=asking.value(REQUESTS, names.REQUESTS) or 0.0,
        errors=asking.value(ERRORS, names.REQUESTS, 'code=~"5.."') or 0.0,
        latency_p99=asking.value(LATENCY_P99, f"{names.REQUEST_SECONDS}_bucket"),
        predictions=Histogram(
            live=asking.bins(LIVE_BINS, names.OBSERVATIONS, predictions),
            reference=asking.bins(REFERENCE_BINS, names.REFERENCE_SHARE, predictions),
            reference_rows=rows or math.inf,
        ),
        quality=_quality(asking, metric) if metric else None,
    )


def is_watched(prometheus: Prometheus, pipeline: str, version: str, at: float | None = None) -> bool:
    """Whether Prometheus has heard of the version at all: no traffic and no scrape must not look alike.

    Args:
        prometheus: whom to ask.
        pipeline, version: of the model.
        at: Unix seconds; the server's now by default.
    """
    series = f"{names.MODEL_LOADED}{{pipeline={quoted(pipeline)}, version={quoted(version)}}}"
    return prometheus.value(LOADED.format(series=series), at=at) is not None


def _quality(asking: _Asking, metric: str) -> LiveQuality | None:
    wanted = f"metric={quoted(metric)}"
    value, low, high = (
        asking.value(GAUGE, n, wanted) for n in (names.QUALITY, names.QUALITY_LOWER, names.QUALITY_UPPER)
    )
    if value is None or low is None or high is None:
        return None
    return LiveQuality(asking.value(GAUGE, names.QUALITY_LABELS) or 0.0, value, low, high)


class _Asking:
    def __init__(self, prometheus: Prometheus, labels: str, since: float, now: float) -> None:
        self._prometheus = prometheus
        self._labels = labels
        self._window = f"{max(1, round((now - since) * 1000))}ms"
        self._now = now

    def value(self, query: str, metric: str, matcher: str = "") -> float | None:
        return self._prometheus.value(self._text(query, metric, matcher), at=self._now)

    def bins(self, query: str, metric: str, matcher: str) -> dict[str, float]:
        found = self._prometheus.query(self._text(query, metric, matcher), at=self._now)
        return {sample.labels.get("bin", ""): sample.value for sample in found}

    def _text(self, query: str, metric: str, matcher: str) -> str:
        series = f"{metric}{{{', '.join(filter(None, (self._labels, matcher)))}}}"
        return query.format(series=series, window=self._window)
