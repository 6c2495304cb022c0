"""The predictions of one version, and which label each of them has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from perennial_controller.quality.columns import Array, Columns
from perennial_controller.quality.keys import NONE, Keys, last_of_each
from perennial_controller.quality.labels import Labels
from perennial_controller.quality.order import Order


@dataclass(frozen=True)
class PredictionRows:
    """Predictions that can be used, all of one version."""

    ids: Array
    """int64[n]: keys of the predictions' own names."""
    entities: Array
    """int64[n]: keys of what they are about."""
    named: Array
    """bool[n]: whether they say what they are about."""
    scores: Array
    """float64[n], finite."""
    at: Array
    """int64[n]: when they were made, microseconds since 1970."""
    slices: dict[str, Array] = field(default_factory=dict)
    """Column to uint16[n], codes."""

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, which: Array) -> PredictionRows:
        return PredictionRows(
            self.ids[which],
            self.entities[which],
            self.named[which],
            self.scores[which],
            self.at[which],
            {name: codes[which] for name, codes in self.slices.items()},
        )


@dataclass(frozen=True)
class Truth:
    """The labels of a pipeline: a prediction's own label goes before its entity's."""

    own: Labels = field(default_factory=Labels)
    entity: Labels = field(default_factory=Labels)


@dataclass(frozen=True)
class Joined:
    """What the window holds of one version."""

    scores: Array
    """float64[n], rising: predictions whose label is known."""
    labels: Array
    """float64[n]: their labels."""
    slices: dict[str, Array]
    """Column to uint16[n]: their codes."""
    waiting: Array
    """float64[m], rising: scores of the predictions that have no label yet."""
    lags: Array
    """int64[n], in no order: microseconds from a prediction to its label."""
    due: int
    """Predictions whose label should have come of late."""
    due_labelled: int

    @property
    def predictions(self) -> int:
        """In the window, with a label or not."""
        return len(self.scores) + len(self.waiting)

    @property
    def labelled_share(self) -> float:
        return len(self.labels) / self.predictions


@dataclass(frozen=True)
class Span:
    """The times that a measurement is about, microseconds since 1970."""

    cutoff: int
    """The window holds what is newer."""
    due_from: int
    due_until: int
    """Predictions made after `due_from` and until then should have a label, and have not been due for long."""


class Predictions:
    """One row per prediction. An entity's label is for the newest prediction about it."""

    def __init__(self, slices: Sequence[str]) -> None:
        self._slices = tuple(slices)
        own = {"at": np.int64, "score": np.float64, "named": np.bool_, "newest": np.bool_, "own": np.int32}
        self._columns = Columns({**own, "theirs": np.int32, **{f"slice {name}": np.uint16 for name in slices}})
        self._ids, self._entities = Keys(), Keys()
        self._labelled, self._waiting = Order(), Order()

    def __len__(self) -> int:
        return len(self._columns)

    def add(self, new: PredictionRows, truth: Truth) -> tuple[int, int]:
        """Rows that are not there yet, and how many of the labels that had come before have now met a prediction, as news."""
        _, first = np.unique(new.ids, return_index=True)
        first.sort()
        new = new.of(first[self._ids.find(new.ids[first]) == NONE])
        if not len(new):
            return 0, 0
        own = truth.own.find(new.ids)
        rows = self._columns.append(
            at=new.at,
            score=new.scores,
            named=new.named,
            newest=False,
            own=own,
            theirs=NONE,
            **{f"slice {name}": codes for name, codes in new.slices.items()},
        )
        self._ids.put(new.ids, rows)
        about = np.flatnonzero(new.named)
        last = about[last_of_each(new.entities[about], new.at[about])]
        before = self._entities.find(new.entities[last])
        newer = (before == NONE) | (new.at[last] >= self._columns["at"][before])
        last, before = last[newer], before[newer]
        theirs = truth.entity.find(new.entities[last])
        self._columns["newest"][before[before != NONE]] = False
        self._columns["newest"][rows[last]] = True
        self._columns["theirs"][rows[last]] = theirs
        self._entities.put(new.entities[last], rows[last])
        return len(new), truth.own.meet(own) + truth.entity.meet(theirs)

    def label_own(self, keys: Array, labels: Array) -> Array:
        """Labels of predictions that were not there before; bool[n]: whether each finds its prediction here."""
        rows = self._ids.find(keys)
        found: Array = rows != NONE
        self._columns["own"][rows[found]] = labels[found]
        return found

    def label_entity(self, keys: Array, labels: Array) -> Array:
        """As `label_own`, by entity."""
        rows = self._entities.find(keys)
        found: Array = rows != NONE
        self._columns["theirs"][rows[found]] = labels[found]
        return found

    def join(self, truth: Truth, span: Span) -> Joined:
        """What the window holds now."""
        of = self._columns
        live = of["at"] > span.cutoff
        own = truth.own.live(of["own"], span.cutoff)
        theirs = of["newest"] & ~own
        theirs &= truth.entity.live(of["theirs"], span.cutoff)
        # What nobody names can be labelled by its id alone, and counts once labels name ids.
        counted = live & (own | of["newest"] | (~of["named"] & (len(truth.own.columns) > 0)))
        labelled = live & (own | theirs)
        due = counted & (of["at"] > span.due_from) & (of["at"] <= span.due_until)
        rows = self._labelled.follow(labelled, of["score"])
        values = _taken("value", own[rows], of["own"][rows], of["theirs"][rows], truth)
        own_time = _taken("at", own[rows], of["own"][rows], of["theirs"][rows], truth)
        written = _taken("written", own[rows], of["own"][rows], of["theirs"][rows], truth)
        made = of["at"][rows]
        # A label's own time is when it came, unless the client said otherwise, and may then be any.
        possible = (own_time >= made) & (own_time <= written)
        return Joined(
            scores=of["score"][rows],
            labels=values,
            slices={name: of[f"slice {name}"][rows] for name in self._slices},
            waiting=of["score"][self._waiting.follow(counted & ~labelled, of["score"])],
            lags=np.maximum(np.where(possible, own_time, written) - made, 0),
            due=int(np.count_nonzero(due)),
            due_labelled=int(np.count_nonzero(due & labelled)),
        )

    def codes(self, name: str, cutoff: int) -> Array:
        """uint16[n]: a slice's codes of the predictions in the window."""
        codes: Array = self._columns[f"slice {name}"][self._columns["at"] > cutoff]
        return codes

    def recode(self, name: str, to: Array) -> None:
        column = self._columns[f"slice {name}"]
        column[:] = to[column]

    def sweep(self, cutoff: int, own_to: Array, entity_to: Array) -> None:
        """Give back what has left the window; labels' rows have moved as `own_to` and `entity_to` say."""
        to = self._columns.keep(self._columns["at"] > cutoff)
        for keys in (self._ids, self._entities, self._labelled, self._waiting):
            keys.moved(to)
        for name, moved in (("own", own_to), ("theirs", entity_to)):
            column = self._columns[name]
            column[:] = np.append(moved, NONE)[column]  # -1, none, is the last place


def _taken(column: str, own: Array, own_rows: Array, entity_rows: Array, truth: Truth) -> Array:
    """A column of each row's label: its own where `own` is true, else its entity's."""
    mine, theirs = truth.own.columns[column], truth.entity.columns[column]
    found = np.empty(len(own), mine.dtype)
    found[own] = mine[own_rows[own]]
    found[~own] = theirs[entity_rows[~own]]
    return found
