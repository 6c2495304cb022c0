"""What moves the model's answers on rows that it was not fitted to: what live attributions are compared with."""

from __future__ import annotations

import logging
from typing import Any

from perennial_features.attribution import Attribution
from perennial_features.code import Array
from perennial_features.engine import contributions, load_xgboost
from perennial_features.holdout import spread
from perennial_features.schema import FeatureSchema

log = logging.getLogger(__name__)
_ROWS = 2000
"""Explained at most: a few seconds of work at some hundred trees, and more rows than a server explains in five minutes."""


def attribution(booster: Any, schema: FeatureSchema, matrix: Array) -> Attribution | None:
    """The attribution of up to `_ROWS` of these rows, evenly spread; None where XGBoost cannot explain the model.

    Args:
        matrix: float32[rows, features].
    """
    try:
        found = contributions(booster, matrix[spread(len(matrix), _ROWS)])
    except load_xgboost().core.XGBoostError as error:
        log.warning("no reference for attributions: XGBoost cannot explain this model: %s", str(error)[:200])
        return None
    if found.ndim != 2:  # several values per row
        return None
    return Attribution.of(schema.feature_names, found[:, :-1])
