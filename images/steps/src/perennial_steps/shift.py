"""How far apart the predictions of two versions are, from their counts by bin. Pure.

Each version counts into bins of its own, the deciles of its own training, so that shares of bins cannot be compared; what lies below
an edge can. Information for people, and no limit: a challenger that answers as the champion does would not be worth a rollout.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

_INTERVAL = re.compile(r"^\(([^,]+),([^\])]+)[\])]$")
"""`(0.25,0.5]`, see `perennial_features.reference`."""


def shift(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """The share of the predictions that must at least move to turn one distribution into the other, in [0, 1]; None without rows.

    Of numbers the distance of Kolmogorov and Smirnov, at the edges of both; within a bin the values are taken to lie evenly, and in the
    outer bins, which have no end, nothing is compared. Of classes half the sum of the differences of their shares.

    Args:
        one, other: rows by bin.
    """
    if sum(one.values()) <= 0 or sum(other.values()) <= 0:
        return None
    ours, theirs = _Cumulative.of(one), _Cumulative.of(other)
    if ours is None or theirs is None:
        return _between_classes(one, other)
    found = [(ours.at(edge), theirs.at(edge)) for edge in (*ours.edges, *theirs.edges)]
    return max((abs(a - b) for a, b in found if a is not None and b is not None), default=None)


def _between_classes(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    mine, its = sum(one.values()), sum(other.values())
    return sum(abs(one.get(name, 0.0) / mine - other.get(name, 0.0) / its) for name in one.keys() | other.keys()) / 2


class _Cumulative:
    """The share of the rows at or below each edge."""

    def __init__(self, bins: list[tuple[float, float]]) -> None:
        """From `(upper end, rows)`, rising; the last end is infinite."""
        total = sum(rows for _, rows in bins)
        self.edges = [edge for edge, _ in bins[:-1]]
        self._below = [rows / total for rows in accumulate(rows for _, rows in bins[:-1])] if total else []

    @classmethod
    def of(cls, counts: Mapping[str, float]) -> _Cumulative | None:
        """None when the bins are no intervals; rows without a value are left out."""
        matches = {name: _INTERVAL.match(name) for name in counts}
        bins = sorted((float(found[2]), counts[name]) for name, found in matches.items() if found)
        if not bins or not math.isinf(bins[-1][0]):
            return None
        return cls(bins)

    def at(self, value: float) -> float | None:
        """Interpolated; None below the first edge and above the last."""
        if not self._below or not self.edges[0] <= value <= self.edges[-1]:
            return None
        place = bisect_left(self.edges, value)
        if self.edges[place] == value:
            return self._below[place]
        low, high = self.edges[place - 1], self.edges[place]
        part = (value - low) / (high - low)
        return self._below[place - 1] + part * (self._below[place] - self._below[place - 1])
