"""Features to the matrix that the model sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perennial_features.code import Array, Columns
from perennial_features.schema import Feature, FeatureSchema, missing
from perennial_spec.errors import FeatureError


@dataclass(frozen=True)
class Encoded:
    """What the model sees, and the one thing that it does not."""

    matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    """[rows, features]; NaN is missing, or a category that training did not see."""
    unseen: Mapping[int, Array]
    """By feature's place, bool[rows]: categories that training did not see; only features where there are any."""


def encode(features: Columns, schema: FeatureSchema) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """float32[rows, features] in the schema's order: categories as codes; missing, infinite and unseen values as NaN.

    Raises:
        FeatureError: a feature is missing, or numeric where training saw text, or the other way round.
    """
    return encode_all(features, schema).matrix


def encode_all(features: Columns, schema: FeatureSchema) -> Encoded:
    """As `encode`, and which of the NaN are unseen categories: drift counts them apart from missing values."""
    rows = len(next(iter(features.values()))) if features else 0
    matrix = np.empty((rows, len(schema.features)), dtype=np.float32)
    unseen: dict[int, Array] = {}
    with np.errstate(over="ignore"):
        for place, feature in enumerate(schema.features):
            values = _values(features, feature)
            if feature.kind == "numeric":
                matrix[:, place] = values
                continue
            # -1 stands for unseen on its way into the mask: the model must never see it.
            codes = [feature.codes.get(value, -1.0) for value in values.tolist()]
            matrix[:, place] = codes
            if -1.0 in codes:
                new = matrix[:, place] < 0
                unseen[place] = new
                matrix[new, place] = np.nan
    infinite = np.isinf(matrix)
    if infinite.any():
        matrix[infinite] = np.nan
    return Encoded(matrix, unseen)


def _values(features: Columns, feature: Feature) -> Array:
    values = features.get(feature.name)
    if values is None:
        raise FeatureError(
            f"the feature function returned no {feature.name!r}",
            expected="the features that the model was trained with, whatever the rows",
        )
    if (values.dtype.kind == "O") == (feature.kind == "categorical"):
        return values
    if missing(values).all():  # nothing but missing values has no type of its own
        empty: Array = np.full(len(values), np.nan) if feature.kind == "numeric" else np.full(len(values), None)
        return empty
    got, trained = ("text", "numbers") if feature.kind == "numeric" else ("numbers", "text")
    raise FeatureError(
        f"the feature function returned {feature.name!r} as {got}", expected=f"{trained}, as in training"
    )
