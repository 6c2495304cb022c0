"""The `data` and `expectations` parts of the spec."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from perennial_spec.base import Model
from perennial_spec.units import Duration

Column = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]


class Label(Model):
    """The column that the model predicts."""

    column: Column
    arrives_after: Duration = timedelta(0)
    """How long after the timestamp of a row its label is known."""


class Data(Model):
    """Where the data is, what its columns mean, and which of them a model may see."""

    sources: dict[Identifier, str] = Field(min_length=1)
    """Name to location: a path or URI with wildcards (csv, json, parquet; `delta:` and a path for Delta) or a `postgresql://` URL
    with `#table`. `${NAME}` is taken from the environment."""
    query: str | None = None
    """A file with one DuckDB SELECT over the sources. Not needed when there is only one source."""
    timestamp: Column
    """The column that says when a row was known; rows are ordered, windowed and split by it. UTC."""
    entity: Column
    """The key that predictions and late labels are joined on; unique within the data."""
    label: Label
    window: Duration = timedelta(days=365)
    """A model is trained on this much of the newest data."""
    partition_by: tuple[Literal["day", "month", "year"], ...] = Field(default=("month",), min_length=1, max_length=1)
    """Each partition that is new or has changed lands as one new version of the Delta table."""
    exclude: tuple[Column, ...] = ()
    """Columns that never reach a model, for example because they are only known later."""
    sensitive: tuple[Column, ...] = ()
    """Columns that are never a feature, and are kept so that gates can judge slices by them."""
    redact: dict[Column, Literal["drop", "hash"]] = Field(default_factory=dict)
    """Columns that are dropped, or replaced by a keyed hash, before anything is stored."""
    freshness: Duration | None = None
    """Data older than this raises an alert."""

    @property
    def unlogged(self) -> frozenset[str]:
        """Columns that the prediction log never holds, so that live quality cannot be told by them."""
        return frozenset({self.label.column, *self.exclude, *self.sensitive, *self.redact})


class Expectation(Model):
    """One Great Expectations expectation: `expect_column_values_to_be_between: {column: x, min_value: 0}`."""

    name: Annotated[str, StringConstraints(pattern=r"^expect_[a-z0-9_]+$")]
    arguments: dict[str, Any] = Field(default_factory=dict)
    severity: Literal["stop", "warn"] = "stop"
    """`stop` keeps the batch out of every model; `warn` is reported."""

    @model_validator(mode="before")
    @classmethod
    def _from_one_key(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "name" in value:
            return value
        if len(value) != 1:
            raise ValueError("expected one expectation as `expect_...: {argument: value}`")
        name, arguments = next(iter(value.items()))
        if not isinstance(arguments, dict):
            raise ValueError(f"expected the arguments of {name} as a mapping, as in {{column: distance, min_value: 1}}")
        arguments = dict(arguments)
        severity = arguments.pop("severity", "stop")
        return {"name": name, "arguments": arguments, "severity": severity}
