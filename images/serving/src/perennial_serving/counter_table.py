"""Numbers by name in one flat buffer, which may be a file that other processes read while this one counts.

    record 0: unused      record n: 8 bytes value | 8 bytes length of the key | key, parts separated by US

A record is never moved or removed, and becomes visible when its length is written, last.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)
RECORD = 512
"""Bytes of a record; a key that does not fit is not counted."""
RECORDS = 1024
SIZE = RECORD * RECORDS
_SEPARATOR = "\x1f"
_CELLS = RECORD // 8
Key = str | tuple[str | int, ...]
Number = TypeVar("Number", int, float)


class Numbers:
    """All tables of one process.

    Args:
        buffer: `SIZE` bytes, zero or left by a process before this one, which is then continued; otherwise new memory.
    """

    def __init__(self, buffer: memoryview | None = None) -> None:
        self._bytes = memoryview(bytearray(SIZE)) if buffer is None else buffer
        self.integers, self.floats = self._bytes.cast("q"), self._bytes.cast("d")
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}
        self._free = 1
        self._full = False
        self._read()

    def table(self, name: str) -> Table[int]:
        return Table(self, name, self.integers, 0)

    def sums(self, name: str) -> Table[float]:
        return Table(self, name, self.floats, 0.0)

    def refresh(self) -> None:
        """Take note of records that another process has added."""
        self._read()

    def known(self, key: str) -> int | None:
        """The cell of `key`'s value, if it has one."""
        return self._places.get(key)

    def place(self, key: str) -> int | None:
        """The cell of `key`'s value, made when there is none; None when there is no room."""
        found = self._places.get(key)
        if found is not None:
            return found
        with self._lock:
            return self._places[key] if key in self._places else self._add(key)

    def _add(self, key: str) -> int | None:
        encoded = key.encode(errors="replace")
        if self._free >= RECORDS or len(encoded) > RECORD - 16:
            if not self._full:
                log.error("the table of counters is full: %d names; further ones are not counted", len(self._places))
            self._full = True
            return None
        start = self._free * RECORD
        self._bytes[start + 16 : start + 16 + len(encoded)] = encoded
        self.integers[self._free * _CELLS + 1] = len(encoded)
        self._places[key] = self._free * _CELLS
        self._free += 1
        return self._places[key]

    def _read(self) -> None:
        while self._free < RECORDS and (length := self.integers[self._free * _CELLS + 1]):
            start = self._free * RECORD + 16
            self._places[bytes(self._bytes[start : start + length]).decode(errors="replace")] = self._free * _CELLS
            self._free += 1

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(rest of the key, cell) of every key that begins so."""
        for key, cell in list(self._places.items()):
            if key.startswith(prefix):
                yield key[len(prefix) :], cell


class Table(Generic[Number]):
    """Numbers by key, such as `table["flights"] += 1`; 0 where nothing was counted."""

    def __init__(self, numbers: Numbers, name: str, cells: Any, zero: Number) -> None:
        self._numbers, self._prefix = numbers, name + _SEPARATOR
        self._zero: Number = zero
        self._cells: Any = cells
        """`numbers.integers` or `numbers.floats`."""

    def __getitem__(self, key: Key) -> Number:
        cell = self._numbers.place(self._named(key))
        value: Number = self._zero if cell is None else self._cells[cell]
        return value

    def __setitem__(self, key: Key, value: Number) -> None:
        cell = self._numbers.place(self._named(key))
        if cell is not None:
            self._cells[cell] = value

    def get(self, key: Key) -> Number:
        """The number, without making a place for it."""
        cell = self._numbers.known(self._named(key))
        value: Number = self._zero if cell is None else self._cells[cell]
        return value

    def items(self) -> Iterator[tuple[tuple[str, ...], Number]]:
        """(parts of the key as text, value)."""
        for rest, cell in self._numbers.keys(self._prefix):
            yield tuple(rest.split(_SEPARATOR)), self._cells[cell]

    def _named(self, key: Key) -> str:
        parts = (key,) if isinstance(key, str) else key
        return self._prefix + _SEPARATOR.join(map(str, parts))
