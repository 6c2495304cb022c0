"""Rows in the order of their scores, kept sorted while rows come and go."""

from __future__ import annotations

import numpy as np

from perennial_controller.quality.columns import Array
from perennial_controller.quality.keys import NONE


class Order:
    """The rows of a set by rising score: what has come is sorted by itself and merged, what has gone is taken out.

    A measurement of a million rows would otherwise sort them each time, which takes longer than all the rest of it.
    """

    def __init__(self) -> None:
        self._rows: Array = np.empty(0, np.int64)
        self._scores: Array = np.empty(0, np.float64)
        self._member: Array = np.empty(0, bool)

    def follow(self, wanted: Array, scores: Array) -> Array:
        """int64[n]: the rows where `wanted` is true, by rising score. A row's score is always the same.

        Args:
            wanted: bool[rows]; there may be more rows than before.
            scores: float64[rows].
        """
        held = np.zeros(len(wanted), bool)
        held[: len(self._member)] = self._member
        if (held & ~wanted).any():
            kept = wanted[self._rows]
            self._rows, self._scores = self._rows[kept], self._scores[kept]
        new = np.flatnonzero(wanted & ~held)
        if len(new):
            new = new[np.argsort(scores[new], kind="stable")]
            places = np.searchsorted(self._scores, scores[new], side="right")
            self._rows = np.insert(self._rows, places, new)
            self._scores = np.insert(self._scores, places, scores[new])
        self._member = wanted
        return self._rows

    def moved(self, to: Array) -> None:
        """Row `r` is now `to[r]`, or has gone where that is -1."""
        rows = to[self._rows]
        kept = rows != NONE
        self._rows, self._scores = rows[kept], self._scores[kept]
        self._member = np.zeros(int(to.max(initial=NONE)) + 1, bool)
        self._member[self._rows] = True
