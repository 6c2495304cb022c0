"""The reference for attributions: TreeSHAP on rows that the model was not fitted to, or none where XGBoost cannot tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perennial_features.engine import load_xgboost
from perennial_features.schema import infer
from perennial_steps.training.attribution import attribution


def fitted(label: Any, **params: Any) -> tuple[Any, Any, Any]:
    """A booster of three features, their schema, and 5,000 rows of which some values are missing."""
    xgboost = load_xgboost()
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5000, 3)).astype(np.float32)
    matrix[::7, 1] = np.nan
    columns = {name: matrix[:, place].astype(np.float64) for place, name in enumerate("abc")}
    data = xgboost.DMatrix(matrix, label(matrix), feature_names=list("abc"))
    return xgboost.train({"max_depth": 3, **params}, data, 10), infer(columns, columns), matrix


def test_it_is_of_xgboosts_own_contributions_on_rows_that_are_evenly_spread() -> None:
    booster, schema, matrix = fitted(lambda rows: rows[:, 0] > 0, objective="binary:logistic")
    found = attribution(booster, schema, matrix)
    assert found is not None
    assert (found.features, found.rows) == (("a", "b", "c"), 2000)
    data = load_xgboost().DMatrix(matrix, feature_names=list("abc"))
    whole = np.abs(booster.predict(data, pred_contribs=True)[:, :-1]).mean(axis=0)
    assert found.shares == pytest.approx(whole / whole.sum(), abs=0.01)
    assert found.scale == pytest.approx(whole.sum(), rel=0.02)
    assert found.shares[0] > 0.9


def test_a_regressor_has_one_in_its_own_unit() -> None:
    booster, schema, matrix = fitted(lambda rows: 1000 * rows[:, 2], objective="reg:squarederror", base_score=0)
    found = attribution(booster, schema, matrix)
    assert found is not None and found.shares[2] > 0.9 and found.scale > 100


def test_a_model_with_several_values_per_row_has_none() -> None:
    booster, schema, matrix = fitted(
        lambda rows: np.digitize(rows[:, 0], [-0.5, 0.5]), objective="multi:softprob", num_class=3
    )
    assert attribution(booster, schema, matrix) is None


def test_a_model_that_answers_all_rows_alike_has_none() -> None:
    booster, schema, matrix = fitted(lambda rows: np.ones(len(rows)), objective="reg:squarederror", base_score=1)
    assert attribution(booster, schema, matrix) is None


def test_what_xgboost_cannot_explain_is_told_and_has_none(caplog: Any) -> None:
    booster, schema, matrix = fitted(lambda rows: rows[:, 0] > 0, objective="binary:logistic")
    matrix[5, 0] = np.inf
    assert attribution(booster, schema, matrix[:10]) is None
    assert "XGBoost cannot explain this model" in caplog.text
