"""The rolling window: the newest prediction of each version for each entity, and the newest label of each entity.

What is in the window follows from the two logs and the clock alone: the order of the rows, repetitions and restarts do not matter.
A prediction is in it for `length` after it was made; a label, for `length` after it was written (its own time may be another clock's).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_NEVER = -(2**62)
_SWEEPS = 20
"""Memory of what has left the window is given back this often per window."""


@dataclass(frozen=True)
class Joined:
    """What the window holds of one version: predictions with their labels, in the same order."""

    scores: np.ndarray
    labels: np.ndarray
    predictions: int
    """Predictions in the window, with a label or not."""

    @property
    def labelled_share(self) -> float:
        return len(self.labels) / self.predictions


class _Version:
    """Predictions of one version, in columns; an entity has one slot."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self.at = array("q")
        self.score = array("d")
        self.label = array("d")
        self.label_written = array("q")

    def predict(self, entity: str, at: int, score: float, label: _Label | None) -> None:
        slot = self.slots.get(entity)
        if slot is None:
            self.slots[entity] = len(self.at)
            self.at.append(at)
            self.score.append(score)
            self.label.append(label.value if label else nan)
            self.label_written.append(label.written if label else _NEVER)
        elif at >= self.at[slot]:
            self.at[slot], self.score[slot] = at, score

    def set_label(self, entity: str, label: _Label) -> None:
        slot = self.slots.get(entity)
        if slot is not None:
            self.label[slot], self.label_written[slot] = label.value, label.written

    def since(self, cutoff: int) -> _Version:
        """A copy without what is older."""
        kept = _Version()
        for entity, slot in self.slots.items():
            if self.at[slot] > cutoff:
                label = _Label(0, self.label[slot], self.label_written[slot])
                kept.predict(entity, self.at[slot], self.score[slot], label)
        return kept


@dataclass(frozen=True)
class _Label:
    at: int
    value: float
    written: int


class Window:
    """Times are microseconds since 1970."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._versions: dict[str, _Version] = {}
        self._labels: dict[str, _Label] = {}
        self._swept: int | None = None

    def add_predictions(
        self,
        entities: Sequence[str | None],
        versions: Sequence[str | None],
        scores: Sequence[float | None],
        times: Sequence[int | None],
    ) -> None:
        """Rows of the prediction log. Those without an entity cannot be joined, and those without a finite score not be measured."""
        for entity, version, score, at in zip(entities, versions, scores, times, strict=True):
            if entity is None or version is None or score is None or at is None or not isfinite(score):
                continue
            of_version = self._versions.get(version)
            if of_version is None:
                of_version = self._versions[version] = _Version()
            of_version.predict(entity, at, score, self._labels.get(entity))

    def add_labels(
        self, entities: Sequence[str | None], labels: Sequence[float | None], times: Sequence[int | None], written: int
    ) -> None:
        """Rows of the label log, all written at `written`."""
        for entity, value, at in zip(entities, labels, times, strict=True):
            if entity is None or value is None or at is None or not isfinite(value):
                continue
            known = self._labels.get(entity)
            if known is None or at >= known.at:
                label = self._labels[entity] = _Label(at, value, written)
                for version in self._versions.values():
                    version.set_label(entity, label)

    def join(self, now: int) -> dict[str, Joined]:
        """Each version that has a prediction in the window."""
        import numpy as np

        cutoff = now - self.length
        self._sweep(now, cutoff)
        joined = {}
        for name, version in self._versions.items():
            live = np.array(version.at, dtype=np.int64) > cutoff
            predictions = int(np.count_nonzero(live))
            if predictions:
                has_label = live & (np.array(version.label_written, dtype=np.int64) > cutoff)
                scores, labels = np.array(version.score), np.array(version.label)
                joined[name] = Joined(scores[has_label], labels[has_label], predictions)
        return joined

    def _sweep(self, now: int, cutoff: int) -> None:
        if self._swept is None:
            self._swept = now
        if now - self._swept < self.length // _SWEEPS:
            return
        self._swept = now
        kept = {name: version.since(cutoff) for name, version in self._versions.items()}
        self._versions = {name: version for name, version in kept.items() if version.slots}
        self._labels = {entity: label for entity, label in self._labels.items() if label.written > cutoff}
