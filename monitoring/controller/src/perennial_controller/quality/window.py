"""The rolling window: the newest prediction of each version for each entity, and the newest label of each entity.

A label may also name the one prediction that it is of. That prediction then stands in the window for itself, with this label, also where
a newer one of its entity stands beside it; and predictions without an entity, which nothing else can label, are in the window as well.

What is in the window follows from the two logs and the clock alone: the order of the rows, repetitions and restarts do not matter.
A prediction is in it for `length` after it was made; a label, for `length` after it was written (its own time may be another clock's).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
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


class _Slots:
    """Predictions in columns; a key (an entity, or a prediction's id) has one slot, in the order of their coming."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self.ids: list[str | None] = []
        self.at = array("q")
        self.score = array("d")
        self.label = array("d")
        self.label_written = array("q")

    def predict(self, key: str, at: int, score: float, label: _Label | None, id_: str | None) -> None:
        slot = self.slots.get(key)
        if slot is None:
            self.slots[key] = len(self.at)
            self.ids.append(id_)
            self.at.append(at)
            self.score.append(score)
            self.label.append(label.value if label else nan)
            self.label_written.append(label.written if label else _NEVER)
        elif at >= self.at[slot]:
            self.at[slot], self.score[slot], self.ids[slot] = at, score, id_

    def set_label(self, key: str, label: _Label) -> None:
        slot = self.slots.get(key)
        if slot is not None:
            self.label[slot], self.label_written[slot] = label.value, label.written

    def since(self, cutoff: int) -> _Slots:
        """A copy without what is older."""
        kept = _Slots()
        for key, slot in self.slots.items():
            if self.at[slot] > cutoff:
                label = _Label(0, self.label[slot], self.label_written[slot])
                kept.predict(key, self.at[slot], self.score[slot], label, self.ids[slot])
        return kept

    def masks(self, cutoff: int) -> tuple[np.ndarray, np.ndarray]:
        """bool[slots]: whose prediction is in the window, and whose label as well."""
        import numpy as np

        live = np.array(self.at, dtype=np.int64) > cutoff
        return live, live & (np.array(self.label_written, dtype=np.int64) > cutoff)

    def pairs(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels where `mask` is true."""
        import numpy as np

        return np.array(self.score)[mask], np.array(self.label)[mask]


@dataclass
class _Version:
    """Predictions of one version."""

    entities: _Slots = field(default_factory=_Slots)
    named: _Slots = field(default_factory=_Slots)
    """By id, those that have an entity: each may have a label of its own."""
    nameless: _Slots = field(default_factory=_Slots)
    """By id, those that have none."""

    def all(self) -> Iterator[_Slots]:
        yield from (self.entities, self.named, self.nameless)

    def joined(self, cutoff: int) -> Joined:
        import numpy as np

        live, labelled = self.entities.masks(cutoff)
        _, exact = self.named.masks(cutoff)
        alone, alone_labelled = self.nameless.masks(cutoff)
        if exact.any():  # what has a label of its own is not counted once more as its entity's newest
            own = {id_ for id_, slot in self.named.slots.items() if exact[slot]}
            others = np.array([id_ not in own for id_ in self.entities.ids], dtype=bool)
            live, labelled = live & others, labelled & others
        masks = zip(self.all(), (labelled, exact, alone_labelled), strict=True)
        scores, labels = zip(*(slots.pairs(mask) for slots, mask in masks), strict=True)
        predictions = sum(int(np.count_nonzero(mask)) for mask in (live, exact, alone))
        return Joined(np.concatenate(scores), np.concatenate(labels), predictions)


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
        """By entity."""
        self._exact: dict[str, _Label] = {}
        """By prediction id."""
        self._swept: int | None = None

    def add_predictions(
        self,
        entities: Sequence[str | None],
        versions: Sequence[str | None],
        scores: Sequence[float | None],
        times: Sequence[int | None],
        ids: Sequence[str | None] | None = None,
    ) -> None:
        """Rows of the prediction log. What has neither entity nor id cannot be joined, and what has no finite score not be measured.

        Args:
            ids: without them, no prediction can have a label of its own, and each takes less memory.
        """
        rows = zip(entities, versions, scores, times, strict=True)
        for (entity, version, score, at), id_ in zip(rows, ids or repeat(None)):  # noqa: B905 (one is endless)
            if version is None or score is None or at is None or not isfinite(score):
                continue
            if entity is None and id_ is None:
                continue
            held = self._versions.get(version)
            if held is None:
                held = self._versions[version] = _Version()
            if entity is not None:
                held.entities.predict(entity, at, score, self._labels.get(entity), id_)
            if id_ is not None:
                own = held.nameless if entity is None else held.named
                own.predict(id_, at, score, self._exact.get(id_), id_)

    def add_labels(
        self,
        entities: Sequence[str | None],
        labels: Sequence[float | None],
        times: Sequence[int | None],
        written: int,
        ids: Sequence[str | None] | None = None,
    ) -> None:
        """Rows of the label log, all written at `written`. One with an id is that prediction's alone."""
        rows = zip(entities, labels, times, strict=True)
        for (entity, value, at), id_ in zip(rows, ids or repeat(None)):  # noqa: B905 (one is endless)
            key = entity if id_ is None else id_
            if key is None or value is None or at is None or not isfinite(value):
                continue
            found = self._labels if id_ is None else self._exact
            known = found.get(key)
            if known is None or at >= known.at:
                label = found[key] = _Label(at, value, written)
                for version in self._versions.values():
                    for slots in (version.entities,) if id_ is None else (version.named, version.nameless):
                        slots.set_label(key, label)

    def join(self, now: int) -> dict[str, Joined]:
        """Each version that has a prediction in the window."""
        cutoff = now - self.length
        self._sweep(now, cutoff)
        joined = {name: version.joined(cutoff) for name, version in self._versions.items()}
        return {name: pairs for name, pairs in joined.items() if pairs.predictions}

    def _sweep(self, now: int, cutoff: int) -> None:
        if self._swept is None:
            self._swept = now
        if now - self._swept < self.length // _SWEEPS:
            return
        self._swept = now
        kept = {name: _Version(*(slots.since(cutoff) for slots in each.all())) for name, each in self._versions.items()}
        self._versions = {name: each for name, each in kept.items() if any(slots.slots for slots in each.all())}
        self._labels, self._exact = _since(self._labels, cutoff), _since(self._exact, cutoff)


def _since(labels: dict[str, _Label], cutoff: int) -> dict[str, _Label]:
    return {key: label for key, label in labels.items() if label.written > cutoff}
