"""From a dataset to the matrix that a model is fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perennial_features.code import Columns, FeatureCode
from perennial_features.encode import Encoded, encode_all
from perennial_features.holdout import spread
from perennial_features.rowwise import check_row_wise, one_by_one
from perennial_features.schema import FeatureSchema, infer
from perennial_spec.errors import BatchError
from perennial_steps.training.dataset import Dataset, Part, Parts

ALONE_ROWS = 32
"""So many rows are asked for by themselves too."""


@dataclass(frozen=True)
class Prepared:
    """A dataset as the model sees it."""

    dataset: Dataset
    parts: Parts
    inputs: Columns
    """The columns that the feature function read: those that a request must have."""
    schema: FeatureSchema
    encoded: Encoded
    """The whole window."""


def prepare(dataset: Dataset, parts: Parts, code: FeatureCode) -> Prepared:
    """Features, schema and matrix.

    Categories are those of the training part: what is new in validation and holdout is as new to the model there as it will be in
    service.

    Raises:
        FeatureError: of the pipeline's feature code; also when a row's features depend on the rows around it.
        BatchError: a feature is missing in every row that would be trained on.
    """
    features, used = code.trace(dataset.inputs)
    inputs = {name: dataset.inputs[name] for name in used}
    check_row_wise(code, features, one_by_one(dataset.inputs, spread(len(dataset), ALONE_ROWS)))
    trained = {name: values[parts.train.rows] for name, values in features.items()}
    schema = infer(inputs, trained)
    encoded = encode_all(features, schema)
    _need_values(encoded, schema, parts.train, code)
    return Prepared(dataset, parts, inputs, schema, encoded)


def _need_values(encoded: Encoded, schema: FeatureSchema, train: Part, code: FeatureCode) -> None:
    empty = np.isnan(encoded.matrix[train.rows]).all(axis=0)
    if not empty.any():
        return
    found = ", ".join(repr(schema.feature_names[place]) for place in np.flatnonzero(empty))
    raise BatchError(
        f"feature {found} is missing in all {train.count:,} rows to train on ({train.first} to {train.last})",
        where=code.where,
        expected="a value in at least one row: a column that has gone missing must not become a model's habit",
        next="look at the source and the query; leave the feature out if it is gone for good",
    )
