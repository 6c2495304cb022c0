"""The logs' rows, from Arrow to the numbers that the window holds. What cannot be used is left out, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial_controller.quality.columns import Array
from perennial_controller.quality.keys import hashed
from perennial_controller.quality.labels import LabelRows
from perennial_controller.quality.predictions import PredictionRows
from perennial_controller.quality.slices import Slices
from perennial_spec import logs

PREDICTION_OUTCOMES = ("kept", "invalid", "unnamed", "future", "past")
"""In `names.QUALITY_PREDICTIONS_SEEN`.

invalid: no finite score, or no probability; unnamed: neither entity nor id; past: older than the window.
"""
LABEL_OUTCOMES = ("joined", "unknown", "repeated", "contradicting", "invalid", "future")
"""In `names.QUALITY_LABELS_SEEN`. A label that came before its prediction is `unknown` first, and `joined` later."""
_SKEW = 3600 * 10**6
"""A row whose time is so many microseconds ahead of our clock is not of a clock that is a little fast."""


@dataclass(frozen=True)
class Bounds:
    """What is read."""

    probabilities: bool
    """Scores are probabilities and labels 0 or 1; otherwise both are any finite numbers."""
    cutoff: int
    """Rows of this time (microseconds since 1970) and before have left the window."""
    now: int


def predictions_of(
    rows: Any, bounds: Bounds, slices: Slices, outcomes: Counter[str]
) -> Iterator[tuple[str, PredictionRows]]:
    """Rows of the prediction log (`pyarrow.Table`), by version."""
    ids, has_id = _texts(rows.column(logs.PREDICTION_ID))
    entities, named = _texts(rows.column(logs.ENTITY))
    scores = _numbers(rows.column(logs.SCORE))
    at, has_time = _times(rows.column(logs.AT))
    versions = rows.column(logs.VERSION).to_pylist()
    good = np.isfinite(scores) & has_time & np.array([version is not None for version in versions], bool)
    if bounds.probabilities:
        good &= (scores >= 0) & (scores <= 1)
    reasons = {
        "invalid": ~good,
        "unnamed": ~(has_id | named),
        "future": at > bounds.now + _SKEW,
        "past": at <= bounds.cutoff,
    }
    kept = _without(reasons, outcomes)
    outcomes["kept"] += int(np.count_nonzero(kept))
    inputs = rows.column(logs.INPUTS).filter(kept).to_pylist() if slices.all else []
    ids = np.where(has_id, ids, entities ^ at)  # one without an id is told by what it is about, and when
    found = PredictionRows(
        ids=ids[kept],
        entities=entities[kept],
        named=named[kept],
        scores=scores[kept],
        at=at[kept],
        slices=slices.encode(inputs) if slices.all else {},
    )
    of = np.array(versions, dtype=object)[kept]
    for version in dict.fromkeys(of.tolist()):
        yield version, found.of(np.flatnonzero(of == version))


def labels_of(
    rows: Any, written: int, news: bool, bounds: Bounds, outcomes: Counter[str]
) -> tuple[LabelRows, LabelRows]:
    """Rows of the label log: those that name their prediction, and those that name an entity.

    Args:
        written: when all of them were, microseconds since 1970.
        news: whether they count; those that a start finds written are used, and not counted.
    """
    ids, has_id = _texts(rows.column(logs.PREDICTION_ID))
    entities, named = _texts(rows.column(logs.ENTITY))
    values = _numbers(rows.column(logs.LABEL))
    at, has_time = _times(rows.column(logs.AT))
    good = np.isfinite(values) & has_time & (has_id | named)
    if bounds.probabilities:
        good &= (values == 0) | (values == 1)
    kept = _without({"invalid": ~good, "future": at > bounds.now + _SKEW}, outcomes)

    def some(which: Array, keys: Array) -> LabelRows:
        count = int(np.count_nonzero(which))
        return LabelRows(
            keys[which], values[which], at[which], np.full(count, written, np.int64), np.full(count, news, bool)
        )

    return some(kept & has_id, ids), some(kept & ~has_id, entities)


def _without(reasons: dict[str, Array], outcomes: Counter[str]) -> Array:
    """bool[n]: the rows that no reason holds for; the others are counted under the first that does."""
    left = np.ones(len(next(iter(reasons.values()))), bool)
    for reason, holds in reasons.items():
        outcomes[reason] += int(np.count_nonzero(left & holds))
        left &= ~holds
    return left


def _texts(column: Any) -> tuple[Array, Array]:
    """A column of strings as keys, and which are not null."""
    return hashed(column.to_pylist()), np.asarray(column.is_valid(), dtype=bool)


def _numbers(column: Any) -> Array:
    """float64[n]; null is NaN."""
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _times(column: Any) -> tuple[Array, Array]:
    """A column of timestamps as microseconds since 1970, and which are not null."""
    import pyarrow as pa

    there = np.asarray(column.is_valid(), dtype=bool)
    micros = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).fill_null(0)
    return np.asarray(micros.to_numpy(), dtype=np.int64), there
