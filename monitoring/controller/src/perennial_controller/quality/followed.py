"""One pipeline's two logs, followed, and what its live quality is."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from perennial_controller.quality.columns import Array
from perennial_controller.quality.estimate import confidence, estimate
from perennial_controller.quality.measures import Figure, Pairs, measure, measured
from perennial_controller.quality.predictions import Joined
from perennial_controller.quality.reading import Bounds, labels_of, predictions_of
from perennial_controller.quality.slices import Slices
from perennial_controller.quality.tail import Batch, Rewritten, Tail
from perennial_controller.quality.window import Length, Window
from perennial_spec import logs
from perennial_spec.model import SliceGate
from perennial_spec.pipeline import PipelineSpec

log = logging.getLogger(__name__)
DEFAULT_WINDOW = timedelta(days=7)
"""For a pipeline without `monitoring.quality`: it is measured all the same, and raises no alert."""


@dataclass(frozen=True)
class SliceQuality:
    """What is known of one value of a slice."""

    figures: dict[str, Figure]
    labels: int


@dataclass(frozen=True)
class Quality:
    """What is known of one version."""

    figures: dict[str, Figure]
    labels: int
    """Predictions in the window whose label is known."""
    labelled_share: float
    """Of the predictions in the window that name their entity; once labels name predictions, of those without one too."""
    waiting: int
    """Predictions in the window that have no label yet."""
    estimated: dict[str, float] = field(default_factory=dict)
    """What the metrics should be on those that wait; of a classifier."""
    confidence: float | None = None
    """Of a classifier, over all predictions in the window."""
    slices: dict[str, dict[str, SliceQuality]] = field(default_factory=dict)
    """By slice and value."""


@dataclass(frozen=True)
class PipelineQuality:
    """What is known of one pipeline."""

    versions: dict[str, Quality] = field(default_factory=dict)
    lag: float | None = None
    """Seconds from a prediction to its label, the median over the window."""
    last_label: float | None = None
    """When the newest label was written, seconds since 1970."""
    due: int = 0
    """Predictions whose label should have come of late, of all versions."""
    due_labelled: int = 0
    predictions_seen: dict[str, int] = field(default_factory=dict)
    """Rows of the prediction log that came since the start, by `PREDICTION_OUTCOMES`."""
    labels_seen: dict[str, int] = field(default_factory=dict)
    """Likewise, by `LABEL_OUTCOMES`."""


@dataclass(frozen=True)
class Measured:
    """What the spec asks to be measured; a change of it starts the pipeline anew."""

    metrics: tuple[str, ...]
    length: Length
    classifier: bool
    slices: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: PipelineSpec) -> Measured:
        quality = spec.monitoring.quality
        metric = quality.metric if quality else spec.evaluation.metric
        window = quality.window if quality else DEFAULT_WINDOW
        length = Length(_microseconds(window), _microseconds(spec.data.label.arrives_after))
        metrics = measured(spec.model.kind, metric)
        return cls(metrics, length, spec.model.kind == "xgboost.classifier", slices_of(spec) if metrics else ())


def slices_of(spec: PipelineSpec) -> tuple[str, ...]:
    """The columns by whose values quality is measured: `monitoring.quality.slices` and those of the gates, as far as they are logged."""
    quality = spec.monitoring.quality
    gates = [gate.slice for gate in spec.evaluation.gates if isinstance(gate, SliceGate)]
    wanted = dict.fromkeys([*(quality.slices if quality else ()), *gates])
    return tuple(column for column in wanted if column not in spec.data.unlogged)


class Followed:
    """One pipeline's two logs and their window."""

    def __init__(self, store: str, pipeline: str, wanted: Measured, now: int) -> None:
        self.wanted = wanted
        self._folder = f"{store}/{pipeline}"
        self._seen: dict[str, tuple[int, int]] = {}
        self._quality: dict[str, Quality] = {}
        self._lag: float | None = None
        self._new = False
        """Rows have come that are not measured yet."""
        self._outcomes: dict[str, Counter[str]] = {logs.PREDICTIONS: Counter(), logs.LABELS: Counter()}
        self._begin(now)

    def _begin(self, now: int) -> None:
        inputs = (logs.INPUTS,) if self.wanted.slices else ()
        columns = (logs.PREDICTION_ID, logs.ENTITY, logs.VERSION, logs.SCORE, logs.AT, *inputs)
        self._predictions = Tail(f"{self._folder}/{logs.PREDICTIONS}", columns)
        self._labels = Tail(f"{self._folder}/{logs.LABELS}", (logs.ENTITY, logs.LABEL, logs.AT, logs.PREDICTION_ID))
        self._window = Window(self.wanted.length, Slices(self.wanted.slices))
        self._last_label: int | None = None
        self._since = now // 1000 * 1000  # files' times are whole milliseconds

    def refresh(self, now: int) -> PipelineQuality:
        """Read what is new and measure again what has changed.

        Raises:
            what `Tail.read` raises; what was read before that is kept.
        """
        try:
            self._read(now)
        except Rewritten as why:
            log.warning("%s: its rows are read once more", why)
            self._begin(now)
            self._read(now)
            self._new = True
        joined = self._window.join(now)
        sizes = {version: (len(pairs.labels), pairs.predictions) for version, pairs in joined.items()}
        if self._new or sizes != self._seen:
            self._measure(joined, now)
            self._seen, self._new = sizes, False
        return PipelineQuality(
            versions=self._quality,
            lag=self._lag,
            last_label=None if self._last_label is None else self._last_label / 1e6,
            due=sum(pairs.due for pairs in joined.values()),
            due_labelled=sum(pairs.due_labelled for pairs in joined.values()),
            predictions_seen=dict(self._outcomes[logs.PREDICTIONS]),
            labels_seen=dict(self._outcomes[logs.LABELS]),
        )

    def _read(self, now: int) -> None:
        bounds = Bounds(self.wanted.classifier, now - self.wanted.length.whole, now)
        for batch in self._predictions.read(bounds.cutoff):
            self._new = True
            self._add_predictions(batch, bounds)
        for batch in self._labels.read(bounds.cutoff):
            self._new = True
            self._add_labels(batch, bounds)

    def _add_predictions(self, batch: Batch, bounds: Bounds) -> None:
        outcomes = self._news(logs.PREDICTIONS, batch)
        for version, rows in predictions_of(batch.rows, bounds, self._window.slices, outcomes):
            self._window.add_predictions(version, rows, self._outcomes[logs.LABELS])

    def _add_labels(self, batch: Batch, bounds: Bounds) -> None:
        outcomes = self._news(logs.LABELS, batch)
        own, entity = labels_of(batch.rows, batch.written, batch.written >= self._since, bounds, outcomes)
        self._window.add_own_labels(own, outcomes)
        self._window.add_entity_labels(entity, outcomes)
        self._last_label = max(self._last_label or 0, batch.written)

    def _news(self, table: str, batch: Batch) -> Counter[str]:
        """Where the rows of a batch are counted; nowhere, when they were there before we came: a restart is no news."""
        return self._outcomes[table] if batch.written >= self._since else Counter()

    def _measure(self, joined: dict[str, Joined], now: int) -> None:
        shown = {
            each.column: each.shown(counts)
            for each, counts in zip(self._window.slices.all, self._window.frequencies(now).values(), strict=True)
        }
        self._quality = {version: self._of_version(pairs, shown) for version, pairs in joined.items()}
        lags = [pairs.lags for pairs in joined.values() if len(pairs.lags)]
        self._lag = float(np.median(np.concatenate(lags))) / 1e6 if lags else None

    def _of_version(self, joined: Joined, shown: dict[str, tuple[Array, list[str]]]) -> Quality:
        known = Pairs(joined.scores, joined.labels)
        classifier = self.wanted.classifier
        return Quality(
            figures=measure(self.wanted.metrics, known),
            labels=len(known),
            labelled_share=joined.labelled_share,
            waiting=len(joined.waiting),
            estimated=estimate(known, joined.waiting) if classifier else {},
            confidence=confidence(np.concatenate([joined.scores, joined.waiting])) if classifier else None,
            slices={
                name: _by_value(self.wanted.metrics, known, places[joined.slices[name]], values)
                for name, (places, values) in shown.items()
            },
        )


def _by_value(metrics: tuple[str, ...], known: Pairs, places: Array, values: list[str]) -> dict[str, SliceQuality]:
    """The pairs of each value, measured.

    Args:
        places: uint8[n]: the place of each pair's value in `values`.
    """
    order = np.argsort(places, kind="stable")  # a radix sort of bytes; within a value, scores stay sorted
    ends = np.cumsum(np.bincount(places, minlength=len(values)))[:-1]
    found = {}
    for value, rows in zip(values, np.split(order, ends), strict=True):
        if len(rows):
            found[value] = SliceQuality(measure(metrics, Pairs(known.scores[rows], known.labels[rows])), len(rows))
    return found


def _microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
