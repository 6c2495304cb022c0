"""The labels that have come: the newest of each entity, or of each prediction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from perennial_controller.quality.columns import Array, Columns
from perennial_controller.quality.keys import NONE, Keys, last_of_each


@dataclass(frozen=True)
class LabelRows:
    """Labels that can be used, all of one kind of key."""

    keys: Array
    """int64[n]"""
    values: Array
    """float64[n], finite."""
    at: Array
    """int64[n]: their own time, microseconds since 1970."""
    written: Array
    """int64[n]: when they were written."""
    counted: Array
    """bool[n]: whether they came since the exporter started, and count as news."""


class Labels:
    """One row per key. The newest own time wins; of equal ones, the last written."""

    def __init__(self) -> None:
        self.columns = Columns(
            {"at": np.int64, "value": np.float64, "written": np.int64, "met": np.bool_, "counted": np.bool_}
        )
        """`met`: it has met a prediction."""
        self._keys = Keys()

    def add(self, new: LabelRows, outcomes: Counter[str]) -> tuple[Array, Array]:
        """Keys and rows of those that were not there; `repeated` and `contradicting` ones are counted."""
        known = self._keys.find(new.keys)
        self._count(new, known, outcomes)
        last = last_of_each(new.keys, new.at)
        rows = known[last]
        there = rows != NONE
        won = last[there][new.at[last[there]] >= self.columns["at"][rows[there]]]
        for name, values in (("at", new.at), ("value", new.values), ("written", new.written)):
            self.columns[name][known[won]] = values[won]
        added = last[~there]
        if not len(added):
            return added, added
        rows = self.columns.append(
            at=new.at[added],
            value=new.values[added],
            written=new.written[added],
            met=False,
            counted=new.counted[added],
        )
        self._keys.put(new.keys[added], rows)
        return new.keys[added], rows

    def _count(self, new: LabelRows, known: Array, outcomes: Counter[str]) -> None:
        """Each against the one of its key that came before it: in this batch, or the one that held until now."""
        order = np.argsort(new.keys, kind="stable")
        keys, values, rows = new.keys[order], new.values[order], known[order]
        first = np.append(True, keys[1:] != keys[:-1]) if len(keys) else np.empty(0, bool)
        before = np.append(np.nan, values[:-1]) if len(keys) else values
        before = np.where(first, np.nan, before)
        there = first & (rows != NONE)
        before[there] = self.columns["value"][rows[there]]
        news = new.counted[order] & (~first | there)
        same = int(np.count_nonzero(news & (values == before)))
        outcomes["repeated"] += same
        outcomes["contradicting"] += int(np.count_nonzero(news)) - same

    def find(self, keys: Array) -> Array:
        """int64[n]: the row of each key, or -1."""
        return self._keys.find(keys)

    def meet(self, rows: Array) -> int:
        """These have met a prediction; how many of them, as news, for the first time."""
        rows = np.unique(rows[rows != NONE])
        first = rows[~self.columns["met"][rows]]
        self.columns["met"][first] = True
        return int(np.count_nonzero(self.columns["counted"][first]))

    def live(self, rows: Array, cutoff: int) -> Array:
        """bool[n]: whether the row is there, and was written after `cutoff`."""
        found: Array = rows != NONE
        found[found] = self.columns["written"][rows[found]] > cutoff
        return found

    def sweep(self, cutoff: int) -> Array:
        """Give back what was written before; int64[rows before] with the rows' numbers now, -1 for those that went."""
        to = self.columns.keep(self.columns["written"] > cutoff)
        self._keys.moved(to)
        return to
