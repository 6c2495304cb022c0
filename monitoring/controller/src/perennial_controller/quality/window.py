"""The rolling window: the newest prediction of each version for each entity, and the newest label of each entity.

A label may also name the one prediction that it is of. That prediction then stands in the window for itself, with this label, also where
a newer one of its entity stands beside it; and predictions without an entity, which nothing else can label, are in the window as well.

What is in the window follows from the two logs and the clock alone: the order of the rows, repetitions and restarts do not matter.
A prediction is in it for `length` after it was made; a label, for `length` after it was written (its own time may be another clock's).
Memory is bounded by what the window holds: about 250 bytes for a prediction with its label.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from perennial_controller.quality.columns import Array
from perennial_controller.quality.labels import LabelRows, Labels
from perennial_controller.quality.predictions import Joined, PredictionRows, Predictions, Span, Truth
from perennial_controller.quality.slices import Slices

_SWEEPS = 20
"""Memory of what has left the window is given back this often per window."""
_LATELY = 7
"""A prediction has fallen due of late for this part of the window: a day of a week."""


@dataclass(frozen=True)
class Length:
    """What the window spans, microseconds."""

    window: int
    """`monitoring.quality.window`"""
    arrives_after: int = 0
    """`data.label.arrives_after`: the window reaches back by so much more, or the newest predictions would crowd out those with labels."""

    @property
    def whole(self) -> int:
        return self.window + self.arrives_after


class Window:
    """One pipeline's predictions and labels, joined. Times are microseconds since 1970."""

    def __init__(self, length: Length, slices: Slices) -> None:
        self.length = length
        self.slices = slices
        self._versions: dict[str, Predictions] = {}
        self._truth = Truth()
        self._swept: int | None = None

    def add_predictions(self, version: str, rows: PredictionRows, outcomes: Counter[str]) -> None:
        """Rows of the prediction log; labels that had come before and have now met their prediction are counted as `joined`."""
        held = self._versions.get(version)
        if held is None:
            held = self._versions[version] = Predictions([each.column for each in self.slices.all])
        _, met = held.add(rows, self._truth)
        outcomes["joined"] += met

    def add_own_labels(self, rows: LabelRows, outcomes: Counter[str]) -> None:
        """Labels that name their prediction."""
        keys, added = self._truth.own.add(rows, outcomes)
        found = [version.label_own(keys, added) for version in self._versions.values()]
        self._met(self._truth.own, added, found, outcomes)

    def add_entity_labels(self, rows: LabelRows, outcomes: Counter[str]) -> None:
        """Labels that name what they are about."""
        keys, added = self._truth.entity.add(rows, outcomes)
        found = [version.label_entity(keys, added) for version in self._versions.values()]
        self._met(self._truth.entity, added, found, outcomes)

    @staticmethod
    def _met(labels: Labels, added: Array, found: list[Array], outcomes: Counter[str]) -> None:
        met = np.logical_or.reduce(found) if found else np.zeros(len(added), bool)
        outcomes["joined"] += labels.meet(added[met])
        outcomes["unknown"] += int(np.count_nonzero(labels.columns["counted"][added[~met]]))

    def join(self, now: int) -> dict[str, Joined]:
        """Each version that has a prediction in the window."""
        cutoff = now - self.length.whole
        self._sweep(now, cutoff)
        due = now - self.length.arrives_after
        span = Span(cutoff, due - self.length.window // _LATELY, due)
        joined = {name: version.join(self._truth, span) for name, version in self._versions.items()}
        return {name: pairs for name, pairs in joined.items() if pairs.predictions}

    def frequencies(self, now: int) -> dict[str, Array]:
        """Slice to int64[codes]: how often each value occurs among the window's predictions, of all versions."""
        cutoff = now - self.length.whole
        return {each.column: self._frequencies(each.column, cutoff) for each in self.slices.all}

    def _frequencies(self, column: str, cutoff: int) -> Array:
        counts = [np.bincount(version.codes(column, cutoff)) for version in self._versions.values()]
        total = np.zeros(max(map(len, counts), default=0), np.int64)
        for each in counts:
            total[: len(each)] += each
        return total

    def _sweep(self, now: int, cutoff: int) -> None:
        if self._swept is None:
            self._swept = now
        if now - self._swept < self.length.whole // _SWEEPS:
            return
        self._swept = now
        moved = self._truth.own.sweep(cutoff), self._truth.entity.sweep(cutoff)
        for version in self._versions.values():
            version.sweep(cutoff, *moved)
        self._versions = {name: version for name, version in self._versions.items() if len(version)}
        for each in self.slices.all:
            to = each.forget(self._frequencies(each.column, cutoff))
            for version in self._versions.values():
                version.recode(each.column, to)
