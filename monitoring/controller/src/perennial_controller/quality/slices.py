"""The values of a slice's column, told apart as far as they are bounded."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from perennial_controller.quality.columns import Array
from perennial_spec.names import BIN_MISSING, BIN_OTHER

SHOWN = 20
"""Values of a slice that are measured by themselves: the most frequent ones."""
_TOLD_APART = 10_000
"""Different values that are counted at all; the next ones are `other` from the start."""
_LENGTH = 60
"""Characters of a value that are shown."""
_MISSING, _OTHER = 0, 1


class Slice:
    """One column of the inputs, each value as a small number."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._codes = {BIN_MISSING: _MISSING, BIN_OTHER: _OTHER}

    def code(self, value: Any) -> int:
        text = _text(value)
        known = self._codes.get(text)
        if known is None:
            if len(self._codes) >= _TOLD_APART:
                return _OTHER
            known = self._codes[text] = len(self._codes)
        return known

    def shown(self, counts: Array) -> tuple[Array, list[str]]:
        """Which values are measured by themselves, and what becomes of each code.

        Args:
            counts: int64[codes]: how often each occurs.

        Returns:
            uint8[all codes]: the place of each code's value in the list; and the values' texts. Of equally frequent values, the first
            of the alphabet counts as the more frequent one.
        """
        texts = sorted(self._codes, key=lambda text: (-self._count(text, counts), text))
        named = [text for text in texts if text not in (BIN_MISSING, BIN_OTHER) and self._count(text, counts)][:SHOWN]
        places = np.full(len(self._codes), 1, np.uint8)
        places[_MISSING] = 0
        for place, text in enumerate(named, 2):
            places[self._codes[text]] = place
        return places, [BIN_MISSING, BIN_OTHER, *named]

    def _count(self, text: str, counts: Array) -> int:
        code = self._codes[text]
        return int(counts[code]) if code < len(counts) else 0

    def forget(self, counts: Array) -> Array:
        """Drop values that no longer occur; uint16[codes before] with the values' codes now."""
        kept = {text for text in self._codes if self._count(text, counts)} | {BIN_MISSING, BIN_OTHER}
        before, self._codes = self._codes, {}
        to = np.full(len(before), _OTHER, np.uint16)
        for text, code in before.items():  # in the order of their codes: missing and other stay what they are
            if text in kept:
                self._codes[text] = to[code] = len(self._codes)
        return to


class Slices:
    """All columns that quality is measured by."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.all = tuple(Slice(column) for column in columns)

    def encode(self, inputs: Sequence[str | None]) -> dict[str, Array]:
        """Column to uint16[n]: the values' codes, from the log's JSON objects; what cannot be read is `missing`."""
        import orjson

        rows = []
        for text in inputs:
            try:
                row = orjson.loads(text or "{}")
            except orjson.JSONDecodeError:
                row = {}
            rows.append(row if isinstance(row, dict) else {})
        return {
            each.column: np.fromiter((each.code(row.get(each.column)) for row in rows), np.uint16, len(rows))
            for each in self.all
        }


def _text(value: Any) -> str:
    """As a label's value, which may be neither empty nor long."""
    if value is None or value == "" or (isinstance(value, float) and not isfinite(value)):
        return BIN_MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list):
        return BIN_OTHER
    return str(value)[:_LENGTH]
