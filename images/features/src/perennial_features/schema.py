"""What a model takes in: its input columns and its features, as they were in training."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Literal

import numpy as np

from perennial_features.code import Array, Columns
from perennial_spec.base import Model
from perennial_spec.errors import FeatureError

InputKind = Literal["number", "integer", "boolean", "text", "timestamp"]
FeatureKind = Literal["numeric", "categorical"]

MAX_CATEGORIES = 10_000
"""A feature with more categories is an identifier, and a model would learn it by heart."""

_KINDS: dict[str, InputKind] = {"f": "number", "i": "integer", "b": "boolean", "O": "text", "M": "timestamp"}
_DTYPES: dict[str, str] = {
    "number": "float64",
    "integer": "int64",
    "boolean": "bool",
    "text": "object",
    "timestamp": "datetime64[us]",
}


class InputColumn(Model):
    """One column that the feature function reads."""

    name: str
    kind: InputKind
    """`number` is float64 (NaN is missing), `integer` int64, `boolean` bool, `text` str or None, `timestamp` datetime64[us] in UTC."""
    nullable: bool = False
    """Training saw missing values: a request may leave the column out. A value may be missing in any case, and is drift then."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(_DTYPES[self.kind])


class Feature(Model):
    """One feature, in the order of the model's matrix."""

    name: str
    kind: FeatureKind
    categories: tuple[str, ...] = ()
    """Those that training saw, the most frequent first; the code of a category is its place."""

    @cached_property
    def codes(self) -> dict[str | None, float]:
        """Category to code; None, which is missing, to NaN."""
        return {None: float("nan"), **{category: float(code) for code, category in enumerate(self.categories)}}


class FeatureSchema(Model):
    """Training and serving build the same matrix from it."""

    inputs: tuple[InputColumn, ...]
    features: tuple[Feature, ...]

    @property
    def feature_names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def feature_types(self) -> list[str]:
        """XGBoost's: `c` for categorical, `q` for quantitative."""
        return ["c" if feature.kind == "categorical" else "q" for feature in self.features]

    def input(self, name: str) -> InputColumn | None:
        return next((column for column in self.inputs if column.name == name), None)

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> FeatureSchema:
        return cls.model_validate_json(text)


def infer(columns: Columns, features: Columns) -> FeatureSchema:
    """The schema of training data.

    Args:
        columns: the input columns that the feature function reads, of dtype float64, int64, bool, object or datetime64[us].
        features: what `FeatureCode.apply` made of them.

    Raises:
        FeatureError: a categorical feature has more than `MAX_CATEGORIES`.
    """
    return FeatureSchema(
        inputs=tuple(
            InputColumn(name=name, kind=_KINDS[values.dtype.kind], nullable=bool(missing(values).any()))
            for name, values in columns.items()
        ),
        features=tuple(_feature(name, values) for name, values in features.items()),
    )


def missing(values: Array) -> Array:
    """Which values are missing: NaN, NaT or None; bool[rows]."""
    if values.dtype.kind in "fM":
        found: Array = np.isnan(values) if values.dtype.kind == "f" else np.isnat(values)
        return found
    if values.dtype.kind == "O":
        return np.fromiter((value is None for value in values), dtype=bool, count=len(values))
    return np.zeros(len(values), dtype=bool)


def _feature(name: str, values: Array) -> Feature:
    if values.dtype.kind != "O":
        return Feature(name=name, kind="numeric")
    counts = Counter(values.tolist())
    counts.pop(None, None)
    if len(counts) > MAX_CATEGORIES:
        raise FeatureError(
            f"feature {name!r} has {len(counts):,} categories",
            expected=f"at most {MAX_CATEGORIES:,}: more is an identifier, not a feature",
            next="leave it out, group it, or turn it into a number",
        )
    # Ties by name, so that the same data always gives the same codes.
    ordered = sorted(counts, key=lambda category: (-counts[category], category))
    return Feature(name=name, kind="categorical", categories=tuple(ordered))
