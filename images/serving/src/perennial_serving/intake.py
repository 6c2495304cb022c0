"""Plain rows to typed columns without an object per value: the shorter way into the feature code.

A request takes it when its values have the form that their columns have in JSON. Any other is left to `perennial_features.request`, which
converts what is plainly meant and explains what is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from perennial_features.code import Array
from perennial_features.schema import FeatureSchema
from perennial_native._rows import Intake as Table

if TYPE_CHECKING:
    from perennial_serving.bodies import Body

_KINDS = {"number": 0, "integer": 1, "boolean": 2, "text": 3, "timestamp": 4}
_KEY = 5
_SERIALS = count()
_KEPT_VIEWS = 64
"""Views of the first 1, 2, ... rows are kept up to this many: making 25 of them costs more than predicting a row."""


class Intake:
    """The columns of one model version: its inputs, the entity, and columns that only the log wants.

    Args:
        schema: what the model takes in.
        entity: the column that predictions are joined by.
        logged: columns that the log may hold.
        capacity: rows at a time.
    """

    def __init__(self, schema: FeatureSchema, entity: str, logged: Sequence[str], capacity: int) -> None:
        self.capacity = capacity
        self._logged = frozenset(logged)
        self.entity = entity
        self._arrays: dict[str, Array] = {c.name: np.zeros(capacity, dtype=c.dtype) for c in schema.inputs}
        self._inputs = tuple(self._arrays)
        plan = [(c.name, _KINDS[c.kind], c.nullable, _buffer(self._arrays[c.name])) for c in schema.inputs]
        for name in dict.fromkeys((entity, *logged)):
            if name not in self._arrays:
                self._arrays[name] = np.full(capacity, None, dtype=object)
                plan.append((name, _KEY, True, self._arrays[name]))
        self.names = tuple(name for name, *_ in plan)
        table = Table(tuple(plan), capacity)
        self.split, self.split_text, self.journal = table.split, table.split_text, table.journal
        self.records, self.columns = table.records, table.columns
        self.serial = next(_SERIALS)
        self._views: dict[int, tuple[Mapping[str, Array], dict[str, Array]]] = {}

    def take(self, body: Body, start: int) -> bool:
        """Write the rows of `body` from `start` on; False when they do not fit, or are not plain."""
        if body.form == "split":
            assert body.layout is not None
            targets, absent, _ = body.layout.plan(self)
            return self.split(targets, absent, body.rows, start)
        if body.form == "records":
            return self.records(body.rows, start)
        return self.columns(body.rows, body.count, start)

    def plan(self, columns: Sequence[str]) -> tuple[bytes, bytes]:
        """For each of a request's columns the place of ours, or -1; and the places of those of ours that it lacks. int32 both."""
        places = {name: place for place, name in enumerate(self.names)}
        targets = [places.pop(name, -1) for name in columns]
        return np.array(targets, dtype=np.int32).tobytes(), np.array([*places.values()], dtype=np.int32).tobytes()

    def labels(self, columns: Sequence[str]) -> tuple[bytes | None, ...]:
        """What the log notes before each value of a request with these columns; None for those that it may not hold."""
        return tuple(orjson.dumps(name) + b":" if name in self._logged else None for name in columns)

    def typed(self, rows: int) -> Mapping[str, Array]:
        """The model's inputs in the first `rows` rows, read-only; valid until the next rows come in."""
        return self._first(rows)[0]

    def kept(self, rows: int) -> dict[str, Array]:
        """As `typed`, with the entity and what else is logged."""
        return self._first(rows)[1]

    def keys(self, rows: int) -> list[Any]:
        """The entities as they were sent."""
        found: list[Any] = self._arrays[self.entity][:rows].tolist()
        return found

    def _first(self, rows: int) -> tuple[Mapping[str, Array], dict[str, Array]]:
        found = self._views.get(rows)
        if found is None:
            views = {name: values[:rows] for name, values in self._arrays.items()}
            for view in views.values():
                view.flags.writeable = False
            found = MappingProxyType({name: views[name] for name in self._inputs}), views
            if rows <= _KEPT_VIEWS:
                self._views[rows] = found
        return found


def _buffer(values: Array) -> Any:
    """NumPy lends the memory of a datetime64 only as what it is made of."""
    return values.view(np.int64) if values.dtype.kind == "M" else values
