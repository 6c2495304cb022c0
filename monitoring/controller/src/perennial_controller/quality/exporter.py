"""The quality of every pipeline's versions, kept up to date, and as metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from perennial_controller.quality.measures import measure, measured
from perennial_controller.quality.tail import Tail
from perennial_controller.quality.window import Joined, Window
from perennial_controller.specs import Specs
from perennial_spec import logs, names
from perennial_spec.pipeline import PipelineSpec

log = logging.getLogger(__name__)
DEFAULT_WINDOW = timedelta(days=7)
"""For a pipeline without `monitoring.quality`: it is measured all the same, and raises no alert."""


@dataclass(frozen=True)
class Quality:
    """What is known of one version."""

    metrics: dict[str, float]
    labels: int
    """Predictions in the window whose label is known."""
    labelled_share: float
    """Of the predictions in the window that name their entity; once labels name predictions, of those without one too."""


@dataclass(frozen=True)
class Measured:
    """What the spec asks to be measured; a change of it starts the pipeline anew."""

    metrics: tuple[str, ...]
    window: int
    """Microseconds."""

    @classmethod
    def of(cls, spec: PipelineSpec) -> Measured:
        quality = spec.monitoring.quality
        metric = quality.metric if quality else spec.evaluation.metric
        window = quality.window if quality else DEFAULT_WINDOW
        return cls(measured(spec.model.kind, metric), window // timedelta(microseconds=1))


class Followed:
    """One pipeline's two logs and their window.

    Predictions are kept one by one only where labels name them: with the first such label, the logs are read once more.
    """

    def __init__(self, store: str, pipeline: str, wanted: Measured) -> None:
        self.wanted = wanted
        self._folder = f"{store}/{pipeline}"
        self._quality: dict[str, Quality] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._begin(one_by_one=False)

    def _begin(self, one_by_one: bool) -> None:
        self._one_by_one = one_by_one
        ids = (logs.PREDICTION_ID,) if one_by_one else ()
        columns = (logs.ENTITY, logs.VERSION, logs.SCORE, logs.AT, *ids)
        self._predictions = Tail(f"{self._folder}/{logs.PREDICTIONS}", columns)
        self._labels = Tail(f"{self._folder}/{logs.LABELS}", (logs.ENTITY, logs.LABEL, logs.AT, logs.PREDICTION_ID))
        self._window = Window(self.wanted.window)

    def refresh(self, now: int) -> dict[str, Quality]:
        """Read what is new and measure again what has changed.

        Raises:
            what `Tail.read` raises; what was read before that is kept.
        """
        since = now - self.wanted.window
        try:
            new = self._read(since)
        except _PredictionsAreNamed:
            self._begin(one_by_one=True)
            new = self._read(since)
        joined = self._window.join(now)
        sizes = {version: (len(pairs.labels), pairs.predictions) for version, pairs in joined.items()}
        if new or sizes != self._seen:
            self._quality = {version: self._measure(pairs) for version, pairs in joined.items()}
            self._seen = sizes
        return self._quality

    def _read(self, since: int) -> bool:
        new = False
        for batch in self._predictions.read(since):
            entities, versions, scores, times = _columns(batch.rows, logs.ENTITY, logs.VERSION, logs.SCORE, logs.AT)
            ids = _values(batch.rows.column(logs.PREDICTION_ID)) if self._one_by_one else None
            self._window.add_predictions(entities, versions, scores, times, ids)
            new = True
        for batch in self._labels.read(since):
            if not self._one_by_one and batch.rows.column(logs.PREDICTION_ID).null_count < batch.rows.num_rows:
                raise _PredictionsAreNamed
            entities, labels, times, ids = _columns(batch.rows, logs.ENTITY, logs.LABEL, logs.AT, logs.PREDICTION_ID)
            self._window.add_labels(entities, labels, times, batch.written, ids)
            new = True
        return new

    def _measure(self, pairs: Joined) -> Quality:
        return Quality(
            measure(self.wanted.metrics, pairs.scores, pairs.labels), len(pairs.labels), pairs.labelled_share
        )


class _PredictionsAreNamed(Exception):
    """A label names its prediction, and predictions were not kept one by one."""


def _columns(rows: Any, *columns: str) -> list[list[Any]]:
    """Columns as Python values; times as microseconds since 1970."""
    return [_values(rows.column(column)) for column in columns]


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return list(column.to_pylist())


class Exporter:
    """A Prometheus collector. `refresh` belongs into a thread."""

    def __init__(self, store: str, specs: Specs, clock: Callable[[], int]) -> None:
        self._store = store.rstrip("/")
        self._specs = specs
        self._clock = clock
        self._followed: dict[str, Followed] = {}
        self._lock = threading.Lock()
        self._quality: dict[str, dict[str, Quality]] = {}
        self._trouble: dict[str, str] = {}

    def refresh(self) -> None:
        """Follow the specs and every pipeline's logs. One pipeline's trouble does not hold the others: it keeps its last figures."""
        self._specs.refresh()
        found: dict[str, dict[str, Quality]] = {}
        followed: dict[str, Followed] = {}
        for pipeline in self._specs.all():
            wanted = Measured.of(pipeline.spec)
            known = self._followed.get(pipeline.name)
            if known is None or known.wanted != wanted:
                known = Followed(self._store, pipeline.name, wanted)
            followed[pipeline.name] = known
            found[pipeline.name] = self._follow(pipeline.name, known)
        self._followed = followed
        with self._lock:
            self._quality = found

    def _follow(self, name: str, followed: Followed) -> dict[str, Quality]:
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            quality = followed.refresh(self._clock())
        except (OSError, DeltaError, pa.ArrowException, ValueError, KeyError) as error:
            if str(error) != self._trouble.get(name):
                log.warning("the logs of %s cannot be read, its last figures hold: %s", name, error)
            self._trouble[name] = str(error)
            return self._quality.get(name, {})
        self._trouble.pop(name, None)
        return quality

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            found = self._quality
        at = ("pipeline", "version")
        quality = GaugeMetricFamily(
            names.QUALITY, "Live quality over the window, on labels that have come", labels=(*at, "metric")
        )
        labels = GaugeMetricFamily(names.QUALITY_LABELS, "Predictions in the window whose label is known", labels=at)
        share = GaugeMetricFamily(
            names.QUALITY_LABELLED_SHARE, "Share of the window's predictions whose label is known", labels=at
        )
        for pipeline, versions in found.items():
            for version, known in versions.items():
                labels.add_metric((pipeline, version), known.labels)
                share.add_metric((pipeline, version), known.labelled_share)
                for metric, value in known.metrics.items():
                    quality.add_metric((pipeline, version, metric), value)
        yield from (quality, labels, share)
