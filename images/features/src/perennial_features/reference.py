"""Reference histograms: where the training data lay, bin by bin, so that drift can be counted instead of guessed.

The model server counts each value into these bins; Prometheus compares the shares. Bins of a numeric feature are closed on the right,
`(-inf,12.5]`; counting is done on the float32 values that the model sees, so that training and serving agree on every edge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from perennial_features.attribution import Attribution
from perennial_features.code import Array
from perennial_features.encode import Encoded
from perennial_features.schema import Feature, FeatureSchema
from perennial_spec import names
from perennial_spec.base import Model

MAX_BINS = 10
"""Numeric bins per feature: deciles, as is customary for PSI (Siddiqi, 2006)."""
MAX_CATEGORIES = 32
"""Categories with a bin of their own; the rest share `other`. Bounds the number of time series."""
MAX_NAME = 48

Counts = np.ndarray[tuple[int], np.dtype[np.int64]]


class FeatureBins(Model):
    """The bins of one feature, or of the predictions. Numeric: `edges`; categorical: `categories` and `other`. Both: `missing`."""

    feature: str
    kind: str
    edges: tuple[float, ...] = ()
    """Upper ends of all bins but the last, rising; each is a float32."""
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...]
    """Rows of the training data by bin, in the order of `bins`."""
    low: float | None = None
    """Least value of the training data, a float32, of a numeric feature that is no prediction; None where training saw none, and in bundles
    of older releases: then no value is out of range."""
    high: float | None = None
    """Greatest value; likewise."""

    @cached_property
    def bins(self) -> tuple[str, ...]:
        """Stable names of bounded length, one per bin, for labels."""
        if self.kind == "categorical":
            return (*map(bin_name, self.categories), names.BIN_OTHER, names.BIN_MISSING)
        ends = ["-inf", *(_number(edge) for edge in self.edges), "inf"]
        numeric = [f"({low},{high}]" for low, high in pairwise(ends)]
        numeric[-1] = numeric[-1].replace("]", ")")
        return (*numeric, names.BIN_MISSING)


class Reference(Model):
    """The bins of every feature and of the predictions, with the training data's counts."""

    features: tuple[FeatureBins, ...]
    """In the order of the matrix; predictions last, as feature `names.PREDICTION_FEATURE`."""
    rows: int
    attribution: Attribution | None = None
    """What moved the model's answers; None where TreeSHAP cannot tell, and in the bundles of older releases."""

    @classmethod
    def of(cls, encoded: Encoded | Array, schema: FeatureSchema, predictions: Array) -> Reference:
        """The bins of training data, exact: every row is counted.

        Args:
            encoded: what `encode` or `encode_all` made of the features, float32[rows, features].
            schema: the schema that they were encoded by.
            predictions: what the model makes of these rows, or of rows like them that it was not fitted to; float[any length].
        """
        whole = encoded if isinstance(encoded, Encoded) else Encoded(encoded, {})
        found = []
        for place, feature in enumerate(schema.features):
            values = whole.matrix[:, place]
            if feature.kind == "categorical":
                unseen = whole.unseen.get(place)
                found.append(_categorical(feature, values, 0 if unseen is None else int(unseen.sum())))
            else:
                found.append(_numeric(feature.name, values))
        found.append(_numeric(names.PREDICTION_FEATURE, np.asarray(predictions), ranged=False))
        return cls(features=tuple(found), rows=len(whole.matrix))

    @cached_property
    def series(self) -> tuple[tuple[str, str], ...]:
        """`(feature, bin)` of every bin, in the order of `counts`, `shares` and of what `count` returns."""
        return tuple((each.feature, name) for each in self.features for name in each.bins)

    @cached_property
    def ranged(self) -> tuple[str, ...]:
        """Features whose values may be out of the range of the training data, in order."""
        return tuple(each.feature for each in self.features if each.low is not None and each.high is not None)

    @cached_property
    def counts(self) -> Counts:
        """int64[bins]: rows of the training data."""
        return np.array([count for each in self.features for count in each.counts], dtype=np.int64)

    @cached_property
    def shares(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """float64[bins]: share of each bin within its feature, with half a count added to each bin, so that none is 0."""
        return self._shares_of(self.counts)

    def count(self, encoded: Encoded | Array, predictions: Array) -> Counts:
        """int64[bins]: how many of these rows fall into each bin, in the order of `series`.

        Args:
            encoded: of `encode_all`. A bare matrix works too, and then categories that training did not see count as missing.
            predictions: float[rows].
        """
        whole = encoded if isinstance(encoded, Encoded) else Encoded(encoded, {})
        return self._counter.count(whole, predictions)

    def psi(self, live_counts: Sequence[int] | Array) -> dict[str, float]:
        """Population stability index by feature: sum over bins of (live - reference) * ln(live / reference).

        Shares have half a count added to each bin (Prometheus computes the same). 0 when nothing has moved; under no drift about
        (bins - 1) * (1/n + 1/m) for n live and m reference rows.

        Args:
            live_counts: in the order of `series`.
        """
        live = self._shares_of(np.asarray(live_counts))
        terms = (live - self.shares) * np.log(live / self.shares)
        sums = np.add.reduceat(terms, self._starts)
        return {each.feature: float(value) for each, value in zip(self.features, sums, strict=True)}

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Reference:
        return cls.model_validate_json(text)

    @cached_property
    def _starts(self) -> Counts:
        """int64[features]: where each feature's bins begin in the flat order."""
        return np.cumsum([0, *(len(each.counts) for each in self.features[:-1])], dtype=np.int64)

    @cached_property
    def _counter(self) -> _Counter:
        return _Counter(self)

    def _shares_of(self, counts: Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        smoothed = counts + 0.5
        if not self.features:  # of a model that has no bins
            return smoothed
        sizes = [len(each.counts) for each in self.features]
        shares: np.ndarray[tuple[int], np.dtype[np.float64]] = smoothed / np.repeat(
            np.add.reduceat(smoothed, self._starts), sizes
        )
        return shares


class _Counter:
    """Counting without a loop over features: a single row costs microseconds, and so do a hundred."""

    CHUNK = 4096
    """Rows at a time: bounds the comparison table of [rows, features, edges]."""

    def __init__(self, reference: Reference) -> None:
        kinds = np.array([each.kind == "categorical" for each in reference.features])
        self.size = len(reference.counts)
        self.starts = reference._starts
        self.missing = self.starts + np.array([len(each.counts) for each in reference.features]) - 1
        self.numeric, self.categorical = np.flatnonzero(~kinds), np.flatnonzero(kinds)
        most = max((len(each.edges) for each in reference.features), default=0)
        self.edges = np.full((len(self.numeric), most), np.inf, dtype=np.float32)  # nothing is above +inf
        for row, place in enumerate(self.numeric):
            edges = reference.features[place].edges
            self.edges[row, : len(edges)] = edges
        # Codes run in the order of frequency, so those that have a bin of their own come first: the rest is `other`.
        self.others = np.array(
            [len(reference.features[place].categories) for place in self.categorical], dtype=np.int64
        )

    def count(self, encoded: Encoded, predictions: Array) -> Counts:
        total = np.zeros(self.size, dtype=np.int64)
        for start in range(0, len(encoded.matrix), self.CHUNK):
            part = slice(start, start + self.CHUNK)
            places = self._places(encoded.matrix[part], predictions[part])
            for place, mask in encoded.unseen.items():
                other = self.others[np.searchsorted(self.categorical, place)]
                places[mask[part], place] = self.starts[place] + other
            total += np.bincount(places.ravel(), minlength=self.size)
        return total

    def _places(self, matrix: Array, predictions: Array) -> Array:
        """int64[rows, features + 1]: the flat place of each value's bin."""
        values = np.concatenate([matrix, np.asarray(predictions, dtype=np.float32)[:, None]], axis=1)
        inside = np.empty(values.shape, dtype=np.int64)
        inside[:, self.numeric] = (values[:, self.numeric, None] > self.edges).sum(axis=2)
        if len(self.categorical):
            codes = np.nan_to_num(values[:, self.categorical]).astype(np.int64)
            inside[:, self.categorical] = np.minimum(codes, self.others)
        places: Array = np.where(np.isnan(values), self.missing, inside + self.starts)
        return places


def bin_name(category: str) -> str:
    """A label for a category's bin: at most `MAX_NAME` characters, not empty, never one of the reserved names."""
    if not category or category in {names.BIN_OTHER, names.BIN_MISSING} or category.startswith("="):
        category = f"={category}"
    if len(category) <= MAX_NAME:
        return category
    return f"{category[: MAX_NAME - 9]}~{hashlib.sha256(category.encode(errors='replace')).hexdigest()[:8]}"


def _number(edge: float) -> str:
    return str(np.float32(edge)).removesuffix(".0")


def _numeric(name: str, values: Array, ranged: bool = True) -> FeatureBins:
    # One sort gives quantiles, counts and the missing (NaN sorts last): 10 ms per million values.
    ordered = np.sort(values.astype(np.float32))
    present = ordered[: len(ordered) - int(np.isnan(ordered).sum())]
    edges = _edges(present)
    below = np.searchsorted(present, edges, side="right")
    counts = np.diff(np.concatenate([[0], below, [len(present)]]))
    return FeatureBins(
        feature=name,
        kind="numeric",
        edges=tuple(float(edge) for edge in edges),
        counts=(*map(int, counts), len(ordered) - len(present)),
        low=float(present[0]) if ranged and len(present) else None,
        high=float(present[-1]) if ranged and len(present) else None,
    )


def _edges(ordered: Array) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Quantiles as values that occur, duplicates merged. A constant gets a bin of its own: leaving it on either side is drift."""
    if not len(ordered):
        return np.empty(0, dtype=np.float32)
    low, high = ordered[0], ordered[-1]
    if low == high:
        return np.array([np.nextafter(low, np.float32(-np.inf)), low], dtype=np.float32)
    ranks = np.ceil(len(ordered) * np.arange(1, MAX_BINS) / MAX_BINS).astype(np.int64) - 1
    edges = np.unique(ordered[ranks])
    found: np.ndarray[tuple[int], np.dtype[np.float32]] = edges[edges < high]
    return found


def _categorical(feature: Feature, codes: Array, unseen: int) -> FeatureBins:
    present = codes[~np.isnan(codes)].astype(np.int64)
    counts = np.bincount(present, minlength=len(feature.categories))
    kept = min(MAX_CATEGORIES, len(feature.categories))
    other = int(counts[kept:].sum()) + unseen
    return FeatureBins(
        feature=feature.name,
        kind="categorical",
        categories=feature.categories[:kept],
        counts=(*map(int, counts[:kept]), other, len(codes) - len(present) - unseen),
    )


def describe(reference: Reference) -> list[dict[str, Any]]:
    """One row per bin for people and files: feature, bin, count, share."""
    return [
        {"feature": feature, "bin": name, "count": int(count), "share": float(share)}
        for (feature, name), count, share in zip(reference.series, reference.counts, reference.shares, strict=True)
    ]
