"""Finding rows of a table by a key, in numbers alone: a million keys take 16 MB, where a dictionary of strings takes 150."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
NONE = -1
"""The row of a key that is not there."""
_YOUNG = 4096


def hashed(values: Sequence[str | None]) -> Ints:
    """Strings as 64-bit keys: Python's own hash, whose secret is new in every process.

    Two of a million different strings have the same key with a chance of 3e-8.
    """
    return np.fromiter(map(hash, values), np.int64, len(values))


def last_of_each(keys: Ints, times: Ints) -> Ints:
    """The place of each key's newest time, of equal times the last that came; in the order of the keys."""
    order = np.lexsort((times, keys))
    return order[np.append(keys[order][1:] != keys[order][:-1], True)] if len(keys) else order


class Keys:
    """Rows by key, sorted: many old ones, and a few young ones beside them, so that one more does not move a million."""

    def __init__(self) -> None:
        self._old, self._young = _Run.empty(), _Run.empty()

    def find(self, keys: Ints) -> Ints:
        """int64[n]: the row of each key, or `NONE`."""
        rows = self._old.find(keys)
        young = self._young.find(keys)
        return np.where(young == NONE, rows, young)

    def put(self, keys: Ints, rows: Ints) -> None:
        """From now on the rows of these keys, each of which is given once."""
        there = self._old.replace(keys, rows)
        there |= self._young.replace(keys, rows)
        self._young = self._young.merged(keys[~there], rows[~there])
        if len(self._young.keys) > max(_YOUNG, len(self._old.keys) // 16):
            self._old, self._young = self._old.merged(self._young.keys, self._young.rows), _Run.empty()

    def moved(self, to: Ints) -> None:
        """Row `r` is now `to[r]`, or has gone where that is `NONE`."""
        self._old, self._young = self._old.moved(to), self._young.moved(to)


class _Run:
    """Sorted keys and their rows."""

    def __init__(self, keys: Ints, rows: Ints) -> None:
        self.keys, self.rows = keys, rows

    @classmethod
    def empty(cls) -> _Run:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    def _places(self, keys: Ints) -> tuple[Ints, Mask]:
        """Where each key is, and whether it is there."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return places, self.keys[places] == keys

    def find(self, keys: Ints) -> Ints:
        places, there = self._places(keys)
        found = np.full(len(keys), NONE, np.int64)
        found[there] = self.rows[places[there]]
        return found

    def replace(self, keys: Ints, rows: Ints) -> Mask:
        """Give the keys that are here their rows; which those are."""
        places, there = self._places(keys)
        self.rows[places[there]] = rows[there]
        return there

    def merged(self, keys: Ints, rows: Ints) -> _Run:
        if not len(keys):
            return self
        order = np.argsort(keys)
        keys, rows = keys[order], rows[order]
        places = np.searchsorted(self.keys, keys)
        return _Run(np.insert(self.keys, places, keys), np.insert(self.rows, places, rows))

    def moved(self, to: Ints) -> _Run:
        rows = to[self.rows]
        kept = rows != NONE
        return _Run(self.keys[kept], rows[kept])
