"""What is logged: predictions of the two paths through the server, labels, and the share of rows that is kept.

Encoding happens on the event loop, where every microsecond counts: arrays are sent as they lie in memory.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from perennial_features.bundle import Scores
from perennial_features.schema import FeatureSchema
from perennial_serving.rows import Rows
from perennial_spec import logs
from perennial_spec.units import parse_share

_FLOAT = np.dtype(np.float64)
_OBJECTS, _MICROS = "O", "M"
_TAGS = {np.dtype(code): code for code in "?bhilqBHILQfd"} | {np.dtype("O"): _OBJECTS, np.dtype("M8[us]"): _MICROS}
"""What arrays can be sent as they are, and the code by which a memoryview knows them too."""
_PLAIN = (str, int, float, bool, type(None))
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True)
class PredictionRows:
    """What one version answered in one request of the general path."""

    ids: Sequence[str]
    entities: Sequence[str | None]
    version: str
    scores: Scores
    shadow: bool
    at: int
    """Microseconds since 1970, UTC."""
    rows: Rows
    logged: tuple[str, ...]
    """Columns of `rows` that may be stored."""

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self) -> bytes:
        columns = self.rows.columns
        return _encoded(self, {name: _array(columns[name]) for name in self.logged if name in columns})

    def kept(self, mask: Mask | None) -> PredictionRows:
        """The rows where `mask` is true; all for None."""
        if mask is None:
            return self
        places = np.flatnonzero(mask).tolist()
        ids, entities = [self.ids[place] for place in places], [self.entities[place] for place in places]
        return replace(self, ids=ids, entities=entities, scores=self.scores[mask], rows=self.rows.take(places))


@dataclass(frozen=True, slots=True)
class Block:
    """What one version answered in one turn of the event loop, in typed columns."""

    ids: list[str]
    entities: list[str | None] | None
    """As they may be stored; None when no row has one."""
    version: str
    scores: np.ndarray[Any, np.dtype[np.float64]]
    """float64[n], or float64[n, outputs]."""
    shadow: bool
    at: int
    """Microseconds since 1970, UTC."""
    columns: dict[str, np.ndarray[Any, Any]]
    """[n] each: float64, int64, bool, objects (str or None), datetime64[us]. Only those that may be stored."""

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self) -> bytes:
        return _encoded(self, self.columns)

    def kept(self, mask: Mask | None) -> Block:
        """The rows where `mask` is true; all for None."""
        if mask is None:
            return self
        places = np.flatnonzero(mask).tolist()
        return replace(
            self,
            ids=[self.ids[place] for place in places],
            entities=self.entities and [self.entities[place] for place in places],
            scores=self.scores[mask],
            columns={name: values[mask] for name, values in self.columns.items()},
        )


@dataclass(frozen=True, slots=True)
class Noted:
    """What one version answered in one turn of the event loop, with the inputs as the requests wrote them."""

    ids: list[str]
    entities: list[str | None]
    """As they may be stored."""
    version: str
    scores: Scores
    shadow: bool
    at: int
    """Microseconds since 1970, UTC."""
    labels: tuple[bytes | None, ...]
    """By column of the requests, what stands before its value in an object; None for those that may not be stored."""
    inputs: bytes
    """The rows, JSON lists one after the other."""
    ends: bytes
    """int32[n]: where each of them ends."""

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self) -> bytes:
        return marshal.dumps((*_head(self), None, (self.labels, self.inputs, self.ends)))

    def kept(self, mask: Mask | None) -> Noted:
        """The rows where `mask` is true; all for None."""
        if mask is None:
            return self
        places = np.flatnonzero(mask).tolist()
        bounds = [0, *np.frombuffer(self.ends, dtype=np.int32).tolist()]
        texts = [self.inputs[bounds[place] : bounds[place + 1]] for place in places]
        return replace(
            self,
            ids=[self.ids[place] for place in places],
            entities=[self.entities[place] for place in places],
            scores=self.scores[mask],
            inputs=b"".join(texts),
            ends=np.cumsum([len(text) for text in texts], dtype=np.int32).tobytes(),
        )


@dataclass(frozen=True)
class Label:
    entity: str | None
    """None when the label names its prediction."""
    label: float
    at: int
    """Microseconds since 1970, UTC."""
    prediction_id: str | None = None


@dataclass(frozen=True)
class Reward:
    prediction_id: str
    version: str | None
    """The version that made the prediction, if it is loaded here."""
    reward: float
    at: int
    """Microseconds since 1970, UTC."""


def share_of(spec: Mapping[str, Any]) -> float:
    """The share of predictions to log, by a bundle's spec; all for one from before there was such a word."""
    log = (spec.get("monitoring") or {}).get("log") or {}
    return parse_share(log.get("share", 1.0))


def logged_columns(schema: FeatureSchema, data: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that the prediction log may hold: the model's inputs and the timestamp, less what a spec's `data` hides."""
    label = data.get("label") or {}
    lists = (data.get("sensitive"), data.get("redact"), data.get("exclude"))
    hidden = {label.get("column"), *(name for names in lists for name in names or ())}
    wanted = dict.fromkeys([*(column.name for column in schema.inputs), str(data.get("timestamp") or "")])
    return tuple(name for name in wanted if name and name not in hidden)


def sampled(ids: Sequence[str], share: float) -> Mask | None:
    """Which rows to log; None for all. Drawn from the noise in each id, and so independent of what the rows are.

    The rows of a shadow have the ids of the answers that they shadow: both are logged, or neither.
    """
    if share >= 1:
        return None
    return np.array([int(id_[24:30], 16) for id_ in ids]) < share * 2**24


def encode_rows(table: str, rows: Iterable[object]) -> bytes:
    """One entry of rows that have the columns of `table` as attributes; what one lacks is null."""
    found = list(rows)
    return marshal.dumps({name: [getattr(row, name, None) for row in found] for name in logs.ROW_COLUMNS[table]})


def _encoded(entry: PredictionRows | Block, columns: dict[str, np.ndarray[Any, Any]]) -> bytes:
    known = _TAGS.get
    tags = tuple([known(column.dtype) for column in columns.values()])
    if None in tags:
        return _encoded(entry, {name: _known(column) for name, column in columns.items()})
    layout, objects = _layout(tuple(columns), tags)
    values: list[Any] = [column.tobytes() for column in columns.values()]
    for place, name in objects:
        values[place] = columns[name].tolist()
    head = (*_head(entry), layout)
    try:
        return marshal.dumps([*head, values])
    except ValueError:  # something that is no plain value, which a column of objects may hold
        return marshal.dumps([*map(_plain, head), [_plain(data) for data in values]])


def _head(entry: PredictionRows | Block | Noted) -> tuple[Any, ...]:
    scores = entry.scores
    if scores.dtype.kind == "O":  # text
        return entry.ids, entry.entities, entry.version, scores.tolist(), 0, entry.shadow, entry.at
    if scores.dtype != _FLOAT:
        scores = scores.astype(_FLOAT)
    width = 1 if scores.ndim == 1 else scores.size // len(scores)
    return entry.ids, entry.entities, entry.version, scores.tobytes(), width, entry.shadow, entry.at


@lru_cache(256)
def _layout(names: tuple[str, ...], tags: tuple[str | None, ...]) -> tuple[bytes, list[tuple[int, str]]]:
    """Names and kinds of columns, encoded, and which hold objects. A model's are the same in every entry."""
    objects = [(place, names[place]) for place, tag in enumerate(tags) if tag == _OBJECTS]
    return marshal.dumps((names, tags)), objects


def _array(column: Any) -> np.ndarray[Any, Any]:
    """A request's column as an array; plain values stay the objects that they are."""
    if isinstance(column, np.ndarray):
        return column
    if len(column) and isinstance(column[0], np.generic):  # an array's rows, taken one by one
        return np.asarray(column)
    found = np.empty(len(column), dtype=object)
    found[:] = column
    return found


def _known(column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As one of the kinds of array that can be sent."""
    if column.dtype in _TAGS:
        return column
    kind = column.dtype.kind
    if kind == "M":
        return column.astype("M8[us]")
    if kind in "iuf":
        return column.astype("d" if kind == "f" else column.dtype.newbyteorder("="))
    if kind == "S":
        return np.char.decode(column, "utf-8", "replace").astype(object)
    return (column if kind == "U" else column.astype(str)).astype(object)


def _plain(values: Any) -> Any:
    if not isinstance(values, list | tuple):
        return values
    return [value if type(value) in _PLAIN else str(value) for value in values]
