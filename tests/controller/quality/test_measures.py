"""The measures are scikit-learn's, also with ties and at the edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as sk

from perennial_controller.quality.measures import ALWAYS, Pairs, measure, measured
from perennial_spec.model import METRICS_OF

CLASSIFIER = (*METRICS_OF["xgboost.classifier"], "calibration_error")
REGRESSOR = METRICS_OF["xgboost.regressor"]
probabilities = st.one_of(st.sampled_from([0.0, 0.2, 0.25, 0.5, 1.0]), st.floats(0, 1))
values = st.floats(-1e3, 1e3)


def _arrays(pairs: list[tuple[float, Any]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in pairs], dtype=float), np.array([y for _, y in pairs], dtype=float)


def _figures(metrics: tuple[str, ...], scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {metric: figure.value for metric, figure in measure(metrics, Pairs.of(scores, labels)).items()}


def _calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Bin by bin, as the formula is printed."""
    place = np.digitize(scores, np.arange(1, 15) / 15, right=True)
    total = 0.0
    for bin_ in set(place.tolist()):
        of = place == bin_
        total += of.sum() / len(scores) * abs(labels[of].mean() - scores[of].mean())
    return total


@settings(deadline=None)
@given(st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=60))
def test_a_classifier_is_measured_as_scikit_learn_does(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = _arrays(pairs)
    ours = _figures(CLASSIFIER, scores, labels)
    expected = {
        "brier": float(np.mean((scores - labels) ** 2)),
        "log_loss": sk.log_loss(labels, scores, labels=[0, 1]),
        "calibration_error": _calibration_error(scores, labels),
    }
    if labels.any():
        expected["average_precision"] = sk.average_precision_score(labels, scores)
    if 0 < labels.sum() < len(labels):
        expected["roc_auc"] = sk.roc_auc_score(labels, scores)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert all(np.isfinite(value) for value in ours.values())


@settings(deadline=None)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=60))
def test_a_regressor_is_measured_as_scikit_learn_does(pairs: list[tuple[float, float]]) -> None:
    scores, labels = _arrays(pairs)
    ours = _figures(REGRESSOR, scores, labels)
    assert ours["rmse"] == pytest.approx(sk.root_mean_squared_error(labels, scores))
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(labels, scores))
    if "r2" in ours and np.ptp(labels) > 1e-3:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert ours["r2"] == pytest.approx(sk.r2_score(labels, scores), rel=1e-6)
    assert ("r2" in ours) == (float(((labels - labels.mean()) ** 2).sum()) > 0)


@settings(deadline=None)
@given(st.lists(st.tuples(probabilities, st.booleans()), min_size=4, max_size=40))
def test_the_interval_of_the_auc_is_delongs(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = _arrays(pairs)
    ones, zeros = scores[labels == 1], scores[labels == 0]
    if len(ones) < 2 or len(zeros) < 2:
        return
    kernel = (ones[:, None] > zeros) + 0.5 * (ones[:, None] == zeros)  # every pair, as the paper defines it
    variance = kernel.mean(axis=1).var(ddof=1) / len(ones) + kernel.mean(axis=0).var(ddof=1) / len(zeros)
    half = norm.ppf(0.975) * variance**0.5
    found = measure(("roc_auc",), Pairs.of(scores, labels))["roc_auc"]
    assert found.lower == pytest.approx(max(kernel.mean() - half, 0), abs=1e-9)
    assert found.upper == pytest.approx(min(kernel.mean() + half, 1), abs=1e-9)


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier", "rmse", "mae"])
def test_an_interval_holds_the_truth_19_times_in_20(metric: str) -> None:
    rng = np.random.default_rng(1)

    def sample(n: int) -> Pairs:
        scores = rng.beta(2, 3, n)
        return Pairs.of(scores, (rng.random(n) < scores).astype(float))

    truth = measure((metric,), sample(1_000_000))[metric].value
    found = [measure((metric,), sample(400))[metric] for _ in range(500)]
    held = sum((each.lower or 0) <= truth <= (each.upper or 0) for each in found)
    assert 0.92 * 500 <= held <= 0.98 * 500


@pytest.mark.parametrize("labels", [[0, 0, 1, 0], [1, 1, 0, 1]])
def test_of_one_label_of_a_class_nothing_is_known(labels: list[int]) -> None:
    found = measure(("roc_auc",), Pairs.of(np.array([0.1, 0.2, 0.3, 0.4]), np.array(labels, float)))["roc_auc"]
    assert (found.lower, found.upper) == (0, 1)


def test_nothing_is_measured_on_nothing() -> None:
    assert measure(CLASSIFIER, Pairs.of(np.array([]), np.array([]))) == {}


def test_the_metric_of_the_spec_comes_first_and_none_comes_twice() -> None:
    assert measured("xgboost.classifier", "average_precision") == ("average_precision", *ALWAYS["xgboost.classifier"])
    assert measured("xgboost.classifier", "brier") == ("brier", "roc_auc", "log_loss", "calibration_error")
    assert measured("xgboost.regressor", "mae") == ("mae", "rmse")
    assert set(ALWAYS) == set(METRICS_OF) - {"xgboost.ranker"}


def test_a_ranker_is_not_measured_row_by_row() -> None:
    assert measured("xgboost.ranker", "ndcg") == ()
    assert measure((), Pairs.of(np.array([0.5]), np.array([2.0]))) == {}
