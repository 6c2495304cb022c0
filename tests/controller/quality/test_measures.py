"""The measures are scikit-learn's, also with ties and at the edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from perennial_controller.quality.measures import ALWAYS, measure, measured
from perennial_spec.model import METRICS_OF

CLASSIFIER, REGRESSOR = METRICS_OF["xgboost.classifier"], METRICS_OF["xgboost.regressor"]
probabilities = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))
values = st.floats(-1e3, 1e3)


def _arrays(pairs: list[tuple[float, Any]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in pairs], dtype=float), np.array([y for _, y in pairs], dtype=float)


@given(st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=60))
def test_a_classifier_is_measured_as_scikit_learn_does(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = _arrays(pairs)
    ours = measure(CLASSIFIER, scores, labels)
    expected = {
        "brier": float(np.mean((scores - labels) ** 2)),
        "log_loss": sk.log_loss(labels, scores, labels=[0, 1]),
    }
    if labels.any():
        expected["average_precision"] = sk.average_precision_score(labels, scores)
    if 0 < labels.sum() < len(labels):
        expected["roc_auc"] = sk.roc_auc_score(labels, scores)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert all(np.isfinite(value) for value in ours.values())


@given(st.lists(st.tuples(values, values), min_size=1, max_size=60))
def test_a_regressor_is_measured_as_scikit_learn_does(pairs: list[tuple[float, float]]) -> None:
    scores, labels = _arrays(pairs)
    ours = measure(REGRESSOR, scores, labels)
    assert ours["rmse"] == pytest.approx(sk.root_mean_squared_error(labels, scores))
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(labels, scores))
    if "r2" in ours and np.ptp(labels) > 1e-3:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert ours["r2"] == pytest.approx(sk.r2_score(labels, scores), rel=1e-6)
    assert ("r2" in ours) == (float(((labels - labels.mean()) ** 2).sum()) > 0)


def test_nothing_is_measured_on_nothing() -> None:
    assert measure(CLASSIFIER, np.array([]), np.array([])) == {}


def test_the_metric_of_the_spec_comes_first_and_none_comes_twice() -> None:
    assert measured("xgboost.classifier", "roc_auc") == ("roc_auc", "brier", "log_loss")
    assert measured("xgboost.classifier", "brier") == ("brier", "log_loss")
    assert measured("xgboost.regressor", "mae") == ("mae", "rmse")
    assert set(ALWAYS) == set(METRICS_OF) - {"xgboost.ranker"}


def test_a_ranker_is_not_measured_row_by_row() -> None:
    assert measured("xgboost.ranker", "ndcg") == ()
    assert measure((), np.array([0.5]), np.array([2.0])) == {}
