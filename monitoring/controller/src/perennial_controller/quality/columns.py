"""Columns of numbers that grow at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Columns:
    """A table in numpy. Appending costs what is appended, since there is room to spare."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._held: dict[str, Array] = {name: np.empty(0, kind) for name, kind in types.items()}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> Array:
        """A view of the column: writing to it writes to the table, until rows are added or go."""
        return self._held[name][: self._rows]

    def append(self, **values: Any) -> Array:
        """New rows, of every column an array or one value for all; int64[n] with their numbers."""
        count = max(len(value) for value in values.values() if isinstance(value, np.ndarray))
        end = self._rows + count
        for name, column in self._held.items():
            if end > len(column):
                room = np.empty(max(end - len(column), len(column) // 2), column.dtype)
                self._held[name] = np.concatenate([column, room])
            self._held[name][self._rows : end] = values[name]
        self._rows, rows = end, np.arange(self._rows, end)
        return rows

    def keep(self, kept: Array) -> Array:
        """Only the rows where `kept` is true, renumbered; int64[rows before] with their numbers now, -1 for those that went."""
        to = np.where(kept, np.cumsum(kept) - 1, -1)
        self._held = {name: self[name][kept] for name in self._held}
        self._rows = int(np.count_nonzero(kept))
        return to
